"""`openclap init`: make an initial model for training."""

from __future__ import annotations

from pathlib import Path

from openclap.cli.console import note
from openclap.cli.model_options import TokenizerFile


def init(
    preset: str,
    *,
    out: Path,
    audio_tower: Path | None = None,
    text_tower: str | None = None,
    tokenizer: TokenizerFile = None,
    seed: int = 3407,
    offline: bool = False,
) -> None:
    """Make an initial model for training: fresh weights, with pretrained towers if given.

    Parameters
    ----------
    preset
        The model's architecture, such as htsat-tiny-roberta or pann-14-bert.
    out
        The model folder to write.
    audio_tower
        A file of HTSAT or PANN weights trained on AudioSet. Default: random weights.
    text_tower
        A transformers folder or a name on the hub, such as roberta-base. Default: random weights.
    seed
        The seed of random weights; the same command makes the same model.
    offline
        Use only the hub's cache, without network access.
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
    note(f"Wrote {out}. Random weights: {', '.join(made.fresh)}.")
    for change in made.changed:
        note(f"The audio tower was trained at a {change}.")
