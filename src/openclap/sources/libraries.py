"""Commercial libraries of sound effects, whose file names describe the sounds.

Free To Use Sounds, Sonniss' GDC bundles, Paramount Motion's Odeon library and We Sound Effects: folders of audio, one
per pack, without a table. The group is the folder of a file, because a pack is mostly one session of one author; files
directly under the root are grouped by their names without the number of the take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from openclap.sources.files import audio_files, relative_name
from openclap.sources.grouping import strip_take_number
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Root, Source


def _fixed_author(name: str) -> Callable[[Path], str | None]:
    return lambda pack: name


def _author_of_pack(pack: Path) -> str | None:
    """Return the author from the name of a pack of Sonniss, "Author - Pack"."""
    named = next((part for part in pack.parts if " - " in part), None)
    return named.split(" - ", 1)[0].strip() if named else None


def _records(library: Source, author: Callable[[Path], str | None], root: Path) -> Iterator[Record]:
    for path in audio_files(root):
        pack = path.parent.relative_to(root)
        yield Record(
            id=relative_name(root, path),
            audio=path,
            captions=(),
            source=library.name,
            group=f"{library.name}:{pack.as_posix() if pack.parts else strip_take_number(path.stem)}",
            title=path.name,
            licence=library.licence,
            author=author(pack),
        )


def _library(
    name: str,
    title: str,
    page: str,
    *,
    licence: str,
    use: str,
    faults: str,
    published: PublishedSize,
    author: Callable[[Path], str | None],
) -> Source:
    def read(root: Root) -> Iterator[Record]:
        """Yield records in order of folder names."""
        if next(audio_files(Path(root)), None) is None:
            raise source.missing(root, "sounds")
        return _records(source, author, Path(root))

    source = Source(
        name=name,
        title=title,
        read=read,
        page=page,
        needs="the folder of sounds as it was bought, with packs as folders.",
        licence=licence,
        get="Buy or download the packs from the page, and unpack them.",
        use=use,
        faults=faults,
        published=published,
    )
    return source


FREE_TO_USE_SOUNDS = _library(
    "free_to_use_sounds",
    "Free To Use Sounds",
    "https://www.freetousesounds.com/product/all-in-one-sound-library-bundle/",
    licence="LicenseRef-Free-To-Use-Sounds",
    use="In productions, as bought; ask the vendor before you train a model.",
    faults="No sentences: captions come from file names.",
    published=PublishedSize(6_370, 175.73),
    author=_fixed_author("Free To Use Sounds"),
)
SONNISS = _library(
    "sonniss_game_effects",
    "Sonniss Game Effects",
    "https://sonniss.com/gameaudiogdc",
    licence="LicenseRef-Sonniss-GDC",
    use="In productions, without royalties; the licences of newer bundles forbid to train models.",
    faults="No sentences: captions come from file names, and those of the years differ in style.",
    published=PublishedSize(5_049, 84.6),
    author=_author_of_pack,
)
PARAMOUNT_MOTION = _library(
    "paramount_motion",
    "Paramount Motion Sound Effects",
    "https://www.paramountmotion.com/odeon-sound-effects",
    licence="LicenseRef-Paramount-Motion",
    use="In productions, as bought; ask the vendor before you train a model.",
    faults="No sentences: captions come from file names.",
    published=PublishedSize(4_420, 19.49),
    author=_fixed_author("Paramount Motion"),
)
WE_SOUND_EFFECTS = _library(
    "we_sound_effects",
    "We Sound Effects",
    "https://www.wesoundeffects.com",
    licence="LicenseRef-We-Sound-Effects",
    use="In productions, as bought; ask the vendor before you train a model.",
    faults="No sentences: captions come from file names.",
    published=PublishedSize(488, 12.0),
    author=_fixed_author("We Sound Effects"),
)
