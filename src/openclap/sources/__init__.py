"""Sources of audio with captions: one file per data set or layout, each of which yields records.

`SOURCES["clotho"].read("path/to/clotho")` reads records lazily. A new source is one file, and one line here:
docs/howto/add-a-source.md.
"""

from openclap.sources import (
    audio_folder,
    audiocaps,
    audioset,
    audiosetcaps,
    audiostock,
    auto_acd,
    bbc_sound_effects,
    clotho,
    epidemic_sound_effects,
    esc50,
    finelap,
    freesound,
    fsd50k,
    gtzan,
    hugging_face,
    id_list,
    libraries,
    macs,
    shards,
    table,
    tacos,
    urbansound8k,
    vggsound,
    wavcaps,
    wavtext5k,
)
from openclap.sources.record import Record
from openclap.sources.source import PublishedSize, Source
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
    # other data sets for training and evaluation
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
    # data sets since LAION-Audio-630K
    "wavcaps": wavcaps.SOURCE,
    "audiosetcaps": audiosetcaps.SOURCE,
    "auto_acd": auto_acd.SOURCE,
    "tacos": tacos.SOURCE,
    "audiocaps2": audiocaps.VERSION_2,
    # ids to exclude
    "id_list": id_list.SOURCE,
    # layouts
    "folder": audio_folder.SOURCE,
    "table": table.SOURCE,
    "hugging_face": hugging_face.SOURCE,
    "shards": shards.SOURCE,
    "finelap": finelap.SOURCE,
}

__all__ = ["SOURCES", "PublishedSize", "Record", "Source", "read_table"]
