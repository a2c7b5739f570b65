"""Notice a run that has diverged or collapsed, before it replaces states and models that were good.

Diverged: the loss, the gradient or the embeddings are not finite, or the loss stays far above its first value.
Collapsed: the loss stays where equal embeddings put it and the gradient is gone, so that nothing moves it again.
Contrastive runs end there when the learning rate or the weight decay is too high: every pair gets the same score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from openclap.errors import TrainingError
from openclap.models.clap import CLAP
from openclap.storage import write_bytes
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.leave import BEST
from openclap.training.state import STATES, saved, step_of
from openclap.types import PairBatch

RUNNING = 10
"""Doubtful steps in a row that end a run. Fewer prove nothing: a small model that knows none of the words starts so."""
NO_GRADIENT = 1e-3
"""Norm of the whole gradient. Of small runs, healthy ones at chance had 0.1 and more, collapsed ones below 3e-4."""
LOW_SCALE = 3.0
"""Runs begin at 10 or more and rise."""
ALL_EQUAL = 1e-3
"""Uniformity of embeddings whose cosines to each other are 0.9997 and more."""
AT_CHANCE = 0.01
"""Distance of the loss from chance, as a share of chance."""
EXPLODED = 3.0
"""Times the first loss, or chance where that is more."""
COSINE_GAP = 0.1
"""By which right and wrong pairs may differ the wrong way in one batch after the other, times the scale: small batches
of a model that does not know its sounds yet."""
PROBED = 4
"""Pairs that are embedded before a state is saved."""
HEAVY_DECAY = 0.1
"""Share of a weight that one step takes away at the full rate: lr times weight_decay."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is: its folder, the step just taken, and how many steps in a row, this one included, were bad."""

    out: Path
    step: int
    bad: int

    def kept(self) -> str:
        """What the folder holds that was good, in a sentence. A state is good if the step after it was."""
        states = [state for state in saved(self.out / STATES) if step_of(state) < self.step - self.bad]
        kept = [f"the last good state is {states[-1]}"] if states else []
        kept += [f"the best model so far is in {self.out / BEST}"] if (self.out / BEST).is_dir() else []
        whole = " and ".join(kept) or "no good state was saved, and the start is as it was"
        return f"{whole[0].upper()}{whole[1:]}."


def check_finite(
    result: Mapping[str, float], batches: Sequence[PairBatch], config: TrainConfig, place: Place, names: Path
) -> None:
    """Raise TrainingError when the step just taken is not finite; `names` then names the clips of its batch."""
    if all(math.isfinite(value) for value in result.values()):
        return
    keys = [key for batch in batches for key in batch.keys]
    facts = {"step": place.step, **{name: str(value) for name, value in result.items()}, "keys": keys}
    write_bytes(names, json.dumps(facts, indent=1, ensure_ascii=False).encode())
    told = f"step {place.step}: the loss is {result['loss']}, the gradient's norm {result['grad_norm']}"
    if broken := [key for batch in batches for key in _not_finite(batch)]:
        raise TrainingError(
            f"{told}, and the input is at fault: the log-mel of {', '.join(broken[:4])} is not finite. Are the samples "
            f"far beyond -1..1? Leave such clips out and start a new run. {names} names the whole batch."
        )
    raise TrainingError(
        f"{told}: training has diverged. The input is finite ({names} names its clips). {place.kept()} {advice(config)}"
    )


def _not_finite(batch: PairBatch) -> list[str]:
    """Clips of which the log-mel is not finite."""
    is_finite_B = batch.audio.mel_BVTF.isfinite().flatten(1).all(1).tolist()
    return [key for key, is_finite in zip(batch.keys, is_finite_B, strict=True) if not is_finite]


def doubt(result: Mapping[str, float], first_loss: float) -> str | None:
    """Why a step looks as if the run were lost; None for a healthy one."""
    loss, chance = result["loss"], result["chance"]
    if loss > EXPLODED * max(first_loss, chance) + COSINE_GAP * result["scale"]:
        return f"diverged: the loss is {loss:.4g}, more than {EXPLODED:g} times the {first_loss:.4g} that it began with"
    if chance > 0 and abs(loss - chance) <= AT_CHANCE * chance and (_is_still(result) or _is_flat(result)):
        return (
            f"collapsed: the loss is {loss:.4g}, which a model that gives all clips one embedding has, the gradient's "
            f"norm {result['grad_norm']:.1g}, the scale {result['scale']:.3g}"
        )
    return None


def _is_still(result: Mapping[str, float]) -> bool:
    """Is the gradient gone?"""
    return result["grad_norm"] <= NO_GRADIENT


def _is_flat(result: Mapping[str, float]) -> bool:
    """Are the embeddings of each side all but equal, and is the scale too low to tell them apart? SigLIP's bias then
    still moves, and so the gradient never goes."""
    nearest = min(result.get("uniformity_audio", -1.0), result.get("uniformity_text", -1.0))
    return result["scale"] <= LOW_SCALE and nearest >= -ALL_EQUAL


def is_after_warmup(config: TrainConfig, step: int, total_steps: int) -> bool:
    """Has the learning rate risen, so that doubtful steps end a run?"""
    return step > min(config.optim.warmup_steps, total_steps // 2)


def check_going(why: str, config: TrainConfig, total_steps: int, place: Place) -> None:
    """Raise TrainingError when enough steps in a row were bad to call the run lost; `why` as `doubt` has it."""
    if place.bad < RUNNING or not is_after_warmup(config, place.step, total_steps):
        return
    if place.bad >= place.step:  # since the first step: no update has done it
        raise TrainingError(
            f"step {place.step}: training moves nothing. Since the first step it looks {why}: the start gives all "
            "captions or all sounds of a batch one embedding. Are the captions words that its tokenizer knows, the "
            "sounds different ones, and the start a healthy model?"
        )
    raise TrainingError(
        f"step {place.step}: training has {why}, for {place.bad} steps in a row. {place.kept()} {advice(config)}"
    )


def check_embeddings(is_finite: bool, config: TrainConfig, place: Place) -> None:
    """Raise TrainingError when the model, as the last update left it, gives embeddings that are not finite."""
    if not is_finite:
        raise TrainingError(
            f"step {place.step}: training has diverged: after this step's update the model's embeddings are not "
            f"finite. {place.kept()} {advice(config)}"
        )


@torch.no_grad()
def has_finite_embeddings(clap: CLAP, batch: PairBatch) -> bool:
    """Are the embeddings of a batch's first pairs finite? Leaves `clap` in evaluation mode."""
    if not batch.keys:
        return True
    clap.eval()
    with torch.compiler.set_stance("force_eager"):  # or each batch size would be compiled anew
        features = clap(batch.split(PROBED)[0])
    return bool(features.audio_BD.isfinite().all() and features.text_TD.isfinite().all())


def advice(config: TrainConfig) -> str:
    """What to change, with numbers."""
    optim = config.optim
    rates = f"optim.lr {optim.lr / 10:g}"
    if optim.tower_lr:
        rates += f" and optim.tower_lr {optim.tower_lr / 10:g}"
    usual, decay = OptimConfig().weight_decay, ""
    if optim.weight_decay > usual and optim.weight_decay * max(optim.lr, optim.tower_lr) > HEAVY_DECAY:
        decay = f" and with optim.weight_decay {usual:g} in place of {optim.weight_decay:g}"
    return (
        f"Start a new run with a tenth of the learning rate ({rates}){decay}; if that is not enough, with more "
        "optim.warmup_steps, a smaller optim.clip_norm or a larger batch_size."
    )
