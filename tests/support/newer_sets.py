"""Data sets since LAION-Audio-630K in miniature: their published layouts and oddities, with pieces of bundled sounds.

Each function writes one set. The bundled sounds last half a second in `put`; rows without a file are there on purpose.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from support.layouts import put
from support.miniatures import table

DASH, WITH_Y, PLAIN, UNDERSCORE = "-0RWZT-miFs", "Yabcdefghij", "r1nicOVtvkQ", "abc_defgh_1"
"""Videos: an id that begins with "-", one that begins with its own Y, a plain one, one with "_" before a digit."""
EVALUATION = "evalClip-_9"
"""A video of evaluation sets."""


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def wavcaps(root: Path) -> None:
    """All four parts. Oddities: ids that end in .wav beside .flac files; one number in two parts; a missing file; a
    file without an entry; no duration; an id twice with different captions; entries of the blacklists."""
    names = [f"Y{DASH}", f"Y{WITH_Y}", f"Y{EVALUATION}", f"Y{PLAIN}"]
    entries = [
        {"id": f"{name}.wav", "caption": f"A sound is heard {number}.", "audio": "wav", "duration": 10.0}
        for number, name in enumerate(names)
    ]
    wavcaps_part(root, "AudioSet_SL", "as_final.json", entries)
    for number, name in enumerate(names):
        put(root / "AudioSet_SL" / f"{name}.flac", number)
    bbc = {"id": "NHU05093142", "caption": "Cattle graze.", "description": "Cattle - grazing.", "audio": "wav"}
    wavcaps_part(root, "BBC_Sound_Effects", "bbc_final.json", [bbc | {"duration": 12.5, "download_link": "https://x"}])
    put(root / "BBC_Sound_Effects_flac" / "NHU05093142.flac", 4)
    freesound: list[dict[str, Any]] = [
        {"id": "2219", "caption": "Rain falls.", "author": "ada", "tags": ["rain", "roof"], "file_name": "Rain.wav"},
        {"id": "2219", "caption": "Rain falls on a roof.", "author": "ada", "tags": [], "duration": 8.5},
        {"id": "777", "caption": "A dog barks.", "author": "ben", "duration": 2.0, "tags": []},
        {"id": "404", "caption": "A file is missing.", "author": "ben", "duration": None, "tags": []},
        {"id": "", "caption": "An entry without a name.", "duration": 1.0},
    ]
    wavcaps_part(root, "FreeSound", "fsd_final.json", freesound)
    for number, name in enumerate(("2219", "777")):
        put(root / "FreeSound" / f"{name}.flac", 5 + number)
    wavcaps_part(
        root,
        "SoundBible",
        "sb_final.json",
        [
            {
                "id": "2219",
                "title": "Bell",
                "caption": "A bell rings.",
                "href": "https://soundbible.com/2219",
                "author": "c",
            }
        ],
    )
    put(root / "SoundBible" / "2219.flac", 7)
    put(root / "SoundBible" / "1232.flac", 8)  # more files than entries, as published
    lists = {"AudioSet": [f"Y{EVALUATION}.wav"], "FreeSound": ["777"]}
    write_json(root / "json_files" / "blacklist" / "blacklist_exclude_test_ac.json", lists)
    all_ac = {"AudioSet": [f"Y{PLAIN}.wav"], "FreeSound": ["2219"]}
    write_json(root / "json_files" / "blacklist" / "blacklist_exclude_all_ac.json", all_ac)


def wavcaps_part(root: Path, folder: str, file: str, entries: list[dict[str, Any]]) -> None:
    write_json(root / "json_files" / folder / file, {"num_captions_per_audio": 1, "data": entries})


def audiosetcaps(root: Path) -> None:
    """All three tables. Oddities: ids with Y and without, with times; one clip twice; an id that is none; evaluation
    clips of AudioSet and VGGSound."""
    head = ["id", "caption"]
    names = [f"Y{DASH}", f"Y{WITH_Y}", f"Y{EVALUATION}"]
    rows = [(name, f"Models hear a sound, {number}.") for number, name in enumerate(names)]
    rows += [(f"Y{DASH}", "Models hear wind."), ("#NAME?", "A spreadsheet was here.")]
    table(root / "Dataset" / "AudioSetCaps_caption.csv", head, rows)
    vggsound = [(f"{WITH_Y}_000030", "A dog, says a model."), (f"{EVALUATION}_000883", "A bell, says a model.")]
    table(root / "Dataset" / "VGGSound_AudioSetCaps_caption.csv", head, vggsound)
    youtube8m = [(f"{UNDERSCORE}_30_10", "Water runs, says a model."), (f"{PLAIN}_120_10", "No file, says a model.")]
    table(root / "Dataset" / "YouTube-8M_AudioSetCaps_caption.csv", head, youtube8m)
    files = [*names, f"{WITH_Y}_000030", f"{EVALUATION}_000883", f"{UNDERSCORE}_30_10"]
    for number, name in enumerate(files):
        put(root / "clips" / f"{name}.flac", 10 + number)


def auto_acd(root: Path) -> None:
    """Both tables. Oddities: ids with times and without."""
    head = ["youtube_id", "caption"]
    rows = [(DASH, "Wind blows in a field."), (f"{WITH_Y}_30_40", "A dog barks in a yard.")]
    table(root / "train.csv", head, rows)
    table(root / "test.csv", head, [(f"{EVALUATION}_000883", "A bell rings in a church.")])
    for number, name in enumerate((f"Y{DASH}", f"{WITH_Y}_30_40", f"{EVALUATION}_000883")):
        put(root / "audio" / f"{name}.wav", 20 + number)


def tacos(root: Path, weak: str = "text") -> None:
    """All tables. Oddities: segments that cannot be; a file in both splits; one without metadata; the older column."""
    names = ["123_rain.mp3", "124_dog.mp3", "125_bell.mp3", "126_both.mp3", "127_lost.mp3"]
    files = [name.replace(".mp3", ".flac") for name in names]
    for number, name in enumerate(files):
        put(root / "audio" / name, 31 + number)
    strong = [
        (names[0], "rain falls", 0.0, 0.25),
        (names[0], "rain falls", 0.3, 0.45),
        (names[0], "a drop", 0.4, 0.1),
        (names[1], "a dog barks", -0.5, 0.2),
        (names[1], "a dog barks", 0.1, 0.2),
        (names[2], "a bell rings", 0.2, 30.0),
        (names[2], "a bell", "soon", 0.4),
    ]
    table(root / "annotations_strong.csv", ["filename", "text", "onset", "offset"], strong)
    said = [(name, f"The clip holds sound number {number}.") for number, name in enumerate(names)]
    table(root / "annotations_weak.csv", ["filename", weak], said)
    table(root / "development_split.csv", ["filename"], [(names[0],), (names[1],), (names[3],), (names[4],)])
    table(root / "test_split.csv", ["filename"], [(names[2],), (names[3],)])
    head = ["filename", "keywords", "freesound_id", "sound_link", "manufacturer", "license", "superclass", "subclass"]
    head += [
        "title",
        "description",
        "duration",
        "original_samplerate",
        "start_time_s",
        "end_time_s",
        "original_filename",
    ]
    licences = ["http://creativecommons.org/publicdomain/zero/1.0/", "https://creativecommons.org/licenses/by/4.0/"]
    licences += ["http://creativecommons.org/licenses/by-nc/3.0/", "http://creativecommons.org/licenses/sampling+/1.0/"]
    rest = ("Weather", "Rain", "A title", "Recorded outside.", 60.0, 44100, 0.0, 0.5, "original.wav")
    rows = [
        (name, "rain;roof", 123 + n, f"https://freesound.org/s/{123 + n}", f"user{n}", licences[n], *rest)
        for n, name in enumerate(names[:4])
    ]
    table(root / "metadata.csv", head, rows)


def audiocaps2(root: Path) -> None:
    """Oddities: ids with Y and with "-", a file named by its caption's number, a numeric id, an empty beginning."""
    head = ["audiocap_id", "youtube_id", "start_time", "caption"]
    train = [
        (1, f"Y{DASH}", 30, "Wind blows"),
        (2, WITH_Y, 30, "A dog barks"),
        (3, "91139", 0, "A number is no id"),
        (4, PLAIN, "", "A person talks"),
    ]
    table(root / "dataset2.0" / "train.csv", head, train)
    test = [(10 + number, EVALUATION, 120, f"A bell rings, said {number}") for number in range(5)]
    table(root / "dataset2.0" / "test.csv", head, test)
    for number, name in enumerate((f"{DASH}_30", "2", PLAIN, f"Y{EVALUATION}")):
        put(root / "audio" / f"{name}.wav", 40 + number)


def finelap(root: Path) -> None:
    """Oddities: paths of another machine, a line that was cut off, segments that cannot be, an id twice."""
    rows = [
        {
            "audio_id": f"Y{DASH}.wav",
            "audio_path": f"/home/someone/AudioSet/Y{DASH}.wav",
            "caption": "Wind blows and a bird sings.",
            "phrases": [
                {"phrase": "wind blows", "segments": [[0.0, 0.3]]},
                {"phrase": "a bird sings", "segments": [[0.2, 0.1], [0.3, 0.4], [9.0, 10.0]]},
            ],
        },
        {
            "audio_id": "777.flac",
            "audio_path": "WavCaps/FreeSound/777.flac",
            "caption": "A dog barks.",
            "phrases": [{"phrase": "a dog barks", "segments": [[0.1, 0.2]]}],
        },
        {
            "audio_id": "777.flac",
            "audio_path": "WavCaps/FreeSound/777.flac",
            "caption": "A dog barks twice.",
            "phrases": [{"phrase": "a dog barks", "segments": [[0.3, 0.4]]}],
        },
    ]
    lines = [json.dumps(row) for row in rows]
    root.mkdir(parents=True, exist_ok=True)
    (root / "train.jsonl").write_text("\n".join([*lines, lines[0][:60]]), encoding="utf-8")
    put(root / "audio" / f"Y{DASH}.wav", 50)
    put(root / "audio" / "777.flac", 51)


def webdataset(root: Path) -> None:
    """A tar whose samples have their captions under one key each."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "000000.tar", "w") as tar:
        for number, said in enumerate(
            ({"caption": "Rain falls."}, {"captions": ["A dog.", "A big dog."]}, {"text": "A bell."})
        ):
            sound = put(root.parent / "pieces" / f"{number}.flac", 60 + number).read_bytes()
            for suffix, content in (("flac", sound), ("json", json.dumps(said).encode())):
                member = tarfile.TarInfo(f"clip{number}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


NEWER_SETS = {
    "wavcaps": wavcaps,
    "audiosetcaps": audiosetcaps,
    "auto_acd": auto_acd,
    "tacos": tacos,
    "audiocaps2": audiocaps2,
    "finelap": finelap,
    "shards": webdataset,
}
