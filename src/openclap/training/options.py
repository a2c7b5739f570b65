"""A configuration's values by the names that the command line has for them: "epochs", "optim.lr".

A value that is itself a frozen dataclass is a group, whose values are named after a dot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse

from openclap.errors import ConfigError

C = TypeVar("C")


def override(config: C, options: Mapping[str, str | None]) -> C:
    """`config` with some values replaced. Text is read as the type that the field has; None switches a choice of yes
    or no on.

    Raises ConfigError for a name that is not there, naming the nearest, and for a value of another kind or missing.
    """
    for name, text in options.items():
        path = name.replace("-", "_").split(".")
        if ".".join(path) not in option_names(config):
            raise ConfigError(f"There is no option --{name}. {_nearest(name, config)}")
        config = _replaced(config, path, name, text)
    return config


def option_names(config: Any) -> list[str]:
    """Every name that `override` takes: plain values first, then those of groups."""
    return sorted(_names(config), key=lambda name: name.count("."))


def explained(config: Any) -> list[tuple[str, str, str]]:
    """Every option: its name on the command line, its value, and what it means, which is what the class says of it."""
    return [(f"--{name.replace('_', '-')}", value, meaning) for name, value, meaning in _explained(config)]


def _explained(holder: Any, before: str = "") -> Iterator[tuple[str, str, str]]:
    meanings = {
        name.strip(): " ".join((told.description or "").split())
        for told in parse(type(holder).__doc__ or "").params
        for name in told.arg_name.split(",")
    }
    groups = [each.name for each in fields(holder) if is_dataclass(getattr(holder, each.name))]
    for each in fields(holder):
        if each.name not in groups:
            yield before + each.name, _written(getattr(holder, each.name)), meanings.get(each.name, "")
    for name in groups:
        yield from _explained(getattr(holder, name), f"{before}{name}.")


def _written(value: Any) -> str:
    """As the command line takes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _names(holder: Any, before: str = "") -> Iterator[str]:
    for each in fields(holder):
        value = getattr(holder, each.name)
        if is_dataclass(value):
            yield from _names(value, f"{before}{each.name}.")
        else:
            yield before + each.name


def _replaced(holder: Any, path: list[str], name: str, text: str | None) -> Any:
    first, *rest = path
    now = getattr(holder, first)
    value = _replaced(now, rest, name, text) if rest else _parse(name, text, get_type_hints(type(holder))[first], now)
    return replace(holder, **{first: value})


def _nearest(name: str, config: Any) -> str:
    names = option_names(config)
    near = get_close_matches(name.replace("-", "_"), names, n=1, cutoff=0.5)
    return f"Did you mean --{near[0].replace('_', '-')}?" if near else f"There are: {', '.join(names)}."


def _parse(name: str, text: str | None, kind: Any, now: Any) -> Any:
    if text is None and kind is not bool:
        like = f", expected something like {now!r}" if now not in ("", ()) else ""
        raise ConfigError(f"--{name} has no value{like}.")
    if text is None:
        return True
    try:
        return _read(text, kind)
    except ValueError as error:
        expected = str(error) if get_origin(kind) is Literal or kind is bool else f"something like {now!r}"
        raise ConfigError(f"--{name} is {text!r}, expected {expected}.") from None


def _read(text: str, kind: Any) -> Any:
    """`text` as a value of `kind`: a plain type, a Literal, a tuple, or a choice of these. Raises ValueError."""
    origin, kinds = get_origin(kind), get_args(kind)
    if origin is Literal:
        if text not in kinds:
            raise ValueError(f"one of: {', '.join(map(str, kinds))}")
        return text
    if origin is tuple:
        return tuple(_read(part.strip(), kinds[0]) for part in text.split(",") if part.strip())
    if origin in (Union, UnionType):
        if NoneType in kinds and text.lower() == "none":
            return None
        return _first_that_reads(text, [each for each in kinds if each is not NoneType])
    if kind is bool:
        return _truth(text)
    return kind(text)


def _first_that_reads(text: str, kinds: list[Any]) -> Any:
    for kind in kinds[:-1]:
        try:
            return _read(text, kind)
        except ValueError:
            continue
    return _read(text, kinds[-1])


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError("yes or no")
    return _TRUTHS[text.lower()]


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
