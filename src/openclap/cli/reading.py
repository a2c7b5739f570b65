"""Options for reading a collection of sounds, shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from openclap.cli.console import note, shown
from openclap.formatting import join_first

if TYPE_CHECKING:
    from openclap.sources.recognise import ReadOptions, RecognisedCollection

LISTED = 3
"""Number of unread tables that a note names."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAs:
    """The source of a collection and its columns, in place of the recognised ones."""

    source: str | None = None
    """The source, such as esc50, clotho or table (`openclap dataset sources`). Default: the recognised one."""
    audio_column: str | None = None
    """The column with the names of sound files. Default: file, path, audio, file_name and the like."""
    caption_column: tuple[str, ...] = ()
    """A column of captions; may be repeated. Default: caption, text, caption_1 and the like."""

    @property
    def reading(self) -> ReadOptions:
        """The same for `openclap.sources.recognise`."""
        from openclap.sources.recognise import ReadOptions
        from openclap.sources.table import ColumnChoice

        return ReadOptions(self.source, ColumnChoice(self.audio_column or "", self.caption_column))

    def recognise(self, path: Path) -> RecognisedCollection:
        """Choose the source for `path`, and print it to stderr. Raises DataError and ConfigError as `recognise`."""
        from openclap.sources.recognise import recognise

        recognised = recognise(path.expanduser().absolute(), self.reading)
        print_recognised(recognised)
        return recognised


def print_recognised(recognised: RecognisedCollection) -> None:
    """Print to stderr the recognised form of a collection, and the tables that are not read."""
    note(recognised.summary.replace(str(recognised.path), shown(recognised.path), 1))
    if recognised.unread:
        note(f"Not read: {join_first(recognised.unread, LISTED)}.")


def note_doubts(recognised: RecognisedCollection) -> None:
    """Print doubts about the captions of an evaluation to stderr, with the options that may read better ones."""
    from openclap.captions.check import CaptionCheck
    from openclap.captions.rules import captions_of
    from openclap.sources.recognise import advice

    check = CaptionCheck(lambda doubt, usable: note(" ".join(filter(None, (doubt, advice(recognised))))))
    for record in recognised.read():
        check.add(captions_of(record))
    check.finish()
