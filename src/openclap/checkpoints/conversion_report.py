"""What becomes of a model in a format that has fewer places: little is told, another model is refused.

A preset is written, read back and compared, so that nothing has to be known here about either format.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from openclap import presets
from openclap.errors import CheckpointError
from openclap.presets import Preset


@dataclass(frozen=True, slots=True)
class Losses:
    """What a writer could not write as it was.

    Attributes:
        left_out: tensors that the format has no place for, by the names of the checkpoint.
        untrained: parts that the format's own loader asks for and the checkpoint lacks; they hold fresh values.
        changed: settings that read back as others and hardly matter, each with both values.
        notes: sentences about how the format's own library loads it.
    """

    left_out: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_objective(names: Iterable[str]) -> tuple[str, ...]:
    """How what an objective learned is called where it is left out."""
    return tuple(f"objective.{name}" for name in sorted(names))


APART = frozenset(
    {"name", "audio.classes", "temperatures", "transforms"}
    | {f"text.sizes.decoder_{size}" for size in ("layers", "attention_heads", "ffn_dim")}
)
"""A preset's name, and what only counts tensors, which are told as left out or untrained."""
SMALL_EPSILON = 1e-5
"""The same weights are in use with all epsilons up to this: LAION-CLAP's RoBERTa has it, transformers' ClapModel has
1e-12."""


def changes(preset: Preset, again: Preset, format: str, *, apart: Collection[str] = ()) -> tuple[str, ...]:
    """The settings that `preset` has and that read back otherwise, as `again`; those in `apart` do not count.

    Raises CheckpointError where that is another model: another front end, other sizes, another pooling.
    """
    sizes = preset.text.sizes.keys() | again.text.sizes.keys()
    before, after = _settings(preset, sizes), _settings(again, sizes)
    other = {
        name: f"{name} {before.get(name)} (it would read back as {after.get(name)})"
        for name in sorted((before.keys() | after.keys()) - APART - set(apart))
        if before.get(name) != after.get(name)
    }
    small = [name for name in other if _is_small(name, before.get(name), after.get(name))]
    if grave := [text for name, text in other.items() if name not in small]:
        raise CheckpointError(
            f"{preset.name}: {format} has no place for {'; '.join(grave)}. Convert to openclap instead."
        )
    return tuple(other[name] for name in small)


def _is_small(name: str, before: Any, after: Any) -> bool:
    if name == "text.sizes.layer_norm_eps":
        return bool(before and after and max(before, after) <= SMALL_EPSILON)
    return name == "frontend.int16"


def _settings(preset: Preset, sizes: Collection[str]) -> dict[str, Any]:
    """Every setting by its path; `sizes` of the text tower also where they are the encoder's defaults."""
    from transformers import AutoConfig

    plain = presets.to_dict(preset)
    text = preset.text
    whole = AutoConfig.for_model(text.model_type, **dict(text.sizes) | {"hidden_size": text.hidden_size})
    return _flat(plain | {"text": plain["text"] | {"sizes": {name: getattr(whole, name, None) for name in sizes}}})


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat
