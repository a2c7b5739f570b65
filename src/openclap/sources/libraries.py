"""Bought libraries of sound effects in which the name of a file says what is heard.

Free To Use Sounds, Sonniss' GDC bundles, Paramount Motion's Odeon library and We Sound Effects: folders of sounds, one
a pack, without a table. The group is the folder a file lies in, for a pack was recorded in one go by one author;
files that lie directly under the root are grouped by their names without the number of the take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from openclap.sources.identity import without_take
from openclap.sources.layout import inside, sounds
from openclap.sources.record import Record
from openclap.sources.source import Published, Root, Source


def _owner(name: str) -> Callable[[Path], str | None]:
    return lambda pack: name


def _before_dash(pack: Path) -> str | None:
    """Sonniss names packs "Author - Pack"."""
    named = next((part for part in pack.parts if " - " in part), None)
    return named.split(" - ", 1)[0].strip() if named else None


def _records(library: Source, author: Callable[[Path], str | None], root: Path) -> Iterator[Record]:
    for path in sounds(root):
        pack = path.parent.relative_to(root)
        yield Record(
            id=inside(root, path),
            audio=path,
            captions=(),
            source=library.name,
            group=f"{library.name}:{pack.as_posix() if pack.parts else without_take(path.stem)}",
            title=path.name,
            licence=library.licence,
            author=author(pack),
        )


def _library(
    name: str, title: str, page: str, *, licence: str, published: Published, author: Callable[[Path], str | None]
) -> Source:
    def read(root: Root) -> Iterator[Record]:
        """Records in the order of the folders' names."""
        if next(sounds(Path(root)), None) is None:
            raise source.missing(root, "sounds")
        return _records(source, author, Path(root))

    source = Source(
        name=name,
        title=title,
        read=read,
        page=page,
        needs="the folder of sounds as it was bought, packs as folders.",
        licence=licence,
        published=published,
    )
    return source


FREE_TO_USE_SOUNDS = _library(
    "free_to_use_sounds",
    "Free To Use Sounds",
    "https://www.freetousesounds.com/product/all-in-one-sound-library-bundle/",
    licence="LicenseRef-Free-To-Use-Sounds",
    published=Published(6_370, 175.73),
    author=_owner("Free To Use Sounds"),
)
SONNISS = _library(
    "sonniss_game_effects",
    "Sonniss Game Effects",
    "https://sonniss.com/gameaudiogdc",
    licence="LicenseRef-Sonniss-GDC",
    published=Published(5_049, 84.6),
    author=_before_dash,
)
PARAMOUNT_MOTION = _library(
    "paramount_motion",
    "Paramount Motion Sound Effects",
    "https://www.paramountmotion.com/odeon-sound-effects",
    licence="LicenseRef-Paramount-Motion",
    published=Published(4_420, 19.49),
    author=_owner("Paramount Motion"),
)
WE_SOUND_EFFECTS = _library(
    "we_sound_effects",
    "We Sound Effects",
    "https://www.wesoundeffects.com",
    licence="LicenseRef-We-Sound-Effects",
    published=Published(488, 12.0),
    author=_owner("We Sound Effects"),
)
