"""Parts that LAION-CLAP's loader asks for and a model never had, initialised as LAION-CLAP initialises them.

Embedding reads none of them: the tagging head, the MLPs and the second temperature of the training loss, iAFF's second
global branch, BART's decoder. A model that came from Hugging Face lacks the first three, one of ours may lack any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from openclap.models.clap import INITIAL_SCALE, MLPTransform
from openclap.models.config import HTSATConfig, PANNConfig
from openclap.models.fusion import pooled_bottleneck
from openclap.models.htsat import PATCH
from openclap.presets import Preset

SEED = 3407
CLASSES = 527
"""AudioSet's, which LAION-CLAP's towers always tag."""
SCALE, COUNTER = "logit_scale_t", ".num_batches_tracked"


def fresh(state: Mapping[str, Tensor], preset: Preset) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors that `state` (in LAION's names) lacks, and the parts that they belong to.

    Each part has its own random numbers from a fixed seed: the same model gives the same file. Batch norms' counters
    are no part: they begin at 0 in a model that was never trained in a framework that counts.
    """
    tensors: dict[str, Tensor] = {}
    parts = []
    for part, make in _parts(state, preset).items():
        if not any(name.startswith(f"{part}.") for name in state):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(SEED)
                tensors |= {f"{part}.{name}": tensor for name, tensor in make().state_dict().items()}
            parts.append(part.removesuffix(".sequential"))
    if SCALE not in state:
        tensors[SCALE] = torch.tensor(INITIAL_SCALE)
        parts.append(SCALE)
    norms = [name.removesuffix(".running_var") for name in state if name.endswith(".running_var")]
    counters = [name + COUNTER for name in norms if name + COUNTER not in state]
    return tensors | {name: torch.tensor(0) for name in counters}, tuple(parts)


def _parts(state: Mapping[str, Tensor], preset: Preset) -> dict[str, Callable[[], nn.Module]]:
    """What makes each part that LAION-CLAP's model of this preset has beside what embedding reads, by its name."""
    size = preset.embedding_size
    parts: dict[str, Callable[[], nn.Module]] = {
        f"{side}_transform.sequential": lambda: MLPTransform(size) for side in ("audio", "text")
    }
    parts |= _of_htsat(preset.audio) if isinstance(preset.audio, HTSATConfig) else _of_pann(preset.audio)
    if (preset.audio.fusion or "").startswith("iaff"):
        first = ".global_att.1.weight"
        for name, weight in state.items():
            if name.endswith(first):
                parts[f"{name.removesuffix(first)}.global_att2"] = partial(_branch, weight)
    return parts | (_of_bart(preset) if preset.text.model_type == "bart" else {})


def _of_htsat(audio: HTSATConfig) -> dict[str, Callable[[], nn.Module]]:
    classes = audio.classes or CLASSES
    last, bands = audio.image // PATCH // 2 ** (len(audio.depths) - 1), audio.image // audio.n_mels

    def head() -> nn.Module:
        linear = nn.Linear(classes, classes)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        return linear

    return {
        "audio_branch.tscam_conv": lambda: nn.Conv2d(audio.embedding_size, classes, (last // bands, 3), padding=(0, 1)),
        "audio_branch.head": head,
    }


def _of_pann(audio: PANNConfig) -> dict[str, Callable[[], nn.Module]]:
    def head() -> nn.Module:
        linear = nn.Linear(audio.embedding_size, audio.classes or CLASSES)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    return {"audio_branch.fc_audioset": head}


def _branch(weight: Tensor) -> nn.Module:
    """A branch like the one whose first convolution has this weight."""
    return pooled_bottleneck(weight.shape[1], nn.Conv1d if weight.ndim == 3 else nn.Conv2d)


def _of_bart(preset: Preset) -> dict[str, Callable[[], nn.Module]]:
    """The decoder but for its embedding, which the encoder shares. LAION-CLAP begins with facebook/bart-base's, which
    is not here; this one has BART's initialisation."""
    few_words = {"vocab_size": 8, "pad_token_id": 1}  # the embedding is not taken

    @cache
    def decoder() -> Any:
        from transformers import AutoConfig
        from transformers.models.bart.modeling_bart import BartDecoder

        sizes = dict(preset.text.sizes) | few_words | {"d_model": preset.text.hidden_size}
        return BartDecoder(AutoConfig.for_model("bart", **sizes))

    return {
        f"text_branch.decoder.{part}": partial(lambda part: decoder().get_submodule(part), part)
        for part in ("embed_positions", "layers", "layernorm_embedding")
    }
