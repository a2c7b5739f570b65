"""The packages that the bundled model learns from and is evaluated on: packages.csv, and the demo's three."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.build_demo_sounds import (
    OPENSFX,
    SCRATCH,
    SUPERSONIC,
    Original,
    Package,
    opensfx_sounds,
    scratch_sounds,
    supersonic_sounds,
)
from scripts.mini.clonk_group import is_group, read_group
from scripts.mini.words import read_transcripts, rows_of, terms_of

DEMO = {SCRATCH: scratch_sounds, OPENSFX: opensfx_sounds, SUPERSONIC: supersonic_sounds}
"""The demo's packages and the functions that read them."""
SOUNDFONT = "debian:fluidr3mono-gm-soundfont"
TRANSCRIPTS = "debian:asterisk-core-sounds-en"
SUFFIXES = {".aif", ".aiff", ".flac", ".mp3", ".oga", ".ogg", ".wav", ".wv"}


@dataclass(frozen=True)
class SoundPackage(Package):
    """A Debian package with its sounds under the folder `root`."""

    root: str


def debian_packages() -> dict[str, SoundPackage]:
    """Return the packages of packages.csv by their names, such as "debian:minetest-data"."""
    found = {}
    for row in rows_of("packages.csv"):
        name = row["source"].removeprefix("debian:")
        fetch = f"apt-get download {name}={row['version']}"
        found[row["source"]] = SoundPackage(row["source"], fetch, row["archive"], row["sha256"], row["root"])
    return found


def sounds_of(package: SoundPackage, folder: Path) -> Iterator[Original]:
    """Yield every sound file of an unpacked package, and those inside OpenClonk's group files, ordered by path."""
    root = folder / package.root
    for path in sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        key = path.relative_to(root).as_posix()
        if path.suffix.lower() in SUFFIXES:
            yield _original(package.source, key, path.read_bytes())
        elif is_group(path):
            for name, content in read_group(path.read_bytes()):
                if Path(name).suffix.lower() in SUFFIXES:
                    yield _original(package.source, f"{key}/{name}", content)


def transcripts_in(folder: Path) -> dict[str, str]:
    """Read the transcripts of an unpacked package of Asterisk's prompts."""
    file = next(folder.rglob("core-sounds-en.txt.gz"))
    return read_transcripts(gzip.decompress(file.read_bytes()).decode())


def _original(source: str, key: str, encoded: bytes) -> Original:
    terms = terms_of(source, key)
    return Original(source, key, key, key, terms.author, terms.licence, terms.link, encoded)
