"""Collections of every form are recognised and described."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import polars
import pytest

from openclap.errors import ConfigError, DataError
from openclap.sources.recognise import ReadOptions, advice, recognise
from openclap.sources.table import ColumnChoice
from support.errors import raises_naming
from support.layouts import put, write


def wavcaps(root: Path, *, audio: str = "audio") -> Path:
    """A folder in the layout of WavCaps: ids as file names, and all captions in one JSON file."""
    data = [
        {"id": f"NHU0502401{n}", "caption": f"Bird number {n} sings.", "duration": 3.0, "download_link": "x"}
        for n in range(6)
    ]
    for n in range(6):
        put(root / audio / f"NHU0502401{n}.flac", n)
    write(root / "json_files" / "bbc_final.json", json.dumps({"num_captions_per_audio": 1, "data": data}))
    return root


def test_summary_of_a_table(tmp_path: Path) -> None:
    put(tmp_path / "a.ogg")
    path = write(tmp_path / "t.csv", "audio_path,text\na.ogg,Es läutet – “laut”\n", encoding="cp1252")
    found = recognise(path)
    assert found.summary == (
        f"Read {path} as a table of 1 row: sound from 'audio_path', caption from 'text', encoded in cp1252."
    )
    assert [record.captions for record in found.read()] == [("Es läutet – “laut”",)] and found.unread == ()


def test_json_table_beside_audio_is_read(tmp_path: Path) -> None:
    found = recognise(wavcaps(tmp_path / "wavcaps"))
    assert found.source == "table"
    assert "a table of 6 rows: sound from 'id', caption from 'caption' (bbc_final.json)" in found.summary
    assert [record.captions[0] for record in found.read()] == [f"Bird number {n} sings." for n in range(6)]
    assert all(Path(record.audio).is_file() for record in found.read())


@pytest.mark.parametrize("placeholder", ["wav", "", None])
def test_ids_that_name_files_replace_a_column_of_placeholders(tmp_path: Path, placeholder: str | None) -> None:
    root = wavcaps(tmp_path / "wavcaps")
    table = root / "json_files" / "bbc_final.json"
    content = json.loads(table.read_text())
    content["data"] = [{"audio": placeholder, "file_name": "a b.wav", **row} for row in content["data"]]
    table.write_text(json.dumps(content))
    found = recognise(root)
    assert "sound from 'id', caption from 'caption'" in found.summary
    assert [record.captions[0] for record in found.read()] == [f"Bird number {n} sings." for n in range(6)]
    assert all(Path(record.audio).is_file() for record in found.read())


@pytest.mark.parametrize("name", ["captions.csv", "x.tsv", "x.jsonl", "x.parquet"])
def test_table_of_every_format_beside_audio_is_read(tmp_path: Path, name: str) -> None:
    rows = [{"filename": f"{n}.ogg", "text": f"Sound {n}."} for n in range(3)]
    for n in range(3):
        put(tmp_path / "sounds" / f"{n}.ogg", n)
    frame = polars.DataFrame(rows)
    content = {
        ".csv": frame.write_csv(separator=";").encode(),
        ".tsv": frame.write_csv(separator="\t").encode(),
        ".jsonl": "\n".join(map(json.dumps, rows)).encode(),
    }.get(Path(name).suffix)
    (tmp_path / name).write_bytes(content) if content else frame.write_parquet(tmp_path / name)
    assert [record.captions for record in recognise(tmp_path).read()] == [("Sound 0.",), ("Sound 1.",), ("Sound 2.",)]


def test_unrelated_table_is_listed_as_unread(tmp_path: Path) -> None:
    put(tmp_path / "big dog.ogg")
    other = write(tmp_path / "prices.csv", "file,caption\nx.pdf,expensive\n")
    found = recognise(tmp_path)
    assert (found.source, found.unread) == ("folder", (other,))
    assert found.summary == f"Read {tmp_path} as a folder of 1 sound: captions from their names."


def test_sidecar_notes_take_precedence_over_a_table(tmp_path: Path) -> None:
    put(tmp_path / "a.ogg")
    write(tmp_path / "a.txt", "A dog.")
    put(tmp_path / "b.ogg")
    write(tmp_path / "b.json", '{"caption": "B."}')
    put(tmp_path / "c.ogg")
    table = write(tmp_path / "old.csv", "file,caption\na.ogg,other words\n")
    found = recognise(tmp_path)
    assert found.source == "folder" and found.unread == (table,)
    assert found.summary.endswith("3 sounds: captions from NAME.txt or NAME.json beside 2, from the names of 1.")


def test_tables_of_the_same_sounds_are_refused(tmp_path: Path) -> None:
    for n in range(4):
        put(tmp_path / "audio" / f"{n}.ogg", n)
    write(tmp_path / "train.csv", "file_name,caption\n0.ogg,A.\n1.ogg,B.\n")
    write(tmp_path / "test.csv", "file_name,caption\n2.ogg,C.\n3.ogg,D.\n")
    assert sorted(record.captions[0] for record in recognise(tmp_path).read()) == ["A.", "B.", "C.", "D."]
    write(tmp_path / "test.csv", "file_name,caption\n1.ogg,C.\n3.ogg,D.\n")
    with raises_naming(DataError, "1.ogg", tmp_path / "train.csv", tmp_path / "test.csv"):
        recognise(tmp_path)


def test_hugging_face_folders_and_shards(tmp_path: Path) -> None:
    put(tmp_path / "hf" / "train" / "a.ogg")
    write(tmp_path / "hf" / "train" / "metadata.csv", "file_name,text\na.ogg,A.\n")
    assert "metadata.csv: sound from 'file_name', caption from 'text'" in recognise(tmp_path / "hf").summary
    sound = {"bytes": put(tmp_path / "x.ogg").read_bytes(), "path": "x.ogg"}
    (tmp_path / "rows").mkdir()
    polars.DataFrame({"audio": [sound], "caption": ["A."]}).write_parquet(tmp_path / "rows" / "x.parquet")
    for path in (tmp_path / "rows", tmp_path / "rows" / "x.parquet"):
        found = recognise(path)
        assert (found.source, [record.captions for record in found.read()]) == ("hugging_face", [("A.",)])
        assert "(1 parquet file: sound from 'audio', caption from 'caption')" in found.summary
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "0.tar", "w") as tar:
        for name, content in (("0.ogg", sound["bytes"]), ("0.txt", b"A.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for path in (tmp_path / "tars", tmp_path / "tars" / "0.tar"):
        found = recognise(path)
        assert (found.source, [record.captions for record in found.read()]) == ("shards", [("A.",)])
        assert found.summary == f"Read {path} as WebDataset shards (1 tar: sound from .ogg, caption from .txt)."


def test_named_source_and_columns_are_used(tmp_path: Path) -> None:
    put(tmp_path / "dog" / "1.ogg")
    put(tmp_path / "cat" / "2.ogg")
    found = recognise(tmp_path, ReadOptions("hugging_face"))
    assert [record.label for record in found.read()] == ["cat", "dog"]
    with raises_naming(ConfigError, tmp_path):
        recognise(tmp_path, ReadOptions(columns=ColumnChoice(captions=("text",))))
    with raises_naming(ConfigError, "--source", "'nonsense'", "freesound"):
        recognise(tmp_path, ReadOptions("nonsense"))


def test_unreadable_collection_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "4.tar").mkdir()
    one_sound, notes = put(tmp_path / "a.ogg"), write(tmp_path / "notes.xlsx", "x")
    for path in (tmp_path / "nowhere", tmp_path / "empty", tmp_path / "4.tar", one_sound, notes):
        with raises_naming(DataError, path):
            recognise(path)
    table = write(tmp_path / "empty" / "t.csv", "url,caption\nhttps://x.org/a.wav,A.\n")
    with raises_naming(DataError, tmp_path / "empty", table):
        recognise(tmp_path / "empty")


def test_advice_names_other_ways_to_read(tmp_path: Path) -> None:
    root = wavcaps(tmp_path / "wavcaps")
    assert "bbc_final.json" not in advice(recognise(root))  # it is read already
    beside = root / "bbc_final.json"
    (root / "json_files" / "bbc_final.json").rename(beside)
    said = advice(recognise(root / "audio"))
    assert f"{beside} describes these sounds (captions in 'caption'): give it in place of the folder." in said
    for kind in ("dog", "cat"):
        put(tmp_path / "labels" / kind / "1-100032-A-0.ogg")
    assert "--source hugging_face" in advice(recognise(tmp_path / "labels"))
    esc = tmp_path / "ESC-50"
    put(esc / "audio" / "1-100032-A-0.wav")
    write(esc / "meta" / "esc50.csv", "filename,fold,target,category\n1-100032-A-0.wav,1,0,dog\n")
    assert "It has the layout of ESC-50: give --source esc50." in advice(recognise(esc))


def test_table_of_other_sounds_is_not_advised(tmp_path: Path) -> None:
    put(tmp_path / "mine" / "NHU1.ogg")
    put(tmp_path / "other" / "a.ogg")
    write(tmp_path / "t.csv", "file,caption\nother/a.ogg,A dog.\n")
    assert advice(recognise(tmp_path / "mine")) == ""


def test_advice_names_caption_candidates_of_a_table(tmp_path: Path) -> None:
    put(tmp_path / "NHU1.ogg")
    table = write(tmp_path / "t.csv", "file,beschreibung\nNHU1.ogg,Ein Hund bellt.\n")
    said = advice(recognise(tmp_path))
    assert str(table) in said and "with --caption-column" in said


def test_advice_names_caption_candidates_of_a_hugging_face_folder(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.ogg")
    write(tmp_path / "a" / "metadata.csv", "file_name,beschreibung\n1.ogg,Ein Hund bellt.\n")
    assert "'beschreibung': name the one with captions, --caption-column NAME." in advice(recognise(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    frame = polars.DataFrame({"audio": [{"bytes": b"x", "path": "1.ogg"}], "beschreibung": ["Ein Hund bellt."]})
    frame.write_parquet(tmp_path / "b" / "train.parquet")
    assert "'beschreibung': name the one with captions, --caption-column NAME." in advice(recognise(tmp_path / "b"))


def test_advice_logs_nothing_about_other_layouts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "X1.ogg")
    polars.DataFrame({"nr": ["X1"], "comment": ["A dog."]}).write_parquet(tmp_path / "x.parquet")
    assert "'comment'" in advice(recognise(tmp_path))
    assert caplog.records == []


def test_metadata_without_file_name_is_an_ordinary_table(tmp_path: Path) -> None:
    put(tmp_path / "audio" / "a.ogg")
    write(tmp_path / "metadata.csv", "filename,caption\na.ogg,A dog.\n")
    found = recognise(tmp_path)
    assert (found.source, [record.captions for record in found.read()]) == ("table", [("A dog.",)])


def test_outputs_of_openclap_are_skipped(tmp_path: Path) -> None:
    """A data set, a run or an index inside the folder of sounds: its tables and sounds are copies."""
    for n in range(4):
        put(tmp_path / f"{n}.wav", n)
        write(tmp_path / f"{n}.txt", f"Sound {n}.")
    wanted = recognise(tmp_path)
    frame = polars.DataFrame({"audio": ["x.wav"], "captions": [["A caption."]]})
    for names in [("set/dataset.json", "set/work/plan/0.parquet"), ("run/shards/dataset.json", "run/x.parquet")]:
        write(tmp_path / names[0], "{}")
        (tmp_path / names[1]).parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(tmp_path / names[1])
    put(tmp_path / "set" / "work" / "sounds" / "x.wav")
    write(tmp_path / "index" / "index.json", "{}")
    write(tmp_path / "index" / "files.lance" / "metadata.csv", "file_name,text\nx.wav,A caption.\n")
    found = recognise(tmp_path)
    assert (found.summary, found.unread) == (wanted.summary, ())
    assert [record.captions for record in found.read()] == [(f"Sound {n}.",) for n in range(4)]
    write(tmp_path / "dataset.json", json.dumps([{"file": f"{n}.wav", "caption": f"Mine {n}."} for n in range(4)]))
    assert recognise(tmp_path).unread == (tmp_path / "dataset.json",)  # a table of somebody's own
