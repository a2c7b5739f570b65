"""Make a model to start training from, out of a preset: fresh weights from a seed, and pretrained towers if given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import presets
from openclap.checkpoints import audioset, hub, openclap_folder
from openclap.checkpoints.checkpoint import BATCH_COUNTER, load_weights
from openclap.errors import CheckpointError, MissingTokenizerError
from openclap.formatting import describe_error
from openclap.models.build import build_clap
from openclap.models.config import HTSATConfig, PANNConfig, TextTowerConfig
from openclap.presets import Preset
from openclap.text import merges
from openclap.text.tokenizer import FILE as TOKENIZER
from openclap.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

SEED = 3407


@dataclass(frozen=True, slots=True)
class InitialModel:
    """The model that `make` wrote.

    Attributes:
        preset: the requested one, with the sizes of the given text tower.
        fresh: parts of the model that have untrained weights.
        changed: front-end settings in which the preset differs from the audio tower's training, in words.
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
) -> InitialModel:
    """Write a model folder that `openclap.load` reads and `openclap train` starts from.

    Args:
        audio_tower: a file of HTSAT or PANN as trained on AudioSet (see `openclap.checkpoints.audioset`).
        text_tower: a folder of transformers, or a repository on the hub, of the preset's kind; its sizes replace the
            preset's.
        tokenizer: a `tokenizer.json`; the default is the text tower's, or the one that the preset names.
        seed: of the fresh weights. The same call gives the same folder.

    Raises CheckpointError when a tower does not fit the preset, a file is missing or cannot be fetched, or `place` lies
    in a tower's folder.
    """
    import torch

    folder = _text_folder(text_tower, offline) if text_tower else None
    pretrained: dict[str, Tensor] = {}
    if folder is not None:
        config, encoder = _read_encoder(folder, preset.text)
        preset = replace(preset, text=_resized(preset.text, config))
        pretrained |= {f"text_tower.encoder.{name}": tensor for name, tensor in encoder.items()}
    changed: tuple[str, ...] = ()
    if audio_tower is not None:
        weights, changed = _read_audio_tower(audio_tower, preset)
        pretrained |= weights
    words = tokenizer or _find_tokenizer(folder, preset, offline)
    read_words = Tokenizer.read(words, preset.text.context, padded=preset.text.padded)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clap = build_clap(preset)
    fresh = clap.state_dict()
    # Encoders come with parts that CLAP has not, such as a language-modelling head: only known names are loaded.
    known = {name: tensor for name, tensor in pretrained.items() if name in fresh}
    load_weights(clap, fresh | known, place.name)
    openclap_folder.save(place, clap, preset, read_words, inputs=[audio_tower, folder])
    return InitialModel(preset, _fresh_parts(fresh, pretrained), changed)


def _read_audio_tower(path: Path, preset: Preset) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read the tower's weights under CLAP's names. Fusion layers are not among them and stay fresh."""
    tower = audioset.read(path)
    # A tower for tagging has no fusion; that of the preset starts fresh.
    if not isinstance(preset.audio, HTSATConfig | PANNConfig):
        raise CheckpointError(
            f"{path.name}: holds a tower for tagging, and the preset {preset.name} has none of its kind."
        )
    plain = replace(preset.audio, fusion=None)
    if tower.config != plain:
        raise CheckpointError(
            f"{path.name}: holds {tower.name}, and the preset {preset.name} requires {presets.tower_name(plain)}. "
            "Choose the preset that fits, or another file."
        )
    mel, trained = preset.frontend.mel, tower.frontend.mel
    changed = tuple(
        f"{setting} of {getattr(trained, setting)}, here {getattr(mel, setting)}"
        for setting in ("rate", "hop", "n_mels", "f_min", "f_max", "scale")
        if getattr(trained, setting) != getattr(mel, setting)
    )
    return {f"audio_tower.{name}": tensor for name, tensor in tower.weights.items()}, changed


def _text_folder(source: str, offline: bool) -> Path:
    """Return the folder of an encoder, fetching it from the hub where no path of that name exists."""
    path = Path(source).expanduser()
    return path if path.exists() else hub.download(source, offline=offline)


def _read_encoder(folder: Path, text: TextTowerConfig) -> tuple[Any, dict[str, Tensor]]:
    """Read an encoder's configuration, and the tensors that the folder really holds."""
    import torch
    from transformers import AutoConfig, AutoModel, logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns about missing and surplus weights, which are dealt with here
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if config.model_type != text.model_type:
            config = getattr(config, "text_config", config)  # the text half of a two-tower model
        if config.model_type != text.model_type:
            raise CheckpointError(
                f"{folder}: holds a {config.model_type} encoder, and the preset requires {text.model_type}. Choose the "
                "preset that fits, or another encoder."
            )
        with torch.random.fork_rng(devices=[]):  # transformers draws random weights where the folder has none
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: holds no encoder that transformers reads ({describe_error(error)})."
        ) from None
    finally:
        logging.set_verbosity(verbosity)
    network, prefix = (model.get_encoder(), "encoder.") if config.is_encoder_decoder else (model, "")
    missing = set(report["missing_keys"])
    return config, {name: tensor for name, tensor in network.state_dict().items() if prefix + name not in missing}


def _resized(text: TextTowerConfig, config: Any) -> TextTowerConfig:
    """Give a text tower the encoder's sizes."""
    sizes = {name: getattr(config, name, value) for name, value in text.sizes.items()}
    return replace(text, hidden_size=config.hidden_size, sizes=sizes)


def _find_tokenizer(folder: Path | None, preset: Preset, offline: bool) -> Path:
    """Return the encoder's tokenizer, or the one that the preset names."""
    if folder is not None and (folder / TOKENIZER).is_file():
        return folder / TOKENIZER
    if preset.text.tokenizer is None:
        raise MissingTokenizerError(f"The preset {preset.name} names no tokenizer. Pass a tokenizer.json.")
    if preset.text.tokenizer in merges.DEFINITIONS:
        return merges.tokenizer_file(preset.text)
    return hub.tokenizer_file(preset.text.tokenizer, offline=offline)


def _fresh_parts(names: Iterable[str], pretrained: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Name the parts, two levels deep, that have untrained weights."""
    parts = (
        ".".join(name.split(".")[:2]) for name in names if name not in pretrained and not name.endswith(BATCH_COUNTER)
    )
    return tuple(dict.fromkeys(parts))
