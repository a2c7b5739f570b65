"""A missing extra is named in one sentence."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from openclap import interop
from openclap.cli import run
from openclap.errors import MissingExtraError
from support.errors import check_refusal, raises_naming


def forget(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `library` were not installed and the file that needs it had not been imported."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"openclap.interop.{name}", raising=False)
    monkeypatch.delattr(interop, name, raising=False)


CASES = [("onnx", "onnxruntime", "export"), ("sentence-transformers", "sentence_transformers", "interop")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_convert_names_the_extra_to_install(
    case: tuple[str, str, str],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    format, library, extra = case
    forget(format.replace("-", "_"), library, monkeypatch)
    assert run(["convert", str(tiny_model), str(tmp_path / "out"), "--to", format]) == 2
    message = capsys.readouterr().err
    check_refusal(message, library, f"pip install 'openclap[{extra}]'")
    assert list(tmp_path.iterdir()) == []


def test_mteb_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    forget("mteb", "mteb", monkeypatch)
    with raises_naming(MissingExtraError, "pip install 'openclap[interop]'"):
        importlib.import_module("openclap.interop.mteb")
