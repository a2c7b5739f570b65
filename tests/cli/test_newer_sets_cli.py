"""Data sets since LAION-Audio-630K from their published layout to shards and a score, by commands."""

from __future__ import annotations

import json
from pathlib import Path

import polars
import pytest

from openclap.cli import run
from openclap.data.shards import index_shards
from openclap.types import Phrase
from support import miniatures, newer_sets
from support.errors import check_refusal
from support.layouts import put, write
from support.newer_sets import DASH, EVALUATION, NEWER_SETS, PLAIN, WITH_Y


def openclap(*words: object) -> int:
    return run([str(word) for word in words])


PACKED = {"wavcaps": 6, "audiosetcaps": 6, "auto_acd": 3, "tacos": 4, "audiocaps2": 4, "finelap": 2, "shards": 3}


@pytest.mark.parametrize("name", NEWER_SETS)
def test_every_layout_is_built_checked_and_evaluated(
    name: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    NEWER_SETS[name](tmp_path / "set")
    out = tmp_path / "out"
    assert openclap("dataset", "build", tmp_path / "set", out, "--source", name, "--processes", 1, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert sum(report["packed"].values()) == PACKED[name]
    # What could not be packed is a file that is not there, and nothing else.
    assert all("no such file" in skipped["reason"] for skipped in report["skipped"]), report["skipped"]
    assert openclap("dataset", "check", out, "--processes", 1) == 0
    split = max(report["packed"], key=report["packed"].get)
    assert openclap("eval", tiny_model, "--data", out, "--split", split, "--json", tmp_path / "scores.json") == 0
    assert "R@10" in capsys.readouterr().out


def test_phrases_of_tacos_come_through_the_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clips of half a second: on- after offset, a negative onset, a span beyond the clip and a word for a time."""
    newer_sets.tacos(tmp_path / "set")
    out = tmp_path / "out"
    assert openclap("dataset", "build", tmp_path / "set", out, "--source", "tacos", "--processes", 1) == 0
    printed = " ".join(capsys.readouterr().err.split())
    assert "4 segments of phrases were left out, such as 'a drop' from 0.4 to 0.1 s" in printed
    train, test = index_shards(out / "train"), index_shards(out / "test")
    phrases = {sample.original["id"]: sample.phrases for sample in map(train.read_sample, range(len(train)))}
    assert phrases == {
        "123_rain.mp3": (Phrase("rain falls", ((0.0, 0.25), (0.3, 0.45))),),
        "124_dog.mp3": (Phrase("a dog barks", ((0.1, 0.2),)),),
        "127_lost.mp3": (),
    }
    assert test.read_sample(0).phrases == ()
    left_out = [json.loads(line)["id"] for line in (out / "skipped_segments.jsonl").read_text().splitlines()]
    assert left_out == ["123_rain.mp3", "124_dog.mp3", "125_bell.mp3", "125_bell.mp3"]


def evaluation_sets(root: Path) -> None:
    """One evaluation clip and one training clip of AudioSet and of VGGSound, all of which the newer sets have."""
    segments = "# Segments\n# more\n# YTID, start_seconds, end_seconds, positive_labels\n"
    write(root / "audioset" / "class_labels_indices.csv", 'index,mid,display_name\n0,/m/09x0r,"Speech"\n')
    write(root / "audioset" / "eval_segments.csv", segments + f'{EVALUATION}, 30.000, 40.000, "/m/09x0r"\n')
    write(root / "audioset" / "balanced_train_segments.csv", segments + f'{DASH}, 0.000, 10.000, "/m/09x0r"\n')
    write(root / "vggsound" / "vggsound.csv", f"{WITH_Y},30,dog,test\n{PLAIN},120,speech,train\n")


def test_evaluation_clips_are_found_in_all_forms_of_their_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer_sets.audiosetcaps(tmp_path / "set")
    evaluation_sets(tmp_path)
    held_out = [f"{name}:test={tmp_path / name}" for name in ("audioset", "vggsound")]
    words = [word for each in held_out for word in ("--decontaminate", each)]
    out = tmp_path / "out"
    assert openclap("dataset", "build", tmp_path / "set", out, "--source", "audiosetcaps", *words, "--json") == 0
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert {each["id"]: each["reason"] for each in skipped if each["kind"] == "overlap"} == {
        WITH_Y: "is in VGGSound test",
        f"{WITH_Y}_30": "is in VGGSound test",
        EVALUATION: "is in AudioSet test",
        f"{EVALUATION}_883": "is in AudioSet test",
    }
    # Training clips of the same sets stay: their splits were not named.
    packed = set(polars.read_parquet(out / "manifest.parquet")["youtube_id"])
    assert packed == {DASH, newer_sets.UNDERSCORE}


def test_recipe_trains_on_training_splits_and_holds_out_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    newer_sets.wavcaps(root / "wavcaps")
    evaluation_sets(root)
    miniatures.clotho(root / "clotho", clips=2)
    # The miniature has the same uploads and sounds in all splits.
    metadata = root / "clotho" / "clotho_metadata_development.csv"
    metadata.write_text(metadata.read_text().replace("7000", "8000").replace("7001", "8001"))
    for number, path in enumerate(sorted((root / "clotho" / "development").iterdir())):
        miniatures.put(path, "other", number)
    head = ["audiocap_id", "youtube_id", "start_time", "caption"]
    miniatures.table(root / "audiocaps" / "train.csv", head, [(1, PLAIN, 30, "A person talks")])
    miniatures.table(root / "audiocaps" / "test.csv", head, [(2, f"Y{WITH_Y}", 30, "A dog barks")])
    put(root / "audiocaps" / f"{PLAIN}_30.wav", 90)
    out, recipe = tmp_path / "out", "wavcaps-audiocaps-clotho"
    assert openclap("dataset", "build", recipe, out, "--root", root, "--missing-ok", "--json") == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert set(report["packed"]) == {"train"} and "esc50" in printed.err
    manifest = polars.read_parquet(out / "manifest.parquet")
    assert manifest["source"].value_counts(sort=True).sort("source").rows() == [
        *(("audiocaps", 1), ("clotho", 2), ("wavcaps_audioset", 2), ("wavcaps_bbc", 1), ("wavcaps_freesound", 1)),
        ("wavcaps_soundbible", 1),
    ]
    overlap = {(each["source"], each["id"]): each["reason"] for each in report["skipped"] if each["kind"] == "overlap"}
    assert overlap == {
        ("wavcaps_audioset", f"Y{WITH_Y}"): "is in AudioCaps test",
    }
    assert EVALUATION not in set(manifest["youtube_id"])


@pytest.mark.parametrize("recipe", ["wavcaps", "wavcaps-audiocaps-clotho", "commercial"])
def test_recipe_without_any_source_is_refused(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openclap("dataset", "plan", recipe, tmp_path / "out", "--root", tmp_path) == 2
    check_refusal(capsys.readouterr().err, tmp_path)


def test_commercial_recipe_leaves_out_other_licences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newer_sets.tacos(tmp_path / "tacos")
    assert (
        openclap("dataset", "build", "commercial", tmp_path / "out", "--root", tmp_path, "--missing-ok", "--json") == 0
    )
    report = json.loads(capsys.readouterr().out)
    assert report["packed"] == {"train": 2}
    assert {each["id"]: each["kind"] for each in report["skipped"]} == {"127_lost.mp3": "licence"}


def test_sources_are_explained_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openclap("dataset", "sources", "wavcaps") == 0
    explained = capsys.readouterr().out
    assert all(f"{name}: " in explained for name in ("how to get it", "may be used for", "known faults", "licence"))
    newer_sets.wavcaps(tmp_path / "set")
    assert openclap("dataset", "sources", "wavcaps", tmp_path / "set") == 0
    printed = capsys.readouterr()
    assert ["wavcaps_freesound", "–", "2", "1", "1"] in [line.split() for line in printed.out.splitlines()]
    assert "404.flac" in printed.err and "SoundBible/1232.flac" in printed.err
    assert openclap("dataset", "sources", "wavcaps", tmp_path / "set", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files_without_entry"] == 3
    assert openclap("dataset", "sources", "nothing") == 2
    check_refusal(capsys.readouterr().err, "'nothing'")


def test_invalid_splits_of_an_evaluation_set_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("audioset:=x", "nothing:test=x", "audioset:test"):
        words = ["dataset", "build", tmp_path, tmp_path / "out", "--decontaminate", given]
        assert openclap(*words) == 2
        check_refusal(capsys.readouterr().err, given.partition("=")[0] if "nothing" not in given else "'nothing'")
