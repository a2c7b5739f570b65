"""Initialise the parts that LAION-CLAP's loader requires and a checkpoint lacks, as LAION-CLAP initialises them.

Embedding reads none of them: the tagging head, the MLPs and the second temperature of the training loss, iAFF's second
global branch, BART's decoder. Checkpoints from Hugging Face lack the first three, openclap's own may lack any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from openclap.checkpoints.checkpoint import BATCH_COUNTER
from openclap.errors import CheckpointError
from openclap.models.clap import INITIAL_SCALE, MLPTransform
from openclap.models.config import HTSAT_PATCH, HTSATConfig, PANNConfig
from openclap.models.fusion import pooled_bottleneck
from openclap.presets import Preset

SEED = 3407
AUDIOSET_CLASSES = 527
"""LAION-CLAP's towers always have a tagging head of this size."""
TEXT_SCALE = "logit_scale_t"

ModuleFactory = Callable[[], nn.Module]


def initialise_missing(state: Mapping[str, Tensor], preset: Preset) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors that `state` (in LAION's names) lacks, and the names of the parts that they belong to.

    Each part is drawn from its own random generator with a fixed seed, so that the same model gives the same file.
    Batch norms' counters are added too, but are not listed as parts: they start at 0 in a model from a framework
    that does not count.
    """
    tensors: dict[str, Tensor] = {}
    parts = []
    for part, factory in _part_factories(state, preset).items():
        if not any(name.startswith(f"{part}.") for name in state):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                tensors |= {f"{part}.{name}": tensor for name, tensor in factory().state_dict().items()}
            parts.append(part.removesuffix(".sequential"))
    if TEXT_SCALE not in state:
        tensors[TEXT_SCALE] = torch.tensor(INITIAL_SCALE)
        parts.append(TEXT_SCALE)
    norms = [name.removesuffix(".running_var") for name in state if name.endswith(".running_var")]
    counters = [name + BATCH_COUNTER for name in norms if name + BATCH_COUNTER not in state]
    return tensors | {name: torch.tensor(0) for name in counters}, tuple(parts)


def _part_factories(state: Mapping[str, Tensor], preset: Preset) -> dict[str, ModuleFactory]:
    """Map each part that LAION-CLAP's model of this preset has, and embedding does not read, to its factory."""
    size = preset.embedding_size
    parts: dict[str, ModuleFactory] = {
        f"{side}_transform.sequential": lambda: MLPTransform(size) for side in ("audio", "text")
    }
    if isinstance(preset.audio, HTSATConfig):
        parts |= _htsat_parts(preset.audio)
    elif isinstance(preset.audio, PANNConfig):
        parts |= _pann_parts(preset.audio)
    else:
        raise CheckpointError(f"{preset.name}: LAION's format has HTSAT and PANN towers alone.")
    if (preset.audio.fusion or "").startswith("iaff"):
        # One missing branch beside each first global branch; its width is read from that branch's weights.
        first = ".global_att.1.weight"
        for name, weight in state.items():
            if name.endswith(first):
                parts[f"{name.removesuffix(first)}.global_att2"] = partial(_global_branch, weight)
    return parts | (_bart_decoder_parts(preset) if preset.text.model_type == "bart" else {})


def _htsat_parts(audio: HTSATConfig) -> dict[str, ModuleFactory]:
    classes = audio.classes or AUDIOSET_CLASSES
    # The spectrogram is folded into `bands` stripes of an image, so the last feature map has this many rows per stripe.
    last, bands = audio.image // HTSAT_PATCH // 2 ** (len(audio.depths) - 1), audio.image // audio.n_mels

    def head() -> nn.Module:
        linear = nn.Linear(classes, classes)
        nn.init.trunc_normal_(linear.weight, std=0.02)  # as Swin initialises its linear layers
        nn.init.zeros_(linear.bias)
        return linear

    return {
        "audio_branch.tscam_conv": lambda: nn.Conv2d(audio.embedding_size, classes, (last // bands, 3), padding=(0, 1)),
        "audio_branch.head": head,
    }


def _pann_parts(audio: PANNConfig) -> dict[str, ModuleFactory]:
    def head() -> nn.Module:
        linear = nn.Linear(audio.embedding_size, audio.classes or AUDIOSET_CLASSES)
        nn.init.xavier_uniform_(linear.weight)  # as PANN's init_layer
        nn.init.zeros_(linear.bias)
        return linear

    return {"audio_branch.fc_audioset": head}


def _global_branch(weight: Tensor) -> nn.Module:
    """Build a global branch of the width that the first convolution's weight has."""
    return pooled_bottleneck(weight.shape[1], nn.Conv1d if weight.ndim == 3 else nn.Conv2d)


def _bart_decoder_parts(preset: Preset) -> dict[str, ModuleFactory]:
    """Factories for BART's decoder without its token embedding, which the encoder shares.

    LAION-CLAP starts from facebook/bart-base's decoder, which is not available here; this one is initialised as BART
    initialises it.
    """
    small_vocabulary = {"vocab_size": 8, "pad_token_id": 1}  # the embedding is not taken, so it need not be large

    @cache
    def decoder() -> Any:
        from transformers import AutoConfig
        from transformers.models.bart.modeling_bart import BartDecoder

        sizes = dict(preset.text.sizes) | small_vocabulary | {"d_model": preset.text.hidden_size}
        return BartDecoder(AutoConfig.for_model("bart", **sizes))

    return {
        f"text_branch.decoder.{part}": partial(lambda part: decoder().get_submodule(part), part)
        for part in ("embed_positions", "layers", "layernorm_embedding")
    }
