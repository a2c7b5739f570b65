"""The run folder: checkpoints to resume from, the models that a run writes, and the check that the folder is the run's.

    config.json              the run's identity: configuration, digests of data and start, number of processes
    checkpoints/step-00000050/
        model.safetensors, optimizer.bin, random_states_0.pkl, …   written by accelerate
        progress.json        step and scores
    best/                    the best model so far, while a validation chooses
    model/                   the finished model

The position in the data is a function of the step, so a checkpoint needs none (docs/decisions/0003).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from openclap.data.shards import ShardIndex
from openclap.errors import CheckpointError, ConfigError
from openclap.locks import LOCK
from openclap.paths import is_url
from openclap.storage import Place, partial_of, sync_tree
from openclap.training.config import TrainConfig
from openclap.training.lora import merge_lora

if TYPE_CHECKING:
    from accelerate import Accelerator

    from openclap.embedder import Embedder

CONFIG, SHARDS, BEST, MODEL = "config.json", "shards", "best", "model"
CHECKPOINTS, PROGRESS = "checkpoints", "progress.json"
PREFIX, DRAFT = "step-", ".draft-"
RunIdentity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run is.

    Attributes:
        step: steps taken.
        start_score: the validation score before the first step.
        best_score: the highest validation score so far.
        best_step: the step of the highest score; 0 for the initial model.
        validations_since_best: for `patience`.
        first_loss: the loss of the first step.
        unhealthy_steps: consecutive steps, up to this one, that look diverged or collapsed (`training.divergence`).
    """

    step: int = 0
    start_score: float | None = None
    best_score: float | None = None
    best_step: int = 0
    validations_since_best: int = 0
    first_loss: float | None = None
    unhealthy_steps: int = 0

    def with_score(self, score: float) -> TrainingProgress:
        """Add one validation; the first one is of the initial model."""
        if self.best_score is None:
            return replace(self, start_score=score, best_score=score, best_step=self.step)
        # Only a higher score counts: of equal models the earlier one is kept, and `patience` goes on.
        if score > self.best_score:
            return replace(self, best_score=score, best_step=self.step, validations_since_best=0)
        return replace(self, validations_since_best=self.validations_since_best + 1)


def save_checkpoint(accelerator: Accelerator, folder: Path, progress: TrainingProgress) -> Path:
    """Write a complete checkpoint. Every process must call this; the first one writes the model.

    Older checkpoints stay; `prune_checkpoints` removes them. Raises CheckpointError when it cannot be written.
    """
    place = folder / f"{PREFIX}{progress.step:08d}"
    draft = folder / f"{DRAFT}{place.name}"  # renamed when complete: a kill or a full disk leaves the older ones whole
    try:
        if accelerator.is_main_process:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(draft))  # each process adds its own random states
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (draft / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            sync_tree(draft)
            draft.rename(place)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk raises another type in each library
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(
            f"{place}: the checkpoint of step {progress.step} could not be saved ({error}). Earlier checkpoints are "
            "whole; free some space and run the same command to continue."
        ) from None
    return place


def restore_checkpoint(accelerator: Accelerator, folder: Path) -> TrainingProgress:
    """Load the newest checkpoint and return its progress; without one, progress at step 0.

    Raises CheckpointError for a damaged checkpoint.
    """
    if accelerator.is_main_process:
        for draft in folder.glob(f"{DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)
    accelerator.wait_for_everyone()
    # Names have eight digits, so their order is that of the steps.
    newest = next(iter(list_checkpoints(folder)[-1:]), None)
    if newest is None:
        return TrainingProgress()
    try:
        accelerator.load_state(str(newest))
        return TrainingProgress(**json.loads((newest / PROGRESS).read_text(encoding="utf-8")))
    except Exception as error:  # damaged bytes can fail in any way
        raise CheckpointError(
            f"{newest}: cannot be read ({type(error).__name__}: {error}). Delete it to continue from the one before."
        ) from None


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all checkpoints except the newest `keep`."""
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was saved."""
    return int(checkpoint.name.removeprefix(PREFIX))


def save_best_model(embedder: Embedder, out: Path) -> None:
    """Write the model to `out/best`, in place of the one before.

    Raises CheckpointError when it cannot be written; the one before then stays whole.
    """
    try:
        merge_lora(embedder).save(out / BEST)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{out / BEST}: the best model so far could not be saved ({error}). The one before is whole, "
            "and so are the checkpoints; free some space and run the same command to continue."
        ) from None


def write_final_model(embedder: Embedder, out: Path, *, use_best: bool) -> None:
    """Write `out/model`: the model as it is, or, with `use_best`, the best one. Raises CheckpointError if that is
    missing."""
    model, best = out / MODEL, out / BEST
    if not use_best:
        merge_lora(embedder).save(model)
    elif best.exists():
        shutil.rmtree(model, ignore_errors=True)
        # Renamed and not copied: the folder is complete, and so is the finished model at any moment.
        best.rename(model)
    else:
        raise CheckpointError(f"{model}: was deleted, and the best model with it. Start a new run elsewhere.")


def run_identity(
    config: TrainConfig, shards: ShardIndex, start_digest: str, processes: int, teacher_digests: Sequence[str] = ()
) -> RunIdentity:
    """Collect everything that a run's result depends on, as plain JSON data.

    That is the configuration with absolute paths, digests of the data, the initial model and the teachers, and the
    number of processes. `remote_checkpoints` is left out, since copies change no result.
    """
    values = config.to_dict() | {"data": str(shards.folder.absolute())}
    # Paths are made absolute, so that the run can be continued from another working directory.
    del values["remote_checkpoints"]
    if config.tokenizer:
        values["tokenizer"] = str(Path(config.tokenizer).absolute())
    else:
        del values["tokenizer"]
    values["start"] = _absolute(config.start)
    if config.teacher:
        values |= {"teacher": [_absolute(name) for name in config.teacher], "teacher_digests": list(teacher_digests)}
    # Digests, because a path may hold other content by now; the number of processes, because it divides the data.
    values |= {"data_digest": shards.digest(), "start_digest": start_digest, "processes": processes}
    return dict(json.loads(json.dumps(values)))  # tuples become lists, as in the file that it is compared with


def _absolute(model: str) -> str:
    """The path of a model as an absolute one; a name of a model as it is."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def identity_json(identity: RunIdentity) -> bytes:
    """Format an identity as the content of `config.json`."""
    return json.dumps(identity, indent=2).encode() + b"\n"


def check_run_folder(out: Path) -> None:
    """Raise ConfigError for a path that cannot become a run folder, before anything is written there."""
    if is_url(out):
        raise ConfigError(
            f"{out}: is an address, and a run folder must be on this machine. "
            "The option remote_checkpoints copies checkpoints elsewhere."
        )
    own_names = {LOCK, SHARDS, partial_of(out / CONFIG).name}  # a kill may leave only these
    foreign = out.is_dir() and not (out / CONFIG).exists() and {path.name for path in out.iterdir()} - own_names
    if foreign or out.is_file() or _is_foreign_config(out / CONFIG):
        raise ConfigError(f"{out}: exists already and holds no run. Choose another folder.")


def _is_foreign_config(file: Path) -> bool:
    """Check for a config.json of another kind, such as a model's."""
    try:
        return file.is_file() and "data_digest" not in json.loads(file.read_bytes())
    except (TypeError, ValueError):
        return False  # a damaged file is reported by holds_run


def holds_run(folder: Place, identity: RunIdentity) -> bool:
    """Check whether the folder already holds this run.

    Raises ConfigError if it holds another run, or its config.json is damaged.
    """
    file = folder / CONFIG
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    except (TypeError, ValueError):
        raise ConfigError(f"{file}: is damaged. Choose another folder, or delete this one.") from None
    if different := sorted(key for key in identity if found.get(key) != identity[key]):
        raise ConfigError(
            f"{folder}: holds a run with another configuration ({', '.join(different)}). "
            "Choose another folder, or give the same options and data to continue that run."
        )
    return True
