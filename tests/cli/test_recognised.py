"""What `dataset build` reads, other commands read too: the same sounds score the same in whatever clothes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars
import pytest

from openclap.cli import run
from openclap.data.build import pack
from openclap.sources import read_table
from support.errors import check_refusal


def openclap(*words: object) -> int:
    return run([str(word) for word in words])


@pytest.fixture
def clothes(sounds: Path, tmp_path: Path) -> dict[str, Path]:
    """The same six sounds and their first captions as a table, a folder and a Hugging Face data set."""
    records = read_table(sounds / "sounds.csv")
    plain, table = tmp_path / "plain", tmp_path / "table"
    for folder in (plain, table, tmp_path / "hf"):
        folder.mkdir()
    rows = [{"path": Path(record.audio).name, "text": record.captions[0]} for record in records]
    for record, row in zip(records, rows, strict=True):
        for folder in (plain, table):
            shutil.copy(record.audio, folder)
        (plain / row["path"]).with_suffix(".txt").write_text(row["text"], encoding="utf-8")
    (table / "t.json").write_text(json.dumps({"data": rows}), encoding="utf-8")
    embedded = [
        {"bytes": Path(record.audio).read_bytes(), "path": row["path"]}
        for record, row in zip(records, rows, strict=True)
    ]
    polars.DataFrame({"audio": embedded, "text": [row["text"] for row in rows]}).write_parquet(
        tmp_path / "hf/x.parquet"
    )
    return {"table": table / "t.json", "beside": table, "plain": plain, "hf": tmp_path / "hf"}


def test_scores_do_not_depend_on_the_form_of_the_collection(
    clothes: dict[str, Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = {}
    for name, place in clothes.items():
        assert openclap("score", "--pairs", place, "--model", tiny_model, "--json") == 0
        printed = capsys.readouterr()
        found = json.loads(printed.out)
        assert found["n"] == 6 and printed.err.startswith(f"Read {place} as a ")
        means[name] = round(found["mean"], 6)
    assert len(set(means.values())) == 1, means


def test_packed_and_unpacked_collections_give_equal_scores(
    sounds: Path, clothes: dict[str, Path], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(read_table(sounds / "sounds.csv"), tmp_path / "packed", splits={"test": 1.0})
    figures = {}
    for name, place in {"packed": tmp_path / "packed", "unpacked": sounds / "sounds.csv"}.items():
        assert openclap("eval", tiny_model, "--data", place, "--json", tmp_path / f"{name}.json") == 0
        figures[name] = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["figures"]
        assert ("as a table of 6 rows" in capsys.readouterr().err) == (name == "unpacked")
    assert len(figures["packed"]) > 3
    assert [(one["task"], one["direction"], one["metric"]) for one in figures["packed"]] == [
        (one["task"], one["direction"], one["metric"]) for one in figures["unpacked"]
    ]
    assert openclap("eval", tiny_model, "--data", clothes["hf"]) == 0
    assert openclap("eval", tiny_model, "--data", tmp_path / "nowhere") == 2


def test_caption_columns_can_be_named(
    clothes: dict[str, Path], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(clothes["table"].read_text(encoding="utf-8"))["data"]
    clothes["table"].unlink()
    table = clothes["beside"] / "metadata.csv"
    polars.DataFrame([{"file_name": row["path"], "inhalt": row["text"]} for row in rows]).write_csv(table)
    for words in (("score", "--pairs", clothes["beside"], "--model"), ("eval", "--data", clothes["beside"])):
        openclap(*words, tiny_model)
        printed = capsys.readouterr()
        assert "'inhalt'" in printed.err and "--caption-column" in printed.err
        assert openclap(*words, tiny_model, "--caption-column", "inhalt") == 0
        printed = capsys.readouterr()
        assert "caption from 'inhalt'" in printed.err
    assert "text→audio" in printed.out
    add = ("index", "add", clothes["plain"], "--index", tmp_path / "index", "--model", tiny_model)
    assert openclap(*add, "--table", clothes["beside"]) == 0
    printed = capsys.readouterr()
    assert "'inhalt'" in printed.err and "--caption-column" in printed.err
    assert openclap("eval", tiny_model, "--suite", "paper", "--source", "table") == 2
    check_refusal(capsys.readouterr().err, "--source")


def test_missing_split_is_refused(sounds: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = sounds / "split.csv"
    rows = ["low-0.wav,a low tone,train", "high-1.wav,a high tone,valid", "noise-2.wav,noise,valid"]
    table.write_text("\n".join(["file,caption,split", *rows]) + "\n", encoding="utf-8")
    assert openclap("eval", tiny_model, "--data", table) == 2
    check_refusal(capsys.readouterr().err, "'test'", "train, valid")
    assert openclap("eval", tiny_model, "--data", table, "--split", "valid") == 0


def test_index_shows_captions_of_every_form_of_collection(
    clothes: dict[str, Path], tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    given = ("index", "add", clothes["plain"], "--index", index, "--model", tiny_model, "--table", clothes["plain"])
    assert openclap(*given) == 0
    assert "as a folder of 6 sounds: captions from NAME.txt or NAME.json beside 6" in capsys.readouterr().err
