"""Data sets that models are trained on today, decontaminated against the published evaluation sets.

    openclap dataset build wavcaps OUT --root DIR --missing-ok

DIR has a folder for each source and for each evaluation set, named as in `openclap dataset sources`. `--missing-ok`
skips what is not there with a note; without an evaluation set, its clips stay in. None of these was ever built here:
the sounds were not available. docs/howto/newer-sets.md has their sizes and a plan of time and GPU hours.

Clips of evaluation sets are left out by their Freesound or YouTube ids and by their samples. Of sets that are trained
on as well (AudioCaps, Clotho, FSD50K, TACOS), the training split is read and the others are held out. AudioSet's
evaluation clips are held out too, since WavCaps and AudioSetCaps have clips of AudioSet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openclap.data.config import DataConfig, DataRecipe

HELD_OUT = (
    *("audiocaps:valid,test", "clotho:valid,test", "esc50", "urbansound8k", "fsd50k:valid,test", "vggsound:test"),
    *("audioset:test", "tacos:test"),
)
"""Evaluation sets, with the splits of those that are also trained on."""
COMMERCIAL = ("cc0", "by", "cc-pdm-1.0")
"""Licence families that allow commercial use and adaptations without sharing alike. Sampling+ forbids advertising and
ShareAlike has terms for adaptations: ask a lawyer before you add them."""


@dataclass(frozen=True, slots=True)
class PublishedData:
    """A data set of today.

    Attributes:
        sources: names of sources, with the splits to read of them (`openclap.data.config.SourceSplits`).
        clips, hours: as published, before evaluation clips and unusable sounds are left out.
        licences: allowed families; () for any.
    """

    title: str
    sources: tuple[str, ...]
    clips: int
    hours: float
    licences: tuple[str, ...] = ()

    def config(self) -> DataRecipe:
        """Return the recipe: everything is training data, in one folder of shards."""
        return DataRecipe(
            name=self.title,
            sources=_places(self.sources),
            config=DataConfig(
                splits={"train": 1.0}, licences=self.licences, quietest_db=-90.0, drop_duplicates=True, seed=3407
            ),
            decontaminate=_places(HELD_OUT),
        )


def _places(names: tuple[str, ...]) -> Mapping[str, str]:
    """Return the folder of each source: its name."""
    return {name: name.partition(":")[0] for name in names}


DATA = {
    "wavcaps": PublishedData("WavCaps", ("wavcaps",), 403_050, 7_567.92),
    "wavcaps-audiocaps-clotho": PublishedData(
        "WavCaps, AudioCaps and Clotho",
        ("wavcaps", "audiocaps:train", "clotho:train"),
        403_050 + 49_838 + 3_839,
        7_567.92 + 49_838 * 10 / 3600 + 24.0,
    ),
    "commercial": PublishedData(
        "Sounds under licences for commercial use",
        ("freesound", "fsd50k:train", "tacos:train"),
        515_581 + 36_796 + 12_000,
        3_003.38 + 72.2 + 98.0,
        COMMERCIAL,
    ),
}
