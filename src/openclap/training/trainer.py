"""The loop: batches in, steps taken, progress told, state saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openclap.data.loader import PairLoader
from openclap.data.shards import ShardIndex, index_shards
from openclap.embedder import Embedder
from openclap.errors import ConfigError
from openclap.loading import load
from openclap.locks import only_writer
from openclap.malloc import all_memory_kept
from openclap.models.objectives import build_objective
from openclap.storage import write_bytes
from openclap.training import state
from openclap.training.claim import CONFIG, as_text, check_folder, identity, is_claimed
from openclap.training.config import TrainConfig
from openclap.training.health import (
    Place,
    check_embeddings,
    check_finite,
    check_going,
    doubt,
    has_finite_embeddings,
)
from openclap.training.leave import MODEL, keep_best, leave
from openclap.training.live import LOG, Clock, Row, log, read_log, signals
from openclap.training.model_setup import (
    DTYPES,
    PROJECT,
    accelerator_for,
    compile_towers,
    from_first,
    prepare_networks,
    set_modes,
    sums,
)
from openclap.training.optimizer import SCHEDULES, build_optimizer, set_rate
from openclap.training.remote_checkpoints import Copies
from openclap.training.state import STATES
from openclap.training.step import TrainingStep
from openclap.training.steps import Step, steps, steps_per_epoch
from openclap.training.watch import Gauge
from openclap.types import PairBatch

__all__ = ["Outcome", "Row", "Validate", "read_log", "train"]

Validate = Callable[[Embedder], float]
"""The score of a model on held-out pairs; more is better, and the same model always gets the same."""
Watch = Callable[[Row], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: the model's folder, the steps taken in all, and whether it was stopped on the way.

    With a validation, the model is the one that scored `best`, after `best_step` steps; `start` is what it began with.
    """

    model: Path
    step: int
    total_steps: int
    stopped: bool
    skipped: tuple[str, ...]
    start: float | None = None
    best: float | None = None
    best_step: int = 0


def train(
    config: TrainConfig,
    out: Path,
    *,
    shards: ShardIndex | None = None,
    validate: Validate | None = None,
    watch: Watch = lambda row: None,
) -> Outcome:
    """Train as `config` says, in the folder `out`; run again, it goes on from the last saved state.

    Writes `out/config.json`, `out/log.jsonl` (a row a step), `out/tensorboard/`, `out/states/` and, when done,
    the model at `out/model/`. SIGINT and SIGTERM save the state and return with `stopped=True`. Under `torchrun` each
    process learns from its own part of every step's data, and the first one alone writes.

    Args:
        shards: samples to learn from, in place of all of `config.data`.
        validate: scores the model before the first step and after every epoch. The best model is kept, and
            `config.patience` ends a run that gets no better.
        watch: told every row: step, total_steps, epoch, loss, scale, grad_norm, lr, pairs_per_s, seconds_left, and
            score and best after an epoch; and, for the start, step 0 with a score alone.

    Raises ConfigError when `out` or `config.states` holds a run of another configuration or other data, or cannot be
    written, DataError for shards that cannot be used, TrainingError for a run that diverges or
    collapses (see `train.health`); its last good state, and the best model, stay.
    """
    check_folder(out)
    if config.patience and validate is None:
        raise ConfigError("patience counts validations, and this run has none. Leave it out, or run openclap finetune.")
    run = _Run(config, out, shards, validate)
    watch = watch if run.accelerator.is_main_process else lambda row: None
    out.mkdir(parents=True, exist_ok=True)
    with only_writer(out) if run.accelerator.is_main_process else nullcontext(), all_memory_kept():
        try:
            run.claim()
            run.restore()
            return run.through(watch)
        finally:
            run.end()


class _Run:
    """Everything that lives as long as one call of `train`."""

    def __init__(self, config: TrainConfig, out: Path, shards: ShardIndex | None, validate: Validate | None) -> None:
        from accelerate.utils import set_seed

        self.config, self.out, self.validate = config, out, validate
        self.copies = Copies(config.states, out, config.keep) if config.states else None
        self.accelerator = accelerator_for(config, out)
        set_seed(config.seed)
        self.embedder: Embedder = load(
            config.start,
            device=self.accelerator.device,
            tokenizer=config.tokenizer or None,
            channels=config.channels,
        )
        self.start_digest = self.embedder.digest()
        self.model = self.embedder.clap = prepare_networks(self.embedder.clap, config, self.accelerator)
        self.gauge = Gauge(self.model, self.embedder.preset.frontend, DTYPES[config.precision])
        compile_towers(self.model, config)
        self.shards = shards or index_shards(config.data)
        self.loader = PairLoader(
            self.shards,
            self.embedder.frontend,
            self.embedder.tokenizer,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            workers=config.workers,
            caption=config.caption,
            augment=config.augment,
            channels=config.channels,
        )
        self.steps_per_epoch = steps_per_epoch(self.loader, config.accumulate)
        self.total_steps = self.steps_per_epoch * config.epochs
        later = config.frozen if config.unfreeze_at else ()
        objective = build_objective(config.objective, self.model, self.embedder.objective)
        self.embedder.objective = objective.learned()
        optimizer = build_optimizer(self.model, config.optim, also=later, objective=objective)
        wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        if list(objective.parameters()):
            self.accelerator.register_for_checkpointing(objective)
        self.take = TrainingStep(
            self.accelerator,
            wrapped,
            objective,
            self.optimizer,
            clip_norm=config.optim.clip_norm,
            chunk=config.chunk,
        )
        self.progress = state.Progress()
        self.has_unproven = False

    def claim(self) -> None:
        """Make `out` this run's folder, or see that it already is: the same choices, data and start."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        wanted = identity(self.config, self.shards, self.start_digest, self.accelerator.num_processes)
        claimed = is_claimed(self.out, wanted)
        if self.copies:
            self.copies.claim(wanted)
        if not claimed:
            write_bytes(self.out / CONFIG, as_text(wanted))
        if self.copies:
            self.copies.fetch()

    def end(self) -> None:
        """Close what was opened, however it went."""
        self.accelerator.end_training()
        if self.copies and self.accelerator.is_main_process:
            self.copies.release()

    def restore(self) -> None:
        """Go to the newest saved state, if there is one, and open the trackers there."""
        self.progress = state.restore(self.accelerator, self.out / STATES)
        self.resumed_done = self.is_over()
        set_modes(self.model, self.config, self.progress.step)
        places = {"tensorboard": {"purge_step": self.progress.step, "flush_secs": 10}}
        self.accelerator.init_trackers(PROJECT, init_kwargs=places)

    def is_over(self) -> bool:
        """Is every step taken, or has it been long enough that nothing got better?"""
        given_up = bool(self.config.patience) and self.progress.waited >= self.config.patience
        return given_up or self.progress.step >= self.total_steps

    def through(self, watch: Watch) -> Outcome:
        """Step until the end or a signal; then leave the model, or the state, behind."""
        with signals() as stop, self.logging() as write:
            if self.validate and self.progress.best is None:
                watch({"step": 0, "total_steps": self.total_steps, "epoch": 0, **self.score()})
            clock = Clock(self.pairs_per_step, self.total_steps)
            for step, batches in self.steps_left():
                clock.data_ready()
                share = self.rate_at(step - 1)
                result = self.take(batches)
                self.progress = replace(self.progress, step=step)
                self.check(result, batches)
                epoch = (step - 1) // self.steps_per_epoch + 1
                row = {"step": step, "total_steps": self.total_steps, "epoch": epoch, **result}
                row |= {"lr": self.config.optim.lr * share, **clock.step_done(step)}
                row |= self.gauge.row(batches, self.pairs_per_step / row["pairs_per_s"])
                scored = self.validate is not None and step % self.steps_per_epoch == 0
                if scored:
                    self.check_embeddings(batches)
                    row |= self.score()
                    clock.leave_out()
                write(row)
                watch(row)
                self.accelerator.log({key: row[key] for key in _TRACKED if key in row}, step=step)
                stopping = any(sums(self.accelerator, [bool(stop)]))
                due = scored or step % self.config.save_every == 0
                if stopping or self.is_over() or (due and not self.progress.doubtful):
                    if not scored:
                        self.check_embeddings(batches)
                    self.save()
                if stopping or self.is_over():
                    break
            if not self.is_over() and not stop:  # the last batches were passed over, all of them unreadable
                self.progress = replace(self.progress, step=self.total_steps)
        return self.outcome()

    def logging(self) -> Any:
        """Who writes rows down: the first process."""
        if self.accelerator.is_main_process:
            return log(self.out / LOG, self.progress.step)
        return nullcontext(lambda row: None)

    @property
    def pairs_per_step(self) -> int:
        """Of all processes."""
        processes: int = self.accelerator.num_processes
        return self.config.batch_size * self.config.accumulate * processes

    def rate_at(self, step: int) -> float:
        """Make the optimizer, and what learns, as they are after `step` steps; the share of the base rate."""
        if step == self.config.unfreeze_at and step:
            set_modes(self.model, self.config, step)
        warmup = self.config.optim.warmup_steps
        share = SCHEDULES[self.config.optim.schedule](step, warmup_steps=warmup, total_steps=self.total_steps)
        set_rate(self.optimizer, share)
        return share

    def save(self) -> None:
        """The state, here and where it is copied to. Older ones stay until a further step has shown it to be good."""
        place = state.save(self.accelerator, self.out / STATES, self.progress)
        self.has_unproven = True
        if self.copies and self.accelerator.is_main_process:
            self.copies.send(place)

    def prune(self) -> None:
        """Remove old states, here and where they are copied to, if one has been saved since."""
        if self.has_unproven and self.accelerator.is_main_process:
            state.prune(self.out / STATES, self.config.keep)
            if self.copies:
                self.copies.prune()
        self.has_unproven = False

    def score(self) -> Row:
        """Validate, and keep the model if it is the best so far."""
        assert self.validate is not None
        self.model.eval()
        score = self.validate(self.embedder) if self.accelerator.is_main_process else 0.0
        score = from_first(self.accelerator, score)
        set_modes(self.model, self.config, self.progress.step)
        self.progress = self.progress.scored(score)
        if self.progress.best_step == self.progress.step and self.accelerator.is_main_process:
            keep_best(self.embedder, self.out)
        return {"score": score, "best": self.progress.best, "best_step": self.progress.best_step}

    def check(self, result: dict[str, float], batches: Sequence[PairBatch]) -> None:
        """Raise TrainingError when the step just taken shows that the run has diverged or collapsed; nothing of it is
        saved."""
        skipped = self.accelerator.optimizer_step_was_skipped and math.isfinite(result["loss"])
        if skipped:
            result["grad_norm"] = 0.0  # fp16: the scale was too large, is halved now, and no update was made
        rank = self.accelerator.process_index
        name = "non-finite.json" if rank == 0 else f"non-finite-{rank}.json"
        now = self.progress
        bad = Place(self.out, now.step, now.doubtful + 1)
        check_finite(result, batches, self.config, bad, self.out / name)
        first = result["loss"] if now.first_loss is None else now.first_loss
        why = None if skipped else doubt(result, first)
        self.progress = replace(now, first_loss=first, doubtful=bad.bad if why else 0)
        if why:
            check_going(why, self.config, self.total_steps, bad)
        else:
            self.prune()

    def check_embeddings(self, batches: Sequence[PairBatch]) -> None:
        """Raise TrainingError when the last update has left a model that gives no finite embeddings: no later step has
        shown it yet, and it must not become a state or the best model."""
        broken = not all(has_finite_embeddings(self.model, batch) for batch in batches[:1])
        set_modes(self.model, self.config, self.progress.step)
        place = Place(self.out, self.progress.step, self.progress.doubtful)
        check_embeddings(not any(sums(self.accelerator, [broken])), self.config, place)

    def steps_left(self) -> Iterator[Step]:
        """What is left to learn from."""
        if self.is_over():
            return iter(())
        return steps(self.loader, self.accelerator, self.config, self.steps_per_epoch, self.progress.step)

    def outcome(self) -> Outcome:
        """Leave the finished model."""
        model, done = self.out / MODEL, self.is_over()
        if done and not self.progress.doubtful:
            self.prune()
        if done and self.accelerator.is_main_process and not (self.resumed_done and model.exists()):
            leave(self.embedder, self.out, chosen=self.validate is not None)
        damaged = [f"{tar}: {reason}" for tar, reason in self.shards.damaged]
        left_out = {sample.key: f"{sample.key}: {sample.reason}" for sample in self.loader.skipped}
        now = self.progress
        skipped = (*damaged, *left_out.values())
        return Outcome(model, now.step, self.total_steps, not done, skipped, now.start, now.best, now.best_step)


_TRACKED = (
    *("loss", "scale", "grad_norm", "lr", "pairs_per_s", "data_wait", "score", "mfu", "memory_mb"),
    *("alignment", "uniformity_audio", "uniformity_text"),
)
