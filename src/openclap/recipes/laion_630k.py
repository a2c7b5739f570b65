"""LAION-Audio-630K (Wu et al. 2023, arXiv:2211.06687): 633,526 pairs of sound and text from eight sources.

    openclap dataset build laion-630k OUT --root DIR --missing-ok

DIR holds a folder for each source, named as below; `--missing-ok` goes on without those that are not there (four are
libraries that have to be bought) and says so. Metadata alone took 94 s and 538 MB on two busy cores
(`python benchmarks/dataset.py metadata`, made-up rows); fetching takes as long as sources allow. The whole was never
run: its 4,325 hours of sound could not be had.

Freesound's clips of over three minutes and recordings below 16 kHz are left out, as they were; so are clips that the
evaluation sets hold, by their Freesound or YouTube ids and by their samples; silence; and second copies.
"""

from __future__ import annotations

from openclap.data.config import DataConfig, DataRecipe


def config() -> DataRecipe:
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
