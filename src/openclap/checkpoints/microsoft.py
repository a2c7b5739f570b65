"""Microsoft's CLAP: read the files of the package msclap, `CLAP_weights_2022.pth` and `CLAP_weights_2023.pth`.

The model of 2022 is PANN-14 with BERT (Elizalde et al. 2022, arXiv:2206.04769), that of 2023 HTSAT-tiny with GPT-2
(arXiv:2309.05767). A file holds no configuration: sizes are read from shapes, and what no shape tells is that of
msclap 1.3.4.

Of a clip longer than five (2022) or seven seconds (2023), msclap reads a random stretch of that length; openclap reads
windows of that length end to end and averages their embeddings. Both repeat a shorter clip, the last copy cut. msclap
puts the channels of a recording one after the other; openclap reads their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from openclap import presets
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints import audioset, laion
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.checkpoints.translate_keys import KeyTable, count_numbered, required_shape, translate_key
from openclap.errors import CheckpointError
from openclap.models.config import HTSATConfig, TextTowerConfig
from openclap.presets import Preset
from openclap.text import merges

AUDIO, TEXT = "audio_encoder.base.", "caption_encoder.base."
NAMES: KeyTable = (
    ("^audio_encoder.projection.", "^audio_head."),
    ("^caption_encoder.projection.", "^text_head."),
    (f"^{TEXT}", "^text_tower.encoder."),
)
CAPTIONER = "clap_project."
"""Begins names of msclap's captioning model alone."""
POOLER = f"{TEXT}pooler."
COMPUTED = (*laion.COMPUTED, ".attn.bias", ".attn.masked_bias")
"""Buffers; GPT-2's causal masks are the last two."""

RATE = 44100
FRONT_END = FrontEndConfig(
    MelConfig(RATE, 1024, 320, 64, 50.0, 14000.0, scale="slaney", norm="area", compression="db"),
    samples=5 * RATE,
    fill="repeat",
)
"""Of 2022."""
SECONDS_2023 = 7
BANK_2023 = 32000
"""The filterbank of 2023 is that of HTSAT's own configuration, 32 kHz, although waveforms have 44.1 kHz: msclap hands
no sample rate to that tower."""
GPT2 = TextTowerConfig(
    "gpt2",
    pooling="last_nonzero",
    context=77,
    hidden_size=768,
    sizes={
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 50257,
        "max_position_embeddings": 1024,
        "use_cache": False,
    },
    tokenizer=merges.GPT2,
)
BERT = replace(presets.BERT, pooling="cls", context=100)


def has_microsoft_names(state: Mapping[str, Any]) -> bool:
    """Return whether the names are those of Microsoft's CLAP, or of its captioning model."""
    return any(name.startswith((AUDIO, CAPTIONER)) for name in state)


def read(state: Mapping[str, Tensor], source: str, preset: Preset | None = None) -> Checkpoint:
    """Translate a state dict. `preset` replaces the inferred one.

    Raises CheckpointError for the captioning model, and for a file that lacks a tensor that sizes are read from.
    """
    if any(name.startswith(CAPTIONER) for name in state):
        raise CheckpointError(
            f"{source}: holds Microsoft's captioning model (clapcap), which writes texts and has no text encoder. "
            "Choose CLAP_weights_2022.pth or CLAP_weights_2023.pth."
        )
    branch = _audio_branch(state)
    tower = audioset.from_state({n: t for n, t in branch.items() if not n.startswith(_FILTERS)}, source)
    weights = {f"audio_tower.{name}": tensor for name, tensor in tower.weights.items()}
    unused = {f"audio_branch.{name}": tensor for name, tensor in tower.unused.items()}
    for name, tensor in state.items():
        if name.startswith(POOLER):
            unused[name.replace(TEXT, "text_branch.")] = tensor
        elif not name.startswith(AUDIO) and not name.endswith(COMPUTED):
            weights[translate_key(name, (NAMES,))] = tensor
    inferred = Preset(
        name=f"msclap-{2023 if isinstance(tower.config, HTSATConfig) else 2022}",
        frontend=_infer_front_end(branch, isinstance(tower.config, HTSATConfig), source),
        audio=tower.config,
        text=_infer_text_tower(state, source),
        embedding_size=required_shape(state, "audio_encoder.projection.linear1.weight", source, 2)[0],
        audio_head="residual_norm",
        text_head="residual_norm",
    )
    return Checkpoint("msclap", preset or inferred, weights, unused)


_FILTERS = tuple(name.removeprefix("audio_branch.") for name in laion.FRONT_END)


def _audio_branch(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The audio tower's tensors under the names of PANN's and HTSAT's own files."""
    prefixed = {name.removeprefix(AUDIO): tensor for name, tensor in state.items() if name.startswith(AUDIO)}
    return {name.removeprefix("htsat."): tensor for name, tensor in prefixed.items()}


def _infer_front_end(branch: Mapping[str, Tensor], is_htsat: bool, source: str) -> FrontEndConfig:
    """The front end, whose filterbank is the one that the file stores, as msclap uses it; msclap's own without one."""
    front = replace(FRONT_END, samples=SECONDS_2023 * RATE) if is_htsat else FRONT_END
    rates = (BANK_2023, 0) if is_htsat else (0, BANK_2023)
    candidates = [
        replace(front.mel, filterbank_rate=rate, f_max=highest) for rate in rates for highest in (14000.0, 8000.0)
    ]
    stored = branch.get(f"{laion.MEL.removeprefix('audio_branch.')}melW")
    if stored is None:
        return replace(front, mel=candidates[0])
    matching = [mel for mel in candidates if laion.equal_filterbanks(mel_filterbank(mel), stored.float())]
    if not matching:
        raise CheckpointError(
            f"{source}: its filterbank {tuple(stored.shape)} is none that msclap has (50 Hz to 14 or 8 kHz, at 44.1 or "
            "32 kHz). Pass a preset that describes it."
        )
    return replace(front, mel=matching[0])


def _infer_text_tower(state: Mapping[str, Tensor], source: str) -> TextTowerConfig:
    if f"{TEXT}wte.weight" not in state:
        named = {name.replace(TEXT, "text_branch."): tensor for name, tensor in state.items()}
        text = laion.infer_text_tower(named, source)
        return replace(text, pooling=BERT.pooling, context=BERT.context)
    vocabulary, hidden = required_shape(state, f"{TEXT}wte.weight", source, 2)
    sizes = {
        "vocab_size": vocabulary,
        "num_hidden_layers": count_numbered(state, rf"{TEXT}h\.(\d+)\."),
        "num_attention_heads": max(1, hidden // 64),
        "max_position_embeddings": required_shape(state, f"{TEXT}wpe.weight", source, 2)[0],
    }
    return replace(GPT2, hidden_size=hidden, sizes=dict(GPT2.sizes) | sizes)
