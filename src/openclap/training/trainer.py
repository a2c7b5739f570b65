"""The training loop, from top to bottom: `train` sets up, `Trainer.run` takes the steps.

For each step: read the batches (`training_steps`), set the learning rate, compute and apply the update (`step.py`),
check that the run is healthy (`divergence.py`), validate after an epoch, log, and save a checkpoint when one is due.

Ctrl-C (SIGINT) and SIGTERM are collected by `stop_signals` and checked after the current step: the run then saves a
checkpoint and returns with `stopped=True`, and the same call resumes it bit-equal.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap.data.lengths import clip_lengths
from openclap.data.loader import PairLoader
from openclap.data.shards import ShardIndex, index_shards
from openclap.embedder import Embedder
from openclap.errors import ConfigError, DataError
from openclap.loading import load
from openclap.locks import only_writer
from openclap.malloc import retain_freed_memory
from openclap.models.objectives import build_objective
from openclap.storage import write_bytes
from openclap.text.tokenizer import Tokenizer
from openclap.training import checkpointing, teacher
from openclap.training.averaging import StartAverage
from openclap.training.checkpointing import CHECKPOINTS, CONFIG, MODEL, TrainingProgress
from openclap.training.config import TrainConfig, parse_caption_fields
from openclap.training.distributed import broadcast_from_first, sum_over_processes
from openclap.training.divergence import (
    RunPosition,
    check_embeddings,
    check_finite,
    check_symptom,
    find_symptom,
    has_finite_embeddings,
)
from openclap.training.logging import LOG, StepTimer, TrainingRow, UtilisationMeter, open_log
from openclap.training.model_setup import (
    DTYPES,
    PROJECT,
    build_accelerator,
    compile_towers,
    prepare_model,
    set_training_modes,
)
from openclap.training.optimizer import build_optimizer, schedule_factor, set_learning_rate
from openclap.training.remote_checkpoints import RemoteCheckpoints
from openclap.training.step import TrainingStep
from openclap.training.weight_average import WeightAverage
from openclap.types import PairBatch, Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

Validate = Callable[[Embedder], float]
"""Scores a model on validation pairs: higher is better, and equal models must get equal scores."""
OnRow = Callable[[TrainingRow], None]

TRACKED = (
    *("loss", "scale", "grad_norm", "lr", "pairs_per_s", "data_wait", "score", "mfu", "memory_mb"),
    *("alignment", "uniformity_audio", "uniformity_text"),
)
"""Columns of the log that experiment trackers get."""
EMPTY_STEPS = 10
"""Consecutive steps without a readable sample that end a run: a few damaged files do not add up to as many."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        model: the folder of the finished model, which exists unless the run was stopped.
        step: steps taken in all, resumed ones included.
        total_steps: steps of the whole run.
        stopped: a signal ended this call before the run was finished; the same call resumes it.
        skipped: damaged shards and samples that were left out, each with its reason.
        start_score, best_score: validation scores of the initial and of the best model; None without a validation.
        best_step: the step of the best model, which is the finished one; 0 if nothing was better than the initial one.
    """

    model: Path
    step: int
    total_steps: int
    stopped: bool
    skipped: tuple[str, ...]
    start_score: float | None = None
    best_score: float | None = None
    best_step: int = 0


def train(
    config: TrainConfig,
    out: Path,
    *,
    shards: ShardIndex | None = None,
    validate: Validate | None = None,
    progress: OnRow = lambda row: None,
    teaching: Progress = lambda done, total: None,
) -> TrainingResult:
    """Train with `config` in the run folder `out`; called again, resume from the last checkpoint.

    Writes `out/config.json`, `out/log.jsonl` (one row per step), `out/tensorboard/`, `out/checkpoints/` and, when done,
    the model at `out/model/`. Under `torchrun` each process trains on its own part of every step's data, and the first
    one alone writes.

    Args:
        shards: the training samples, in place of all of `config.data`.
        validate: scores the model before the first step and after every epoch. The best model becomes the finished
            one, and `config.patience` ends a run whose score no longer improves.
        progress: called with every row: step, total_steps, epoch, loss, scale, grad_norm, lr, pairs_per_s,
            seconds_left, and score and best after an epoch; and, for the initial model, step 0 with a score alone.
        teaching: called with sounds embedded by the teachers of `config.teacher`, and sounds in all.

    Raises ConfigError when `out` or `config.remote_checkpoints` holds another run, or cannot be written; DataError for
    unusable shards; TrainingError for a run that diverges or collapses (see `divergence`), which keeps its last good
    checkpoint and the best model.
    """
    checkpointing.check_run_folder(out)
    if config.patience and validate is None:
        raise ConfigError("patience counts validations, and this run has none. Leave it out, or run openclap finetune.")
    trainer = Trainer(config, out, shards, validate)
    is_first = trainer.accelerator.is_main_process
    out.mkdir(parents=True, exist_ok=True)
    # One writer for the folder. Freed memory is retained, because each step needs what the one before has freed.
    with only_writer(out) if is_first else nullcontext(), retain_freed_memory():
        try:
            trainer.claim_folder()
            trainer.restore()
            trainer.embed_with_teachers(teaching if is_first else lambda done, total: None)
            return trainer.run(progress if is_first else lambda row: None)
        finally:
            trainer.close()


class Trainer:
    """The objects of one call of `train` (model, data, optimizer, progress), and the loop over them in `run`."""

    def __init__(self, config: TrainConfig, out: Path, shards: ShardIndex | None, validate: Validate | None) -> None:
        from accelerate.utils import set_seed

        self.config, self.out, self.validate = config, out, validate
        self.remote = (
            RemoteCheckpoints(config.remote_checkpoints, out, config.keep_checkpoints)
            if config.remote_checkpoints
            else None
        )
        self.accelerator = build_accelerator(config, out)
        set_seed(config.seed)  # before the model is prepared: LoRA and the objective draw their initial weights
        start = load(
            config.start,
            device=self.accelerator.device,
            tokenizer=config.tokenizer or None,
            channels=config.channels,
        )
        # Without the check for alike texts: training may begin with untrained weights.
        self.embedder = Embedder(start.runtime, mono=start.mono)
        self.start_digest = self.embedder.digest()
        clap = self.embedder.clap
        self.teachers = teacher.load_teachers(config.teacher, self.accelerator.device, config.channels)
        self.model = self.embedder.clap = prepare_model(clap, config, self.accelerator)
        # Before compilation, or counting the operations would compile the towers for its own batch size.
        self.meter = UtilisationMeter(self.model, self.embedder.preset.frontend, DTYPES[config.precision])
        compile_towers(self.model, config)
        self.shards = shards or index_shards(config.data)
        self.loader = self._build_loader()
        self.steps_per_epoch = steps_per_epoch(self.loader, config.accumulate)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.training_step = self._build_step()
        self.progress = TrainingProgress()
        self.has_unproven_checkpoint = False
        self.was_finished = False

    def _build_loader(self) -> PairLoader:
        config, frontend = self.config, self.embedder.frontend
        tokenizer = self.embedder.tokenizer
        assert isinstance(tokenizer, Tokenizer)  # in torch, as the front end is
        lengths = (
            clip_lengths(self.shards, config.lengths, frontend.sample_rate, frontend.samples)
            if frontend.config.is_any_length
            else None
        )
        return PairLoader(
            self.shards,
            frontend,
            tokenizer,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            workers=config.workers,
            caption=config.caption,
            augment=config.augment,
            channels=config.channels,
            fields=parse_caption_fields(config.caption_fields),
            lengths=lengths,
            moment_samples=self.embedder.preset.moment_samples if config.objective.frames else None,
        )

    def _build_step(self) -> TrainingStep:
        """Build objective and optimizer; the objective comes first, since it may stop parts of the model training."""
        config = self.config
        objective = build_objective(config.objective, self.model, self.embedder.objective)
        # Shared tensors: saving the model also saves the objective's trained parameters, such as SigLIP's bias.
        self.embedder.objective = objective.learned()
        frozen_until_later = config.frozen if config.unfreeze_at else ()
        optimizer = build_optimizer(self.model, config.optim, also=frozen_until_later, objective=objective)
        # `self.model` stays the bare network, which validation and saving use.
        wrapped, self.optimizer = self.accelerator.prepare(self.model, optimizer)
        if list(objective.parameters()):
            # The model and the optimizer are in a checkpoint anyway, since they were prepared; the objective was not.
            self.accelerator.register_for_checkpointing(objective)
        # Before a checkpoint is restored. Without the option, the model is validated and written as it is.
        self.averaged: Callable[[], AbstractContextManager[None]] = (
            StartAverage([self.model, objective], config.start_share).applied if config.start_share else nullcontext
        )
        self.average = WeightAverage(self.model, self.optimizer, config.optim.ema) if config.optim.ema else None
        if self.average:
            self.accelerator.register_for_checkpointing(self.average)
        return TrainingStep(
            self.accelerator,
            wrapped,
            objective,
            self.optimizer,
            clip_norm=config.optim.clip_norm,
            chunk=config.chunk,
        )

    def run(self, progress: OnRow) -> TrainingResult:
        """Take steps until the end or a signal, and return with the finished model, or a checkpoint, written."""
        with stop_signals() as received, self.log() as write:
            if self.validate and self.progress.best_score is None:  # not on resuming: the score is in the checkpoint
                progress({"step": 0, "total_steps": self.total_steps, "epoch": 0, **self.score()})
            timer = StepTimer(self.pairs_per_step, self.total_steps)
            for step, batches in self.remaining_steps():
                timer.data_ready()
                # The learning rate and the frozen parts are functions of the step number alone, so that a resumed run
                # needs no state of a scheduler.
                lr_factor = self.prepare_for_step(step - 1)
                result = self.training_step(batches)  # zero_grad, forward, backward, clip, update: see step.py
                if self.average:
                    self.average.update()
                self.progress = replace(self.progress, step=step)
                # Before the row is logged and before anything is validated or saved: a diverged update must not become
                # a checkpoint or the best model.
                self.check_health(result, batches)
                epoch = (step - 1) // self.steps_per_epoch + 1
                row = {"step": step, "total_steps": self.total_steps, "epoch": epoch, **result}
                row |= {"lr": self.config.optim.lr * lr_factor, **timer.step_done(step)}
                row |= self.meter.measure(batches, self.pairs_per_step / row["pairs_per_s"])
                is_validated = self.validate is not None and step % self.steps_per_epoch == 0
                if is_validated:
                    # The loss was taken before this step's update, so only embeddings show what the update did.
                    # Validation would blame a sound for embeddings that are not finite.
                    self.check_embeddings(batches)
                    row |= self.score()
                    timer.skip()
                write(row)
                progress(row)
                self.accelerator.log({key: row[key] for key in TRACKED if key in row}, step=step)
                # Signals are checked after the step and not during it, so that a checkpoint never holds half an
                # update. Every process must stop at the same step, though a signal may reach them at different times
                # or reach only one: they agree by a sum.
                is_stopping = any(sum_over_processes(self.accelerator, [bool(received)]))
                is_due = is_validated or step % self.config.save_every == 0
                # Unhealthy steps save no checkpoint, so that the last one stays good while the run may yet recover. At
                # the end and at a signal the state is saved all the same, or its steps would be lost.
                if is_stopping or self.is_finished() or (is_due and not self.progress.unhealthy_steps):
                    if not is_validated:
                        self.check_embeddings(batches)  # nothing is written that gives non-finite embeddings
                    self.save()
                if is_stopping or self.is_finished():
                    break
            if not self.is_finished() and not received:
                # The loop ran out of batches: those of the last steps were all unreadable and have been skipped.
                self.progress = replace(self.progress, step=self.total_steps)
        return self.finish()

    def prepare_for_step(self, steps_taken: int) -> float:
        """Set the learning rate, and unfreeze parts when it is time; return the factor of the base rate."""
        if steps_taken == self.config.unfreeze_at and steps_taken:
            set_training_modes(self.model, self.config, steps_taken)
        factor = schedule_factor(self.config.optim, steps_taken, self.total_steps)
        set_learning_rate(self.optimizer, factor)
        return factor

    def check_health(self, result: dict[str, float], batches: Sequence[PairBatch]) -> None:
        """Raise TrainingError when the step just taken shows that the run has diverged or collapsed."""
        # fp16: the loss scale was too large, so no update was made and the scale is halved. The gradient's infinity
        # shows no divergence then, and the step is no evidence of health or illness.
        was_skipped = self.accelerator.optimizer_step_was_skipped and math.isfinite(result["loss"])
        if was_skipped:
            result["grad_norm"] = 0.0
        rank = self.accelerator.process_index
        file = self.out / ("non-finite.json" if rank == 0 else f"non-finite-{rank}.json")
        before = self.progress
        position = RunPosition(self.out, before.step, before.unhealthy_steps + 1)
        check_finite(result, batches, self.config, position, file)
        first_loss = result["loss"] if before.first_loss is None else before.first_loss
        symptom = None if was_skipped else find_symptom(result, first_loss)
        unhealthy_steps = position.unhealthy if symptom else 0
        self.progress = replace(before, first_loss=first_loss, unhealthy_steps=unhealthy_steps)
        if symptom:
            check_symptom(symptom, self.config, self.total_steps, position)
        else:
            self.prune()  # this step has shown the last checkpoint to be good, so older ones can go

    def check_embeddings(self, batches: Sequence[PairBatch]) -> None:
        """Raise TrainingError when the last update has left a model whose embeddings are not finite, on any process."""
        # The first batch only: weights that are not finite spoil every embedding.
        is_broken = not all(has_finite_embeddings(self.model, batch) for batch in batches[:1])
        set_training_modes(self.model, self.config, self.progress.step)
        position = RunPosition(self.out, self.progress.step, self.progress.unhealthy_steps)
        check_embeddings(not any(sum_over_processes(self.accelerator, [is_broken])), self.config, position)

    def score(self) -> TrainingRow:
        """Validate, and write the model if it is the best so far."""
        assert self.validate is not None
        self.model.eval()
        # The first process alone validates; the others need its score, because it decides when all of them stop.
        with self.final_weights():
            score = self.validate(self.embedder) if self.accelerator.is_main_process else 0.0
            score = broadcast_from_first(self.accelerator, score)
            self.progress = self.progress.with_score(score)
            if self.progress.best_step == self.progress.step and self.accelerator.is_main_process:
                checkpointing.save_best_model(self.embedder, self.out)
        set_training_modes(self.model, self.config, self.progress.step)
        return {"score": score, "best": self.progress.best_score, "best_step": self.progress.best_step}

    @contextmanager
    def final_weights(self) -> Iterator[None]:
        """Put the weights of a finished model into the network: their moving average, and its mean with the start, as
        the configuration asks for."""
        with self.average.in_use() if self.average else nullcontext(), self.averaged():
            yield

    def save(self) -> None:
        """Save a checkpoint, here and remotely. Older ones stay until a further step has shown this one to be good."""
        checkpoint = checkpointing.save_checkpoint(self.accelerator, self.out / CHECKPOINTS, self.progress)
        self.has_unproven_checkpoint = True
        if self.remote and self.accelerator.is_main_process:
            self.remote.upload(checkpoint)

    def prune(self) -> None:
        """Remove old checkpoints, here and remotely, if one has been saved since the last time."""
        if self.has_unproven_checkpoint and self.accelerator.is_main_process:
            checkpointing.prune_checkpoints(self.out / CHECKPOINTS, self.config.keep_checkpoints)
            if self.remote:
                self.remote.prune()
        self.has_unproven_checkpoint = False

    def finish(self) -> TrainingResult:
        """Write the finished model, unless a former call has, and collect the result."""
        model, is_finished, now = self.out / MODEL, self.is_finished(), self.progress
        if is_finished and not now.unhealthy_steps:
            self.prune()
        if is_finished and self.accelerator.is_main_process and not (self.was_finished and model.exists()):
            with self.final_weights():
                checkpointing.write_final_model(self.embedder, self.out, use_best=self.validate is not None)
        damaged = [f"{tar}: {reason}" for tar, reason in self.shards.damaged]
        # By key: a sample that cannot be read fails again in every epoch.
        unreadable = {sample.key: f"{sample.key}: {sample.reason}" for sample in self.loader.skipped}
        return TrainingResult(
            model,
            now.step,
            self.total_steps,
            stopped=not is_finished,
            skipped=(*damaged, *unreadable.values()),
            start_score=now.start_score,
            best_score=now.best_score,
            best_step=now.best_step,
        )

    def claim_folder(self) -> None:
        """Write this run's identity into the folder, or check that the folder has it: same options, data and start."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        identity = checkpointing.run_identity(
            self.config,
            self.shards,
            self.start_digest,
            self.accelerator.num_processes,
            [each.digest() for each in self.teachers],
        )
        is_known = checkpointing.holds_run(self.out, identity)
        if self.remote:
            self.remote.acquire(identity)
        if not is_known:
            write_bytes(self.out / CONFIG, checkpointing.identity_json(identity))
        if self.remote:
            self.remote.download()

    def restore(self) -> None:
        """Load the newest checkpoint, if there is one, and open the trackers at its step."""
        self.progress = checkpointing.restore_checkpoint(self.accelerator, self.out / CHECKPOINTS)
        self.was_finished = self.is_finished()
        set_training_modes(self.model, self.config, self.progress.step)
        # A killed run has logged steps after its last checkpoint; TensorBoard hides them, as `open_log` drops them.
        tensorboard = {"purge_step": self.progress.step, "flush_secs": 10}
        self.accelerator.init_trackers(PROJECT, init_kwargs={"tensorboard": tensorboard})

    def embed_with_teachers(self, progress: Progress) -> None:
        """Embed the training data with the teachers, unless the run folder holds their vectors, and release them."""
        if not self.teachers:
            return
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        teacher.embed_with_teachers(
            self.teachers,
            self.config.teacher,
            self.shards,
            self.out,
            rank=rank,
            world=world,
            fields=self.loader.clips.fields,
            progress=progress,
        )
        self.accelerator.wait_for_everyone()
        self.training_step.attach_teacher = teacher.open_teachers(len(self.teachers), self.out, world)
        self.teachers = []

    def close(self) -> None:
        """Close trackers and give up the lease, after success and failure."""
        self.accelerator.end_training()
        if self.remote and self.accelerator.is_main_process:
            self.remote.release()

    def log(self) -> AbstractContextManager[OnRow]:
        """Open the log on the first process."""
        if self.accelerator.is_main_process:
            return open_log(self.out / LOG, self.progress.step)
        return nullcontext(lambda row: None)

    def remaining_steps(self) -> Iterator[tuple[int, list[PairBatch]]]:
        """Yield the steps still to take: each one's number, from 1, and its batches."""
        if self.is_finished():
            return iter(())
        return training_steps(self.loader, self.accelerator, self.config, self.steps_per_epoch, self.progress.step)

    def is_finished(self) -> bool:
        """Check whether every step is taken, or `patience` has run out."""
        patience = self.config.patience
        is_out_of_patience = bool(patience) and self.progress.validations_since_best >= patience
        return is_out_of_patience or self.progress.step >= self.total_steps

    @property
    def pairs_per_step(self) -> int:
        """The pairs of one step on all processes."""
        processes: int = self.accelerator.num_processes
        return self.config.batch_size * self.config.accumulate * processes


def steps_per_epoch(loader: PairLoader, accumulate: int) -> int:
    """Compute the steps of an epoch. Raises DataError when the batches do not suffice for one step."""
    if loader.batches_per_epoch < accumulate:
        raise DataError(
            f"{loader.shards.folder}: {loader.batches_per_epoch} batches are fewer than the {accumulate} of one step. "
            "Choose a smaller accumulate or batch_size, or add data."
        )
    # Batches that do not fill a last step are dropped, other ones in each epoch.
    return loader.batches_per_epoch // accumulate


def training_steps(
    loader: PairLoader, accelerator: Accelerator, config: TrainConfig, per_epoch: int, steps_taken: int
) -> Iterator[tuple[int, list[PairBatch]]]:
    """Yield the remaining steps: each one's number, from 1, and its batches on this process.

    All processes must iterate together. A batch is empty where its process could read none of its samples; a batch that
    is empty on every process is left out, and a step of such batches alone is skipped.

    Raises DataError when shards are missing, or nothing can be read for long.
    """
    # The steps taken are the whole state of the data: order and crops are functions of seed, epoch and position.
    first_epoch, first_step = divmod(steps_taken, per_epoch)
    empty_steps = 0
    for epoch in range(first_epoch, config.epochs):
        batches: list[PairBatch] = []
        start = first_step * config.accumulate if epoch == first_epoch else 0
        for batch in loader.batches(epoch, start):
            check_shards_exist(loader)
            batches.append(batch.to(accelerator.device))
            # By the loader's position and not by len(batches), so that a resumed epoch forms the same steps.
            step, rest = divmod(loader.position, config.accumulate)
            if rest:
                continue
            if readable := _readable_batches(batches, accelerator):
                empty_steps = 0
                yield epoch * per_epoch + step, readable
            else:
                empty_steps += 1
                is_whole_epoch = step == per_epoch and empty_steps >= per_epoch
                check_readable(loader, empty_steps, is_whole_epoch=is_whole_epoch)
            batches = []
            if step == per_epoch:  # the batches that are left do not suffice for a step
                break


def _readable_batches(batches: list[PairBatch], accelerator: Accelerator) -> list[PairBatch]:
    """Select the batches of which some process could read something; the choice is the same on every process."""
    counts = sum_over_processes(accelerator, [len(batch.keys) for batch in batches])
    return [batch for batch, count in zip(batches, counts, strict=True) if count]


def check_shards_exist(loader: PairLoader) -> None:
    """Raise DataError when shards have disappeared since the run began."""
    shards = loader.shards
    # Only after a sample was skipped, so that a healthy run does not look at every file at every step.
    if loader.skipped and (missing := [tar for tar in shards.tars if not (shards.folder / tar).exists()]):
        raise DataError(
            f"{shards.folder}: {len(missing)} of {len(shards.tars)} tars have disappeared since the run began (the "
            f"first is {missing[0]}). Put them back and run the same command to continue; the checkpoints are whole."
        )


def check_readable(loader: PairLoader, empty_steps: int, *, is_whole_epoch: bool) -> None:
    """Raise DataError when no process could read anything for EMPTY_STEPS consecutive steps, or for a whole epoch."""
    if empty_steps >= EMPTY_STEPS or is_whole_epoch:
        last = f" The last one: {loader.skipped[-1].reason}" if loader.skipped else ""
        raise DataError(
            f"{loader.shards.folder}: no sample of {empty_steps} consecutive step{'s' if empty_steps > 1 else ''} "
            f"could be read.{last} Run 'openclap dataset check'."
        )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the current step can be finished and saved.

    A second signal raises KeyboardInterrupt at once, for a step that hangs.
    """
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # only the main thread may set handlers; elsewhere the caller's own stay
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
