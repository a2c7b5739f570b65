"""Report the losses of a conversion, and refuse models that a format cannot hold.

A preset is written, read back and compared, so that this file needs no knowledge of any format: a small difference is
reported, and a model that would read back as another one is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from openclap import presets
from openclap.errors import CheckpointError
from openclap.presets import Preset


@dataclass(frozen=True, slots=True)
class ConversionLosses:
    """Differences between a checkpoint and the file or folder that it was written to.

    Attributes:
        left_out: tensors that the format has no place for, under the checkpoint's names.
        untrained: parts that the format's own loader requires and the checkpoint lacks; they hold initial values.
        changed: settings that read back slightly differently, each with both values.
        notes: sentences on how the format's own library loads the file.
    """

    left_out: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def objective_names(names: Iterable[str]) -> tuple[str, ...]:
    """Name an objective's parameters as `ConversionLosses.left_out` lists them."""
    return tuple(f"objective.{name}" for name in sorted(names))


NOT_COMPARED = frozenset(
    {"name", "audio.classes", "temperatures", "transforms"}
    | {f"text.sizes.decoder_{size}" for size in ("layers", "attention_heads", "ffn_dim")}
)
"""The preset's name, which is for people, and settings that only say whether tensors are there: such tensors are
reported as left out or untrained already."""
SMALL_EPSILON = 1e-5
"""Layer-norm epsilons up to this one count as a small difference, since the same published weights are used with
several: LAION-CLAP's RoBERTa has 1e-5, transformers' ClapModel 1e-12."""


def setting_changes(
    preset: Preset, reread: Preset, format_name: str, *, ignore: Collection[str] = ()
) -> tuple[str, ...]:
    """Describe the settings that differ between `preset` and `reread`, the preset as read back from the format.

    Args:
        ignore: paths of settings that are stored elsewhere, such as "text.tokenizer".

    Raises CheckpointError where the differences make it another model: another front end, other sizes or pooling.
    """
    sizes = preset.text.sizes.keys() | reread.text.sizes.keys()
    before, after = _flat_settings(preset, sizes), _flat_settings(reread, sizes)
    changed = {
        name: f"{name} {before.get(name)} (it would read back as {after.get(name)})"
        for name in sorted((before.keys() | after.keys()) - NOT_COMPARED - set(ignore))
        if before.get(name) != after.get(name)
    }
    small = [name for name in changed if _is_small(name, before.get(name), after.get(name))]
    if large := [text for name, text in changed.items() if name not in small]:
        raise CheckpointError(
            f"{preset.name}: {format_name} has no place for {'; '.join(large)}. Convert to openclap instead."
        )
    return tuple(changed[name] for name in small)


def _is_small(name: str, before: Any, after: Any) -> bool:
    if name == "text.sizes.layer_norm_eps":
        return bool(before and after and max(before, after) <= SMALL_EPSILON)
    # LAION-CLAP rounds waveforms to 16 bits and transformers does not; embeddings differ by about 1e-4.
    return name == "frontend.int16"


def _flat_settings(preset: Preset, sizes: Collection[str]) -> dict[str, Any]:
    """Return every setting by its dotted path.

    The named `sizes` of the text tower are included where a preset leaves them to the encoder's defaults: a default
    that one side spells out is no difference.
    """
    from transformers import AutoConfig

    settings = presets.to_dict(preset)
    text = preset.text
    config = AutoConfig.for_model(text.model_type, **dict(text.sizes) | {"hidden_size": text.hidden_size})
    all_sizes = {name: getattr(config, name, None) for name in sizes}
    return _flatten(settings | {"text": settings["text"] | {"sizes": all_sizes}})


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
