"""`openclap duplicates`: list the files of an index that are the same recording."""

from __future__ import annotations

import csv as csvs
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openclap.cli.console import counted, list_skipped, note, print_json, print_table, progress, shown
from openclap.cli.defaults import default_index

if TYPE_CHECKING:
    from openclap.search.duplicates import Duplicate, DuplicateGroup


def duplicates(
    *,
    index: Path | None = None,
    judged: Path | None = None,
    judge: tuple[str, ...] = (),
    page: int = 1,
    page_size: int = 20,
    json: bool = False,
    csv: bool = False,
) -> None:
    """List groups of files that are the same recording; nothing is deleted or changed.

    Files of identical bytes come first, then those of identical samples, then the same recording in another format, at
    another level or rate, or cut. Takes of one session are no duplicates. Sounds are decoded to be compared, and the
    comparisons are cached: after a stop, the same command resumes, and another page takes seconds.

    Parameters
    ----------
    index
        The index folder. Default: your own (`openclap index add`), or the demo's if there is none.
    judged
        The file of groups that you have judged. Default: the index's own, under openclap's home, which `openclap serve`
        uses too.
    judge
        The id of a group that you have judged, and that is not listed again until another recording joins it. May be
        repeated.
    page
        The page of groups to list, from 1.
    page_size
        The number of groups on a page.
    json
        Print one JSON object, with all facts, instead of a table.
    csv
        Print a row for each file as CSV instead of a table.
    """
    from openclap.errors import ConfigError
    from openclap.limits import check_count
    from openclap.recording_comparison import duplicates_of
    from openclap.search.duplicates import judged_file, page_of, read_judged
    from openclap.search.index import Index

    check_count("--page", page)
    check_count("--page-size", page_size)
    if json and csv:
        raise ConfigError("--json and --csv are two forms of the report, expected one of them.")
    opened = Index.open(index or default_index())
    place = judged or judged_file(opened)
    read_judged(place)  # before the comparison, which may take minutes
    with progress("Comparing") as advance:
        groups, failed = duplicates_of(opened, progress=advance)
    _add_judgements(place, groups, judge)
    listed = page_of(groups, failed, read_judged(place), page, page_size)
    if json:
        print_json(listed.as_object())
    elif csv:
        _print_csv(listed.listed)
    else:
        print_table(["group", "kind", "similarity", "begins", "length", "file"], _rows(listed.listed), right=(2, 3, 4))
    list_skipped(failed)
    pages = f", page {page} of {-(-listed.groups // page_size)}" if listed.groups > page_size else ""
    note(f"{counted(listed.groups, 'group')}{pages}; {listed.judged} judged.")


def _add_judgements(path: Path, groups: Sequence[DuplicateGroup], ids: Sequence[str]) -> None:
    """Append groups to the file of judged groups. Raises ConfigError for an id of no group."""
    from openclap.errors import ConfigError
    from openclap.search.duplicates import add_judgement

    by_id = {group.id: group for group in groups}
    if unknown := [name for name in ids if name not in by_id]:
        raise ConfigError(f"--judge is {unknown[0]!r}, expected the id of a group that `openclap duplicates` lists.")
    for name in ids:
        add_judgement(path, by_id[name])


def _cells(each: Duplicate) -> tuple[str, str, str]:
    """Kind, similarity and offset; empty for the file that the others are compared with."""
    found = each.comparison
    return (found.kind, f"{found.similarity:.3f}", f"{found.offset_s:.2f} s") if found.kind else ("", "", "")


def _rows(groups: Sequence[DuplicateGroup]) -> list[list[str]]:
    return [
        ["" if place else group.id, *_cells(each), f"{each.file.duration_s:.1f} s", shown(each.file.path)]
        for group in groups
        for place, each in enumerate(group.files)
    ]


def _print_csv(groups: Sequence[DuplicateGroup]) -> None:
    writer = csvs.writer(sys.stdout, lineterminator="\n")
    columns = ("path", "hash", "size", "duration_s", "rate", "channels")
    writer.writerow(["group", "kind", "similarity", "offset_s", *columns])
    for group in groups:
        for each in group.files:
            found = each.comparison
            compared = [found.kind, f"{found.similarity:.4f}", f"{found.offset_s:.4f}"]
            writer.writerow([group.id, *compared, *(getattr(each.file, name) for name in columns)])
