"""`openclap init`: a model to begin training with."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note
from openclap.cli.model_options import Offline, Tokenizer


def init(
    preset: str,
    *,
    out: Path,
    audio_tower: Path | None = None,
    text_tower: str | None = None,
    tokenizer: Tokenizer = None,
    seed: int = 3407,
    offline: Offline = False,
) -> None:
    """Make a model that has yet to be trained: fresh weights, and towers that have learned elsewhere.

    Parameters
    ----------
    preset
        What it is made of, such as htsat-tiny-roberta or pann-14-bert.
    out
        Folder to write.
    audio_tower
        A file of HTSAT or PANN as trained on AudioSet; without it the audio tower is fresh.
    text_tower
        A folder of transformers or a name on the hub, such as roberta-base; without it the text tower is fresh.
    seed
        Of the fresh weights; the same call gives the same model.
    offline
        Take what the hub's cache has, and ask the network for nothing.
    """
    from openclap.checkpoints import initial
    from openclap.presets import named

    made = initial.make(
        named(preset),
        out,
        audio_tower=audio_tower,
        text_tower=text_tower,
        tokenizer=tokenizer,
        seed=seed,
        offline=offline,
    )
    note(f"Wrote {out}. Fresh: {', '.join(made.fresh)}.")
    for change in made.changed:
        note(f"The audio tower was trained at a {change}.")
