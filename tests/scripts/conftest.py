"""Let tests import the scripts: the captioner's from beside each other, all others from the repository's root."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "scripts" / "captioner"), str(ROOT)]
