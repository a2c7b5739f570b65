"""What weights need: front end, towers and sizes, by name.

A preset is saved beside its weights as `config.json`. What a run chooses is a recipe (`openclap.recipes`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from openclap.audio.frontend import FrontEndConfig
from openclap.audio.mel import MelConfig
from openclap.errors import CheckpointError
from openclap.models.pann import PANN, PANNConfig
from openclap.models.text_tower import TextTower, TextTowerConfig

if TYPE_CHECKING:
    from openclap.models.clap import CLAP


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything that weights need to be used as they were trained."""

    name: str
    frontend: FrontEndConfig
    audio: PANNConfig
    text: TextTowerConfig
    embedding_size: int = 512


DEMO = Preset(
    name="demo",
    frontend=FrontEndConfig(
        mel=MelConfig(
            rate=44100,
            n_fft=2048,
            hop=1024,
            n_mels=96,
            f_min=0.0,
            f_max=22050.0,
            scale="htk",
            norm="sum",
            compression="log10",
            ceiling=9.457798957824707,
        ),
        samples=99 * 1024,
        fill="pad",
    ),
    audio=PANNConfig(widths=(64, 128, 256, 512), pool="max"),
    text=TextTowerConfig(
        model_type="bert",
        pooling="mean",
        context=77,
        hidden_size=384,
        sizes={
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "vocab_size": 30522,
            "layer_norm_eps": 1e-12,
        },
    ),
)
"""aiSFX's convolutional tower (100 frames, 2.3 s) and the MiniLM sentence encoder."""

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (DEMO,)}


def build(preset: Preset) -> CLAP:
    """The networks of a preset, with fresh weights."""
    from openclap.models.clap import CLAP

    return CLAP(
        PANN(preset.audio),
        TextTower(preset.text),
        preset.audio.embedding_size,
        preset.text.hidden_size,
        preset.embedding_size,
    )


def to_dict(preset: Preset) -> dict[str, Any]:
    """Plain data for `config.json`."""
    return asdict(preset)


def from_dict(data: dict[str, Any]) -> Preset:
    """The inverse of `to_dict`. Raises CheckpointError for missing or unknown fields."""
    try:
        frontend = dict(data["frontend"])
        audio = dict(data["audio"])
        return Preset(
            name=data["name"],
            frontend=FrontEndConfig(**frontend | {"mel": MelConfig(**frontend["mel"])}),
            audio=PANNConfig(**audio | {"widths": tuple(audio["widths"])}),
            text=TextTowerConfig(**data["text"]),
            embedding_size=data["embedding_size"],
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"config.json: the preset does not fit this openclap ({error}). Was it written by a newer version?"
        ) from None
