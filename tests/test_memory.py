"""What is freed is used again without asking the system for it."""

from __future__ import annotations

import platform
import resource

import numpy as np
import pytest

from openclap.memory import all_memory_kept

NUMBERS = 8 << 20  # 64 MB


def faults_of_another_array() -> int:
    """Pages that the system was asked for, by an array as large as one that was freed."""
    np.ones(NUMBERS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(NUMBERS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_as_long_as_it_is_asked_for() -> None:
    with all_memory_kept():
        assert faults_of_another_array() < 10
    assert faults_of_another_array() > 10
