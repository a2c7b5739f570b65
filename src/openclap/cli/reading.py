"""Options that choose how a collection of sounds is read, shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openclap.cli.console import note, shown

if TYPE_CHECKING:
    from openclap.captions.check import CaptionCheck
    from openclap.sources.recognise import ReadOptions, RecognisedCollection

LISTED = 3
"""Tables that were not read and are named."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAs:
    """Where names of columns and files do not say it."""

    source: str | None = None
    """What reads it: esc50, clotho, table, … (`openclap dataset sources`); what it is recognised as, without it."""
    audio_column: str | None = None
    """The column of a table that names the sounds; file, path, audio, file_name and the like, without it."""
    caption_column: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    """A column of captions; caption, text, caption_1 and the like, without it. May be given again."""

    @property
    def reading(self) -> ReadOptions:
        from openclap.sources.recognise import ReadOptions
        from openclap.sources.table import ColumnChoice

        return ReadOptions(self.source, ColumnChoice(self.audio_column or "", self.caption_column))

    def recognise(self, path: Path) -> RecognisedCollection:
        """Choose the source for `path`, and print it to stderr."""
        from openclap.sources.recognise import recognise

        found = recognise(path.expanduser().absolute(), self.reading)
        say(found)
        return found


def say(found: RecognisedCollection) -> None:
    """Print to stderr the recognised form, and the tables that are not read."""
    note(found.summary.replace(str(found.path), shown(found.path), 1))
    if found.unread:
        more = f" and {len(found.unread) - LISTED} more" if len(found.unread) > LISTED else ""
        note(f"Not read: {', '.join(map(str, found.unread[:LISTED]))}{more}.")


def caption_check(found: RecognisedCollection, *, any_captions: bool) -> CaptionCheck:
    """A check of captions that stops with advice, or with `any_captions` only says what is doubtful."""
    from openclap.captions.check import CaptionCheck
    from openclap.errors import DataError
    from openclap.sources.recognise import advice

    def stop(doubt: str, usable: bool) -> None:
        sentence = f"{found.path}: {' '.join(filter(None, (doubt, advice(found))))} Nothing was decoded yet."
        if not usable:
            raise DataError(sentence)
        if not any_captions:
            raise DataError(f"{sentence} To go on all the same, give --any-captions.")
        note(sentence)

    return CaptionCheck(stop)


def note_doubts(found: RecognisedCollection) -> None:
    """What is doubtful about captions that are measured on as they are, and what would read better ones, to stderr."""
    from openclap.captions.check import CaptionCheck
    from openclap.captions.rules import captions_of
    from openclap.sources.recognise import advice

    check = CaptionCheck(lambda doubt, usable: note(" ".join(filter(None, (doubt, advice(found))))))
    for record in found.read():
        check.add(captions_of(record))
    check.finish()
