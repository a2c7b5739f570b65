"""`openclap dataset stats`, `card` and `push`: describe and publish a data set."""

from __future__ import annotations

from dataclasses import asdict

from openclap.cli.console import note, print_json, print_table, results


def stats(out: str, *, json: bool = False) -> None:
    """Print statistics of a finished data set: sources, hours, licences, captions, and records left out.

    Parameters
    ----------
    out
        A finished data set.
    json
        Print one JSON object instead of tables.
    """
    from openclap.data.card import stats_of
    from openclap.storage import place_of

    figures = stats_of(place_of(out))
    if json:
        print_json(asdict(figures) | {"samples": figures.samples, "hours": figures.hours})
        return
    rows = [[name, f"{n:,}", f"{hours:,.2f}", f"{texts:,}"] for name, (n, hours, texts) in figures.sources.items()]
    rows.append(["all", f"{figures.samples:,}", f"{figures.hours:,.2f}", f"{int(figures.captions['captions']):,}"])
    print_table(["source", "samples", "hours", "captions"], rows, right=[1, 2, 3])
    results.print()
    print_table(["licence", "samples"], [[name, f"{count:,}"] for name, count in figures.licences.items()], right=[1])
    if figures.left_out:
        results.print()
        rows = [[source, kind, f"{count:,}"] for source, of in figures.left_out.items() for kind, count in of.items()]
        print_table(["left out of", "reason", "records"], rows, right=[2])


def card(out: str, *, name: str | None = None) -> None:
    """Write the data card, README.md with tables and charts. A README of your own is not replaced.

    Parameters
    ----------
    out
        A finished data set.
    name
        The name of the data set. Default: the name of its folder.
    """
    from openclap.data.card import write_card
    from openclap.storage import place_of

    folder = place_of(out)
    note(f"Wrote {write_card(folder, name or folder.name)}")


def push(out: str, repo: str, *, public: bool = False, revision: str | None = None) -> None:
    """Upload a finished data set to the Hugging Face hub: its shards, manifest and card.

    The repository is private without --public: check the licences in the card first. After a stop, the same command
    resumes.

    Parameters
    ----------
    out
        A finished data set.
    repo
        USER/NAME on the hub; created if it does not exist.
    public
        Create the repository as public.
    revision
        The branch to write to. Default: the main branch.
    """
    from openclap.checkpoints import hub
    from openclap.data.card import stats_of
    from openclap.data.layout import WORK
    from openclap.storage import place_of

    folder = place_of(out)
    stats_of(folder)
    page = hub.push_dataset(folder, repo, private=not public, revision=revision, without=[f"{WORK}/*", ".*"])
    results.print(page, markup=False)
