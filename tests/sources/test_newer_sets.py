"""Data sets since LAION-Audio-630K, each as a miniature of its published layout with its known oddities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclap.data.shards import index_shards
from openclap.errors import DataError
from openclap.sources import SOURCES, Record
from openclap.sources.inventory import take_inventory
from openclap.sources.recognise import recognise
from openclap.types import Phrase
from support import newer_sets
from support.errors import raises_naming
from support.layouts import decodable, put, records, write
from support.miniatures import table
from support.newer_sets import DASH, EVALUATION, PLAIN, UNDERSCORE, WITH_Y


def by_id(found: list[Record]) -> dict[tuple[str, str], Record]:
    assert len({(record.source, record.id) for record in found}) == len(found)
    return {(record.source, record.id): record for record in found}


def test_wavcaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_sets.wavcaps(tmp_path)
    found = by_id(records("wavcaps", tmp_path))
    assert [name for _, name in found] == [f"Y{DASH}", f"Y{WITH_Y}", f"Y{PLAIN}", "NHU05093142", "404", "2219", "2219"]
    assert found["wavcaps_audioset", f"Y{WITH_Y}"] == Record(
        id=f"Y{WITH_Y}",
        audio=tmp_path / "AudioSet_SL" / f"Y{WITH_Y}.flac",
        captions=("A sound is heard 1.",),
        source="wavcaps_audioset",
        group=f"youtube:{WITH_Y}",
        licence="LicenseRef-WavCaps-academic",
        link=f"https://www.youtube.com/watch?v={WITH_Y}&t=0s",
        length_s=10.0,
        youtube_id=WITH_Y,
    )
    rain, bell = found["wavcaps_freesound", "2219"], found["wavcaps_soundbible", "2219"]
    assert rain.captions == ("Rain falls.", "Rain falls on a roof.")
    assert (rain.freesound_id, rain.group, rain.tags, rain.title) == (
        2219,
        "freesound:ada",
        ("rain", "roof"),
        "Rain.wav",
    )
    # One number is two sounds, in the folders of two parts.
    assert rain.audio == tmp_path / "FreeSound" / "2219.flac" and bell.audio == tmp_path / "SoundBible" / "2219.flac"
    assert (bell.title, bell.freesound_id, bell.length_s) == ("Bell", None, None)
    assert found["wavcaps_bbc", "NHU05093142"].description == "Cattle - grazing."
    assert decodable(record for record in found.values() if record.id != "404")
    for part in (
        "as_final.json: 1 entries are in the lists of clips of evaluation sets (blacklist) and were left out.",
        f"The first is 'Y{EVALUATION}'",
        "fsd_final.json: 1 entries are in the lists",
        "fsd_final.json: 1 entries have no id",
        "fsd_final.json: 1 ids occur more than once, and their captions were joined. The first is '2219'",
        "blacklist_exclude_all_ac.json: is not applied",
    ):
        assert part in caplog.text, part


def test_wavcaps_inventory_counts_entries_files_and_missing(tmp_path: Path) -> None:
    newer_sets.wavcaps(tmp_path)
    inventory = take_inventory(SOURCES["wavcaps"], tmp_path)
    parts = ("audioset", "bbc", "freesound", "soundbible")
    assert [inventory.entries[f"wavcaps_{part}", ""] for part in parts] == [3, 1, 2, 1]
    assert [inventory.found[f"wavcaps_{part}", ""] for part in parts] == [3, 1, 1, 1]
    assert inventory.missing == ("404.flac",)
    # SoundBible has more files than entries; two entries are in the blacklists.
    assert inventory.left_over == 3 and "SoundBible/1232.flac" in inventory.first_left_over


def test_wavcaps_part_of_its_own_may_lie_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = [{"id": "11", "caption": "A door.", "duration": 1.0}]
    newer_sets.write_json(tmp_path / "sb_final.json", {"num_captions_per_audio": 1, "data": entries})
    put(tmp_path / "sounds" / "11.flac")
    assert decodable(records("wavcaps", tmp_path))
    newer_sets.wavcaps_part(tmp_path, "BBC_Sound_Effects", "bbc_final.json", entries)
    assert not any(record.audio.exists() for record in records("wavcaps", tmp_path) if isinstance(record.audio, Path))
    assert "1 audio files are in no folder of a part" in caplog.text


@pytest.mark.parametrize(
    "content", ['{"data": [{"id": "1", "caption": "a"}, {"id": "2", "cap', "[", "", '{"data": []}']
)
def test_wavcaps_json_that_is_cut_off_is_refused(content: str, tmp_path: Path) -> None:
    table = write(tmp_path / "json_files" / "SoundBible" / "sb_final.json", content)
    with raises_naming(DataError, table):
        records("wavcaps", tmp_path)


def test_wavcaps_blacklist_that_is_damaged_is_refused(tmp_path: Path) -> None:
    newer_sets.wavcaps(tmp_path)
    damaged = write(
        tmp_path / "json_files" / "blacklist" / "blacklist_exclude_ub8k_esc50_vggsound.json", '{"AudioSet": ['
    )
    with raises_naming(DataError, damaged):
        records("wavcaps", tmp_path)


def test_audiosetcaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_sets.audiosetcaps(tmp_path)
    found = by_id(records("audiosetcaps", tmp_path))
    assert [name for _, name in found] == [
        *(WITH_Y, EVALUATION, DASH),
        *(f"{WITH_Y}_30", f"{EVALUATION}_883", f"{UNDERSCORE}_30_10", f"{PLAIN}_120_10"),
    ]
    assert [record.youtube_id for record in found.values()] == [
        *(WITH_Y, EVALUATION, DASH, WITH_Y, EVALUATION, UNDERSCORE, PLAIN)
    ]
    assert found["audiosetcaps_audioset", DASH].captions == ("Models hear a sound, 0.", "Models hear wind.")
    clip = found["audiosetcaps_vggsound", f"{WITH_Y}_30"]
    assert clip.link == f"https://www.youtube.com/watch?v={WITH_Y}&t=30s" and clip.group == f"youtube:{WITH_Y}"
    assert decodable(record for record in found.values() if record.youtube_id != PLAIN)
    assert found["audiosetcaps_youtube8m", f"{PLAIN}_120_10"].audio == tmp_path / "audio" / f"{PLAIN}_120_10.flac"
    assert "1 rows have an id that is none of a YouTube clip and were left out. The first is '#NAME?'" in caplog.text
    assert "1 ids occur more than once" in caplog.text


def test_auto_acd(tmp_path: Path) -> None:
    newer_sets.auto_acd(tmp_path)
    found = records("auto_acd", tmp_path)
    assert [(record.youtube_id, record.split) for record in found] == [
        (DASH, "train"),
        (WITH_Y, "train"),
        (EVALUATION, "test"),
    ]
    assert decodable(found)
    table(tmp_path / "test.csv", None, [(EVALUATION, "A bell."), (PLAIN, "A person.")])  # a copy without a header
    assert [record.youtube_id for record in records("auto_acd", tmp_path)][2:] == [EVALUATION, PLAIN]


@pytest.mark.parametrize("weak", ["text", "caption"])
def test_tacos(weak: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_sets.tacos(tmp_path, weak)
    found = records("tacos", tmp_path)
    assert [(record.id, record.split, record.licence) for record in found] == [
        ("123_rain.mp3", "train", "CC0-1.0"),
        ("124_dog.mp3", "train", "CC-BY-4.0"),
        ("125_bell.mp3", "test", "CC-BY-NC-3.0"),
        ("127_lost.mp3", "train", None),
    ]
    rain = found[0]
    assert rain.captions == ("The clip holds sound number 0.",)
    # Impossible segments stay until the length of the clip is known.
    assert rain.phrases == (Phrase("rain falls", ((0.0, 0.25), (0.3, 0.45))), Phrase("a drop", ((0.4, 0.1),)))
    assert (rain.freesound_id, rain.group, rain.tags, rain.length_s) == (123, "freesound:user0", ("rain", "roof"), 0.5)
    assert decodable(found)
    assert "1 files are in both splits and were left out. The first is '126_both.mp3'" in caplog.text
    assert (
        "1 annotated files are not in it, so that their licence is unknown. The first is '127_lost.mp3'" in caplog.text
    )


def test_tacos_with_one_kind_of_annotations(tmp_path: Path) -> None:
    newer_sets.tacos(tmp_path)
    (tmp_path / "annotations_weak.csv").unlink()
    assert [bool(record.phrases) for record in records("tacos", tmp_path)] == [True, True, True]
    (tmp_path / "annotations_strong.csv").unlink()
    with raises_naming(DataError, tmp_path, "annotations_weak.csv", "annotations_strong.csv"):
        records("tacos", tmp_path)


def test_audiocaps_2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_sets.audiocaps2(tmp_path)
    found = records("audiocaps2", tmp_path)
    assert [(record.youtube_id, record.split, len(record.captions)) for record in found] == [
        (DASH, "train", 1),
        (WITH_Y, "train", 1),
        (PLAIN, "train", 1),
        (EVALUATION, "test", 5),
    ]
    assert decodable(found)
    assert "The first is '91139'" in caplog.text
    with raises_naming(DataError, tmp_path, "train.csv"):  # version 1 is another source, and is not there
        records("audiocaps", tmp_path)
    write(tmp_path / "dataset" / "val.csv", f"audiocap_id,youtube_id,start_time,caption\n7,{PLAIN},30,Version one\n")
    assert [record.captions for record in records("audiocaps", tmp_path)] == [("Version one",)]


def test_audiocaps_in_the_tables_of_wavcaps(tmp_path: Path) -> None:
    head = ["file_name", *(f"caption_{number}" for number in range(1, 6))]
    table(tmp_path / "test.csv", head, [(f"Y{DASH}.wav", *(f"Said {number}" for number in range(4)), "")])
    table(tmp_path / "train.csv", ["file_name", "caption"], [(f"Y{WITH_Y}.wav", "A dog.")])
    for number, name in enumerate((DASH, WITH_Y)):
        put(tmp_path / "waveforms" / f"Y{name}.wav", number)
    found = records("audiocaps", tmp_path)
    assert [(record.youtube_id, record.split, len(record.captions)) for record in found] == [
        (WITH_Y, "train", 1),
        (DASH, "test", 4),
    ]
    assert decodable(found)


def test_phrase_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer_sets.finelap(tmp_path)
    wind, dog = records("finelap", tmp_path)
    assert (wind.youtube_id, wind.group, wind.split) == (DASH, f"youtube:{DASH}", "train")
    assert wind.phrases[1] == Phrase("a bird sings", ((0.2, 0.1), (0.3, 0.4), (9.0, 10.0)))
    assert (dog.captions, dog.freesound_id) == (("A dog barks.", "A dog barks twice."), 777)
    assert dog.phrases == (Phrase("a dog barks", ((0.1, 0.2), (0.3, 0.4))),)
    assert decodable([wind, dog])
    assert "1 lines are no object with audio_path or audio_id and were left out. The first is 'line 4'" in caplog.text
    assert len(records("finelap", tmp_path / "train.jsonl")) == 2


def test_phrases_in_a_table(tmp_path: Path) -> None:
    newer_sets.finelap(tmp_path)
    line = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    write(tmp_path / "one.json", json.dumps([json.loads(line)]))
    [record] = SOURCES["table"].read(tmp_path / "one.json")
    assert record.phrases[0] == Phrase("wind blows", ((0.0, 0.3),))


def test_webdataset_captions_under_any_key(tmp_path: Path) -> None:
    newer_sets.webdataset(tmp_path / "shards")
    found = records("shards", tmp_path / "shards", cache=tmp_path / "cache")
    assert [record.captions for record in found] == [("Rain falls.",), ("A dog.", "A big dog."), ("A bell.",)]
    shards = index_shards(tmp_path / "shards")  # as training reads them
    assert [shards.read_sample(n).captions for n in range(3)] == [record.captions for record in found]


def test_clotho_metadata_without_an_upload(tmp_path: Path) -> None:
    """Version 2.1 writes "Not found" for uploads that were deleted."""
    table(tmp_path / "clotho_captions_evaluation.csv", ["file_name", *(f"caption_{n}" for n in range(1, 6))], [
        ("a.wav", "One.", "Two.", "Three.", "Four.", "Five.")
    ])  # fmt: skip
    head = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
    table(tmp_path / "clotho_metadata_evaluation.csv", head, [("a.wav", "rain;street", *["Not found"] * 5)])
    put(tmp_path / "evaluation" / "a.wav")
    [record] = records("clotho", tmp_path)
    assert (record.freesound_id, record.group, record.licence, record.length_s) == (None, None, None, None)
    assert record.link is None and record.tags == ("rain", "street") and len(record.captions) == 5


@pytest.mark.parametrize("name", ["wavcaps", "audiosetcaps", "tacos"])
def test_unmistakable_layouts_are_recognised(name: str, tmp_path: Path) -> None:
    newer_sets.NEWER_SETS[name](tmp_path)
    collection = recognise(tmp_path)
    assert (collection.source, collection.summary) == (name, f"Read {tmp_path} as {SOURCES[name].title}.")
    assert len(list(collection.read())) == len(list(SOURCES[name].read(tmp_path)))
