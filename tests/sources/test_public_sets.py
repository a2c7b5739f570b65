"""Public data sets, each as a miniature of its published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openclap.errors import DataError
from openclap.sources import SOURCES, Record
from support.errors import raises_naming
from support.layouts import decodable, put, records, write

SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804
# YTID, start_seconds, end_seconds, positive_labels
"""
LABELS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/068hy,"Domestic animals, pets"\n2,/m/0bt9lr,"Dog"\n'


def test_audioset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path / "balanced_train_segments.csv",
        SEGMENTS
        + '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/0bt9lr,/m/unknown"\n'
        + "a damaged line\n\n"
        + '-0RWZT-miFs, 420.000, 430.000, "/m/09x0r"\n',
    )
    write(tmp_path / "eval_segments.csv", SEGMENTS + '--4gqARaEJE, 30.000, 38.500, "/m/09x0r"\n')
    write(tmp_path / "class_labels_indices.csv", LABELS)
    put(tmp_path / "audios" / "balanced_train_segments" / "Y--4gqARaEJE.wav")
    first, second, third = records("audioset", tmp_path)
    assert first == Record(
        id="--4gqARaEJE_0",
        audio=tmp_path / "audios" / "balanced_train_segments" / "Y--4gqARaEJE.wav",
        captions=(),
        source="audioset",
        tags=("Domestic animals, pets", "Dog"),
        group="youtube:--4gqARaEJE",
        link="https://www.youtube.com/watch?v=--4gqARaEJE&t=0s",
        split="train",
        length_s=10.0,
        youtube_id="--4gqARaEJE",
    )
    assert decodable([first])
    assert second.audio == tmp_path / "audio" / "-0RWZT-miFs.wav"  # not there: packing lists it
    assert (third.split, third.length_s, third.group, third.tags) == ("test", 8.5, first.group, ("Speech",))
    assert "1 lines are no segments" in caplog.text
    assert len(records("audioset", tmp_path, parts=("eval",))) == 1


def test_audioset_with_the_ontology(tmp_path: Path) -> None:
    write(tmp_path / "unbalanced_train_segments.csv", SEGMENTS + '---1_cCGK4M, 0.000, 10.000, "/m/01g50p,/m/0284vy3"\n')
    ontology = [
        {"id": "/m/01g50p", "name": "Railroad car, train wagon", "description": "", "child_ids": []},
        {"id": "/m/0284vy3", "name": "Train horn", "description": "", "child_ids": []},
    ]
    write(tmp_path / "ontology.json", json.dumps(ontology))
    assert records("audioset", tmp_path)[0].tags == ("Railroad car, train wagon", "Train horn")
    write(tmp_path / "ontology.json", "[{]")
    with raises_naming(DataError, tmp_path / "ontology.json"):
        records("audioset", tmp_path)


@pytest.mark.parametrize("folder", [".", "dataset"])
def test_audiocaps(tmp_path: Path, folder: str) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    write(
        tmp_path / folder / "train.csv",
        header
        + "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n"
        + "58146,UDGBjjwyaqE,20,Multiple clanging and clanking sounds\n",
    )
    write(
        tmp_path / folder / "test.csv",
        header
        + "103549,7fmOlUlwoNg,20,Constant rattling noise and sharp vibrations\n"
        + "103541,6BJ455B1aAs,0,A rocket flies by\n"
        + "103548,7fmOlUlwoNg,20,A rapid succession of metallic clangs\n",
    )
    put(tmp_path / "audio" / "train" / "r1nicOVtvkQ_130.flac")
    found = records("audiocaps", tmp_path)
    assert [(record.split, record.youtube_id, record.captions) for record in found] == [
        ("train", "r1nicOVtvkQ", ("A woman talks nearby as water pours",)),
        ("train", "UDGBjjwyaqE", ("Multiple clanging and clanking sounds",)),
        (
            "test",
            "7fmOlUlwoNg",
            ("Constant rattling noise and sharp vibrations", "A rapid succession of metallic clangs"),
        ),
        ("test", "6BJ455B1aAs", ("A rocket flies by",)),
    ]
    assert decodable(found[:1])
    assert (found[0].id, found[0].start_s, found[0].group) == ("r1nicOVtvkQ_130", None, "youtube:r1nicOVtvkQ")


def clotho(root: Path, split: str, file: str, user: str, audio: str = "") -> None:
    """One clip of a split; the metadata is in Latin-1, as a few published names are."""
    captions = ",".join(f"caption_{number}" for number in range(1, 6))
    sentences = ",".join(f'"The {user} number {number}, says it ."' for number in range(1, 6))
    write(root / f"clotho_captions_{split}.csv", f"file_name,{captions}\n{file},{sentences}\n")
    write(
        root / f"clotho_metadata_{split}.csv",
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        f'{file},rain;street;people,377736,https://freesound.org/people/x/sounds/377736,"[0, 1098240]",{user},'
        "http://creativecommons.org/licenses/by/3.0/\n",
        "latin-1",
    )
    put(root / audio / split / file)


def test_clotho(tmp_path: Path) -> None:
    clotho(tmp_path, "development", "Rain on the street.wav", "Renée")
    clotho(tmp_path, "validation", " leading space.wav", "val")
    clotho(tmp_path, "evaluation", "eval.wav", "ev")
    found = records("clotho", tmp_path)
    assert [record.split for record in found] == ["train", "valid", "test"]
    assert found[0] == Record(
        id="Rain on the street.wav",
        audio=tmp_path / "development" / "Rain on the street.wav",
        captions=tuple(f"The Renée number {number}, says it ." for number in range(1, 6)),
        source="clotho",
        tags=("rain", "street", "people"),
        group="freesound:Renée",
        title="Rain on the street.wav",
        licence="CC-BY-3.0",
        author="Renée",
        link="https://freesound.org/people/x/sounds/377736",
        split="train",
        length_s=pytest.approx(24.9034, abs=1e-4),
        rate=44_100,
        freesound_id=377736,
    )
    assert decodable(found)


def test_clotho_without_its_metadata(tmp_path: Path) -> None:
    clotho(tmp_path, "evaluation", "eval.wav", "ev")
    (tmp_path / "clotho_metadata_evaluation.csv").unlink()
    with raises_naming(DataError, tmp_path, "clotho_metadata_evaluation.csv", SOURCES["clotho"].page):
        records("clotho", tmp_path)


def test_fsd50k(tmp_path: Path) -> None:
    truth, metadata = tmp_path / "FSD50K.ground_truth", tmp_path / "FSD50K.metadata"
    write(
        truth / "dev.csv",
        "fname,labels,mids,split\n"
        '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n'
        '16399,"Accelerating_and_revving_and_vroom,Vehicle","/m/07q2z82,/m/07yv9",val\n',
    )
    write(truth / "eval.csv", 'fname,labels,mids\n37199,"Electric_guitar,Music","/m/02sgy,/m/04rlf"\n')
    write(truth / "vocabulary.csv", "0,Accelerating_and_revving_and_vroom,/m/07q2z82\n")
    said = {
        "title": "guitar.wav",
        "description": "A guitar.\nPlayed by me.",
        "tags": ["electric", "guitar"],
        "license": "http://creativecommons.org/licenses/sampling+/1.0/",
        "uploader": "casualsamples",
    }
    write(metadata / "dev_clips_info_FSD50K.json", json.dumps({"64760": said, "16399": said | {"uploader": "b"}}))
    write(metadata / "eval_clips_info_FSD50K.json", json.dumps({}))
    for part, name in (("dev", "64760"), ("dev", "16399"), ("eval", "37199")):
        put(tmp_path / f"FSD50K.{part}_audio" / f"{name}.wav")
    found = records("fsd50k", tmp_path)
    assert [record.split for record in found] == ["train", "valid", "test"]
    assert found[0] == Record(
        id="64760",
        audio=tmp_path / "FSD50K.dev_audio" / "64760.wav",
        captions=(),
        source="fsd50k",
        tags=("Electric guitar", "Guitar", "Music"),
        group="freesound:casualsamples",
        title="guitar.wav",
        licence="Sampling+",
        author="casualsamples",
        link="https://freesound.org/s/64760/",
        description="A guitar.\nPlayed by me.",
        split="train",
        rate=44_100,
        freesound_id=64760,
    )
    assert (found[2].group, found[2].licence) == (None, None)
    assert decodable(found)


MACS = """files:
- filename: airport-stockholm-12-488-a.wav
  annotations:
  - annotator_id: 354
    sentence: ball game with the ball bouncing and people running
    tags: [adults_talking]
  - annotator_id: 353
    sentence: some adults are talking
    tags:
    - footsteps
    - adults_talking
- filename: public_square-helsinki-111-3230-a.wav
  annotations: []
"""


@pytest.mark.parametrize("folder", ["audio", "TAU-urban-acoustic-scenes-2019-development/audio"])
def test_macs(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "MACS.yaml", MACS)
    put(tmp_path / folder / "airport-stockholm-12-488-a.wav")
    first, second = records("macs", tmp_path)
    assert first.captions == ("ball game with the ball bouncing and people running", "some adults are talking")
    assert (first.tags, first.label) == (("adults talking", "footsteps"), "airport")
    assert (first.group, second.group) == ("tau2019:stockholm-12", "tau2019:helsinki-111")
    assert (second.captions, second.label) == ((), "public square")
    assert decodable([first])


def test_macs_damaged(tmp_path: Path) -> None:
    write(tmp_path / "MACS.yaml", "files: [")
    (tmp_path / "audio").mkdir()
    with raises_naming(DataError, tmp_path / "MACS.yaml"):
        records("macs", tmp_path)


def test_wavtext5k(tmp_path: Path) -> None:
    site = "https://bigsoundbank.com"
    write(
        tmp_path / "WavText5K.csv",
        "view_link,download_link,title,description,fname,tags\n"
        f"{site}/detail-0740-rain-and-storm-2.html,{site}/UPLOAD/wav/0740.wav,Rain and Storm 2,"
        "Heavy rain and thunderstorms.,0740.wav,\n"
        f'{site}/detail-0124-rain-and-storm.html,{site}/UPLOAD/wav/0124.wav,Rain and Storm 1,,0124.wav,"rain, storm"\n',
    )
    put(tmp_path / "44100" / "audios" / "0124.wav")
    first, second = records("wavtext5k", tmp_path)
    assert (first.captions, first.audio) == (("Heavy rain and thunderstorms.",), f"{site}/UPLOAD/wav/0740.wav")
    assert (second.captions, second.tags) == ((), ("rain", "storm"))
    assert first.group == second.group == "bigsoundbank.com:Rain and Storm"
    assert decodable([second])


@pytest.mark.parametrize("folder", [".", "ESC-50-master"])
def test_esc50(tmp_path: Path, folder: str) -> None:
    write(
        tmp_path / folder / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n",
    )
    put(tmp_path / folder / "audio" / "1-100032-A-0.wav")
    first, second = records("esc50", tmp_path)
    assert first == Record(
        id="1-100032-A-0.wav",
        audio=tmp_path / folder / "audio" / "1-100032-A-0.wav",
        captions=(),
        source="esc50",
        label="dog",
        group="esc50:1",
        licence="CC-BY-3.0",
        link="https://freesound.org/s/100032/",
        length_s=5.0,
        rate=44_100,
        freesound_id=100032,
    )
    assert (second.label, second.licence) == ("chirping birds", "CC-BY-NC-3.0")
    assert decodable([first])


def test_urbansound8k(tmp_path: Path) -> None:
    write(
        tmp_path / "metadata" / "UrbanSound8K.csv",
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing\n",
    )
    put(tmp_path / "audio" / "fold5" / "100032-3-0-0.wav")
    first, second = records("urbansound8k", tmp_path)
    assert (first.label, first.group, first.freesound_id) == ("dog bark", "urbansound8k:5", 100032)
    assert (second.start_s, second.length_s) == (None, 4.0)  # the file is the slice
    assert decodable([first])


def test_vggsound(tmp_path: Path) -> None:
    write(
        tmp_path / "vggsound.csv",
        '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"waterfall, burbling",train\n',
    )
    put(tmp_path / "clips" / "--0PQM4-hqg_000030.flac")
    (tmp_path / "clips" / "---g-f_I2yQ_000001.mp4").write_bytes(b"a video")
    first, second = records("vggsound", tmp_path)
    assert (first.label, first.split, first.youtube_id, first.length_s) == (
        "people marching",
        "test",
        "---g-f_I2yQ",
        10,
    )
    assert first.audio == tmp_path / "clips" / "---g-f_I2yQ_000001.mp4"
    assert (second.label, second.split, second.id) == ("waterfall, burbling", "train", "--0PQM4-hqg_30")
    assert decodable([second])


@pytest.mark.parametrize("folder", ["genres", "genres_original", "Data/genres_original"])
def test_gtzan(tmp_path: Path, folder: str) -> None:
    for name in ("blues.00000.wav", "blues.00001.wav", "metal.00000.au"):
        put(tmp_path / folder / name.split(".", maxsplit=1)[0] / name)
    assert {record.split for record in records("gtzan", tmp_path)} == {None}
    write(tmp_path / "train_filtered.txt", "blues/blues.00001.wav\n")
    write(tmp_path / "test_filtered.txt", "metal/metal.00000.wav\n")
    found = records("gtzan", tmp_path)
    assert [(record.label, record.split) for record in found] == [
        ("blues", None),
        ("blues", "train"),
        ("metal", "test"),
    ]
    assert decodable(found)
