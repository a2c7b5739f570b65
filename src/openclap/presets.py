"""Presets: the configuration of front end and towers that weights need, by name.

A preset is saved beside its weights as `config.json`. The options of a training run are a recipe (`openclap.recipes`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, assert_never

from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.errors import CheckpointError, ConfigError
from openclap.formatting import describe_fields
from openclap.models.config import (
    HTSAT_BASE,
    HTSAT_LARGE,
    HTSAT_TINY,
    PANN_6,
    PANN_10,
    PANN_14,
    AudioConfig,
    HeadKind,
    HTSATConfig,
    NaFlexConfig,
    PANNConfig,
    TextTowerConfig,
    WhisperConfig,
)
from openclap.types import Signature


@dataclass(frozen=True, slots=True, repr=False)
class Preset:
    """Configuration of the front end and the networks of a model.

    Attributes:
        embedding_size: D, the number of dimensions of the shared space.
        temperatures, transforms: parts for LAION's four-term loss (see `openclap.models.clap.CLAP`).
        audio_head, text_head: the projections to the shared space (see `openclap.models.clap.HEADS`).
        unit_audio: normalise the audio tower's output before its projection.
    """

    name: str
    frontend: FrontEndConfig
    audio: AudioConfig
    text: TextTowerConfig
    embedding_size: int = 512
    temperatures: int = 1
    transforms: bool = False
    audio_head: HeadKind = "mlp_relu"
    text_head: HeadKind = "mlp_relu"
    unit_audio: bool = False

    def __repr__(self) -> str:
        # See `FrontEndConfig.__repr__`.
        return describe_fields(self, added=ADDED)

    @property
    def moment_samples(self) -> float:
        """Samples from one moment of the audio tower to the next: its resolution in time."""
        return self.audio.moment_frames(self.frontend.frames) * self.frontend.mel.hop

    @property
    def signature(self) -> Signature:
        """Input and output of its model."""
        front = self.frontend
        return Signature(
            self.name,
            front.mel.rate,
            front.samples,
            front.whole_samples,
            front.is_any_length,
            front.long == "fusion",
            self.embedding_size,
            self.text.context,
        )


ADDED = ("audio_head", "text_head", "unit_audio")
"""Fields that presets did not have at first."""


MINI = Preset(
    name="mini",
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
            # The largest value in aiSFX's training data, by which it scales its log-mels.
            ceiling=9.457798957824707,
        ),
        # 100 centred frames at a hop of 1024.
        samples=99 * 1024,
        fill="pad",
    ),
    # Classes of three libraries on which aiSFX was trained: sound effect categories (UCS).
    audio=PANNConfig(widths=(64, 128, 256, 512), pool="max", categories=(78, 79, 69)),
    text=TextTowerConfig(
        model_type="bert",
        pooling="mean",
        context=77,
        hidden_size=384,
        sizes={
            "num_hidden_layers": 3,
            "num_attention_heads": 12,
            "intermediate_size": 768,
            "vocab_size": 6000,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": 80,
        },
    ),
    embedding_size=384,
)
"""The bundled model: aiSFX's convolutional tower (100 frames, 2.3 s) with category heads, and a text tower distilled
from MiniLM. Embeddings are in the space of whitened MiniLM embeddings
(docs/decisions/0026-a-model-in-the-package.md)."""

# 1001 frames in 10 s. LAION-CLAP's plain models compute this log-mel inside the network and its fusion models the other
# one outside, with another library: hence two mel scales.
_SLANEY = MelConfig(48000, 1024, 480, 64, 50.0, 14000.0, scale="slaney", norm="area", compression="db")
_HTK = replace(_SLANEY, scale="htk", norm="none")
LAION_PLAIN = FrontEndConfig(_SLANEY, samples=480000, fill="repeatpad", int16=True)
LAION_FUSION = FrontEndConfig(_HTK, samples=480000, fill="repeatpad", int16=True, long="fusion")
"""LAION-CLAP's two front ends. They differ in the mel scale as well as in the views."""

ROBERTA = TextTowerConfig(
    "roberta",
    pooling="pooler",
    context=77,
    hidden_size=768,
    sizes={
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 50265,
        # 512 tokens; RoBERTa counts positions from 2 on.
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    tokenizer="roberta-base",
)
BERT = TextTowerConfig(
    "bert",
    pooling="pooler",
    context=77,
    hidden_size=768,
    sizes={
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
        "layer_norm_eps": 1e-12,
    },
    tokenizer="bert-base-uncased",
)
BART = TextTowerConfig(
    "bart",
    pooling="mean_padded",
    context=77,
    hidden_size=768,
    sizes={
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "vocab_size": 50265,
        "max_position_embeddings": 1024,
    },
    tokenizer="facebook/bart-base",
)
CLIP_TEXT = TextTowerConfig(
    "clip_text_model",
    pooling="eot",
    context=77,
    hidden_size=512,
    sizes={
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        # GELU as in LAION-CLAP. OpenAI's own weights need QuickGELU.
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    },
    tokenizer="openai/clip-vit-base-patch32",
)
"""LAION-CLAP's text towers, at the sizes of the paper. Checkpoints do not store `layer_norm_eps`."""


def laion(audio: AudioConfig, text: TextTowerConfig = ROBERTA, name: str = "laion") -> Preset:
    """Build a LAION-CLAP model's preset: its front end with or without fusion, two temperatures and MLP transforms."""
    frontend = LAION_FUSION if audio.fusion else LAION_PLAIN
    return Preset(name, frontend, audio, text, temperatures=2, transforms=True)


# Clips of up to a minute are read as a whole (docs/decisions/0028).
NAFLEX_FRONT_END = FrontEndConfig(_HTK, samples=480000, fill="none", longest=60 * 48000)
"""The front end of NaFlexCLAP: training clips of ten seconds."""
OPEN_CLIP_TEXT = replace(CLIP_TEXT, tokenizer="clip")
"""CLIP's text tower with the tokenizer in this package."""
MODERN_TEXT = TextTowerConfig(
    "modern",
    pooling="map",
    context=256,
    hidden_size=512,
    sizes={
        "num_hidden_layers": 12,
        "heads": 8,
        "vocab_size": 50260,
        "mlp_ratio": 2.6666667,
        "norm_eps": 1e-5,
        "gated": True,
        "qk_norm": True,
        "causal": False,
        "attention_bias": False,
        "mlp_bias": False,
        "gate_bias": False,
        "bos_id": 50259,
        "eos_id": 50257,
        "pad_id": 50258,
    },
    tokenizer="r50k_base",
)


def naflexclap(name: str, audio: NaFlexConfig, text: TextTowerConfig, embedding_size: int = 512) -> Preset:
    """Build a preset of NaFlexCLAP."""
    return Preset(name, NAFLEX_FRONT_END, audio, text, embedding_size, audio_head="mlp_gelu", text_head="linear")


def _naflexclap_presets() -> dict[str, Preset]:
    little = NaFlexConfig(
        width=320, depth=14, heads=5, patch_freq=16, patch_time=16, mlp_ratio=5.6, registers=1, layer_scale=1e-5
    )
    mediumd = replace(little, width=512, depth=20, heads=8, mlp_ratio=4.0, registers=4)
    base = replace(mediumd, width=768, depth=12, heads=12, patch_freq=8, patch_time=16, registers=1, pre_norm=True)
    small_text = replace(
        OPEN_CLIP_TEXT,
        context=32,
        hidden_size=64,
        sizes={
            **OPEN_CLIP_TEXT.sizes,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 32,
        },
    )
    nano_text = replace(
        OPEN_CLIP_TEXT,
        hidden_size=192,
        sizes={
            **OPEN_CLIP_TEXT.sizes,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "intermediate_size": 768,
        },
    )
    test = NaFlexConfig(width=96, depth=2, heads=6, patch_freq=64, patch_time=4)
    # A few clips are few steps: without layer scale, which starts the branches at nearly nothing, and with a norm of
    # the patches, which are raw decibels.
    nano = NaFlexConfig(width=192, depth=6, heads=3, patch_freq=16, patch_time=16, registers=1, pre_norm=True)
    found = [
        naflexclap("naflexclap-test", test, small_text, embedding_size=64),
        naflexclap("naflexclap-nano", nano, nano_text, embedding_size=256),
        naflexclap("naflexclap-little", little, OPEN_CLIP_TEXT),
        naflexclap("naflexclap-mediumd", mediumd, OPEN_CLIP_TEXT),
        naflexclap("naflexclap-base", base, MODERN_TEXT),
    ]
    return {preset.name: preset for preset in found}


NAFLEXCLAP = _naflexclap_presets()
"""Sizes of open_clip's naflexclap_test, _little, _mediumd and _base_pf8_pt16_moderntextp, and one of ours for CPUs,
"nano"."""

AUDIO_TOWERS: dict[str, AudioConfig] = {
    "htsat-tiny": HTSAT_TINY,
    "htsat-base": HTSAT_BASE,
    "htsat-large": HTSAT_LARGE,
    "pann-6": PANN_6,
    "pann-10": PANN_10,
    "pann-14": PANN_14,
}


def audio_tower_name(audio: AudioConfig) -> str | None:
    """The name in `AUDIO_TOWERS` of a tower, with or without fusion; None for other sizes."""
    if not isinstance(audio, HTSATConfig | PANNConfig):
        return None
    plain = replace(audio, fusion=None)
    return next((name for name, config in AUDIO_TOWERS.items() if config == plain), None)


TEXT_TOWERS: dict[str, TextTowerConfig] = {"roberta": ROBERTA, "bert": BERT, "bart": BART, "clip": CLIP_TEXT}

PRESETS: dict[str, Preset] = {
    "mini": MINI,
    **{
        f"{audio}-{text}": laion(AUDIO_TOWERS[audio], TEXT_TOWERS[text], f"{audio}-{text}")
        for audio in AUDIO_TOWERS
        for text in TEXT_TOWERS
    },
    **NAFLEXCLAP,
    "htsat-tiny-fusion-roberta": laion(replace(HTSAT_TINY, fusion="aff_2d"), name="htsat-tiny-fusion-roberta"),
}


def named(name: str) -> Preset:
    """Return the preset of that name. Raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. Expected one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def tower_name(audio: AudioConfig) -> str:
    """Name an audio tower: "htsat-tiny", "pann-14", or by its width (HTSAT, Whisper), blocks (PANN), or width, depth
    and patches (NaFlex); with "-fusion" if it fuses."""
    if isinstance(audio, NaFlexConfig):
        return f"naflex-{audio.width}x{audio.depth}-{audio.patch_freq}x{audio.patch_time}"
    if isinstance(audio, WhisperConfig):
        return f"whisper-{audio.width}"
    known = audio_tower_name(audio)
    if known:
        name = known
    elif isinstance(audio, HTSATConfig):
        name = f"htsat-{audio.width}"
    elif isinstance(audio, PANNConfig):
        name = f"pann-{len(audio.widths)}"
    else:
        assert_never(audio)
    return f"{name}-fusion" if audio.fusion else name


_CONFIGS: dict[str, type[Any]] = {
    "htsat": HTSATConfig,
    "pann": PANNConfig,
    "naflex": NaFlexConfig,
    "whisper": WhisperConfig,
}


def to_dict(preset: Preset) -> dict[str, Any]:
    """Convert a preset to plain data for `config.json`."""
    kind = next(kind for kind, config in _CONFIGS.items() if isinstance(preset.audio, config))
    audio = {"tower": kind, **_stored(preset.audio, added=("categories",))}
    frontend = _stored(preset.frontend, added=("longest",))
    frontend["mel"] = _stored(preset.frontend.mel, added=("filterbank_rate",))
    return _stored(preset, added=ADDED) | {"frontend": frontend, "audio": audio}


def _stored(config: Any, *, added: Collection[str]) -> dict[str, Any]:
    """The fields of a dataclass as plain data, without those of `added` that have their default, so that an older
    openclap, which does not know them, reads the file."""
    defaults = {field.name: field.default for field in fields(config) if field.name in added}
    return {name: value for name, value in asdict(config).items() if name not in added or value != defaults[name]}


def from_dict(data: dict[str, Any]) -> Preset:
    """Convert the data of `to_dict` back to a preset. Raises CheckpointError for missing or unknown fields."""
    try:
        fields = dict(data)
        frontend, audio = dict(fields.pop("frontend")), _tuples(fields.pop("audio"))
        return Preset(
            frontend=FrontEndConfig(**frontend | {"mel": MelConfig(**frontend["mel"])}),
            audio=_CONFIGS[audio.pop("tower", "pann")](**audio),  # a config.json without "tower" is a PANN
            text=TextTowerConfig(**fields.pop("text")),
            **fields,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json: the preset does not fit this openclap ({error}). Was it written by a newer version?"
        ) from None


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
