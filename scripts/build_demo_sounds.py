"""Build the demo's sounds: Ogg files, `sounds.csv` and `ATTRIBUTION.md`, from three packages of recordings.

    python scripts/build_demo_sounds.py [--packages DIR] [--out DIR]

This needs `apt-get`, `dpkg-deb` and `npm`. Archives in DIR are not fetched again, and each is checked against its
SHA-256. The same archives give the same tables, byte for byte, and the same samples (an
Ogg stream carries a random serial number, so its bytes differ).

A sound is used if it lasts at least 0.05 s, is not silent, has other samples than all before it, and has captions
in `demo_captions.csv` beside this file. Those without captions have names that do not describe the sound; the Amen
break is left out as a commercial recording, whatever its uploader states. Unused sounds are printed. Sounds are
converted to mono at 44.1 kHz and scaled down where they clip; the longest has 17 s, and none is cut.

The captions were written from the packages' metadata and reviewed one by one. `caption_from` names their rules,
joined by `+`:
    name      the sound's own name, spelt out: "WolfHowl" is a wolf howling, "drum_tom_hi_soft" a high tom
    folder    read with its folder (scratch) or section of PROVENANCE.md (supersonic): "hat_zap", a hi-hat
    original  read with the recording it was made of, as opensfx.cat names it: "Sawmill" is a circular saw
    measured  adjectives such as "short" or "bright" from the samples, against the clips of the same label;
              tests/demo/test_sounds.py says what each claims, and proves it

`label` is one of twenty coarse classes for zero-shot classification. `group` names sounds that were recorded
together, which splits must not separate: numbered takes; one speaker; sounds that share an original; all
sounds of one Freesound member that were uploaded together (numbers within 100) or share a label; all that
one artist donated. `link` holds one address for each original, separated by spaces.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import re
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl
import soundfile
import soxr
from numpy.typing import NDArray

Wave = NDArray[np.float32]
HERE = Path(__file__).parent
RATE = 44_100
VORBIS_COMPRESSION = 0.5  # libsndfile's scale: quality 5
SCRATCH_TERMS = ("Massachusetts Institute of Technology", "CC-BY-SA-3.0", "https://scratch.mit.edu/")
CREDIT = ("original_title", "author", "licence", "link")


@dataclass(frozen=True)
class Package:
    source: str
    fetch: str
    archive: str
    sha256: str


SCRATCH = Package(
    "debian:scratch",
    "apt-get download scratch=1.4.0.6~dfsg1-6.1",
    "scratch_1.4.0.6~dfsg1-6.1_all.deb",
    "36c582eb93110f64f06c4e685c41e933ccba2fa68db12f79b10bfe840b21fc10",
)
OPENSFX = Package(
    "debian:openttd-opensfx",
    "apt-get download openttd-opensfx=1.0.3-2",
    "openttd-opensfx_1.0.3-2_all.deb",
    "2898b4677a3caccc4abc08fb4cf83319047b5a04729291deb5c77a8cd713c006",
)
SUPERSONIC = Package(
    "npm:supersonic-scsynth-samples",
    "npm pack supersonic-scsynth-samples@0.84.2",
    "supersonic-scsynth-samples-0.84.2.tgz",
    "aff0b03208adb5dc7612dc7a4e86d55161188326bcff4dbc2d20ce9e1b94238c",
)


@dataclass(frozen=True)
class Original:
    """One sound of a package; `key` is its name in demo_captions.csv, `name` becomes the file's."""

    source: str
    key: str
    name: str
    original_title: str
    author: str
    licence: str
    link: str
    encoded: bytes


def unpack(package: Package, packages: Path, into: Path) -> Path:
    """Fetch `package` unless it is there, check it, and unpack it into a folder of its own."""
    archive = packages / package.archive
    if not archive.exists():
        subprocess.run(package.fetch.split(), cwd=packages, check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{archive}: SHA-256 is {digest}, expected {package.sha256}. Delete it, run again.")
    folder = into / package.source.split(":")[1]
    folder.mkdir()
    if archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return folder


def scratch_sounds(folder: Path) -> Iterator[Original]:
    """Scratch 1.4: every file under Media/Sounds, all under the terms of its Debian copyright file."""
    sounds = folder / "usr/share/scratch/Media/Sounds"
    for path in sorted(sounds.rglob("*.*")):
        key = path.relative_to(sounds).as_posix()
        yield Original(SCRATCH.source, key, f"scratch {path.stem}", key, *SCRATCH_TERMS, path.read_bytes())


def supersonic_sounds(folder: Path) -> Iterator[Original]:
    """Sonic Pi's samples, CC0. PROVENANCE.md links most to Freesound, but places underscores otherwise."""
    provenance = (folder / "package/PROVENANCE.md").read_text()
    found = re.findall(r"`:(\w+)`\s*- (\S+/sounds/\d+/)", provenance, flags=re.IGNORECASE)
    links = {name.replace("_", ""): link for name, link in found}
    donors = {"arovane": "Uwe Zahn (Arovane)", "tbd": "The Black Dog"}
    for path in sorted((folder / "package/samples").glob("*.flac")):
        key = path.stem
        link = links.get(key.replace("_", ""), "https://github.com/sonic-pi-net/sonic-pi")
        member = re.search(r"/people/([^/]+)/", link, flags=re.IGNORECASE)
        author = unquote(member[1]) if member else donors[key.split("_")[0]]
        terms = (author, "CC0-1.0", link)
        yield Original(SUPERSONIC.source, key, f"supersonic {key}", key, *terms, path.read_bytes())


# opensfx.cat and readme.txt spell these originals differently: cat's spelling → readme's
RESPELT = {
    "Bubble 001.wav": "Bubbles 001.wav",
    "raw_bubblingdrink5.ogg": "raw_bubblingdrink.ogg",
    "L'ascenseur - Elevator": "Ascenseur / Elevator",
}
SPDX = {"Zero": "CC0-1.0", "Attribution 3": "CC-BY-3.0", "Attribution-ShareAlike 3": "CC-BY-SA-3.0"}


def opensfx_credits(readme: str) -> dict[str, tuple[str, str]]:
    """Original title → (author, link), from section 4.1 of the readme; a public domain title has no link."""
    credited: dict[str, tuple[str, str]] = {}
    author = ""
    section = readme.split("4.1.1) Public Domain", 1)[1].split("4.2) Sound editors", 1)[0]
    for line in section.splitlines():
        if line.startswith("* "):
            author = line[2:].rstrip(":").replace(' from "freesound.org"', "").replace('"', "")
        elif line.startswith("    * "):
            title = line[6:].strip().strip('"')
            credited[title] = (author, "")
        elif "https://" in line:
            credited[title] = (author, line.strip())
    return credited


def opensfx_entries(cat: bytes) -> Iterator[tuple[str, bytes]]:
    """(description, RIFF wav) of each sound in a TTD sample catalogue.

    The file opens with one pair of uint32 a sound: its offset, the top bit being a flag, and the length of
    the wav. At the offset lie a length byte and a NUL-ended description, then the wav.
    """
    count = (struct.unpack_from("<I", cat)[0] & 0x7FFF_FFFF) // 8
    for index in range(count):
        offset, length = struct.unpack_from("<II", cat, 8 * index)
        offset &= 0x7FFF_FFFF
        start = offset + 1 + cat[offset]
        yield cat[offset + 1 : start].rstrip(b"\0").decode(), cat[start : start + length]


def opensfx_original(description: str, wav: bytes, credited: dict[str, tuple[str, str]]) -> Original:
    """Read '"Title". Original "x.wav" by A. Edited by B. License: Creative Commons L.'; the middle varies."""
    title, rest = description[1:].split('". ', 1)
    making, licence = rest.split(" License: Creative Commons ")
    names = [RESPELT.get(name, name) for name in re.findall(r'"([^"]+)"', making)]
    originals = [name for name in names if name in credited]
    authors = [credited[name][0] for name in originals] or re.findall(r"^By (.+)\.$", making)
    editors = re.findall(r"(?:[Ee]dited|and mixed) by (.+)\.$", making.replace('"', ""))
    return Original(
        source=OPENSFX.source,
        key=title,
        name=f"opensfx {title}",
        original_title=f"{title}; from {' and '.join(originals)}" if originals else title,
        author="; ".join([*authors, *(f"edited by {editor}" for editor in editors)]),
        licence=next(spdx for words, spdx in SPDX.items() if licence.startswith(words)),
        link=" ".join(credited[name][1] for name in originals).strip() or "https://github.com/OpenTTD/OpenSFX",
        encoded=wav,
    )


def opensfx_sounds(folder: Path) -> Iterator[Original]:
    """OpenSFX: descriptions and samples from opensfx.cat, authors and links from the readme."""
    readme = (folder / "usr/share/doc/openttd-opensfx/readme.txt.gz").read_bytes()
    credited = opensfx_credits(gzip.decompress(readme).decode())
    cat = (folder / "usr/share/games/openttd/baseset/opensfx/opensfx.cat").read_bytes()
    for description, wav in opensfx_entries(cat):
        yield opensfx_original(description, wav, credited)


def decode(encoded: bytes) -> Wave:
    """Mono float32 at 44.1 kHz, peak at most 0.99 (some MP3s of scratch pass full scale)."""
    wave_NC, rate = soundfile.read(io.BytesIO(encoded), dtype="float32", always_2d=True)
    wave_N: Wave = wave_NC.mean(axis=1)
    if wave_N.size and rate != RATE:
        wave_N = soxr.resample(wave_N, rate, RATE, quality="VHQ")
    return wave_N / np.float32(max(1.0, np.abs(wave_N).max(initial=0.0) / 0.99))


def keep(originals: list[Original], words: set[tuple[str, str]]) -> list[tuple[Original, Wave]]:
    """Decode the sounds that meet the module's four conditions; print the others with the reason."""
    kept, seen = [], set[bytes]()
    for original in originals:
        wave_N = decode(original.encoded)
        reasons = {
            "shorter than 0.05 s": wave_N.size < 0.05 * RATE,
            "silent": not np.any(np.abs(wave_N) > 1e-3),
            "same samples as an earlier sound": wave_N.tobytes() in seen,
            "no words in demo_captions.csv": (original.source, original.key) not in words,
        }
        seen.add(wave_N.tobytes())
        if reason := next((reason for reason, holds in reasons.items() if holds), None):
            print(f"left out {original.source} {original.key!r}: {reason}")
        else:
            kept.append((original, wave_N))
    return kept


def write_ogg(original: Original, wave_N: Wave, words: dict[str, str], out: Path) -> dict[str, str]:
    """Write one sound, "scratch WolfHowl" to scratch-wolf-howl.ogg; return its row of sounds.csv."""
    hyphened = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", original.name).lower()
    path = out / (re.sub(r"[^a-z0-9]+", "-", hyphened).strip("-") + ".ogg")
    soundfile.write(path, wave_N, RATE, format="OGG", subtype="VORBIS", compression_level=VORBIS_COMPRESSION)
    said = {column: words[column] for column in ("captions", "tags", "label", "group")}
    known = {column: getattr(original, column) for column in ("source", *CREDIT)}
    return {"file": path.name} | said | known | {"caption_from": words["caption_from"]}


ATTRIBUTION = """# Where these sounds come from

**Changed in every sound** by `scripts/build_demo_sounds.py`: mono, 44.1 kHz, Ogg Vorbis; turned down where it
passed full scale. Each keeps its own licence, named in `sounds.csv`; the captions and tags there are ours.
Licences: https://creativecommons.org/publicdomain/zero/1.0/ (CC0-1.0),
https://creativecommons.org/licenses/by/3.0/ (CC-BY-3.0),
https://creativecommons.org/licenses/by-sa/3.0/ (CC-BY-SA-3.0).

- `scratch-*.ogg`: the media of Scratch 1.4, https://scratch.mit.edu/, from the Debian package scratch
  1.4.0.6~dfsg1-6.1. Copyright (c) 2011 Massachusetts Institute of Technology. CC-BY-SA-3.0.
- `opensfx-*.ogg`: OpenSFX, the free sounds of OpenTTD, https://github.com/OpenTTD/OpenSFX, from the Debian
  package openttd-opensfx 1.0.3-2. Each is CC-BY-3.0, CC0-1.0 or CC-BY-SA-3.0; the whole set, CC-BY-SA-3.0.
- `supersonic-*.ogg`: the samples of Sonic Pi, https://github.com/sonic-pi-net/sonic-pi, from the npm package
  supersonic-scsynth-samples 0.84.2. CC0-1.0. `sounds.csv` names each author and links the original.

## Sounds under CC-BY-3.0 and CC-BY-SA-3.0

"""


def attribution(rows: list[dict[str, str]]) -> str:
    columns = ("file", *CREDIT)
    owed = [row for row in rows if row["licence"] != "CC0-1.0"]
    table = "".join(f"| {' | '.join(row[column] for column in columns)} |\n" for row in owed)
    return f"{ATTRIBUTION}| {' | '.join(columns)} |\n|---|---|---|---|---|\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the demo's sounds from three packages of recordings.")
    parser.add_argument("--packages", type=Path, default=Path("build/packages"), help="the archives")
    parser.add_argument("--out", type=Path, default=HERE.parent / "src/openclap/demo/sounds")
    arguments = parser.parse_args()
    arguments.packages.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = pl.read_csv(HERE / "demo_captions.csv", infer_schema=False)
    words = {(row["source"], row["original"]): row for row in table.to_dicts()}
    readers = {SCRATCH: scratch_sounds, OPENSFX: opensfx_sounds, SUPERSONIC: supersonic_sounds}
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = {package: unpack(package, arguments.packages, Path(temporary)) for package in readers}
        originals = [sound for package, read in readers.items() for sound in read(unpacked[package])]
    kept = keep(originals, set(words))
    if unused := words.keys() - {(sound.source, sound.key) for sound, _ in kept}:
        raise SystemExit(f"demo_captions.csv has words for what is not kept. Remove these rows: {unused}")
    for old in arguments.out.glob("*.ogg"):
        old.unlink()
    rows = [write_ogg(sound, wave, words[sound.source, sound.key], arguments.out) for sound, wave in kept]
    rows.sort(key=lambda row: row["file"])
    pl.DataFrame(rows).write_csv(arguments.out / "sounds.csv")
    (arguments.out / "ATTRIBUTION.md").write_text(attribution(rows))
    print(f"{len(rows)} sounds in {arguments.out}")


if __name__ == "__main__":
    main()
