"""Write the data card of the bundled model's pairs: its table of packages, and the list of clips with their licences.

    python -m scripts.mini.data_card --pairs build/mini/pairs.csv [--docs docs]

The table stands in DOCS/mini-data.md between two comments; the list is DOCS/assets/mini-clips.csv, without rendered
clips, which are all of one soundfont.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
from scripts.mini.packages import DEMO

from openclap.formatting import markdown_table

BEGIN, END = "<!-- packages: begin -->\n", "<!-- packages: end -->\n"
HOW = {"name": "name and folder", "transcript": "transcript", "rendered": "score"}
DEMO_PACKAGES = {package.source.split(":")[1] for package in DEMO}


def package_table(table: pl.DataFrame) -> str:
    """Return one row a package: clips, those that the shipped weights learn from, captions, licences."""
    rows = []
    for (package,), clips in sorted(table.group_by("package"), key=lambda part: part[0]):
        learned = clips.filter(pl.col("ship") & ~pl.col("demo_held_out")).height
        made = {"the demo's table"} if package in DEMO_PACKAGES else {HOW[rule] for rule in clips["caption_from"]}
        licences = clips["licence"].value_counts().sort("count", "licence", descending=[True, False])
        rows.append(
            (
                package,
                clips.height,
                learned,
                clips["caption"].n_unique(),
                " and ".join(sorted(made)),
                clips["reviewed"].sum(),
                ", ".join(f"{row['licence']} {row['count']}" for row in licences.to_dicts()),
            )
        )
    rows.append(
        (
            "all",
            table.height,
            *(sum(row[place] for row in rows) for place in (2, 3)),
            "",
            sum(row[5] for row in rows),
            "",
        )
    )
    heading = ("package", "clips", "learned from", "captions", "made from", "reviewed", "clips by licence")
    return markdown_table([heading, *([str(cell) for cell in row] for row in rows)])


def clip_list(table: pl.DataFrame) -> pl.DataFrame:
    """Return the recorded clips with caption and licence, and with author and link where its terms allow learning."""
    recorded = table.filter(pl.col("caption_from") != "rendered")
    credit = {
        name: pl.when("ship").then(column) for name, column in {"author": "attribution", "link": "source"}.items()
    }
    learned = (pl.col("ship") & ~pl.col("demo_held_out")).cast(pl.Int8)
    return recorded.select("package", "key", "caption", "licence", **credit, learned=learned)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the data card of the bundled model's pairs.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    table = pl.read_csv(arguments.pairs, infer_schema_length=None)
    page = arguments.docs / "mini-data.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(before + BEGIN + package_table(table) + "\n" + END + rest.split(END)[1], encoding="utf-8")
    clip_list(table).write_csv(arguments.docs / "assets" / "mini-clips.csv")


if __name__ == "__main__":
    main()
