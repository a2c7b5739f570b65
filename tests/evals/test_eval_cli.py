"""`openclap eval`: its output, its files, and refusals in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openclap.cli import run
from support.errors import check_refusal
from support.evals_helpers import RefusingEmbedder, write_split


def test_the_command_prints_writes_and_refuses(
    tiny_model: Path, other_model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "genres.toml"
    suite.write_text(
        '[[task]]\nname = "genres"\nkind = "zero_shot"\nsource = "gtzan"\nfolder = "gtzan"\n'
        '[[task]]\nname = "gone"\nkind = "retrieval"\nsource = "clotho"\nfolder = "gone"\n'
    )
    files = {kind: tmp_path / "out" / f"table.{kind}" for kind in ("json", "markdown", "html")}
    outputs = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    models = [str(tiny_model), str(other_model)]
    words = ["eval", *models, "--suite", str(suite), "--data", str(sets)]
    assert run([*words, *outputs]) == 0
    printed = capsys.readouterr()
    assert (
        "accuracy" in printed.out
        and "zero-shot, all clips; 4 classes" in printed.out
        and "gone was left out" in printed.err
    )
    assert all(path.stat().st_size > 500 for path in files.values())
    assert run(["eval", models[0], *words[3:], "--channels", "left", "--trim-silence"]) == 0
    assert "Read of each recording: the left channel, silent ends" in " ".join(capsys.readouterr().out.split())
    for given, message in [
        (["eval", *models, "--baseline", models[0]], "stands beside one model"),
        (["eval", models[0], "--training", str(suite)], "belongs to suites of published sets"),
        ([*words, "--processes", "0"], "expected 1 or more"),
        ([*words, "--seed", "-1"], "--seed is -1, expected a whole number from 0"),
        ([*words, "--seed", str(2**32)], "--seed is 4294967296, expected a whole number from 0"),
        ([*words, "--split", "valid"], "belongs to the suites quick and hard-text"),
        ([*words, "--source", "table"], "belong to the suites quick and hard-text"),
        ([*words, "--baseline", models[0]], "stands beside one model"),
        (["eval", models[0], models[0], "--suite", "paper"], "is named twice"),
        (["eval", models[0], f"{Path(models[0]).parent}/./{Path(models[0]).name}"], "is named twice"),
        (["eval", models[0], "--json", f"{models[0]}/config.json/out.json"], "is a file, expected a folder"),
        (
            ["eval", models[0], "--suite", "paper", "--data", str(tmp_path)],
            "No task of the suite paper could be evaluated",
        ),
        (["eval", models[0], "--suite", "slow"], "no such suite"),
        (["eval", models[0], "nothing", "--data", str(tmp_path)], "nothing: no such model"),
        (["eval", models[0], "--baseline", "nothing", "--data", str(tmp_path)], "nothing: no such model"),
    ]:
        assert run(given) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_the_suite_quick_takes_several_models_and_caches_their_embeddings(
    tiny_model: Path,
    other_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for split, seed in (("train", 0), ("test", 50)):
        write_split(tmp_path / "shards" / split, 2, seed)
    words = ["eval", "--data", str(tmp_path / "shards"), "--json", str(tmp_path / "one.json")]
    assert run([*words, str(tiny_model)]) == 0
    alone = json.loads((tmp_path / "one.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openclap.embedder.Embedder.embed_each", RefusingEmbedder.embed_each)
        assert run([*words, str(tiny_model)]) == 0
    again = json.loads((tmp_path / "one.json").read_text())
    assert without_times(again) == without_times(alone)
    capsys.readouterr()
    outputs = ["--json", str(tmp_path / "two.json"), "--html", str(tmp_path / "two.html")]
    assert run([*words[:3], str(tiny_model), str(other_model), *outputs]) == 0
    out, err = capsys.readouterr()
    assert "retrieval, split test" in out and "chance" in out and "published" not in out
    assert err.count("Only 12 groups") == 1
    record = json.loads((tmp_path / "two.json").read_text())
    value = {(each["model"], each["task"], each["direction"], each["metric"]): each for each in record["figures"]}
    alone = {(each["task"], each["direction"], each["metric"]): each for each in alone["figures"]}
    assert {name for name, *_ in value} == {str(tiny_model), str(other_model)}
    for task, direction, metric in (
        ("retrieval", "text_to_audio", "R@1"),
        ("zero-shot", None, "accuracy"),
        ("probe", None, "accuracy"),
    ):
        both = value[str(tiny_model), task, direction, metric], alone[task, direction, metric]
        assert both[0]["value"] == both[1]["value"] and both[0]["chance"] == both[1]["chance"]
    assert {(each["task"], tuple(each["models"])) for each in record["comparisons"]} == {
        (task, (str(tiny_model), str(other_model))) for task in ("retrieval", "zero-shot", "probe")
    }
    assert "Changes from " in (tmp_path / "two.html").read_text()


def test_only_an_evaluation_is_overwritten(
    tiny_model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite, weights, output = tmp_path / "genres.toml", tmp_path / "model.pt", tmp_path / "output"
    suite.write_text('[[task]]\nname = "genres"\nkind = "zero_shot"\nsource = "gtzan"\nfolder = "gtzan"\n')
    words = ["eval", str(tiny_model), "--suite", str(suite), "--data", str(sets)]
    for content in (b"PK\x03\x04 weights", b'{"model": 1}', b"{", b"# My notes", b"<p>"):
        for option in ("--json", "--markdown", "--html"):
            weights.write_bytes(content)
            assert run([*words, option, str(weights)]) == 2 and weights.read_bytes() == content
            check_refusal(capsys.readouterr().err, weights, option)
    assert run([*words, "--json", str(output), "--html", f"{tmp_path}/./output"]) == 2
    check_refusal(capsys.readouterr().err, "--json", "--html")
    for option in ("--json", "--markdown", "--html"):
        place, link = tmp_path / f"of{option}", tmp_path / f"link{option}"
        place.touch()
        link.symlink_to(place)
        for _ in range(2):
            assert run([*words, option, str(link)]) == 0
            assert place.stat().st_size > 200 and link.is_symlink()


def without_times(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [figure | {"seconds": 0} for figure in record["figures"]]
