"""The options by which commands choose a model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from openclap.cli import run
from support.cli_session import CliSession
from support.errors import check_refusal
from support.hub_server import Hub


def test_a_model_of_the_hub_is_fetched_pinned_and_used_offline(
    tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    words = ["score", str(sounds / "low-0.wav"), "low tone", "--json"]
    with Hub() as hub:
        repo = hub.add("me/tiny", files)
        repo.refs["v1"] = repo.refs["main"]
        repo.commit({"config.json": b"{}"})
        with CliSession(os.environ | hub.environment(tmp_path / "hf")) as session:
            of_the_hub = [*words, "--model", "me/tiny"]
            early = session.run(*of_the_hub, "--offline", "--revision", "v1")
            assert early.returncode == 2 and not hub.log
            check_refusal(early.stderr, "me/tiny")
            online = session.run(*of_the_hub, "--revision", "v1")
            assert online.returncode == 0, online.stderr
            asked = len(hub.log)
            offline = session.run(*of_the_hub, "--offline", "--revision", "v1")
            assert offline.stdout == online.stdout and len(hub.log) == asked
    assert run([*words, "--model", str(tiny_model)]) == 0
    local, fetched = json.loads(capsys.readouterr().out), json.loads(offline.stdout)
    assert fetched["score"] == pytest.approx(local["score"], abs=1e-6)


def test_tokenizer_precision_and_device(
    tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer.json"))
    words = ["score", str(sounds / "low-0.wav"), "low tone", "--json", "--model"]
    assert run([*words, str(tiny_model)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert run([*words, str(bare)]) == 2
    assert "--tokenizer" in capsys.readouterr().err
    given = ["--tokenizer", str(tiny_model / "tokenizer.json"), "--device", "cpu", "--precision", "int8"]
    assert run([*words, str(bare), *given]) == 0
    coarse = json.loads(capsys.readouterr().out)
    assert plain["precision"] == "fp32" and coarse["precision"] == "int8"
    assert coarse["score"] == pytest.approx(plain["score"], abs=0.05) and coarse["score"] != plain["score"]
    assert run([*words, str(tiny_model), "--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


def test_names_on_the_hub_may_hold_dots(tiny_model: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    with Hub() as hub:
        hub.add("me/clap-v1.5", files)
        with CliSession(os.environ | hub.environment(tmp_path / "hf")) as session:
            for name, code in (("me/clap-v1.5", 0), ("me/clap.pt", 2), ("me/weights.safetensors", 2)):
                done = session.run("inspect", name, "--json")
                assert done.returncode == code, done.stderr
                if code:
                    check_refusal(done.stderr, name)
        assert all("/me/clap-v1.5" in line for line in hub.log)
