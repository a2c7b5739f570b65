"""`python -m openclap` and the console script. Nothing heavy is imported outside the `try`, so that Ctrl-C during the
imports ends without a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from openclap.cli import main as run
    except KeyboardInterrupt:  # while the libraries are imported
        sys.stderr.write("openclap: Interrupted.\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
