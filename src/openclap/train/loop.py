"""The loop: batches in, steps taken, progress told, state saved."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclap.data.files import partial_of, write_bytes
from openclap.data.loader import PairLoader
from openclap.data.shards import index_shards
from openclap.embedder import Embedder, load
from openclap.errors import ConfigError, TrainingError, require
from openclap.locks import LOCK, only_writer
from openclap.models.objectives import ObjectiveConfig, build_objective
from openclap.train import state
from openclap.train.config import TrainConfig
from openclap.train.optim import build_optimizer, freeze, set_rate, warmup_cosine
from openclap.train.step import TrainingStep
from openclap.types import PairBatch

Row = dict[str, Any]
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: the model's folder, the steps taken in all, and whether it was stopped on the way."""

    model: Path
    step: int
    total_steps: int
    stopped: bool
    skipped: tuple[str, ...]


def train(config: TrainConfig, out: Path, *, watch: Callable[[Row], None] = lambda row: None) -> Outcome:
    """Train as `config` says, in the folder `out`; run again, it goes on from the last saved state.

    Writes `out/config.json`, `out/log.jsonl` (a row a step), `out/tensorboard/`, `out/states/` and, when done,
    the model at `out/model/`. SIGINT and SIGTERM save the state and return with `stopped=True`.

    Args:
        watch: told every row: step, total_steps, epoch, loss, scale, grad_norm, lr, pairs_per_s, seconds_left.

    Raises ConfigError when `out` holds a run of another configuration or other data, DataError for shards that cannot
    be used, TrainingError when the loss is no longer finite.
    """
    require("accelerate", "train")
    require("tensorboard", "train")
    ours = {CONFIG, LOCK, partial_of(out / CONFIG).name}  # a kill may leave the last two alone
    if out.is_file() or (out.is_dir() and not (out / CONFIG).exists() and {path.name for path in out.iterdir()} - ours):
        raise ConfigError(f"{out}: is there already and holds no run. Choose another folder.")
    run = _Run(config, out)
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out):
        run.claim()
        run.restore()
        try:
            return run.through(watch)
        finally:
            run.accelerator.end_training()


class _Run:
    """Everything that lives as long as one call of `train`."""

    def __init__(self, config: TrainConfig, out: Path) -> None:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration, set_seed

        self.config, self.out = config, out
        self.accelerator = Accelerator(
            log_with="tensorboard", project_config=ProjectConfiguration(logging_dir=str(out / "tensorboard"))
        )
        set_seed(config.seed)
        self.embedder: Embedder = load(config.start, device=self.accelerator.device)
        self.model = self.embedder.clap.train()
        freeze(self.model, config.frozen)
        self.shards = index_shards(config.data)
        self.loader = PairLoader(
            self.shards,
            self.embedder.frontend,
            self.embedder.tokenizer,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            workers=config.workers,
        )
        self.total_steps = self.loader.batches_per_epoch * config.epochs
        objective = build_objective(ObjectiveConfig(), self.model)
        wrapped, self.optimizer = self.accelerator.prepare(self.model, build_optimizer(self.model, config.optim))
        self.take = TrainingStep(self.accelerator, wrapped, objective, self.optimizer, clip_norm=config.optim.clip_norm)
        self.step = 0

    def claim(self) -> None:
        """Make `out` this run's folder, or see that it already is: the same choices, data and start."""
        written = self.out / CONFIG
        wanted = json.loads(json.dumps(self.identity()))
        if not written.exists():
            write_bytes(written, json.dumps(wanted, indent=2).encode() + b"\n")
            return
        try:
            found = dict(json.loads(written.read_text(encoding="utf-8")))
        except ValueError:
            raise ConfigError(f"{written}: is damaged. Choose another folder, or delete this one.") from None
        if other := sorted(key for key in wanted if found.get(key) != wanted[key]):
            raise ConfigError(
                f"{self.out}: holds a run with another configuration ({', '.join(other)}). "
                "Choose another folder, or give the same options and data to go on with it."
            )

    def identity(self) -> dict[str, Any]:
        """The configuration, its paths from the root, and digests of what they lead to."""
        config = self.config.to_dict() | {"data": str(self.shards.folder.absolute())}
        if Path(self.config.start).exists():
            config["start"] = str(Path(self.config.start).absolute())
        return config | {"data_digest": self.shards.digest(), "start_digest": self.embedder.digest()}

    def restore(self) -> None:
        """Go to the newest saved state, if there is one, and open the trackers there."""
        self.step = state.restore(self.accelerator, self.out / "states")
        self.resumed_done = self.step >= self.total_steps
        self.accelerator.init_trackers("", init_kwargs={"tensorboard": {"purge_step": self.step, "flush_secs": 10}})

    def through(self, watch: Callable[[Row], None]) -> Outcome:
        """Step until the end or a signal; then leave the model, or the state, behind."""
        clock = _Clock(self.config.batch_size * self.accelerator.num_processes, self.total_steps)
        with _signals() as stop, _log(self.out / "log.jsonl", self.step) as write:
            for epoch, batch in self.batches():
                clock.data_ready()
                share = warmup_cosine(
                    self.step, warmup_steps=self.config.optim.warmup_steps, total_steps=self.total_steps
                )
                set_rate(self.optimizer, share)
                result = self.take([batch])
                self.step = epoch * self.loader.batches_per_epoch + self.loader.position
                self.check(result, batch)
                row = {"step": self.step, "total_steps": self.total_steps, "epoch": epoch + 1, **result}
                row |= {"lr": self.config.optim.lr * share, **clock.step_done(self.step)}
                write(row)
                watch(row)
                self.accelerator.log({key: row[key] for key in _TRACKED}, step=self.step)
                stopping = bool(stop)
                if stopping or self.step % self.config.save_every == 0 or self.step == self.total_steps:
                    state.save(self.accelerator, self.out / "states", self.step, self.config.keep)
                if stopping:
                    break
            else:
                self.step = self.total_steps  # the last batches may have been passed over, all of them unreadable
        return self.outcome()

    def check(self, result: dict[str, float], batch: PairBatch) -> None:
        """Raise TrainingError when the step just taken has left the numbers; nothing of it is saved."""
        if not all(math.isfinite(value) for value in result.values()):
            raise TrainingError(
                f"step {self.step}: the loss is {result['loss']}, the gradient's norm {result['grad_norm']}, on clips "
                f"{', '.join(batch.keys[:4])} and others. Start a new run with a lower --optim.lr."
            )

    def batches(self) -> Iterator[tuple[int, PairBatch]]:
        """What is left of the data from this step on, with its epoch (from 0)."""
        first, start = divmod(self.step, self.loader.batches_per_epoch)
        for epoch in range(first, self.config.epochs):
            for batch in self.loader.batches(epoch, start if epoch == first else 0):
                yield epoch, batch.to(self.accelerator.device)

    def outcome(self) -> Outcome:
        """Save the finished model."""
        model = self.out / "model"
        done = self.step >= self.total_steps
        if done and self.accelerator.is_main_process and not (self.resumed_done and model.exists()):
            self.embedder.save(model)
        damaged = [f"{tar}: {reason}" for tar, reason in self.shards.damaged]
        left_out = {sample.key: f"{sample.key}: {sample.reason}" for sample in self.loader.skipped}
        return Outcome(model, self.step, self.total_steps, not done, (*damaged, *left_out.values()))


_TRACKED = ("loss", "scale", "grad_norm", "lr", "pairs_per_s", "data_wait")


class _Clock:
    """Pairs a second, the share of time spent waiting for data, and the time left."""

    def __init__(self, pairs: int, total_steps: int) -> None:
        self.pairs, self.total_steps = pairs, total_steps
        self.last = self.ready = time.monotonic()
        self.smooth_s: float | None = None

    def data_ready(self) -> None:
        self.ready = time.monotonic()

    def step_done(self, step: int) -> Row:
        now = time.monotonic()
        took = max(now - self.last, 1e-9)
        wait = (self.ready - self.last) / took
        self.smooth_s = took if self.smooth_s is None else 0.9 * self.smooth_s + 0.1 * took
        self.last = now
        return {
            "pairs_per_s": self.pairs / took,
            "data_wait": wait,
            "seconds_left": self.smooth_s * (self.total_steps - step),
        }


@contextmanager
def _log(path: Path, step: int) -> Iterator[Callable[[Row], None]]:
    """Append rows to the log; rows after `step`, which a killed run took but did not save, are dropped first."""
    rows = read_log(path) if path.exists() else []
    draft = path.with_suffix(".draft")
    draft.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step), encoding="utf-8")
    draft.replace(path)
    with path.open("a", encoding="utf-8") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield write


def read_log(path: Path) -> list[Row]:
    """The rows of a run's `log.jsonl`; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the step in hand is finished and saved; a second SIGINT
    interrupts at once."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller's own signals stay
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
