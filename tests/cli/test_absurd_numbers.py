"""Absurd numbers, wherever a number is taken: a sentence or an answer, and never a traceback."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import openclap
from openclap.cli import app, run
from openclap.errors import ConfigError, OpenClapError
from openclap.evals.cached_embedder import CachedEmbedder
from openclap.evals.dataset import EvalClips
from openclap.evals.fad import frechet_distance_infinity
from openclap.evals.tasks import Task
from openclap.limits import check_count
from openclap.training.config import OptimConfig, TrainConfig, option_names, override
from openclap.training.profiling import plan_training
from support.errors import raises_naming

INTS = (10**30, -1, -(10**30), 0)
FLOATS = (math.nan, math.inf, 1e300, 1e-300, -1.0, 0.0)
OWN = ("embed", "classify", "score", "fad", "eval", "finetune", "train", "search", "similar", "init")


def written(number: float) -> str:
    return str(number)


def numbers_of(command: str) -> list[tuple[str, type]]:
    """The options of a command that take a number; those of a model have none."""
    function = app[command].default_command
    hints = typing.get_type_hints(function, include_extras=False)
    found = []
    for name in inspect.signature(function).parameters:
        kinds = {hints[name], *typing.get_args(hints[name])}
        kind = float if float in kinds else int if int in kinds and bool not in kinds else None
        if kind:
            found.append((f"--{name.replace('_', '-')}", kind))
    return found


def test_no_option_of_a_number_ends_in_a_traceback(
    tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave, model, index = sounds / "low-0.wav", ["--model", tiny_model], tmp_path / "index"
    assert (
        run(["dataset", "build", str(sounds / "sounds.csv"), str(tmp_path / "shards"), "--test-fraction", "0.4"]) == 0
    )
    assert run(["index", "add", str(wave), "--index", str(index), "--model", str(tiny_model)]) == 0
    given: dict[str, list[Any]] = {
        "embed": [wave, "-o", tmp_path / "v.npy", "--windows", *model],
        "classify": [wave, "--labels", "low,high", *model],
        "score": [wave, "low", *model],
        "fad": [sounds, sounds, *model],
        "eval": [tiny_model, "--data", tmp_path / "nowhere"],
        "finetune": [tmp_path / "nowhere", "--from", tiny_model, "--out", tmp_path / "run"],
        "train": ["demo", "--start", tiny_model, "--data", tmp_path / "shards" / "train", "--dry-run"],
        "search": ["low", "--index", index],
        "similar": [wave, "--index", index],
        "init": ["nothing", "--out", tmp_path / "init"],
    }
    tried = 0
    for command in OWN:
        for option, kind in numbers_of(command):
            if command == "train" and option == "--processes":
                continue  # `test_a_plan_of_absurd_processes`, which need not measure the machine five times
            for number in INTS if kind is int else FLOATS:
                tried += 1
                code = run([command, *map(str, given[command]), f"{option}={written(number)}"])
                told = capsys.readouterr().err
                assert code in (0, 2), (command, option, code)
                assert "Traceback" not in told and len(told) < 1000, (command, option, told[:200])
    assert tried > 60


@pytest.mark.parametrize("name", option_names(TrainConfig("start", "data", epochs=1, batch_size=2)))
def test_values_of_a_run_are_bounded(name: str) -> None:
    config = TrainConfig("start", "data", epochs=1, batch_size=2)
    now: Any = config
    for part in name.split("."):
        now = getattr(now, part)
    if isinstance(now, bool) or not isinstance(now, int | float):
        return
    refused = 0
    for number in INTS if isinstance(now, int) else FLOATS:
        try:
            made = override(config, {name: written(number)})
        except ConfigError as error:
            refused += 1
            assert len(str(error)) < 300
        else:
            assert made != config or number in (now, 0)
    assert refused >= (3 if isinstance(now, int) else 1)


def test_a_plan_of_absurd_processes(tiny_model: Path) -> None:
    config = TrainConfig(str(tiny_model), "data", epochs=1, batch_size=2)
    for processes in (0, -1, 10**30):
        with raises_naming(ConfigError, "processes"):
            plan_training(config, processes=processes)


def test_absurd_numbers_in_python(tiny_model: Path) -> None:
    model, wave = openclap.load(tiny_model), (np.zeros(8000, np.float32), 16000)
    clips = EvalClips("none", (), "", lambda index: b"")
    calls: list[Callable[[Any], object]] = [
        lambda n: model.embed_audio([wave], batch_size=n),
        lambda n: model.embed_text(["low"], batch_size=n),
        lambda n: list(model.windows_each([wave], batch_size=n)),
        lambda n: CachedEmbedder("a", model, batch_size=n).embed_clips(clips),
        lambda n: CachedEmbedder("a", model, processes=n).embed_clips(clips),
        lambda n: Task(name="a", kind="probe", source="folder", folds=5, epochs=n),
        lambda n: frechet_distance_infinity(np.eye(12), np.eye(12), subsets=n),
        lambda n: TrainConfig("a", "b", epochs=n, batch_size=2),
        lambda n: OptimConfig(warmup_steps=n),
    ]
    for number, call in enumerate(calls):
        for absurd in (10**30, -1, -(10**30)):
            with raises_naming(ConfigError):
                call(absurd)
        with pytest.raises((OpenClapError, TypeError)):
            call(None)
        assert number >= 0
    assert model.embed_text(["low"], batch_size=10**9).shape == model.embed_audio([wave], batch_size=np.int64(4)).shape
    for length in (10**30, math.nan, math.inf, 1e300, 0, -1):
        with raises_naming(ConfigError, "length_s"):
            model.windows(wave, length_s=length)


def test_how_a_count_is_refused() -> None:
    assert check_count("batch", np.int64(7)) == 7
    for number, values in {10**30: ("10^30", "1,000,000,000"), 0: (0, 1), 1.5: (1.5, 1)}.items():
        with raises_naming(ConfigError, "batch", *values):
            check_count("batch", number)
