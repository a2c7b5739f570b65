"""`openclap dataset`: every verb, on typical collections of sounds."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.cli import run
from support import miniatures
from support.errors import check_refusal

ALONE = ("--processes", "1")
"""One process: starting others takes longer than the work."""
SOUNDS = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds"


def openclap(*words: object) -> int:
    return run([str(word) for word in words])


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Real recordings under names that say what they are, in two folders; one has a caption of its own beside it."""
    folder = tmp_path / "collection"
    for name in ("dogs/BigDog_bark-01", "dogs/SmallDog_bark-02", "water/StreamRunning", "water/WaterDrop"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pairs = {
        "dogs/BigDog_bark-01.ogg": "scratch-dog1.ogg",
        "dogs/SmallDog_bark-02.ogg": "scratch-dog2.ogg",
        "water/StreamRunning.ogg": "scratch-water-running.ogg",
        "water/WaterDrop.ogg": "scratch-water-drop.ogg",
    }
    for name, source in pairs.items():
        shutil.copy(SOUNDS / source, folder / name)
    (folder / "water" / "WaterDrop.txt").write_text("A single drop falls into water.\n", encoding="utf-8")
    return folder


def test_build_from_a_folder_of_sounds(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out, "--test-fraction", "0.5", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(report["packed"].values()) == 4 and report["skipped"] == []
    assert openclap("dataset", "stats", out, "--json") == 0
    stats = json.loads(capsys.readouterr().out)
    assert stats["samples"] == 4 and stats["made"]["given"] == 1
    import polars

    manifest = polars.read_parquet(out / "manifest.parquet")
    captions = {Path(row["audio"]).stem: row["captions"] for row in manifest.iter_rows(named=True)}
    assert "A single drop falls into water." in captions["WaterDrop"]
    assert any("Big Dog bark" in caption for caption in captions["BigDog_bark-01"])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: other") and "| **sum** | 4 |" in card
    assert (out / "card" / "lengths.svg").read_bytes().startswith(b"<svg xmlns=")
    assert openclap("dataset", "check", out) == 0


def test_steps_in_parts_write_the_same_bytes(collection: Path, tmp_path: Path) -> None:
    assert openclap("dataset", "build", collection, tmp_path / "one") == 0
    many = tmp_path / "many"
    assert openclap("dataset", "plan", collection, many) == 0
    assert openclap("dataset", "pack", many, "--part", "1/2") == 2  # nothing is decoded yet
    for part in ("2/2", "1/2"):
        assert openclap("dataset", "fetch", many, "--part", part) == 0
    assert openclap("dataset", "merge", many) == 2
    for part in ("1/2", "2/2"):
        assert openclap("dataset", "pack", many, "--part", part) == 0
    assert openclap("dataset", "merge", many) == 0
    names = {path.relative_to(many) for path in many.rglob("*.tar")}
    assert names == {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar")}
    assert all((many / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in names)


def numbered(folder: Path, *captions: str) -> Path:
    """clip_0000.wav, clip_0001.wav … of a tenth of a second, each with the caption in a file beside it."""
    folder.mkdir()
    for number, caption in enumerate(captions):
        wave = 0.5 * np.sin(np.arange(1600) * (number + 1) * 0.01)
        soundfile.write(folder / f"clip_{number:04d}.wav", wave, 16000)
        (folder / f"clip_{number:04d}.txt").write_text(caption, encoding="utf-8")
    return folder


def test_numbered_recordings_fill_both_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = numbered(tmp_path / "set", *[f"Sound {word}." for word in "abcdefghijklmnopqrst"])
    assert openclap("dataset", "build", folder, tmp_path / "out", "--test-fraction", "0.2", "--json", *ALONE) == 0
    assert json.loads(capsys.readouterr().out)["packed"] == {"test": 4, "train": 16}


def test_empty_split_is_noted_and_refused_where_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = numbered(tmp_path / "set", "a", "b", "c", "d") / "table.csv"
    rows = "".join(f"clip_{number:04d}.wav,sound {number},day one\n" for number in range(4))
    table.write_text(f"file,caption,group\n{rows}", encoding="utf-8")
    assert openclap("dataset", "build", table, tmp_path / "out", *ALONE) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "(day one)" in said
    assert openclap("dataset", "build", table, tmp_path / "two", "--test-fraction", "0.2", *ALONE) == 2
    check_refusal(capsys.readouterr().err, "(day one)")
    assert not list((tmp_path / "two").rglob("*.tar"))
    assert (
        openclap("dataset", "build", table, tmp_path / "two", "--test-fraction", "0.25", *ALONE) == 2
    )  # other choices, said as such
    assert openclap("dataset", "build", table, tmp_path / "three", "--test-fraction", "0", *ALONE) == 0


def named_by_ids(folder: Path) -> Path:
    """Six sounds under names that say nothing, as BBC's in WavCaps."""
    folder.mkdir(parents=True)
    for number in range(6):
        soundfile.write(folder / f"NHU0502401{number}.wav", 0.5 * np.sin(np.arange(1600) * (number + 1) * 0.01), 16000)
    return folder


def test_identifiers_as_captions_stop_the_build_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = named_by_ids(tmp_path / "WavCaps" / "BBC"), tmp_path / "out"
    data = [{"id": f"NHU0502401{number}", "caption": f"Bird {'abcdef'[number]} sings."} for number in range(6)]
    notes = folder.parent / "bbc_final.json"
    notes.write_text(json.dumps({"num_captions_per_audio": 1, "data": data}), encoding="utf-8")
    for verb in ("build", "plan"):
        assert openclap("dataset", verb, folder, out) == 2
        check_refusal(capsys.readouterr().err, "6 of 6", "'NHU'", notes, "'caption'", "--skip-caption-check")
        assert not (out / "dataset.json").exists()
    assert openclap("dataset", "build", folder, out, "--skip-caption-check", *ALONE) == 0
    assert "'NHU'" in capsys.readouterr().err
    for what in (notes, folder.parent):
        assert (
            openclap(
                "dataset", "build", what, tmp_path / f"out-{what.stem}", "--test-fraction", "0.34", "--json", *ALONE
            )
            == 0
        )
        printed = capsys.readouterr()
        assert "sound from 'id', caption from 'caption'" in printed.err
        assert sum(json.loads(printed.out)["packed"].values()) == 6


def test_table_without_captions_names_its_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = named_by_ids(tmp_path / "sounds")
    rows = "".join(f"{file.name},Hund {number}\n" for number, file in enumerate(sorted(folder.glob("*.wav"))))
    table = folder / "t.csv"
    table.write_text(f"datei,beschreibung\n{rows}", encoding="utf-8")
    assert openclap("dataset", "build", table, tmp_path / "out", "--skip-caption-check", *ALONE) == 2
    said = capsys.readouterr().err
    check_refusal(said, "6 sounds", "'beschreibung'")
    assert "'datei'" in said and "--skip-caption-check" not in said
    assert openclap("dataset", "build", table, tmp_path / "out", "--caption-column", "beschreibung", *ALONE) == 0


def test_build_recognises_common_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import polars

    sounds = named_by_ids(tmp_path / "sounds")
    files = sorted(sounds.glob("*.wav"))
    rows = [
        {"audio_path": f"sounds/{file.name}", "text": f"Grün {'abcdef'[n]} – “laut”"} for n, file in enumerate(files)
    ]
    lines = "".join(f"{row['audio_path']};{row['text']}\n" for row in rows)
    (tmp_path / "t.csv").write_bytes(f"audio_path;text\n{lines}".encode("cp1252"))
    (tmp_path / "t.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "u.csv").write_text(f"wo;was\n{lines}", encoding="utf-8")
    embedded = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    (tmp_path / "hf").mkdir()
    polars.DataFrame({"audio": embedded, "text": [row["text"] for row in rows]}).write_parquet(
        tmp_path / "hf/x.parquet"
    )
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for n, file in enumerate(files):
            tar.add(file, f"{n}.wav")
            (tmp_path / "caption.txt").write_text(rows[n]["text"], encoding="utf-8")
            tar.add(tmp_path / "caption.txt", f"{n}.txt")
    for what, more, said in (
        ("t.csv", (), "as a table of 6 rows: sound from 'audio_path', caption from 'text', encoded in cp1252."),
        ("t.json", (), "as a table of 6 rows: sound from 'audio_path', caption from 'text'."),
        ("u.csv", ("--audio-column", "wo", "--caption-column", "was"), "sound from 'wo', caption from 'was'."),
        ("hf", (), "as a Hugging Face data set (1 parquet file: sound from 'audio', caption from 'text')."),
        ("0.tar", (), "as WebDataset shards (1 tar: sound from .wav, caption from .txt)."),
    ):
        out = tmp_path / f"out-{what}"
        assert openclap("dataset", "build", tmp_path / what, out, *more, *ALONE) == 0
        assert said in " ".join(capsys.readouterr().err.split()), what
        captions = polars.read_parquet(out / "manifest.parquet")["captions"].explode().sort().to_list()
        assert captions == [row["text"] for row in rows], what


def test_decontaminate_leaves_out_clips_of_an_evaluation_set(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    esc50 = tmp_path / "ESC-50"
    (esc50 / "meta").mkdir(parents=True)
    (esc50 / "audio").mkdir()
    wave, rate = soundfile.read(collection / "dogs" / "BigDog_bark-01.ogg", dtype="float32")
    soundfile.write(esc50 / "audio" / "1-77-A-0.wav", wave, rate, subtype="FLOAT")
    (esc50 / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n1-77-A-0.wav,1,0,dog,True,77,A\n", encoding="utf-8"
    )
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out, "--decontaminate", f"esc50={esc50}", "--json") == 0
    [skipped] = json.loads(capsys.readouterr().out)["skipped"]
    assert skipped["kind"] == "overlap" and "BigDog" in skipped["file"] and skipped["reason"] == "is in ESC-50"
    assert "| ESC-50 | " in (out / "README.md").read_text(encoding="utf-8")


def test_clips_are_left_out_by_a_list_of_sound_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import polars

    miniatures.clotho(tmp_path / "clotho")
    excluded = tmp_path / "dcase2025_task6_excluded_freesound_ids.csv"
    excluded.write_text("sound_id\n7001\nNot found\n7003\n99\n", encoding="utf-8")
    words = ["dataset", "build", tmp_path / "clotho", tmp_path / "out", "--source", "clotho"]
    assert openclap(*words, "--decontaminate", f"id_list={excluded}", "--json") == 0
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert {each["reason"] for each in skipped if each["kind"] == "overlap"} == {"is in Excluded ids"}
    freesound_ids = polars.read_parquet(tmp_path / "out" / "manifest.parquet")["freesound_id"]
    assert freesound_ids.unique().sort().to_list() == [7000, 7002, 7004, 7005]
    for text, value in (("sound_id\nNot found\n", "sound_id"), ("id\n7\n", "freesound_id")):
        excluded.write_text(text, encoding="utf-8")
        assert openclap(*words[:3], tmp_path / "other", "--decontaminate", f"id_list={excluded}") == 2
        check_refusal(capsys.readouterr().err, excluded.name, value)


def test_damaged_tar_is_repaired(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out) == 0
    tar = out / "train" / "0.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    assert openclap("dataset", "check", out) == 1
    assert "train/0.tar" in capsys.readouterr().out
    assert openclap("dataset", "check", out, "--repair") == 0
    assert tar.read_bytes() == whole


def test_damaged_manifest_is_repaired_and_foreign_files_are_listed(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out, *ALONE) == 0
    whole = (out / "manifest.parquet").read_bytes()
    (out / "manifest.parquet").write_bytes(whole[:100])
    (out / "train" / "4.tar").mkdir()
    assert openclap("dataset", "stats", out) == 2
    check_refusal(capsys.readouterr().err, f"openclap dataset check {out} --repair")
    assert openclap("dataset", "check", out, *ALONE) == 1
    printed = capsys.readouterr()
    assert "manifest.parquet" in printed.out and "train/4.tar/" in printed.err
    assert openclap("dataset", "check", out, "--repair", *ALONE) == 0
    assert "manifest.parquet" in capsys.readouterr().err
    assert (out / "manifest.parquet").read_bytes() == whole
    shutil.copy(out / "train" / "0.tar", out / "train" / "7.tar")
    assert openclap("dataset", "check", out, "--repair", *ALONE) == 1
    assert "train/7.tar" in capsys.readouterr().err
    shutil.rmtree(out / "work")
    (out / "train" / "7.tar").unlink()
    (out / "manifest.parquet").unlink()
    assert openclap("dataset", "check", out, "--repair", "--json", *ALONE) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["left"] == [] and "rate, channels" in printed.err
    assert openclap("dataset", "check", out, *ALONE) == 0 and openclap("dataset", "card", out) == 0


def test_recipe_in_a_python_file(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from openclap.data.config import DataConfig, DataRecipe\n\n"
        'def config():\n    return DataRecipe("mine", {"folder": "collection", "clotho": "Clotho"}, '
        "DataConfig(by_source=True, splits={'train': 1.0}))\n",
        encoding="utf-8",
    )
    words = ["dataset", "build", recipe, tmp_path / "out", "--root", tmp_path]
    assert openclap(*words) == 2
    check_refusal(capsys.readouterr().err, tmp_path / "Clotho")
    assert openclap(*words, "--missing-ok") == 0
    assert (tmp_path / "out" / "collection" / "train" / "0.tar").is_file()


def test_own_readme_is_not_overwritten(collection: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out) == 0
    (out / "README.md").write_text("Mine.", encoding="utf-8")
    assert openclap("dataset", "card", out) == 0
    assert (out / "README.md").read_text(encoding="utf-8") == "Mine." and (out / "DATASET.md").is_file()


def test_mistakes_are_one_sentence(collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, value in (
        (["build", "no-such-recipe", out], "no-such-recipe"),
        (["build", collection, out, "--source", "nonsense"], "'nonsense'"),
        (["build", collection, out, "--source", "esc50"], "esc50.csv"),
        (["build", collection, out, "--decontaminate", "esc50"], "--decontaminate"),
        (["build", collection, out, "--test-fraction", "1"], 1.0),
        (["build", collection, out, "--processes", "0"], "processes"),
        (["build", collection, out, "--caption", tmp_path], tmp_path),
        (["fetch", tmp_path], "dataset.json"),
        (["fetch", tmp_path, "--part", "5/4"], "'5/4'"),
        (["merge", tmp_path], tmp_path),
        (["stats", tmp_path], tmp_path),
        (["card", tmp_path / "nothing"], tmp_path / "nothing"),
        (["check", tmp_path / "nothing"], tmp_path / "nothing"),
        (["push", tmp_path, "me/set"], tmp_path),
    ):
        assert openclap("dataset", *words) == 2, words
        check_refusal(capsys.readouterr().err, value)


def test_sources_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert openclap("dataset", "sources") == 0
    out = capsys.readouterr().out
    assert "freesound" in out and "515,581" in out
    assert openclap("dataset", "sources", "--json") == 0
    assert {"name", "needs", "page"} <= set(json.loads(capsys.readouterr().out)[0])
