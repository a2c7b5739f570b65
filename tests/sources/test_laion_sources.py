"""The eight sources of LAION-Audio-630K, each as a miniature of its published layout."""

from __future__ import annotations

import time
from pathlib import Path

import polars
import pytest

from openclap.errors import DataError
from openclap.sources import SOURCES, Record
from support.errors import raises_naming
from support.layouts import decodable, put, records, write

# The rows are those that the data card of the set shows.
FREESOUND = {
    "id": [282776, 158824],
    "title": ["DSI Tetra - Sample and Hold Me - B4 (Sample & Hold Me-71-127.wav)", "futuresoundfx-795.mp3"],
    "tags:": ["multisample,single-note,synthesizer,DSI-Tetra,midi-note-71,B4", "space,,fx,"],
    "description": ["Single note sampled from an analog synthesizer by Modular Samples.<br>More.", None],
    "username": ["modularsamples", "stoltingmediagroup"],
    "download_url": [
        "https://freesound.org/apiv2/sounds/282776/download/",
        "https://freesound.org/apiv2/sounds/158824/download/",
    ],
}


def test_freesound_metadata_as_published(tmp_path: Path) -> None:
    polars.DataFrame(FREESOUND).write_parquet(tmp_path / "freesound_parquet.parquet")
    first, second = records("freesound", tmp_path)
    assert first == Record(
        id="282776",
        audio="https://freesound.org/apiv2/sounds/282776/download/",
        captions=(),
        source="freesound",
        tags=("multisample", "single-note", "synthesizer", "DSI-Tetra", "midi-note-71", "B4"),
        group="freesound:modularsamples",
        title="DSI Tetra - Sample and Hold Me - B4 (Sample & Hold Me-71-127.wav)",
        author="modularsamples",
        link="https://freesound.org/s/282776/",
        description="Single note sampled from an analog synthesizer by Modular Samples.<br>More.",
        freesound_id=282776,
    )
    assert (second.tags, second.description, second.licence) == (("space", "fx"), None, None)


@pytest.mark.parametrize("column", ["license", "licence"])
def test_freesound_with_licences_and_sounds(tmp_path: Path, column: str) -> None:
    licences = ["http://creativecommons.org/licenses/by/3.0/", "Creative Commons 0"]
    polars.DataFrame(FREESOUND | {column: licences}).write_parquet(tmp_path / "f.parquet")
    put(tmp_path / "audio" / "282776__modularsamples__b4.wav")
    put(tmp_path / "audio" / "158824.flac")
    found = records("freesound", tmp_path)
    assert [record.licence for record in found] == ["CC-BY-3.0", "CC0-1.0"]
    assert [Path(record.audio).name for record in found] == ["282776__modularsamples__b4.wav", "158824.flac"]
    assert decodable(found)
    assert [record.id for record in records("freesound", tmp_path / "f.parquet")] == ["282776", "158824"]


def test_half_a_million_rows_take_seconds(tmp_path: Path) -> None:
    """On one core of a small machine it is 100,000 rows a second and more; a tenth of that must do anywhere."""
    rows = 50_000
    polars.DataFrame(
        {
            "id": range(rows),
            "title": [f"door creak {number}.wav" for number in range(rows)],
            "tags:": ["door,creak,wood,house,old"] * rows,
            "description": ["An old door creaks. Recorded with a small recorder in a quiet house."] * rows,
            "username": [f"user{number % 977}" for number in range(rows)],
            "download_url": [f"https://freesound.org/apiv2/sounds/{number}/download/" for number in range(rows)],
            "license": ["https://creativecommons.org/licenses/by/4.0/"] * rows,
        }
    ).write_parquet(tmp_path / "f.parquet")
    begin = time.process_time()
    count = sum(1 for _ in SOURCES["freesound"].read(tmp_path))
    assert count == rows
    assert count / (time.process_time() - begin) > 10_000


def test_reading_is_lazy(tmp_path: Path) -> None:
    polars.DataFrame(FREESOUND).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really")
    found = SOURCES["freesound"].read(tmp_path)
    assert [next(found).id, next(found).id] == ["282776", "158824"]
    with raises_naming(DataError, tmp_path / "b.parquet"):
        next(found)


EPIDEMIC = {
    "title": ["Wrestling Crowd 5", "Wrestling Crowd 6"],
    "id": [130586, 130587],
    "added": ["2021-03-29T11:17:05"] * 2,
    "length": [30.0, 12.5],
    "bpm": [0.0] * 2,
    "isSfx": [1.0] * 2,
    "hasVocals": [0.0] * 2,
    "energyLevel": ["medium"] * 2,
    "genres": ["applause"] * 2,
    "url": [f"https://dkihjuum4jcjr.cloudfront.net/ES_ITUNES/ES_Wrestling%20Crowd%20{take}.mp3" for take in (5, 6)],
    "metadataTags": [["wrestling crowd", "mezzanine level", "huge crowd", "p.a.", "loop"], []],
}


def test_epidemic_one_file_per_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    polars.DataFrame(EPIDEMIC).write_parquet(tmp_path / "Crowds.parquet")
    polars.DataFrame(EPIDEMIC | {"id": [1.0, 2.0]}).write_parquet(tmp_path / "Stadiums.parquet")
    (tmp_path / "Damaged.parquet").write_bytes(b"PAR1 not really")
    put(tmp_path / "audio" / "130587.flac")
    found = records("epidemic_sound_effects", tmp_path)
    assert [record.label for record in found] == ["Crowds", "Crowds", "Stadiums", "Stadiums"]
    assert "Damaged.parquet" in caplog.text
    first, second = found[:2]
    assert (first.id, first.title, first.length_s) == ("130586", "Wrestling Crowd 5", 30.0)
    assert first.audio == EPIDEMIC["url"][0]
    assert first.tags == ("wrestling crowd", "mezzanine level", "huge crowd", "p.a.", "loop")
    assert first.group == second.group == "epidemic:Crowds/Wrestling Crowd"
    assert first.licence == "LicenseRef-Epidemic-Sound"
    assert second.audio == tmp_path / "audio" / "130587.flac"
    assert found[2].id == "1"


def test_bbc_table_of_the_archive(tmp_path: Path) -> None:
    write(
        tmp_path / "BBCSoundEffects.csv",
        '"location","description","secs","category","CDNumber","CDName","tracknum"\n'
        '"07076051.wav","Two-stroke petrol engine driving small elevator, start, run, stop.","194",'
        '"Engines: Petrol","EC117D","Diesel & Petrol Engines","4"\n'
        '"07076014.wav","Creed tape-printing telegraph operating. (c.1928-1952)","119","","EC45N","Post Office","6"\n',
    )
    put(tmp_path / "sounds" / "Post Office" / "Creed tape-printing telegraph operating. (c.1928-1952).07076014.wav")
    first, second = records("bbc_sound_effects", tmp_path)
    assert first == Record(
        id="07076051",
        audio="https://sound-effects-media.bbcrewind.co.uk/wav/07076051.wav",
        captions=(),
        source="bbc_sound_effects",
        tags=("Engines", "Petrol"),
        label="Engines: Petrol",
        group="bbc:EC117D",
        title="Two-stroke petrol engine driving small elevator, start, run, stop.",
        licence="LicenseRef-BBC-RemArc",
        author="BBC",
        link="https://sound-effects.bbcrewind.co.uk/search?q=07076051",
        length_s=194.0,
    )
    assert (second.label, second.tags, second.group) == (None, (), "bbc:EC45N")
    assert decodable([second])


def test_audiostock_table(tmp_path: Path) -> None:
    write(
        tmp_path / "audiostock_meta.csv",
        ",title,impression,scene,purpose,tags,audio_url,audio_size\n"
        '0,1150592 Bubble 02,Horror,,Video,"foam,Bubble sound,dangerous",https://audiostock.net/audio/1150592/play,2.0\n'
        '1,"1150593 Bubble\n03",Horror,,Video,,https://audiostock.net/audio/1150593/play,2.0\n'
        "2,no address,,,,,,\n",
    )
    put(tmp_path / "audio" / "1150593.mp3")
    first, second = records("audiostock", tmp_path)
    assert (first.id, first.title) == ("1150592", "1150592 Bubble 02")
    assert first.audio == "https://audiostock.net/audio/1150592/play"
    assert first.tags == ("foam", "Bubble sound", "dangerous")
    assert first.group == second.group == "audiostock:Bubble"
    assert decodable([second])


@pytest.mark.parametrize("name", ["free_to_use_sounds", "sonniss_game_effects", "paramount_motion", "we_sound_effects"])
def test_commercial_libraries(tmp_path: Path, name: str) -> None:
    put(tmp_path / "Ada Sound - Doors Vol. 2" / "Old doors" / "DoorCreak-01_take2.wav")
    put(tmp_path / "Ada Sound - Doors Vol. 2" / "Old doors" / "Door slam.WAV")
    put(tmp_path / "Rain on roof 1.wav")
    put(tmp_path / "Rain on roof 2.wav")
    put(tmp_path / "__MACOSX" / "Rain on roof 1.wav")
    put(tmp_path / "._Rain on roof 1.wav")
    write(tmp_path / "Licence.txt", "Thank you.")
    found = records(name, tmp_path)
    assert [record.title for record in found] == [
        "Rain on roof 1.wav",
        "Rain on roof 2.wav",
        "Door slam.WAV",
        "DoorCreak-01_take2.wav",
    ]
    groups = [record.group for record in found]
    assert groups == [f"{name}:Rain on roof"] * 2 + [f"{name}:Ada Sound - Doors Vol. 2/Old doors"] * 2
    assert {record.licence for record in found} == {SOURCES[name].licence}
    assert found[-1].author == (
        "Ada Sound" if name == "sonniss_game_effects" else SOURCES[name].title.replace("Motion Sound Effects", "Motion")
    )
    assert found[-1].id == "Ada Sound - Doors Vol. 2/Old doors/DoorCreak-01_take2.wav"
    assert decodable(found)
