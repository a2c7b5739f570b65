"""Data and text tower of the bundled model: `python -m scripts.mini.build_pairs`, `python -m scripts.mini.distil_text`."""
