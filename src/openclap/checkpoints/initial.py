"""A model to begin training with, made of a preset: fresh weights from a seed, and towers that have learned elsewhere
in the place of some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.checkpoints import audioset, hub
from openclap.checkpoints import folder as model_folder
from openclap.checkpoints.folder import COUNTER
from openclap.checkpoints.names import why
from openclap.checkpoints.shapes import tower_name
from openclap.errors import CheckpointError, MissingTokenizerError
from openclap.models.build import build_clap
from openclap.models.config import TextTowerConfig
from openclap.presets import Preset
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

SEED = 3407


@dataclass(frozen=True, slots=True)
class Initial:
    """What was made.

    Attributes:
        preset: as it was asked for, with the text tower's own sizes.
        fresh: parts of the model of which something has learned nothing yet.
        changed: what a tower was trained with and does not have here, in words.
    """

    preset: Preset
    fresh: tuple[str, ...]
    changed: tuple[str, ...] = ()


def make(
    preset: Preset,
    place: Path,
    *,
    audio_tower: Path | None = None,
    text_tower: str | None = None,
    tokenizer: Path | None = None,
    seed: int = SEED,
    offline: bool = False,
) -> Initial:
    """Write a model folder that `openclap.load` reads and `openclap train` starts from.

    Args:
        audio_tower: a file of HTSAT or PANN as trained on AudioSet (see `openclap.checkpoints.audioset`).
        text_tower: a folder that transformers wrote, or a repository on the hub, of the preset's kind; its sizes take
            the place of the preset's.
        tokenizer: a `tokenizer.json`; without it, the text tower's, or the one that the preset names.
        seed: of all that is fresh. The same call gives the same folder.

    Raises CheckpointError when a tower does not fit the preset, something cannot be had, or `place` lies in a tower's
    folder.
    """
    import torch

    folder = _text_folder(text_tower, offline) if text_tower else None
    learned: dict[str, Tensor] = {}
    if folder is not None:
        config, encoder = _read_encoder(folder, preset.text)
        preset = replace(preset, text=_sized(preset.text, config))
        learned |= {f"text_tower.encoder.{name}": tensor for name, tensor in encoder.items()}
    changed: tuple[str, ...] = ()
    if audio_tower is not None:
        weights, changed = _audio_weights(audio_tower, preset)
        learned |= weights
    words = Tokenizer.read(tokenizer or _words(folder, preset, offline), preset.text.context, padded=preset.text.padded)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clap = build_clap(preset)
    fresh = clap.state_dict()
    model_folder.fill(clap, fresh | {name: tensor for name, tensor in learned.items() if name in fresh}, place.name)
    model_folder.save(place, clap, preset, words, inputs=[audio_tower, folder])
    return Initial(preset, _fresh(fresh, learned), changed)


def _audio_weights(path: Path, preset: Preset) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tower's weights under CLAP's names. What fuses the views of long clips has learned nothing yet."""
    tower = audioset.read(path)
    plain = replace(preset.audio, fusion=None)
    if tower.config != plain:
        raise CheckpointError(
            f"{path.name}: holds {tower.name}, and the preset {preset.name} asks for {tower_name(plain)}. "
            "Choose the preset that fits, or another file."
        )
    mel, trained = preset.frontend.mel, tower.frontend.mel
    changed = tuple(
        f"{what} of {getattr(trained, what)}, here {getattr(mel, what)}"
        for what in ("rate", "hop", "n_mels", "f_min", "f_max", "scale")
        if getattr(trained, what) != getattr(mel, what)
    )
    return {f"audio_tower.{name}": tensor for name, tensor in tower.weights.items()}, changed


def _text_folder(source: str, offline: bool) -> Path:
    """Where an encoder lies, fetched if need be."""
    path = Path(source).expanduser()
    return path if path.exists() else hub.download(source, offline=offline)


def _read_encoder(folder: Path, text: TextTowerConfig) -> tuple[Any, dict[str, Tensor]]:
    """The configuration of an encoder, and those of its tensors that the folder holds."""
    import torch
    from transformers import AutoConfig, AutoModel, logging

    said = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type != text.model_type:
            config = getattr(config, "text_config", config)
        if config.model_type != text.model_type:
            raise CheckpointError(
                f"{folder}: holds a {config.model_type} encoder, and the preset asks for {text.model_type}. Choose the "
                "preset that fits, or another encoder."
            )
        with torch.random.fork_rng(devices=[]):  # it draws numbers for what the folder lacks
            whole, report = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: holds no encoder that transformers reads ({why(error)}).") from None
    finally:
        logging.set_verbosity(said)
    network, before = (whole.get_encoder(), "encoder.") if config.is_encoder_decoder else (whole, "")
    missing = set(report["missing_keys"])
    return config, {name: tensor for name, tensor in network.state_dict().items() if before + name not in missing}


def _sized(text: TextTowerConfig, config: Any) -> TextTowerConfig:
    """A text tower of the encoder's sizes."""
    sizes = {name: getattr(config, name, value) for name, value in text.sizes.items()}
    return replace(text, hidden_size=config.hidden_size, sizes=sizes)


def _words(folder: Path | None, preset: Preset, offline: bool) -> Path:
    """A tokenizer: the encoder's, or the one that the preset names."""
    if folder is not None and (folder / TOKENIZER).is_file():
        return folder / TOKENIZER
    if preset.text.tokenizer is None:
        raise MissingTokenizerError(f"The preset {preset.name} names no tokenizer.")
    return hub.tokenizer_file(preset.text.tokenizer, offline=offline)


def _fresh(names: Iterable[str], learned: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The parts, two names deep, of which something has learned nothing."""
    parts = (".".join(name.split(".")[:2]) for name in names if name not in learned and not name.endswith(COUNTER))
    return tuple(dict.fromkeys(parts))
