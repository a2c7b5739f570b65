"""Pairs of the bundled model, from packages made here in exactly the formats of the real ones."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from numpy.typing import NDArray
from scripts.build_demo_sounds import Package
from scripts.mini import build_pairs, packages
from scripts.mini.clonk_group import read_group
from scripts.mini.data_card import clip_list, package_table
from scripts.mini.groups import merge_groups
from scripts.mini.packages import SOUNDFONT, TRANSCRIPTS, SoundPackage
from scripts.mini.render import INSTALL_TINYSOUNDFONT, scores
from scripts.mini.words import SHIPPED, read_transcripts, rows_of, terms_of, words_of

from openclap.data.config import DataConfig
from openclap.data.filters import place
from openclap.demo.run import SPLIT_SEED, SPLITS, TABLE
from openclap.sources.table import read_table

RATE = 16_000


def noise(seed: int, seconds: float = 1.0) -> NDArray[np.float32]:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE)).astype(np.float32)


def encoded(wave_N: NDArray[np.float32], form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave_N, RATE, format=form)
    return file.getvalue()


# ---- formats


def group_of(files: Mapping[str, bytes | dict[str, bytes]]) -> bytes:
    """A group as OpenClonk writes it, before compression: scrambled header, entries, contents. Dicts are groups."""
    contents = {name: group_of(content) if isinstance(content, dict) else content for name, content in files.items()}
    header = bytearray(204)
    header[:24] = b"RedWolf Design GrpFolder"
    struct.pack_into("<3i", header, 28, 1, 2, len(files))
    for start in range(0, len(header) - 2, 3):
        header[start], header[start + 2] = header[start + 2], header[start]
    entries, offset = b"", 0
    for name, content in contents.items():
        facts = struct.pack("<5i", 1, isinstance(files[name], dict), len(content), 0, offset)
        entries += (name.encode().ljust(260, b"\0") + facts).ljust(316, b"\0")
        offset += len(content)
    return bytes(byte ^ 237 for byte in header) + entries + b"".join(contents.values())


def packed_group(files: Mapping[str, bytes | dict[str, bytes]]) -> bytes:
    return b"\x1e\x8c" + gzip.compress(group_of(files))[2:]


def test_groups_of_openclonk_are_read_with_the_groups_inside() -> None:
    inner = {"Chirp.wav": b"chirp", "empty.txt": b""}
    packed = packed_group({"authors.txt": b"If not stated otherwise", "Bat.ocg": inner, "Tick.ogg": b"tick"})
    assert list(read_group(packed)) == [
        ("authors.txt", b"If not stated otherwise"),
        ("Bat.ocg/Chirp.wav", b"chirp"),
        ("Bat.ocg/empty.txt", b""),
        ("Tick.ogg", b"tick"),
    ]


@pytest.mark.parametrize(
    "damage", [b"RIFF....", b"\x1e\x8c\x08\x00nonsense", b"\x1e\x8c" + gzip.compress(b"x" * 300, mtime=0)[2:]]
)
def test_damaged_groups_are_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match="group"):
        list(read_group(damage))


def test_transcripts_leave_out_tones() -> None:
    text = "; Core Sounds\n\nactivated: Activated.\ndigits/1: one\nbeep: [this is a simple beep tone]\n"
    assert read_transcripts(text) == {"activated": "Activated.", "digits/1": "one"}


# ---- words and licences


def test_captions_are_phrases_and_every_row_has_a_package_and_terms() -> None:
    known = {row["source"] for row in rows_of("packages.csv")}
    for row in rows_of("captions.csv"):
        assert row["source"] in known and row["files"] and row["label"], row
        for caption in row["captions"].split(" | "):
            plain = re.sub(r"\{(parent|last|strum|transcript)\}", "x", caption)
            assert re.fullmatch(r"[a-zA-Z][A-Za-z0-9\"', -]*", plain) and not plain.endswith((" ", ",")), row
    defaults = {row["source"] for row in rows_of("licences.csv") if row["files"] == "*"}
    assert known - {TRANSCRIPTS} <= defaults
    for row in rows_of("licences.csv"):
        assert row["author"] and row["link"].startswith("http"), row


def test_only_cc0_by_and_mit_may_be_shipped() -> None:
    verdicts = {
        name: SHIPPED.fullmatch(name) is not None for name in {row["licence"] for row in rows_of("licences.csv")}
    }
    assert {name for name, shipped in verdicts.items() if shipped} == {"CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "MIT"}
    for refused in ("CC-BY-SA-3.0", "GPL-2.0", "unclear", "public-domain", "CC0-1.0, of sounds by others"):
        assert not verdicts[refused]


@pytest.mark.parametrize(
    ("source", "key", "captions", "licence"),
    [
        (
            "openclonk-data",
            "Sound.ocg/Animals.ocg/MosquitoBuzz.ogg",
            ("a mosquito buzzing", "the whine of a mosquito close to the ear"),
            "CC0-1.0",
        ),
        ("openclonk-data", "Sound.ocg/Fire.ocg/Fire.ogg", ("a fire crackling", "burning wood crackles"), "CC-BY-3.0"),
        ("openclonk-data", "Parkour.ocf/Boomshire.ocs/Toot.ogg", ("a horn toots", "a short toot of a horn"), "unclear"),
        (
            "minetest-data",
            "games/minetest_game/mods/default/sounds/default_grass_footstep.1.ogg",
            ("footsteps on grass", "a step through grass"),
            "CC-BY-SA-3.0",
        ),
        (
            "hydrogen-drumkits-effects",
            "Csharp minor7b5_DOWN_02.flac",
            (
                "a down strum of a C sharp half-diminished chord on an acoustic guitar",
                "a strummed chord on an acoustic guitar",
            ),
            "CC-BY-3.0",
        ),
        (
            "hydrogen-drumkits-effects",
            "Amajor_00.flac",
            ("a strum of an A major chord on an acoustic guitar", "a strummed chord on an acoustic guitar"),
            "CC-BY-3.0",
        ),
        ("ktuberling-data", "en/egypt_camel.ogg", ('a voice says "camel"', "a person names a thing"), "GPL-2.0"),
        (
            "asterisk-core-sounds-en-wav",
            "digits/1.wav",
            ('a woman\'s voice says "one"', "a woman speaking on the telephone"),
            "CC-BY-SA-3.0",
        ),
    ],
)
def test_files_get_their_words_and_terms(source: str, key: str, captions: tuple[str, ...], licence: str) -> None:
    words = words_of(f"debian:{source}", key, {"digits/1": "one"})
    assert words is not None and words.captions == captions
    assert terms_of(f"debian:{source}", key).licence == licence


def test_sounds_without_words_are_left_out() -> None:
    assert words_of("debian:colobot-common-sounds", "sound001.wav", {}) is None
    assert words_of("debian:asterisk-core-sounds-en-wav", "beep.wav", {}) is None
    assert words_of("debian:simutrans-pak64", "unknown.wav", {}) is None


def test_takes_and_voices_are_one_group() -> None:
    def group(key: str) -> str:
        words = words_of("debian:openclonk-data", f"Sound.ocg/{key}", {})
        assert words is not None
        return words.group

    assert group("Animals.ocg/Bat.ocg/Flutter1.wav") == group("Animals.ocg/Bat.ocg/Flutter2.wav")
    adventurer = "Clonk.ocg/Skin.ocg/Adventurer.ocg"
    assert group(f"{adventurer}/Hurt1.wav") == group(f"{adventurer}/Laughter3.wav")
    assert group(f"{adventurer}/Hurt1.wav") != group("Clonk.ocg/Skin.ocg/Steampunk.ocg/Hurt1.wav")


def test_scores_are_distinct_and_their_captions_read_well() -> None:
    everything = list(scores())
    assert len({key for _, _, key, _, _ in everything}) == len(everything) > 1500
    for _, _, key, phrase, words in everything:
        assert phrase.notes and min(note.start_s for note in phrase.notes) == 0.0, key
        assert all(0 <= note.key < 128 and note.length_s > 0 for note in phrase.notes), key
        assert not re.search(r"\ba (?:a|e|i|o|808)|\ban [^aeio8A-Z]|,,|  ", " ".join(words.captions)), words
    captions = {words.captions[0] for *_, words in everything}
    assert "a rising scale on a cello" in captions and "a soft, low note on a violin" in captions
    assert "a hit on an 808 hand clap" in captions and "a bird chirping" in captions


# ---- from packages to pairs


def made_package(folder: Path, source: str, root: str, files: Mapping[str, bytes]) -> SoundPackage:
    """Build a Debian package that holds `files` under `root`."""
    name = source.removeprefix("debian:")
    tree = folder / f"{name}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: made\n"
    )
    for key, content in files.items():
        path = tree / root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive = f"{name}_1_all.deb"
    (folder / "packages").mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--build", tree, folder / "packages" / archive], check=True, capture_output=True)
    digest = hashlib.sha256((folder / "packages" / archive).read_bytes()).hexdigest()
    return SoundPackage(source, "false", archive, digest, root)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four made packages in place of the real ones; the folder with their archives is `packages`."""
    horse = noise(1)
    clonk = packed_group(
        {
            "authors.txt": b"",
            "Environment.ocg": {"BirdsLoop.ogg": encoded(noise(2), "OGG")},
            "Liquids.ocg": {
                "Splash1.wav": encoded(noise(3)),
                "Splash2.wav": encoded(noise(3)),
                "Other.wav": encoded(noise(9)),
            },
        }
    )
    simutrans = {
        "horse.wav": encoded(horse),
        "bus.wav": encoded(np.zeros(RATE, np.float32)),
        "truck.wav": b"RIFF damaged",
        "click.wav": encoded(noise(4, 0.01)),
        "forest.wav": encoded(noise(5, 31.0)),
        "unknown.wav": encoded(noise(6)),
        "readme.txt": b"no sound",
    }
    packages_made = [
        made_package(tmp_path, "debian:simutrans-pak64", "usr/share/games/simutrans/pak/sound", simutrans),
        made_package(tmp_path, "debian:openclonk-data", "usr/share/games/openclonk", {"Sound.ocg": clonk}),
        made_package(
            tmp_path,
            "debian:asterisk-core-sounds-en-wav",
            "sounds",
            {"activated.wav": encoded(noise(7)), "beep.wav": encoded(noise(8))},
        ),
        made_package(
            tmp_path,
            TRANSCRIPTS,
            "usr/share/doc",
            {"core-sounds-en.txt.gz": gzip.compress(b"activated: Activated.\nbeep: [a tone]\n")},
        ),
        # A cut copy of the horse, more quietly, in another package.
        made_package(
            tmp_path, "debian:lincity-ng-data", "sounds", {"DirtTrack1.wav": encoded(0.5 * horse[2000:-2000])}
        ),
    ]
    monkeypatch.setattr(build_pairs, "debian_packages", lambda: {package.source: package for package in packages_made})
    monkeypatch.setattr(build_pairs, "DEMO", {})
    return tmp_path


def test_packages_become_sounds_and_a_table(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = build_pairs.build(made / "packages", made / "out", rendering=False)
    rows = {row["key"]: row for row in table.to_dicts()}
    assert set(rows) == {
        "horse.wav",
        "forest.wav",
        "DirtTrack1.wav",
        "activated.wav",
        "Sound.ocg/Environment.ocg/BirdsLoop.ogg",
        "Sound.ocg/Liquids.ocg/Splash1.wav",
    }
    reported = capsys.readouterr().out
    for key, reason in {"bus.wav": "silent", "click.wav": "shorter", "Splash2.wav": "same samples"}.items():
        assert re.search(rf"left out \S+ \S*{key}: .*{reason}", reported), reported
    assert "truck.wav" in reported
    for row in rows.values():
        wave_N, rate = soundfile.read(row["path"])
        assert rate == RATE and wave_N.ndim == 1 and soundfile.info(row["path"]).subtype == "PCM_16"
    assert soundfile.info(rows["forest.wav"]["path"]).duration == 30.0
    np.testing.assert_allclose(soundfile.read(rows["horse.wav"]["path"])[0], noise(1), atol=1e-4)
    birds = rows["Sound.ocg/Environment.ocg/BirdsLoop.ogg"]
    assert (birds["caption"], birds["licence"], birds["attribution"], birds["ship"]) == (
        "birds singing outdoors",
        "CC-BY-3.0",
        "dobroide",
        True,
    )
    assert rows["activated.wav"]["caption"] == 'a woman\'s voice says "Activated."'
    assert not rows["horse.wav"]["ship"] and rows["horse.wav"]["licence"] == "Artistic-1.0"
    assert rows["horse.wav"]["group"] == rows["DirtTrack1.wav"]["group"], "a copy in another package"
    assert rows["horse.wav"]["group"] != rows["forest.wav"]["group"]
    with (made / "out" / "pairs.csv").open(encoding="utf-8", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == [row["key"] for row in table.to_dicts()]


def test_the_same_packages_give_the_same_bytes(made: Path) -> None:
    def content() -> dict[str, bytes]:
        build_pairs.build(made / "packages", made / "out", rendering=False)
        return {str(path): path.read_bytes() for path in (made / "out").rglob("*.*")}

    assert content() == content()


def test_an_archive_with_another_digest_is_refused(made: Path) -> None:
    (made / "packages" / "simutrans-pak64_1_all.deb").write_bytes(b"changed")
    with pytest.raises(SystemExit, match="SHA-256"):
        build_pairs.build(made / "packages", made / "out", rendering=False)


# ---- groups, and the demo's test split


def pair(path: Path, wave_N: NDArray[np.float32], group: str, source: str = "https://example.org/") -> dict[str, str]:
    soundfile.write(path, wave_N, RATE)
    return {"path": str(path), "group": group, "source": source, "caption_from": "name"}


def test_the_missing_renderer_is_named_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["build_pairs", "--out", str(tmp_path / "out"), "--packages", str(tmp_path / "in")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="tinysoundfont"):
        build_pairs.main()
    assert not list(tmp_path.iterdir())
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert INSTALL_TINYSOUNDFONT.removeprefix("pip install ") in makefile


def test_copies_of_a_held_out_recording_are_held_out_in_every_package(tmp_path: Path) -> None:
    table = pl.DataFrame(
        [
            pair(tmp_path / "demo.wav", noise(1), "demo a"),
            pair(tmp_path / "resampled.flac", 0.2 * noise(1)[3000:], "other b"),
            pair(tmp_path / "take.wav", noise(2), "other b"),
            pair(tmp_path / "other.wav", noise(3), "other c"),
            pair(tmp_path / "original.wav", noise(4), "other d", "https://freesound.org/people/x/sounds/12/"),
            pair(tmp_path / "demo2.wav", noise(5), "demo e", "https://www.freesound.org/people/x/sounds/12/"),
        ]
    )
    merged = merge_groups(table, {"demo a", "demo e"})
    assert merged["demo_held_out"].to_list() == [True, True, True, False, True, True]
    assert merged["group"].n_unique() == 3


def test_the_demos_test_groups_are_those_that_the_demo_packs() -> None:
    records = read_table(TABLE)
    facts = pl.DataFrame(
        {"n": range(len(records)), "group": [record.group for record in records]}
        | {name: [getattr(record, name) for record in records] for name in ("source", "id")},
    ).with_columns(split=pl.lit(None, pl.String), audio=pl.col("id"))
    placed = facts.join(place(facts, DataConfig(splits=SPLITS, seed=SPLIT_SEED)), on="n")
    packed = {name: set(placed.filter(pl.col("shards") == name)["group"]) for name in ("train", "test")}
    assert build_pairs.demo_test_groups() == packed["test"] and packed["test"].isdisjoint(packed["train"])


def test_pinned_packages_are_those_that_may_be_used() -> None:
    for row in rows_of("packages.csv"):
        assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) and row["archive"].endswith(".deb"), row
    package: Package = packages.debian_packages()[SOUNDFONT]
    assert package.fetch == "apt-get download fluidr3mono-gm-soundfont=2.315-7"


# ---- the data card


DOCS = Path(__file__).parents[2] / "docs"


def test_the_data_card_counts_clips_and_names_their_terms(made: Path) -> None:
    table = build_pairs.build(made / "packages", made / "out", rendering=False)
    lines = package_table(table).splitlines()
    assert "| openclonk-data | 2 | 2 | 2 | name and folder | 2 | CC-BY-3.0 2 |" in lines
    assert "| asterisk-core-sounds-en-wav | 1 | 0 | 1 | transcript | 0 | CC-BY-SA-3.0 1 |" in lines
    assert lines[-1] == "| all | 6 | 2 | 6 |  | 5 |  |"
    listed = {row["key"]: row for row in clip_list(table).to_dicts()}
    birds, horse = listed["Sound.ocg/Environment.ocg/BirdsLoop.ogg"], listed["horse.wav"]
    assert (birds["author"], birds["learned"]) == ("dobroide", 1) and "54746" in birds["link"]
    assert (horse["author"], horse["link"], horse["learned"]) == (None, None, 0)


def test_the_published_list_agrees_with_the_card_and_the_tables() -> None:
    clips = pl.read_csv(DOCS / "assets" / "mini-clips.csv", infer_schema=False).fill_null("").to_dicts()
    page = (DOCS / "mini-data.md").read_text(encoding="utf-8")
    table = {cells[0]: cells for line in page.splitlines() if len(cells := line.strip("| ").split(" | ")) == 7}
    held = build_pairs.demo_test_groups()
    groups = {key: words.group for key, (words, _) in build_pairs.demo_words().items()}
    counted: dict[str, list[int]] = {}
    for clip in clips:
        counts = counted.setdefault(clip["package"], [0, 0])
        counts[0] += 1
        counts[1] += clip["learned"] == "1"
        source = f"debian:{clip['package']}"
        if clip["learned"] == "1":
            assert SHIPPED.fullmatch(clip["licence"]) and clip["author"] and clip["link"], clip
            assert groups.get((source, clip["key"])) not in held, clip
            assert groups.get((f"npm:{clip['package']}", clip["key"])) not in held, clip
        if source in packages.debian_packages():
            assert terms_of(source, clip["key"]).licence == clip["licence"], clip
    assert len(clips) > 4000
    for package, counts in counted.items():
        assert [int(cell) for cell in table[package][1:3]] == counts, package
