"""Models of transformers that embed audio and text, and that transformers itself computes: Meta's PE-AV (`pe_audio`,
`pe_audio_video`; arXiv:2512.19687), and every other type with `get_audio_features` and `get_text_features`.

openclap embeds with them (`openclap.runtimes.transformers`), and neither trains nor converts them. Folders of ClapModel
are read by openclap's own networks (`huggingface`). No code of a folder is run; weights come from safetensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openclap.checkpoints.clap_model import CONFIG, foreign_type, read_json
from openclap.checkpoints.hub import OPEN_CLIP
from openclap.errors import CheckpointError
from openclap.formatting import describe_error, join_first
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import VOCABULARY
from openclap.types import Signature

WINDOW_S, WHOLE_S = 10, 60
"""For models that read clips of any length: windows of recordings, and the longest clip that is read as a whole."""
CONTEXT = 512
"""The longest text in tokens; captions are far shorter than many encoders would allow."""


@dataclass(frozen=True, slots=True)
class Family:
    """The parts of a type's interface that differ between types.

    Attributes:
        model: the class, by its name in transformers.
        embed_audio: the network and the extractor's output to (B, D).
        embed_text: the network, ids (B, L) and mask (B, L) to (B, D).
        scale: the factor of cosines before a softmax.
    """

    model: str
    embed_audio: Callable[[Any, dict[str, Tensor]], Tensor]
    embed_text: Callable[[Any, Tensor, Tensor], Tensor]
    scale: Callable[[Any], float]


def _perception_text(network: Any, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
    # Not get_text_audio_embeds: in transformers 5.23 it fails, for it reads hidden states that it did not ask for.
    states_BLC = network.text_model(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    embeddings_BD: Tensor = network.text_audio_head(states_BLC[:, 0])
    return embeddings_BD


PERCEPTION = Family(
    "PeAudioModel",
    lambda network, inputs: network.get_audio_embeds(**inputs),
    _perception_text,
    # Its scores are sigmoids of a scale and a bias; the bias is the same for all labels, so a softmax needs none.
    lambda network: float(network.text_audio_logit_scale.detach()),
)


def _with_features(model: str) -> Family:
    """The family of a class with `get_audio_features` and `get_text_features`, as ClapModel has them."""
    return Family(
        model,
        lambda network, inputs: _pooled(network.get_audio_features(**inputs)),
        lambda network, ids_BL, mask_BL: _pooled(network.get_text_features(input_ids=ids_BL, attention_mask=mask_BL)),
        _exponential_scale,
    )


def _pooled(output: Any) -> Tensor:
    # Releases of transformers before 5 return the tensor itself.
    pooled: Tensor = getattr(output, "pooler_output", output)
    return pooled


def _exponential_scale(network: Any) -> float:
    logarithm = getattr(network, "logit_scale_a", getattr(network, "logit_scale", None))
    return 1.0 if logarithm is None else float(logarithm.detach().float().exp())


@dataclass(frozen=True, slots=True)
class TransformersModel:
    """A model in memory.

    Attributes:
        extractor: transformers' feature extractor: waveforms to the inputs of `family.embed_audio`.
        tokenizer: a `tokenizer.json`, or a `vocab.json` with merges beside it; None where the folder has none.
    """

    network: nn.Module
    extractor: Any
    family: Family
    signature: Signature
    tokenizer: Path | None


def is_adaptable(folder: Path) -> bool:
    """Whether a folder holds a model of transformers with embeddings of audio and text."""
    kind = None if (folder / OPEN_CLIP).is_file() else foreign_type(folder)
    return kind is not None and _find_family(kind) is not None


def refusal(folder: Path) -> CheckpointError:
    """The reason why a model of transformers is not read as openclap's own networks, which conversion and training
    need."""
    return CheckpointError(
        f"{folder}: is a model of the type {foreign_type(folder)!r}, which transformers computes. openclap embeds, "
        "searches, serves and evaluates with it, and neither converts nor trains it."
    )


def _find_family(kind: str) -> Family | None:
    if kind in ("pe_audio", "pe_audio_video"):
        return PERCEPTION
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    name = MODEL_MAPPING_NAMES.get(kind)
    if not isinstance(name, str):
        return None
    network = getattr(transformers, name, None)
    features = ("get_audio_features", "get_text_features")
    return _with_features(name) if all(hasattr(network, method) for method in features) else None


def read(folder: Path) -> TransformersModel:
    """Read a folder. Raises CheckpointError for one that is damaged, lacks weights, or embeds frames and not clips."""
    kind = foreign_type(folder)
    family = _find_family(kind) if kind else None
    if kind is None or family is None:
        raise CheckpointError(f"{folder}: holds no model of transformers with embeddings of audio and text.")
    if "PeAudioFrameLevelModel" in (read_json(folder / CONFIG).get("architectures") or ()):
        raise CheckpointError(
            f"{folder}: is a PE-A-Frame model, which embeds frames of 40 ms and not clips. Choose a PE-AV model, such "
            "as facebook/pe-av-small."
        )
    try:
        network, extractor = _load(folder, family)
    except CheckpointError:
        raise
    except Exception as error:  # transformers has no common error of a damaged folder
        raise CheckpointError(f"{folder}: transformers cannot read it ({describe_error(error)}).") from error
    files = [folder / name for name in (TOKENIZER, VOCABULARY) if (folder / name).is_file()]
    signature = _signature(network, extractor, family, kind)
    return TransformersModel(network, extractor, family, signature, next(iter(files), None))


def _load(folder: Path, family: Family) -> tuple[nn.Module, Any]:
    import transformers

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(folder, **local)
    # PE-AV's own configuration has a video side too, which embeds neither audio alone nor text.
    config = config.audio_config if config.model_type == "pe_audio_video" else config
    with _without_progress_bars():
        network, facts = getattr(transformers, family.model).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **local,
        )
    if missing := sorted(facts["missing_keys"]):
        raise CheckpointError(f"{folder}: {len(missing)} weights are missing ({join_first(missing)}). Is it complete?")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **local)
    return network.eval(), extractor


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def _signature(network: nn.Module, extractor: Any, family: Family, kind: str) -> Signature:
    rate = int(extractor.sampling_rate)
    limit = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
    text: Any = network.config.text_config  # type: ignore[union-attr]
    # RoBERTa counts positions from 2 on.
    context = min(getattr(text, "max_position_embeddings", CONTEXT) - 2, CONTEXT)
    with torch.inference_mode():
        one_11 = torch.ones(1, 1, dtype=torch.long)
        size = family.embed_text(network, one_11, one_11).shape[1]
    samples = limit or WINDOW_S * rate
    return Signature(kind, rate, samples, limit or WHOLE_S * rate, limit is None, False, size, context)


def describe(folder: Path) -> dict[str, Any]:
    """Return the facts that `openclap inspect` prints. Raises as `read`."""
    model = read(folder)
    signature = model.signature
    whole_s = signature.whole_samples / signature.rate
    return {
        "format": "transformers",
        "type": signature.name,
        "embedding": signature.embedding_size,
        "sample rate": signature.rate,
        "seconds": f"any, to {whole_s:g} as a whole" if signature.is_any_length else whole_s,
        "tokenizer": str(model.tokenizer or "none"),
        "parameters": sum(weight.numel() for weight in model.network.parameters()),
    }


def settings_of(model: TransformersModel) -> str:
    """Configuration and feature extraction as text, for the identity of embeddings."""
    config: Any = model.network.config
    return json.dumps([config.to_dict(), model.extractor.to_dict()], sort_keys=True, default=str)
