"""Detect a run that has diverged or collapsed, before it replaces good checkpoints and models.

Diverged: the loss, the gradient or the embeddings are not finite, or the loss stays far above its first value.
Collapsed: the loss stays at the value of equal embeddings and the gradient has vanished, so that nothing changes any
more. Contrastive runs end there when the learning rate or the weight decay is too high: every pair gets the same score.
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
from openclap.training.checkpointing import BEST, CHECKPOINTS, list_checkpoints, step_of
from openclap.training.config import OptimConfig, TrainConfig
from openclap.types import PairBatch

UNHEALTHY_LIMIT = 10
"""Consecutive unhealthy steps that end a run. Fewer prove nothing: a small model whose tokenizer lacks the words of the
captions begins like that."""
VANISHED_GRADIENT = 1e-3
"""Norm of the whole gradient. Healthy small runs at chance had 0.1 and more, collapsed ones below 3e-4."""
LOW_SCALE = 3.0
"""Logit scale; runs begin at 10 or more, and it rises."""
EQUAL_UNIFORMITY = 1e-3
"""Uniformity of embeddings whose cosine similarities are 0.9997 and more."""
AT_CHANCE = 0.01
"""Distance of the loss from chance, relative to chance."""
EXPLODED = 3.0
"""Ratio of the loss to the first loss, or to chance where that is higher."""
COSINE_GAP = 0.1
"""Tolerated gap between wrong and right pairs, times the scale: batches of a small model may all rank wrongly."""
PROBE_PAIRS = 4
"""Pairs that are embedded before a checkpoint is saved."""
HEAVY_DECAY = 0.1
"""Share of a weight that one step removes at the full rate: lr times weight_decay."""


@dataclass(frozen=True, slots=True)
class RunPosition:
    """The run folder, the step just taken, and the consecutive unhealthy steps including this one."""

    out: Path
    step: int
    unhealthy: int

    def describe_last_good(self) -> str:
        """Name the last good checkpoint and the best model, in a sentence.

        A checkpoint is good if the step after it was healthy: only that step's loss shows the effect of its update.
        """
        good = [c for c in list_checkpoints(self.out / CHECKPOINTS) if step_of(c) < self.step - self.unhealthy]
        parts = [f"the last good checkpoint is {good[-1]}"] if good else []
        parts += [f"the best model so far is in {self.out / BEST}"] if (self.out / BEST).is_dir() else []
        sentence = " and ".join(parts) or "no good checkpoint was saved, and the initial model is unchanged"
        return f"{sentence[0].upper()}{sentence[1:]}."


def check_finite(
    result: Mapping[str, float], batches: Sequence[PairBatch], config: TrainConfig, position: RunPosition, file: Path
) -> None:
    """Raise TrainingError when a figure of the step just taken is not finite; `file` then names its clips."""
    if all(math.isfinite(value) for value in result.values()):
        return
    # The keys lead to the clips, and are written before any diagnosis: the run ends here.
    keys = [key for batch in batches for key in batch.keys]
    # As text, since JSON has neither NaN nor infinity.
    facts = {"step": position.step, **{name: str(value) for name, value in result.items()}, "keys": keys}
    write_bytes(file, json.dumps(facts, indent=1, ensure_ascii=False).encode())
    start = f"step {position.step}: the loss is {result['loss']}, the gradient's norm {result['grad_norm']}"
    if broken := [key for batch in batches for key in _non_finite_keys(batch)]:
        raise TrainingError(
            f"{start}, because of the input: the log-mel of {', '.join(broken[:4])} is not finite. Are the samples "
            f"far beyond -1..1? Leave such clips out and start a new run. {file} names the whole batch."
        )
    raise TrainingError(
        f"{start}: training has diverged. The input is finite ({file} names its clips). "
        f"{position.describe_last_good()} {advice(config)}"
    )


def _non_finite_keys(batch: PairBatch) -> list[str]:
    is_finite_B = batch.audio.mel_BVTF.isfinite().flatten(1).all(1).tolist()
    return [key for key, is_finite in zip(batch.keys, is_finite_B, strict=True) if not is_finite]


def find_symptom(result: Mapping[str, float], first_loss: float) -> str | None:
    """Describe why a step looks diverged or collapsed; None for a healthy step."""
    loss, chance = result["loss"], result["chance"]
    # Chance is the floor: a resumed or fine-tuned run may begin at a loss near 0, and triple it harmlessly.
    if loss > EXPLODED * max(first_loss, chance) + COSINE_GAP * result["scale"]:
        return f"diverged: the loss is {loss:.4g}, more than {EXPLODED:g} times its first value, {first_loss:.4g}"
    # A loss at chance alone is no collapse: every run begins there. Without a gradient it stays there.
    is_at_chance = chance > 0 and abs(loss - chance) <= AT_CHANCE * chance
    if is_at_chance and (result["grad_norm"] <= VANISHED_GRADIENT or _has_equal_embeddings(result)):
        return (
            f"collapsed: the loss is {loss:.4g}, the loss of a model that gives all clips one embedding, the "
            f"gradient's norm {result['grad_norm']:.1g}, the scale {result['scale']:.3g}"
        )
    return None


def _has_equal_embeddings(result: Mapping[str, float]) -> bool:
    """Check for nearly equal embeddings at a scale too low to separate them.

    SigLIP needs this: its bias still moves after a collapse, so its gradient never vanishes.
    """
    highest = min(result.get("uniformity_audio", -1.0), result.get("uniformity_text", -1.0))
    # Uniformity is 0 for equal vectors and negative for all others, so the less collapsed side is compared.
    return result["scale"] <= LOW_SCALE and highest >= -EQUAL_UNIFORMITY


def is_after_warmup(config: TrainConfig, step: int, total_steps: int) -> bool:
    """Check whether unhealthy steps may end the run; during warm-up the rate is too low to judge by."""
    return step > min(config.optim.warmup_steps, total_steps // 2)


def check_symptom(symptom: str, config: TrainConfig, total_steps: int, position: RunPosition) -> None:
    """Raise TrainingError when enough consecutive steps were unhealthy to give up the run."""
    if position.unhealthy < UNHEALTHY_LIMIT or not is_after_warmup(config, position.step, total_steps):
        return
    if position.unhealthy >= position.step:  # since the first step: no update has caused it
        raise TrainingError(
            f"step {position.step}: training changes nothing. Since the first step it looks {symptom}: the initial "
            "model gives all captions or all sounds of a batch one embedding. Are the captions words that its "
            "tokenizer knows, the sounds different ones, and the start a healthy model?"
        )
    raise TrainingError(
        f"step {position.step}: training has {symptom}, for {position.unhealthy} steps in a row. "
        f"{position.describe_last_good()} {advice(config)}"
    )


def check_embeddings(is_finite: bool, config: TrainConfig, position: RunPosition) -> None:
    """Raise TrainingError when the model's embeddings are not finite after the last update."""
    if not is_finite:
        raise TrainingError(
            f"step {position.step}: training has diverged: after this step's update the model's embeddings are not "
            f"finite. {position.describe_last_good()} {advice(config)}"
        )


@torch.no_grad()
def has_finite_embeddings(clap: CLAP, batch: PairBatch) -> bool:
    """Check the embeddings of a batch's first pairs. Leaves `clap` in evaluation mode."""
    if not batch.keys:
        return True
    # Evaluation mode: the running statistics must not count these pairs again.
    clap.eval()
    with torch.compiler.set_stance("force_eager"):  # this batch size would be compiled separately
        features = clap(batch.split(PROBE_PAIRS)[0])
    return bool(features.audio_BD.isfinite().all() and features.text_TD.isfinite().all())


def advice(config: TrainConfig) -> str:
    """Recommend new values of the options, in a sentence."""
    optim = config.optim
    rates = f"optim.lr {optim.lr / 10:g}"
    if optim.tower_lr:
        rates += f" and optim.tower_lr {optim.tower_lr / 10:g}"
    # Weight decay is blamed only where it is unusual and strong enough to be the cause.
    usual, decay = OptimConfig().weight_decay, ""
    if optim.weight_decay > usual and optim.weight_decay * max(optim.lr, optim.tower_lr) > HEAVY_DECAY:
        decay = f" and with optim.weight_decay {usual:g} in place of {optim.weight_decay:g}"
    return (
        f"Start a new run with a tenth of the learning rate ({rates}){decay}; if that is not enough, with more "
        "optim.warmup_steps, a smaller optim.clip_norm or a larger batch_size."
    )
