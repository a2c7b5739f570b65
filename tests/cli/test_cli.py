from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openclap.cli import console
from openclap.cli import run as run_here
from openclap.errors import MissingExtraError, require
from support.errors import raises_naming


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Call = Callable[..., Said]


@pytest.fixture
def openclap(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        code = run_here([str(word) for word in words])
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


def script(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a process of its own."""
    command = [str(Path(sys.executable).with_name("openclap")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_the_whole_line_in_miniature(openclap: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    shards, run, index = tmp_path / "shards", tmp_path / "run", tmp_path / "index"
    packed = openclap("dataset", "build", sounds / "sounds.csv", shards, "--test-fraction", "0.4", "--json")
    assert packed.code == 0 and sum(json.loads(packed.out)["packed"].values()) == 6

    recipe = ["demo", "--start", tiny_model, "--data", shards / "train", "--batch-size", "2", "--epochs=2"]
    trained = openclap("train", *recipe, "--frozen", "", "--out", run, "--json")
    assert trained.code == 0 and Path(json.loads(trained.out)["model"]) == run / "model"
    assert "Trained" in trained.err

    report = tmp_path / "report.json"
    options = ["--data", shards, "--suite", "quick", "--baseline", tiny_model]
    measured = openclap("eval", run / "model", *options, "--json", report, "--html", tmp_path / "page.html")
    assert measured.code == 0 and "text→audio" in measured.out and "before" in measured.out
    assert json.loads(report.read_text())["figures"] and "<html" in (tmp_path / "page.html").read_text()

    added = openclap("index", "add", sounds, "--index", index, "--model", run / "model", "--json")
    assert added.code == 0 and json.loads(added.out)["added"] == 6
    assert json.loads(openclap("index", "status", "--index", index, "--json").out)["files"] == 6

    found = openclap("search", "a low tone", "--index", index, "-k", "3", "--json")
    hits = json.loads(found.out)
    assert found.code == 0 and len(hits) == 3
    assert hits[0].keys() >= {"path", "start_s", "end_s", "score", "duration_s", "caption", "tags", "licence"}
    table = openclap("search", "a low tone", "--index", index, "-k", "3")
    assert table.code == 0 and len(table.out.splitlines()) == 4
    assert all(Path(hit["path"]).name in table.out for hit in hits)
    like = json.loads(openclap("similar", sounds / "low-0.wav", "--index", index, "-k", "2", "--json").out)
    assert len(like) == 2 and like[0]["path"].endswith("low-3.wav")

    vectors = tmp_path / "v" / "vectors.npy"
    embedded = openclap("embed", sounds, "-o", vectors, "--model", run / "model")
    assert embedded.code == 0 and np.load(vectors).shape == (6, 16)
    assert len(json.loads((tmp_path / "v" / "vectors.npy.json").read_text())) == 6


def test_damaged_files_are_listed_and_the_rest_is_done(
    openclap, tiny_model: Path, sounds: Path, tmp_path: Path
) -> None:
    (sounds / "empty.wav").write_bytes(b"")
    (sounds / "text.wav").write_text("not a sound", encoding="utf-8")
    with (sounds / "sounds.csv").open("a", encoding="utf-8") as table:
        table.write("empty.wav,a,b,c,d\ntext.wav,a,b,c,d\nmissing.wav,a,b,c,d\nlow-0.wav,,,c,d\n")
    packed = openclap("dataset", "build", sounds / "sounds.csv", tmp_path / "shards")
    assert packed.code == 0 and "Skipped 4:" in packed.err
    assert len((tmp_path / "shards" / "skipped.jsonl").read_text().splitlines()) == 4
    added = openclap("index", "add", sounds, "--index", tmp_path / "index", "--model", tiny_model)
    assert added.code == 0 and "Skipped 2:" in added.err
    embedded = openclap("embed", sounds, "-o", tmp_path / "v.npy", "--model", tiny_model)
    assert embedded.code == 0 and "Skipped 2:" in embedded.err and len(np.load(tmp_path / "v.npy")) == 6


def test_a_users_mistake_is_one_sentence_and_exit_code_2(
    openclap, tiny_model: Path, sounds: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    csv, index = sounds / "sounds.csv", tmp_path / "made"
    openclap("index", "add", sounds, "--index", index, "--model", tiny_model)
    for words in [
        ["dataset", "build", tmp_path / "none.csv", tmp_path / "out"],
        ["dataset", "build", tmp_path / "empty.csv", tmp_path / "out"],
        ["dataset", "build", tmp_path / "other.csv", tmp_path / "out"],
        ["dataset", "build", tmp_path / "empty", tmp_path / "out"],
        ["dataset", "build", csv, tmp_path / "out", "--test-fraction", "1.5"],
        ["dataset", "build", csv, csv],
        ["train", "dmeo", "--out", tmp_path / "run"],
        ["train", "demo", "--out", tmp_path / "run", "--epoch", "3"],
        ["train", "demo", "--out", tmp_path / "run", "--epochs"],
        ["train", "demo", "--out", tmp_path / "run", "--start", tmp_path / "none"],
        ["train", "demo", "--out", tmp_path / "run2", "--start", tiny_model, "--data", tmp_path / "empty"],
        ["eval", tmp_path / "none"],
        ["eval", tiny_model, "--data", tmp_path / "empty"],
        ["eval", tiny_model, "--suite", "slow"],
        ["embed", tmp_path / "empty", "-o", tmp_path / "v.npy", "--model", tiny_model],
        ["embed", sounds, "-o", tmp_path / "v.csv", "--model", tiny_model],
        ["index", "add", tmp_path / "empty", "--index", tmp_path / "index", "--model", tiny_model],
        ["index", "add", sounds, "--index", sounds, "--model", tiny_model],
        ["search", "rain", "--index", tmp_path / "none"],
        ["search", " "],
        ["search", "rain", "--index", tmp_path / "[/]b"],
        ["search", "\udcff", "--index", index],
        ["embed", sounds, "-o", tmp_path, "--model", tiny_model],
        ["embed", sounds, "-o", tmp_path / "v.npy", "--model", tiny_model, "--batch-size", "0"],
        ["search", "rain", "-k", "many"],
        ["similar", tmp_path / "none.wav"],
        ["serch", "rain"],
        ["search", "rain", "--kk", "3"],
    ]:
        said = openclap(*words)
        assert said.code == 2, (words, said.err)
        assert said.err.startswith("openclap: ") and len(said.err.strip().splitlines()) == 1, (words, said.err)
        assert "Traceback" not in said.err and not said.out
    assert sorted(path.name for path in sounds.iterdir() if path.suffix != ".wav") == ["sounds.csv"]
    said = openclap("models", "mini")
    assert said.code == 2 and said.err.startswith(
        "openclap: mini: is one argument more than openclap models takes. See:"
    )


def test_k_must_be_positive(openclap: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    openclap("index", "add", sounds, "--index", tmp_path / "index", "--model", tiny_model)
    assert openclap("search", "rain", "--index", tmp_path / "index", "-k", "0").code == 2


def test_every_verb_explains_itself(openclap: Call) -> None:
    listing = script("--help").stdout
    for verb in ("demo", "dataset", "train", "eval", "embed", "index", "search", "similar", "doctor"):
        assert verb in listing
        said = openclap(verb, "--help")
        assert said.code == 0 and "Usage:" in said.out and not said.err, verb
    for words in (["dataset", "build"], ["index", "add"], ["index", "status"]):
        assert openclap(*words, "--help").code == 0
    assert script("--version").stdout.strip() == "0.1.0"


def test_doctor_lists_packages(openclap: Call) -> None:
    facts = json.loads(openclap("doctor", "--json").out)
    versions = {name: version for name, version, _ in facts["packages"]}
    assert versions["torch"].startswith("2.") and versions["lancedb"] and facts["missing_extras"] == []
    assert "torch" in openclap("doctor").out


def test_missing_extra_names_the_install_command() -> None:
    with raises_naming(MissingExtraError, "pip install 'openclap[serve]'"):
        require("no_such_module_here", "serve")


def test_odd_terminals_and_closed_pipes() -> None:
    program = Path(sys.executable).with_name("openclap")
    ascii_only = script("models", PYTHONIOENCODING="ascii")  # its table holds dots and dashes
    assert ascii_only.returncode == 0 and "\\u2013" in ascii_only.stdout and "630k-audioset-best" in ascii_only.stdout
    for line in (f"{program} models --json | true", f"{program} --version >&-"):
        said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert said.stderr == "", line


INTERRUPTED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "cyclopts":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
from openclap.__main__ import main
main()
"""


def test_ctrl_c_while_libraries_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stderr == "openclap: Interrupted.\n"


def test_long_work_says_how_far_it_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress("Embedding") as line:
        for minute in range(3):
            clock[0] = 60.0 * minute
            line.add_seconds(1800.0)  # of one long recording
        clock[0] += 1.0
        line(1, 2)
        clock[0] += 60.0
        line(2, 2)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "Embedding, 1:00:00 of sound",
        "Embedding, 1:30:00 of sound",
        "Embedding 2/2, 1:30:00 of sound",
    ]
