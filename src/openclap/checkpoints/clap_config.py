"""A preset as transformers' ClapConfig and ClapFeatureExtractor, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.checkpoints.conversion_report import changes
from openclap.checkpoints.shapes import tower_name
from openclap.errors import CheckpointError
from openclap.models.config import HTSATConfig
from openclap.presets import Preset

TEXT_SIZES = (
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "max_position_embeddings"),
    *("type_vocab_size", "layer_norm_eps", "hidden_act", "pad_token_id", "bos_token_id", "eos_token_id"),
)
BUILT_IN = {
    "projection_hidden_act": "relu",
    "audio_config.hidden_act": "gelu",
    "audio_config.layer_norm_eps": 1e-5,
    "audio_config.patch_size": 4,
    "audio_config.patch_stride": 4,
    "audio_config.mlp_ratio": 4.0,
    "audio_config.aff_block_r": 4,
    "audio_config.qkv_bias": True,
    "audio_config.enable_patch_layer_norm": True,
}
"""What a ClapConfig can choose and HTSAT's networks do not. No released model chooses otherwise."""


def preset_of(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Preset:
    """The preset that a ClapConfig and its preprocessor file describe.

    Raises CheckpointError for a choice that the networks here do not have.
    """
    from transformers import ClapConfig

    whole = ClapConfig.from_dict(dict(config))
    _check_built_in(whole)
    audio, text = whole.audio_config, whole.text_config
    fused = bool(audio.enable_fusion)
    tower = HTSATConfig(
        width=audio.patch_embeds_hidden_size,
        depths=tuple(audio.depths),
        heads=tuple(audio.num_attention_heads),
        n_mels=audio.num_mel_bins,
        image=audio.spec_size,
        window=audio.window_size,
        classes=0,
        fusion="aff_2d" if fused else None,
    )
    tower_text = replace(
        presets.ROBERTA, hidden_size=text.hidden_size, sizes={name: getattr(text, name) for name in TEXT_SIZES}
    )
    return Preset(
        name=f"{tower_name(replace(tower, classes=527))}-huggingface",
        frontend=frontend_of(preprocessor, fused),
        audio=tower,
        text=tower_text,
        embedding_size=whole.projection_dim,
        temperatures=2,
    )


def _check_built_in(config: Any) -> None:
    for path, expected in BUILT_IN.items():
        value = config
        for name in path.split("."):
            value = getattr(value, name)
        sides = set(value) if isinstance(value, (list, tuple)) else {value}
        if sides != {expected}:
            raise CheckpointError(f"config.json: {path} is {value}, and the networks here have {expected} alone.")


def frontend_of(preprocessor: Mapping[str, Any], fused: bool) -> FrontEndConfig:
    """The front end of a preprocessor file; without one, the published files' values."""
    like = presets.LAION_FUSION if preprocessor.get("truncation", "fusion" if fused else "") == "fusion" else None
    like = like or presets.LAION_PLAIN
    mel = MelConfig(
        rate=int(preprocessor.get("sampling_rate", like.mel.rate)),
        n_fft=int(preprocessor.get("fft_window_size", like.mel.n_fft)),
        hop=int(preprocessor.get("hop_length", like.mel.hop)),
        n_mels=int(preprocessor.get("feature_size", like.mel.n_mels)),
        f_min=float(preprocessor.get("frequency_min", like.mel.f_min)),
        f_max=float(preprocessor.get("frequency_max", like.mel.f_max)),
        scale=like.mel.scale,
        norm=like.mel.norm,
        compression="db",
    )
    samples = round(float(preprocessor.get("max_length_s", 10)) * mel.rate)
    fill = preprocessor.get("padding", like.fill)
    return replace(like, mel=mel, samples=samples, fill=fill, int16=False)


def check(preset: Preset, *, has_tokenizer: bool) -> tuple[str, ...]:
    """The settings of a preset that would read back as others and hardly matter. Raises CheckpointError for a model
    that a ClapModel is not, or that would read back as another one."""
    text, mel, expected = preset.text, preset.frontend.mel, presets.LAION_PLAIN.mel
    reasons = []
    if not isinstance(preset.audio, HTSATConfig):
        reasons.append("a PANN audio tower, expected HTSAT")
    elif preset.audio.fusion not in (None, "aff_2d"):
        reasons.append(f"{preset.audio.fusion} fusion, expected aff_2d or none")
    if text.model_type != "roberta" or text.pooling != "pooler":
        reasons.append(f"a {text.model_type} text tower pooled by {text.pooling}, expected roberta and its pooler")
    if (mel.compression, mel.n_mels) != (expected.compression, expected.n_mels):
        reasons.append("a log-mel of another kind")
    if reasons:
        raise CheckpointError(
            f"{preset.name}: ClapModel has no place for {'; '.join(reasons)}. Convert to openclap or laion instead."
        )
    again = preset_of(config_of(preset).to_dict(), preprocessor_of(preset.frontend))
    return changes(preset, again, "ClapModel", apart=("text.tokenizer",) if has_tokenizer else ())


def config_of(preset: Preset) -> Any:
    """A ClapConfig with the sizes, epsilons and temperatures of the preset."""
    from transformers import ClapConfig

    audio, text = preset.audio, preset.text
    assert isinstance(audio, HTSATConfig)
    audio_config = {
        "patch_embeds_hidden_size": audio.width,
        "hidden_size": audio.embedding_size,
        "depths": list(audio.depths),
        "num_attention_heads": list(audio.heads),
        "num_hidden_layers": len(audio.depths),
        "num_mel_bins": audio.n_mels,
        "spec_size": audio.image,
        "window_size": audio.window,
        "enable_fusion": audio.fusion is not None,
        "fusion_type": "aff_2d" if audio.fusion else None,
        "layer_norm_eps": 1e-5,
        "projection_dim": preset.embedding_size,
    }
    text_config = dict(text.sizes) | {"hidden_size": text.hidden_size, "projection_dim": preset.embedding_size}
    return ClapConfig(
        audio_config=audio_config,
        text_config=text_config,
        projection_dim=preset.embedding_size,
        architectures=["ClapModel"],
    )


def preprocessor_of(frontend: FrontEndConfig) -> dict[str, Any]:
    """The settings of a ClapFeatureExtractor. Its own lowest frequency of 0 Hz is not that of any released model."""
    mel = frontend.mel
    return {
        "feature_size": mel.n_mels,
        "sampling_rate": mel.rate,
        "hop_length": mel.hop,
        "fft_window_size": mel.n_fft,
        "max_length_s": frontend.samples // mel.rate,
        "frequency_min": mel.f_min,
        "frequency_max": mel.f_max,
        "padding": frontend.fill,
        "truncation": "fusion" if frontend.long == "fusion" else "rand_trunc",
        "return_attention_mask": False,
    }
