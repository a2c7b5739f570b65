"""Data sets of the library `datasets`: parquet with audio inside, and audio with metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars
import pytest

from openclap.errors import DataError
from support.errors import raises_naming
from support.layouts import decodable, put, records, write


def parquet(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """A file as `datasets` writes it: sounds as {bytes, path}, features in the file's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"audio": polars.Struct({"bytes": polars.Binary, "path": polars.String})}
    notes = {"huggingface": json.dumps({"info": {"features": features or {}}})}
    polars.DataFrame(columns, schema_overrides=kinds).write_parquet(path, metadata=notes, row_group_size=2)
    return path


def embedded(folder: Path, *numbers: int) -> list[dict[str, Any]]:
    return [
        {"bytes": put(folder / f"made-{number}.flac", number).read_bytes(), "path": f"{number}.flac"}
        for number in numbers
    ]


def test_parquet_with_audio_bytes(tmp_path: Path) -> None:
    root = tmp_path / "birds"
    features = {
        "audio": {"_type": "Audio"},
        "label": {"names": ["crow", "robin"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["loud", "near"], "_type": "ClassLabel"}, "_type": "List"},
    }
    columns = {
        "audio": embedded(tmp_path, 0, 1, 2),
        "text": ["A crow.", "A robin.", None],
        "caption_1": ["It caws.", None, None],
        "label": [0, 1, -1],
        "tags": [[0, 1], [], None],
        "license": ["cc-by-4.0", "cc0-1.0", None],
    }
    parquet(root / "data" / "train-00000-of-00001.parquet", columns, features)
    parquet(root / "data" / "validation-00000-of-00001.parquet", {"audio": embedded(tmp_path, 3)})
    first, second, third, fourth = found = records("hugging_face", root, cache=tmp_path / "cache")
    assert (first.id, first.source, first.split) == ("0.flac", "birds", "train")
    assert (first.captions, first.label, first.tags) == (("A crow.", "It caws."), "crow", ("loud", "near"))
    assert (second.captions, second.label, second.licence) == (("A robin.",), "robin", "CC0-1.0")
    assert (third.captions, third.label, third.tags, third.licence) == ((), None, (), None)
    assert fourth.split == "valid"
    assert first.group == f"sha256:{Path(first.audio).stem}"
    assert decodable(found)
    assert Path(first.audio).read_bytes() == columns["audio"][0]["bytes"]
    assert Path(first.audio).is_relative_to(tmp_path / "cache")


def test_parquet_with_audio_paths(tmp_path: Path) -> None:
    put(tmp_path / "sounds" / "a.wav")
    parquet(tmp_path / "t.parquet", {"audio": [{"bytes": None, "path": "sounds/a.wav"}], "caption": ["A."]})
    found = records("hugging_face", tmp_path)
    assert (found[0].audio, found[0].captions) == (tmp_path / "sounds" / "a.wav", ("A.",))
    assert decodable(found)


def test_damaged_files_and_rows_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "set"
    parquet(root / "a.parquet", {"audio": [{"bytes": None, "path": None}, None, *embedded(tmp_path, 0)]})
    (root / "b.parquet").write_bytes(b"PAR1 not really")
    polars.DataFrame({"text": ["no sound"]}).write_parquet(root / "c.parquet")
    assert [record.id for record in records("hugging_face", root)] == ["0.flac"]
    for words in ("a.parquet: row 0", "b.parquet: cannot be read", "c.parquet: has no column of audio"):
        assert words in caplog.text


def test_full_disk_is_not_reported_as_damage(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"in the way")
    parquet(tmp_path / "set" / "a.parquet", {"audio": embedded(tmp_path, 0)})
    with raises_naming(DataError, tmp_path / "cache"):
        records("hugging_face", tmp_path / "set", cache=tmp_path / "cache")


def test_audiofolder_with_metadata_csv(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "train" / "clips" / "a.wav")
    write(
        tmp_path / "train" / "metadata.csv",
        "file_name,text,category\nclips/a.wav,A dog.,dog\n,lost,\nclips/b.wav,A cat.,cat,more,cells\n",
    )
    first, second = records("hugging_face", tmp_path)
    assert (first.id, first.split, first.label) == ("train/clips/a.wav", "train", "dog")
    assert first.captions == ("A dog.",)
    assert first.group == f"{tmp_path.name}:train/clips/a.wav"
    assert second.audio == tmp_path / "train" / "clips" / "b.wav"
    assert decodable([first])
    assert "1 rows have no file_name" in caplog.text


def test_audiofolder_with_metadata_jsonl(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    lines = [{"file_name": "a.wav", "captions": ["A dog.", "Barking."], "tags": ["dog"]}]
    write(tmp_path / "metadata.jsonl", "\n".join([*map(json.dumps, lines), "", "{damaged", "[1]"]))
    [record] = records("hugging_face", tmp_path)
    assert (record.captions, record.tags, record.split) == (("A dog.", "Barking."), ("dog",), None)


def test_audiofolder_with_folders_as_labels(tmp_path: Path) -> None:
    for name in ("train/dog/1.wav", "train/cat/1.wav", "test/dog/freight train.wav"):
        put(tmp_path / name)
    found = records("hugging_face", tmp_path)
    assert [(record.split, record.label) for record in found] == [("test", "dog"), ("train", "cat"), ("train", "dog")]


def test_folders_named_like_splits_are_not_labels(tmp_path: Path) -> None:
    for name in ("train/1.wav", "test/1.wav"):
        put(tmp_path / name)
    assert {record.label for record in records("hugging_face", tmp_path)} == {None}


def test_data_set_saved_with_save_to_disk(tmp_path: Path) -> None:
    """Tables and folders that `datasets` itself wrote."""
    datasets = pytest.importorskip("datasets")
    kinds = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features(
        {"audio": kinds, "text": datasets.Value("string"), "label": datasets.ClassLabel(names=["crow", "robin"])}
    )
    splits = {
        "train": {"audio": embedded(tmp_path, 0, 1), "text": ["A crow.", "nan"], "label": [0, 1]},
        "test": {"audio": embedded(tmp_path, 2), "text": ["A robin."], "label": [1]},
    }
    made = {name: datasets.Dataset.from_dict(rows, features=features) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "birds")
    last, first, second = found = records("hugging_face", tmp_path / "birds", cache=tmp_path / "cache")
    assert [record.split for record in found] == ["test", "train", "train"]
    assert (first.captions, first.label, second.captions, second.label) == (("A crow.",), "crow", (), "robin")
    assert last.captions == ("A robin.",) and decodable(found)
    assert Path(first.audio).read_bytes() == splits["train"]["audio"][0]["bytes"]
    (tmp_path / "birds" / "train" / "data-00000-of-00001.arrow").write_bytes(b"not Arrow")
    assert [record.split for record in records("hugging_face", tmp_path / "birds")] == ["test"]


def test_audiofolder_with_metadata_parquet(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a.wav")
    polars.DataFrame({"file_name": ["a.wav"], "caption": ["A dog."]}).write_parquet(tmp_path / "train/metadata.parquet")
    [record] = records("hugging_face", tmp_path)
    assert (record.captions, record.split, record.audio) == (("A dog.",), "train", tmp_path / "train" / "a.wav")


def test_metadata_with_semicolons_and_cp1252(tmp_path: Path) -> None:
    put(tmp_path / "a.wav")
    write(tmp_path / "metadata.csv", "file_name;text\na.wav;Ein Bär – “laut”\n", encoding="cp1252")
    [record] = records("hugging_face", tmp_path)
    assert record.captions == ("Ein Bär – “laut”",)


def test_single_table_is_read(tmp_path: Path) -> None:
    table = parquet(tmp_path / "set" / "x.parquet", {"audio": embedded(tmp_path, 0), "words": ["A crow."]})
    [record] = records("hugging_face", table, cache=tmp_path / "cache", captions=("words",))
    assert record.captions == ("A crow.",) and decodable([record])
