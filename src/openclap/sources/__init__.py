"""Where sounds and their descriptions come from: one file a source, each yields records.

`SOURCES["clotho"].read("path/to/clotho")` reads records lazily. A source of one's own is one file and one line here:
docs/howto/add-a-source.md.
"""

from openclap.sources import (
    audiocaps,
    audioset,
    audiostock,
    bbc_sound_effects,
    clotho,
    epidemic_sound_effects,
    esc50,
    folder,
    freesound,
    fsd50k,
    gtzan,
    hugging_face,
    libraries,
    macs,
    shards,
    table,
    urbansound8k,
    vggsound,
    wavtext5k,
)
from openclap.sources.record import Record
from openclap.sources.source import Published, Source
from openclap.sources.table import read_table

SOURCES: dict[str, Source] = {
    # LAION-Audio-630K
    "freesound": freesound.SOURCE,
    "epidemic_sound_effects": epidemic_sound_effects.SOURCE,
    "bbc_sound_effects": bbc_sound_effects.SOURCE,
    "audiostock": audiostock.SOURCE,
    "free_to_use_sounds": libraries.FREE_TO_USE_SOUNDS,
    "sonniss_game_effects": libraries.SONNISS,
    "paramount_motion": libraries.PARAMOUNT_MOTION,
    "we_sound_effects": libraries.WE_SOUND_EFFECTS,
    # sets that are trained and measured on beside it
    "audioset": audioset.SOURCE,
    "audiocaps": audiocaps.SOURCE,
    "clotho": clotho.SOURCE,
    "fsd50k": fsd50k.SOURCE,
    "macs": macs.SOURCE,
    "wavtext5k": wavtext5k.SOURCE,
    "esc50": esc50.SOURCE,
    "urbansound8k": urbansound8k.SOURCE,
    "vggsound": vggsound.SOURCE,
    "gtzan": gtzan.SOURCE,
    # anything else
    "folder": folder.SOURCE,
    "table": table.SOURCE,
    "hugging_face": hugging_face.SOURCE,
    "shards": shards.SOURCE,
}

__all__ = ["SOURCES", "Published", "Record", "Source", "read_table"]
