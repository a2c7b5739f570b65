"""`openclap dataset stats`, `card` and `push`: what a data set is made of, for people."""

from __future__ import annotations

from dataclasses import asdict

from openclap.cli.console import note, print_json, print_table, results
from openclap.cli.dataset.making import Flag


def stats(out: str, *, json: Flag = False) -> None:
    """Say what a finished data set is made of: sources, hours, licences, lengths, captions, and what was left out.

    Parameters
    ----------
    out
        A finished data set.
    json
        Print one JSON object instead of tables.
    """
    from openclap.data.stats import stats_of
    from openclap.storage import place_of

    found = stats_of(place_of(out))
    if json:
        print_json(asdict(found) | {"samples": found.samples, "hours": found.hours})
        return
    rows = [[name, f"{n:,}", f"{hours:,.2f}", f"{texts:,}"] for name, (n, hours, texts) in found.sources.items()]
    rows.append(["all", f"{found.samples:,}", f"{found.hours:,.2f}", f"{int(found.captions['captions']):,}"])
    print_table(["source", "samples", "hours", "captions"], rows, right=[1, 2, 3])
    results.print()
    print_table(["licence", "samples"], [[name, f"{count:,}"] for name, count in found.licences.items()], right=[1])
    if found.left_out:
        results.print()
        gone = [[source, kind, f"{count:,}"] for source, of in found.left_out.items() for kind, count in of.items()]
        print_table(["left out of", "why", "records"], gone, right=[2])


def sources(*, json: Flag = False) -> None:
    """List the collections and layouts that `build --source` and recipes read, and what each needs.

    Parameters
    ----------
    json
        Print one JSON array instead of a table.
    """
    from openclap.sources import SOURCES

    if json:
        print_json([{k: v for k, v in asdict(one).items() if k != "read"} for one in SOURCES.values()])
        return
    print_table(
        ["source", "samples", "licence", "needs under its folder"],
        [
            [one.name, f"{one.published.samples:,}" if one.published else "–", one.licence, one.needs]
            for one in SOURCES.values()
        ],
        right=[1],
    )


def card(out: str, *, name: str | None = None) -> None:
    """Write the data card: README.md with tables and charts. A README of your own is left alone.

    Parameters
    ----------
    out
        A finished data set.
    name
        What the data set is called; its folder's name without it.
    """
    from openclap.data.card import write_card
    from openclap.storage import place_of

    folder = place_of(out)
    note(f"Wrote {write_card(folder, name or folder.name)}")


def push(out: str, repo: str, *, public: Flag = False, revision: str | None = None) -> None:
    """Upload a finished data set to the Hugging Face hub: its shards, manifest and card. Stopped, it goes on.

    It is private unless --public is given: look at the licences in the card first.

    Parameters
    ----------
    out
        A finished data set.
    repo
        USER/NAME of the data set on the hub, made if it is not there.
    public
        Let everybody see it.
    revision
        The branch to write to.
    """
    from openclap.checkpoints import hub
    from openclap.data.layout import WORK
    from openclap.data.stats import stats_of
    from openclap.storage import place_of

    folder = place_of(out)
    stats_of(folder)
    page = hub.push_dataset(folder, repo, private=not public, revision=revision, without=[f"{WORK}/*", ".*"])
    results.print(page, markup=False)
