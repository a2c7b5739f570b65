"""`openclap serve`: its arguments, and what it opens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from openclap import paths
from openclap.cli import run
from openclap.cli.model_options import ModelOptions
from openclap.cli.serve import listen, open_all, read_token
from openclap.errors import ConfigError
from openclap.library import Library
from openclap.search.index import Index
from openclap.server.metrics import Metrics
from openclap.server.service import distinct_names
from support.serving import write_sounds


def test_mistakes_are_sentences(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "short").write_text("short")
    model = ["--model", str(tiny_model)]
    for arguments in (
        ["--port", str(taken.getsockname()[1]), *model],
        ["--port", "70000", *model],
        ["--host", "0.0.0.0", "--port", "0", *model],
        ["--host", "no-such-host.invalid", "--port", "0", "--token-file", str(tmp_path / "short"), *model],
        ["--token-file", str(tmp_path / "missing"), "--port", "0", *model],
        ["--host-name", "http://x", "--port", "0", *model],
        ["--matryoshka", "17", "--port", "0", *model],
        ["--max-requests", "0", *model],
        [str(tmp_path / "missing"), "--port", "0", *model],
        [str(tmp_path / "short"), "--port", "0", *model],
    ):
        assert run(["serve", *arguments]) == 2, arguments
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith("openclap: ") and printed.err.count("\n") == 1
    taken.close()


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token("127.0.0.1", None) is None
    with pytest.raises(ConfigError):
        read_token("0.0.0.0", None)
    (tmp_path / "token").write_text("of-the-file-------\n")
    assert read_token("0.0.0.0", tmp_path / "token") == "of-the-file-------"
    monkeypatch.setenv("OPENCLAP_TOKEN", "of-the-environment")
    assert read_token("0.0.0.0", None) == "of-the-environment"
    assert read_token("0.0.0.0", tmp_path / "token") == "of-the-file-------"


def test_ports_are_taken_at_once() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(ConfigError):
        listen("127.0.0.1", first.getsockname()[1])


def test_folders_are_indexed_under_the_home_and_indexes_share_a_model(
    tiny_model: Path, tmp_path: Path, home: Path
) -> None:
    folders = [write_sounds(tmp_path / name / "sounds", 2) for name in ("a", "b")]
    index = tmp_path / "index"
    Library.open(index, tiny_model).add([folders[0]])
    options = ModelOptions(model=str(tiny_model))
    models, indexes = open_all([*folders, index], options, (8,), Metrics())
    try:
        assert [model.name for model in models] == ["model"] and models[0].sizes == (8,)
        assert [each.name for each in indexes] == ["sounds", "sounds-2", "index"]
        assert [each.folders for each in indexes] == [(folders[0],), (folders[1],), ()]
        assert all(each.model is models[0] for each in indexes)
        assert len(list((paths.home() / "indexes").iterdir())) == 2
        assert Index.open(indexes[0].library.index.folder).count() == (0, 0)
    finally:
        for model in models:
            model.thread.close()
    [alone], none = open_all([], options, (), Metrics())
    alone.thread.close()
    assert none == [] and alone.name == "model"


def test_without_any_index_the_bundled_model_is_served_alone(home: Path) -> None:
    [alone], none = open_all([], ModelOptions(), (), Metrics())
    alone.thread.close()
    assert none == [] and alone.name == "mini"


def test_names_of_indexes_differ() -> None:
    assert distinct_names([Path("a/x"), Path("b/x"), Path("/"), Path("c/x")]) == ["x", "x-2", "index", "x-3"]
