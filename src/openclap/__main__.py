"""`python -m openclap` is the console script."""

from openclap.cli import main

main()
