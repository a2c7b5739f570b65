"""Write the whitening of captions, in which the text tower is distilled: nearly the space of the model's embeddings.

    python -m scripts.mini.whiten DIR

DIR holds pairs.csv and gets whiten.npz, with the mean `mu` (384,) and the matrix `W` (384, 384). Each caption counts
once here; in the model's own whitening (`scripts.mini.train`), once for each sound that has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scripts.mini.features import MiniLM, read_rows
from scripts.mini.heads import Whitening
from scripts.mini.train import learned_from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = read_rows(folder / "pairs.csv")
    captions = dict.fromkeys(caption for number in learned_from(rows) for caption in rows[number].captions)
    whitening = Whitening.fit(MiniLM(folder)(captions))
    np.savez(folder / "whiten.npz", mu=whitening.mean_D, W=whitening.matrix_DD)


if __name__ == "__main__":
    main()
