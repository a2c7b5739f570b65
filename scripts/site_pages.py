"""Write the pages of the documentation site that are made from other sources; `make docs` runs it.

    python scripts/site_pages.py

`docs/reference/cli.md` holds the help of every command, and `docs/changelog.md` the changelog. Git ignores both, so
neither can differ from its source.
"""

from __future__ import annotations

import re
from pathlib import Path

from openclap.cli import app

ROOT = Path(__file__).parents[1]
INTRODUCTION = """\
Results go to stdout, progress and notes to stderr. The exit code is 0 on success, 2 after an error that the user can
correct (one sentence on stderr says which), 130 after Ctrl-C. `openclap COMMAND --help` prints the same text in a
terminal.
"""


def main() -> None:
    docs = ROOT / "docs"
    (docs / "reference" / "cli.md").write_text(command_line(), encoding="utf-8")
    (docs / "changelog.md").write_text(changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")), encoding="utf-8")


def command_line() -> str:
    """The help of every command as one Markdown page."""
    page = app.generate_docs(output_format="markdown")
    # The site draws its own table of contents beside the page.
    page = re.sub(r"^## Table of Contents\n.*?(?=^\*\*)", "", page, count=1, flags=re.MULTILINE | re.DOTALL)
    title, _, rest = page.partition("\n")
    assert title == "# openclap", title
    return f"# Command line\n\n{INTRODUCTION}{rest}"


def changelog(text: str) -> str:
    """The changelog with links that start in docs/, where the page lies, instead of the repository's root."""
    return text.replace("](docs/", "](")


if __name__ == "__main__":
    main()
