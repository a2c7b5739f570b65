"""The `model_cfg` of open_clip's CLAP models: to a preset and back.

Audio towers: NaFlex transformers, HTSAT and Whisper's encoder. Text towers: the modern transformer, CLIP's, and
RoBERTa or BERT. Generative models and image models are refused. Options that an embedding does not depend on are
ignored; those that it does depend on, and that no network here has, are refused by name; unknown ones are named in a
warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.errors import CheckpointError, CheckpointWarning
from openclap.formatting import join_first
from openclap.models.config import (
    HTSAT_BASE,
    HTSAT_LARGE,
    HTSAT_TINY,
    MODERN,
    AudioConfig,
    HeadKind,
    HTSATConfig,
    ModernTextSizes,
    NaFlexConfig,
    PANNConfig,
    Pooling,
    TextTowerConfig,
    WhisperConfig,
)
from openclap.presets import Preset
from openclap.text import merges

Settings = Mapping[str, Any]

LONGEST_S = 60
"""Clips up to this length are read as a whole by towers that read any length. open_clip has no limit; the cost of
attention grows with the square of the length."""
DEFAULT_CLIP_S = 10
GENERATIVE = ("genlap_cfg", "genlip_cfg")

# ---------------------------------------------------------------------------------------------------------------------
# The options of each part: values that are required, and names that are known.

# fmt: off
TOP = frozenset({
    "embed_dim", "audio_cfg", "text_cfg", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale",
    "quick_gelu", "output_dict", "custom_text", "cast_dtype",
})
AUDIO = frozenset({
    "model_type", "sample_rate", "mel_bins", "window_size", "hop_size", "fmin", "fmax", "proj_act", "pre_norm",
    "training_head", "audio_length", "clip_samples", "class_num", "model_name", "pretrained",
})
NAFLEX = AUDIO | {"in_chans", "rope_type", "patch_freq", "patch_time", "patch_pad_mode", "audio_seq_len"}
NAFLEX |= {"naflexvit_cfg", "audio_patch_layout"}
NAFLEX_SIZES = frozenset({
    "embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "reg_tokens", "pre_norm", "attn_gated",
    "qk_norm", "swiglu_mlp", "attn_pool_mlp_ratio", "drop_rate", "attn_drop_rate", "proj_drop_rate",
    "drop_path_rate", "pos_drop_rate", "patch_drop_rate", "rope_type", "global_pool", "class_token",
    "pool_include_prefix", "num_kv_heads", "scale_mlp_norm", "qkv_bias",
})
FUSED = AUDIO | {"enable_fusion", "fusion_type"}
MODERN_TEXT = frozenset({
    "text_arch", "context_length", "variable_text", "vocab_size", "width", "heads", "layers", "mlp_ratio", "pad_id",
    "bos_id", "eos_id", "pos_embed", "mlp_type", "norm_type", "norm_eps", "attn_gated", "tokenizer_type",
    "tiktoken_name", "pool_type", "attention_mode", "qk_norm", "mlp_bias", "attention_bias", "gate_bias",
    "proj_bias", "tokenizer_kwargs", "hf_tokenizer_name",
})
CLIP_TEXT = frozenset({
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "pool_type", "proj_bias", "proj_type",
    "no_causal_mask", "embed_cls", "ls_init_value", "final_ln_after_pool", "pad_id", "output_tokens",
    "variable_text", "tokenizer_type", "tokenizer_kwargs", "hf_tokenizer_name", "text_arch",
})
HF_TEXT = frozenset({
    "hf_model_name", "hf_tokenizer_name", "hf_pooler_type", "hf_proj_type", "hf_model_pretrained", "context_length",
    "tokenizer_kwargs", "variable_text", "tokenizer_type", "proj_type", "pool_type",
})
# fmt: on

FIXED: dict[str, Collection[Any]] = {
    "audio_cfg.in_chans": (1,),
    "audio_cfg.rope_type": ("axial",),
    "naflexvit_cfg.rope_type": ("axial",),
    "naflexvit_cfg.global_pool": ("map",),
    "naflexvit_cfg.class_token": (False,),
    "naflexvit_cfg.pool_include_prefix": (False,),
    "naflexvit_cfg.scale_mlp_norm": (False,),
    "naflexvit_cfg.qkv_bias": (True,),
    "text_cfg.pos_embed": ("rope",),
    "text_cfg.mlp_type": ("swiglu",),
    "text_cfg.norm_type": ("rmsnorm",),
    "text_cfg.no_causal_mask": (False,),
    "text_cfg.embed_cls": (False,),
    "text_cfg.final_ln_after_pool": (False,),
    "text_cfg.ls_init_value": (None,),
}
"""Options that have one form in the networks here. None and absence mean open_clip's default."""


@dataclass(frozen=True, slots=True)
class OpenClipConfig:
    """A `model_cfg` with the names of its options that nothing here knows."""

    preset: Preset
    unknown: tuple[str, ...]

    def warn(self, source: str) -> None:
        """Warn with CheckpointWarning where there are unknown options."""
        if self.unknown:
            warnings.warn(
                f"{source}: ignored {join_first(self.unknown, 10)}, which this openclap does not know. If they change "
                "the networks, embeddings will differ.",
                CheckpointWarning,
                stacklevel=2,
            )


def read_config(model_cfg: Settings, source: str) -> OpenClipConfig:
    """The preset of a `model_cfg`. Raises CheckpointError for any model but CLAP's, and for options that the networks
    here lack."""
    for name in GENERATIVE:
        if name in model_cfg:
            raise CheckpointError(
                f"{source}: holds a generative model ({name}), which writes captions and has no shared space of audio "
                "and text. Choose a CLAP model."
            )
    if "audio_cfg" not in model_cfg:
        other = join_first(sorted(name for name in model_cfg if name.endswith("_cfg"))) or "no towers"
        raise CheckpointError(f"{source}: is no CLAP model of open_clip; its model_cfg has {other} and no audio_cfg.")
    audio_cfg, text_cfg = _part(model_cfg, "audio_cfg", source), _part(model_cfg, "text_cfg", source)
    naflex_cfg = _part(audio_cfg, "naflexvit_cfg", source) if "naflexvit_cfg" in audio_cfg else {}
    for name, part in (("audio_cfg", audio_cfg), ("naflexvit_cfg", naflex_cfg), ("text_cfg", text_cfg)):
        _check_fixed(name, part, source)
    embedding_size = int(_required(model_cfg, "embed_dim", source))
    audio, frontend, known_audio = _audio(audio_cfg, naflex_cfg, embedding_size, source)
    text, text_head, known_text = _text(text_cfg, bool(model_cfg.get("quick_gelu")), source)
    preset = Preset(
        name=f"{presets.tower_name(audio)}-{text.model_type.removesuffix('_text_model')}",
        frontend=frontend,
        audio=audio,
        text=text,
        embedding_size=embedding_size,
        audio_head="mlp_relu" if audio_cfg.get("proj_act") == "relu" else "mlp_gelu",
        text_head=text_head,
        # A model with a training head returns the pooled vector, and normalises it before the projection, too.
        unit_audio=bool(audio_cfg.get("pre_norm") or audio_cfg.get("training_head")),
    )
    unknown = (
        *_unknown("", model_cfg, TOP),
        *_unknown("audio_cfg.", audio_cfg, known_audio),
        *_unknown("audio_cfg.naflexvit_cfg.", naflex_cfg, NAFLEX_SIZES),
        *_unknown("text_cfg.", text_cfg, known_text),
    )
    return OpenClipConfig(preset, unknown)


def _part(settings: Settings, name: str, source: str) -> Settings:
    part = settings.get(name)
    if not isinstance(part, dict):
        raise CheckpointError(f"{source}: {name} is {part!r}, expected an object.")
    return part


def _required(settings: Settings, name: str, source: str) -> Any:
    if settings.get(name) is None:
        raise CheckpointError(f"{source}: lacks {name}. Is it complete?")
    return settings[name]


def _unknown(prefix: str, settings: Settings, known: Collection[str]) -> Iterator[str]:
    return (f"{prefix}{name}" for name in settings if name not in known)


def _check_fixed(part: str, settings: Settings, source: str) -> None:
    for name, value in settings.items():
        allowed = FIXED.get(f"{part}.{name}")
        if allowed is not None and value is not None and value not in allowed:
            raise CheckpointError(
                f"{source}: {part}.{name} is {value!r}, and the networks here have {join_first(map(repr, allowed))} "
                "alone."
            )


# ---------------------------------------------------------------------------------------------------------------------
# Audio.

HTSAT_SIZES = {"tiny": HTSAT_TINY, "base": HTSAT_BASE, "large": HTSAT_LARGE}
WHISPER_SIZES = {
    "tiny": (384, 4, 6),
    "base": (512, 6, 8),
    "small": (768, 12, 12),
    "medium": (1024, 24, 16),
    "large": (1280, 32, 20),
}
"""Width, layers and heads of Whisper's encoders."""
WHISPER_FRONT_END = FrontEndConfig(
    # open_clip's filterbank: HTK's scale with area normalisation, where OpenAI's has Slaney's scale. It ignores the
    # `mel_bins`, `fmin` and `fmax` of its own configuration.
    MelConfig(16000, 400, 160, 80, 0.0, 8000.0, scale="htk64", norm="area", compression="whisper"),
    samples=480000,
    fill="repeatpad",
)


def _audio(
    audio_cfg: Settings, naflex_cfg: Settings, embedding_size: int, source: str
) -> tuple[AudioConfig, FrontEndConfig, Collection[str]]:
    kind = str(audio_cfg.get("model_type", "")).lower()
    if kind == "naflexvit":
        return *_naflex(audio_cfg, naflex_cfg, source), NAFLEX
    name = audio_cfg.get("model_name")
    if kind == "htsat" and name in HTSAT_SIZES:
        # The weights tell whether there is fusion (`open_clip.read`).
        classes = int(audio_cfg.get("class_num", 527))
        return replace(HTSAT_SIZES[name], classes=classes), replace(presets.LAION_PLAIN, int16=False), FUSED
    if kind == "whisper" and name in WHISPER_SIZES:
        width, layers, heads = WHISPER_SIZES[name]
        return WhisperConfig(width, layers, heads, embedding_size), WHISPER_FRONT_END, AUDIO
    raise CheckpointError(
        f"{source}: its audio tower is {audio_cfg.get('model_type')!r} {name!r}, expected naflexvit, HTSAT "
        f"({', '.join(HTSAT_SIZES)}) or whisper ({', '.join(WHISPER_SIZES)})."
    )


def _naflex(audio_cfg: Settings, naflex_cfg: Settings, source: str) -> tuple[NaFlexConfig, FrontEndConfig]:
    heads = int(naflex_cfg.get("num_heads", 12))
    if naflex_cfg.get("num_kv_heads") not in (None, heads):
        raise CheckpointError(
            f"{source}: naflexvit_cfg.num_kv_heads is {naflex_cfg['num_kv_heads']}, and the networks here have as many "
            f"as num_heads ({heads}) alone."
        )
    try:
        config = NaFlexConfig(
            width=int(naflex_cfg.get("embed_dim", 768)),
            depth=int(naflex_cfg.get("depth", 12)),
            heads=heads,
            patch_freq=int(_required(audio_cfg, "patch_freq", source)),
            patch_time=int(_required(audio_cfg, "patch_time", source)),
            n_mels=int(audio_cfg.get("mel_bins", 64)),
            mlp_ratio=float(naflex_cfg.get("mlp_ratio", 4.0)),
            pool_mlp_ratio=float(naflex_cfg.get("attn_pool_mlp_ratio") or 0.0),
            registers=int(naflex_cfg.get("reg_tokens") or 0),
            pre_norm=bool(naflex_cfg.get("pre_norm")),
            gated=bool(naflex_cfg.get("attn_gated")),
            qk_norm=bool(naflex_cfg.get("qk_norm")),
            swiglu=bool(naflex_cfg.get("swiglu_mlp")),
            layer_scale=float(naflex_cfg.get("init_values") or 0.0),
            padding=audio_cfg.get("patch_pad_mode") or "floor",
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: describes no audio tower that can be built ({error}).") from None
    if config.padding not in ("floor", "silence", "repeat"):
        raise CheckpointError(
            f"{source}: audio_cfg.patch_pad_mode is {config.padding!r}, expected floor, silence or repeat."
        )
    rate, hop = int(audio_cfg.get("sample_rate", 48000)), int(audio_cfg.get("hop_size", 480))
    mel = MelConfig(
        rate,
        int(audio_cfg.get("window_size", 1024)),
        hop,
        config.n_mels,
        float(audio_cfg.get("fmin", 50)),
        float(audio_cfg.get("fmax", 14000)),
        # LAION's mel for fusion, not that of its plain models.
        scale="htk",
        norm="none",
        compression="db",
    )
    tokens = audio_cfg.get("audio_seq_len")
    if tokens and int(tokens) < config.rows:
        raise CheckpointError(
            f"{source}: audio_cfg.audio_seq_len is {tokens}, expected at least {config.rows}, the patches of a column."
        )
    seconds = config.frames_within(int(tokens)) * hop // rate if tokens else DEFAULT_CLIP_S
    samples = max(1, seconds) * rate
    return config, FrontEndConfig(mel, samples, fill="none", longest=max(LONGEST_S * rate, samples))


# ---------------------------------------------------------------------------------------------------------------------
# Text.

HF_TOWERS = {"roberta-base": presets.ROBERTA, "FacebookAI/roberta-base": presets.ROBERTA}
HF_TOWERS |= {"bert-base-uncased": presets.BERT, "google-bert/bert-base-uncased": presets.BERT}
HF_POOLINGS: dict[str, Pooling] = {
    "cls_pooler": "pooler",
    "mean_pooler": "mean",
    "cls_last_hidden_state_pooler": "cls",
}
HF_HEADS: dict[str, HeadKind] = {"clap_mlp": "mlp_relu", "mlp": "mlp_gelu_narrow", "linear": "linear"}
MODERN_POOLINGS: dict[str, Pooling] = {"map": "map", "eos": "eos", "argmax": "eos", "mean": "mean"}


def _text(text_cfg: Settings, quick_gelu: bool, source: str) -> tuple[TextTowerConfig, HeadKind, Collection[str]]:
    if "hf_model_name" in text_cfg:
        return *_hf_text(text_cfg, source), HF_TEXT
    if text_cfg.get("text_arch") == "modern":
        return _modern_text(text_cfg, source), _text_head(text_cfg), MODERN_TEXT
    if text_cfg.get("text_arch") not in (None, "clip"):
        raise CheckpointError(f"{source}: text_cfg.text_arch is {text_cfg['text_arch']!r}, expected modern or clip.")
    if text_cfg.get("pool_type", "argmax") != "argmax":
        raise CheckpointError(f"{source}: text_cfg.pool_type is {text_cfg['pool_type']!r}, expected argmax for CLIP's.")
    width = int(text_cfg.get("width", 512))
    context = int(text_cfg.get("context_length", 77))
    sizes = dict(presets.CLIP_TEXT.sizes) | {
        "num_hidden_layers": int(text_cfg.get("layers", 12)),
        "num_attention_heads": int(text_cfg.get("heads", 8)),
        "intermediate_size": int(width * float(text_cfg.get("mlp_ratio", 4.0))),
        "vocab_size": int(text_cfg.get("vocab_size", 49408)),
        "max_position_embeddings": context,
        "hidden_act": "quick_gelu" if quick_gelu else "gelu",
    }
    tower = replace(presets.CLIP_TEXT, hidden_size=width, context=context, sizes=sizes, tokenizer=merges.CLIP)
    return tower, _text_head(text_cfg), CLIP_TEXT


def _text_head(text_cfg: Settings) -> HeadKind:
    return "linear_bias" if text_cfg.get("proj_bias") else "linear"


def _hf_text(text_cfg: Settings, source: str) -> tuple[TextTowerConfig, HeadKind]:
    name = text_cfg["hf_model_name"]
    pooling = HF_POOLINGS.get(text_cfg.get("hf_pooler_type") or "mean_pooler")
    head = HF_HEADS.get(text_cfg.get("hf_proj_type") or "mlp")
    if name not in HF_TOWERS or pooling is None or head is None:
        raise CheckpointError(
            f"{source}: its text tower is {name!r} with hf_pooler_type {text_cfg.get('hf_pooler_type')!r} and "
            f"hf_proj_type {text_cfg.get('hf_proj_type')!r}, expected {' or '.join(HF_TOWERS)}, "
            f"{' or '.join(HF_POOLINGS)}, and {' or '.join(HF_HEADS)}."
        )
    tower = HF_TOWERS[name]
    tokenizer = text_cfg.get("hf_tokenizer_name") or tower.tokenizer
    return replace(tower, pooling=pooling, context=int(text_cfg.get("context_length", 77)), tokenizer=tokenizer), head


def _modern_text(text_cfg: Settings, source: str) -> TextTowerConfig:
    tokenizer = text_cfg.get("tiktoken_name", merges.R50K)
    if text_cfg.get("tokenizer_type", "tiktoken") != "tiktoken" or tokenizer not in (merges.R50K, "gpt2"):
        raise CheckpointError(
            f"{source}: its tokenizer is {text_cfg.get('tokenizer_type')!r} {tokenizer!r}, expected tiktoken's "
            f"{merges.R50K}."
        )
    pool = str(text_cfg.get("pool_type", "argmax"))
    if pool not in MODERN_POOLINGS:
        raise CheckpointError(f"{source}: text_cfg.pool_type is {pool!r}, expected {' or '.join(MODERN_POOLINGS)}.")
    attention_bias = bool(text_cfg.get("attention_bias"))
    gate_bias = text_cfg.get("gate_bias")
    sizes = ModernTextSizes(
        num_hidden_layers=int(text_cfg.get("layers", 12)),
        heads=int(text_cfg.get("heads", 8)),
        vocab_size=int(_required(text_cfg, "vocab_size", source)),
        mlp_ratio=float(_required(text_cfg, "mlp_ratio", source)),
        norm_eps=float(text_cfg.get("norm_eps", 1e-6)),
        gated=bool(text_cfg.get("attn_gated")),
        qk_norm=bool(text_cfg.get("qk_norm")),
        causal=text_cfg.get("attention_mode", "causal") == "causal",
        attention_bias=attention_bias,
        mlp_bias=bool(text_cfg.get("mlp_bias")),
        gate_bias=attention_bias if gate_bias is None else bool(gate_bias),
        bos_id=int(text_cfg.get("bos_id", 50259)),
        eos_id=int(text_cfg.get("eos_id", 50257)),
        pad_id=int(text_cfg.get("pad_id", 50258)),
    )
    return TextTowerConfig(
        MODERN,
        pooling=MODERN_POOLINGS[pool],
        context=int(text_cfg.get("context_length", 77)),
        hidden_size=int(_required(text_cfg, "width", source)),
        sizes={name: getattr(sizes, name) for name in ModernTextSizes.__dataclass_fields__},
        tokenizer=merges.R50K,
    )


# ---------------------------------------------------------------------------------------------------------------------
# A preset to `model_cfg`.


def write_config(
    preset: Preset, *, logit_scale: float | None = None, logit_bias: float | None = None
) -> dict[str, Any]:
    """The `model_cfg` of a preset. Raises CheckpointError for towers and heads that open_clip does not have.

    Args:
        logit_bias: of a model that has one.
    """
    audio_cfg = _write_audio(preset)
    if preset.unit_audio:
        audio_cfg["pre_norm"] = True
    text_cfg, quick_gelu = _write_text(preset)
    start = {} if logit_bias is None else {"init_logit_scale": logit_scale, "init_logit_bias": logit_bias}
    gelu = {"quick_gelu": True} if quick_gelu else {}
    return {"embed_dim": preset.embedding_size, "audio_cfg": audio_cfg, "text_cfg": text_cfg, **gelu, **start}


def _write_audio(preset: Preset) -> dict[str, Any]:
    audio, mel = preset.audio, preset.frontend.mel
    if preset.audio_head not in ("mlp_relu", "mlp_gelu"):
        raise _no_place(preset, f"an audio head {preset.audio_head}")
    front = {
        "sample_rate": mel.rate,
        "mel_bins": mel.n_mels,
        "window_size": mel.n_fft,
        "hop_size": mel.hop,
        "fmin": mel.f_min,
        "fmax": mel.f_max,
    }
    head = {"proj_act": "relu"} if preset.audio_head == "mlp_relu" else {}
    if isinstance(audio, NaFlexConfig):
        return {"model_type": "naflexvit", **front, **_write_naflex(preset, audio), **head}
    length = {"audio_length": 1024, "clip_samples": preset.frontend.samples, "class_num": 527}
    if isinstance(audio, HTSATConfig):
        fusion = {"enable_fusion": True, "fusion_type": audio.fusion} if audio.fusion else {}
        name = _size_name(HTSAT_SIZES, replace(audio, fusion=None, classes=527), preset)
        classes = {"class_num": audio.classes or 527}
        return {"model_type": "HTSAT", "model_name": name, **front, **length, **classes, **fusion, **head}
    if isinstance(audio, WhisperConfig):
        name = _size_name(WHISPER_SIZES, (audio.width, audio.layers, audio.heads), preset)
        return {"model_type": "whisper", "model_name": name, **front, **length, **head}
    if isinstance(audio, PANNConfig):
        raise _no_place(preset, "a PANN audio tower")
    assert_never(audio)


def _write_naflex(preset: Preset, audio: NaFlexConfig) -> dict[str, Any]:
    sizes: dict[str, Any] = {
        "embed_dim": audio.width,
        "depth": audio.depth,
        "num_heads": audio.heads,
        "mlp_ratio": audio.mlp_ratio,
        "init_values": audio.layer_scale or None,
        "reg_tokens": audio.registers,
        "pre_norm": audio.pre_norm,
        "attn_gated": audio.gated,
        "qk_norm": audio.qk_norm,
        "swiglu_mlp": audio.swiglu,
    }
    if audio.pool_mlp_ratio:
        sizes["attn_pool_mlp_ratio"] = audio.pool_mlp_ratio
    return {
        "patch_freq": audio.patch_freq,
        "patch_time": audio.patch_time,
        "patch_pad_mode": audio.padding,
        "in_chans": 1,
        "rope_type": "axial",
        "audio_seq_len": audio.tokens(preset.frontend.frames),
        "naflexvit_cfg": sizes,
    }


def _size_name(sizes: Mapping[str, Any], wanted: Any, preset: Preset) -> str:
    names = [name for name, size in sizes.items() if size == wanted]
    if not names:
        raise _no_place(preset, "an audio tower of these sizes")
    return names[0]


def _write_text(preset: Preset) -> tuple[dict[str, Any], bool]:
    """`text_cfg`, and whether `quick_gelu` belongs beside it."""
    text, head = preset.text, preset.text_head
    if text.model_type == MODERN and head in ("linear", "linear_bias"):
        sizes = ModernTextSizes(**text.sizes)
        return {
            "text_arch": "modern",
            "context_length": text.context,
            "variable_text": True,
            "vocab_size": sizes.vocab_size,
            "width": text.hidden_size,
            "heads": sizes.heads,
            "layers": sizes.num_hidden_layers,
            "mlp_ratio": sizes.mlp_ratio,
            **{name: getattr(sizes, name) for name in ("pad_id", "bos_id", "eos_id", "norm_eps", "qk_norm")},
            **{name: getattr(sizes, name) for name in ("attention_bias", "mlp_bias", "gate_bias")},
            "pos_embed": "rope",
            "mlp_type": "swiglu",
            "norm_type": "rmsnorm",
            "attn_gated": sizes.gated,
            "tokenizer_type": "tiktoken",
            "tiktoken_name": merges.R50K,
            "pool_type": text.pooling,
            "attention_mode": "causal" if sizes.causal else "bidirectional",
            **({"proj_bias": True} if head == "linear_bias" else {}),
        }, False
    if text.model_type == "clip_text_model" and head in ("linear", "linear_bias"):
        return {
            "context_length": text.sizes["max_position_embeddings"],
            "vocab_size": text.sizes["vocab_size"],
            "width": text.hidden_size,
            "heads": text.sizes["num_attention_heads"],
            "layers": text.sizes["num_hidden_layers"],
            "mlp_ratio": text.sizes["intermediate_size"] / text.hidden_size,
            **({"proj_bias": True} if head == "linear_bias" else {}),
        }, text.sizes.get("hidden_act") == "quick_gelu"
    names = [name for name, tower in HF_TOWERS.items() if tower.model_type == text.model_type]
    poolings = [name for name, pooling in HF_POOLINGS.items() if pooling == text.pooling]
    heads = [name for name, kind in HF_HEADS.items() if kind == head]
    if not (names and poolings and heads):
        raise _no_place(preset, f"a {text.model_type} text tower pooled by {text.pooling} with a head {head}")
    return {
        "hf_model_name": names[0],
        "hf_tokenizer_name": text.tokenizer or names[0],
        "hf_pooler_type": poolings[0],
        "hf_proj_type": heads[0],
        "context_length": text.context,
    }, False


def _no_place(preset: Preset, part: str) -> CheckpointError:
    return CheckpointError(f"{preset.name}: open_clip has no place for {part}. Convert to openclap instead.")
