"""What is freed is used again without asking the system for it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES_OF_TWO_ARRAYS = """
import resource
import numpy as np
from openclap.malloc import retain_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with retain_freed_memory():
    print(pages(), pages())
print(pages(), pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_as_long_as_it_is_asked_for() -> None:
    """In a process of its own: what else was freed in this one would serve."""
    done = subprocess.run([sys.executable, "-c", PAGES_OF_TWO_ARRAYS], capture_output=True, text=True, check=True)
    first, kept, after, given_back = map(int, done.stdout.split())
    assert kept < 5 < min(first, after, given_back)
