"""LAION-Audio-630K (Wu et al. 2023, arXiv:2211.06687): 633,526 pairs of sound and text from eight sources.

    openclap dataset build laion-630k OUT --root DIR --missing-ok

DIR has a folder for each source, named as below; `--missing-ok` skips missing ones with a note (four are commercial
libraries). The metadata alone took 94 s and 538 MB on two busy cores (`python benchmarks/dataset.py metadata`,
synthetic rows); the time of downloads depends on the sources. The whole data set was never built here: its 4,325 hours
of sound were not available.

As in the paper, Freesound's clips longer than three minutes and recordings below 16 kHz are left out. So are clips of
the evaluation sets (by their Freesound or YouTube ids and by their samples), silence, and duplicates.
"""

from __future__ import annotations

from openclap.data.config import DataConfig, DataRecipe


def config() -> DataRecipe:
    """Return the recipe: all eight sources, decontaminated against six evaluation sets."""
    from openclap.data.config import DataRecipe

    return DataRecipe(
        name="LAION-Audio-630K",
        sources={
            name: name
            for name in (
                *("freesound", "epidemic_sound_effects", "bbc_sound_effects", "audiostock"),
                *("free_to_use_sounds", "sonniss_game_effects", "paramount_motion", "we_sound_effects"),
            )
        },
        config=DataConfig(
            # As LAION splits sources without splits of their own.
            splits={"train": 0.9, "test": 0.1},
            by_source=True,
            longest_s={"freesound": 180.0},
            lowest_rate=16_000,
            quietest_db=-90.0,
            drop_duplicates=True,
            seed=3407,
        ),
        decontaminate={name: name for name in ("esc50", "urbansound8k", "fsd50k", "clotho", "audiocaps", "vggsound")},
    )
