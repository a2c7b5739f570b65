"""A training step over clips at their own length: the part `--lengths` of `train.py`.

The model is naflexclap-little with random weights, both towers trained. Its pairs have the lengths and captions of the
demo's sounds. One step takes them as training does: at their own length, in groups by length. Beside it stand the same
pairs in one batch that is padded to the longest, and each padded to ten seconds. Figures are by processor time, the
best of the rounds, in which the contestants take turns. The learning rate is 0, so all compute the same weights' loss.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

import openclap
from openclap import presets
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import read_mono
from openclap.malloc import retain_freed_memory
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import NaFlexConfig, ObjectiveConfig
from openclap.models.objectives import build_objective
from openclap.runtimes.torch import CPU_TOKENS
from openclap.sources import read_table
from openclap.text import merges
from openclap.text.tokenizer import Tokenizer
from openclap.training.config import OptimConfig
from openclap.training.optimizer import build_optimizer, set_learning_rate
from openclap.training.step import TrainingStep
from openclap.types import PairBatch

PRESET = presets.NAFLEXCLAP["naflexclap-little"]
SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


def lengths(batch: int, rounds: int, patches: int = CPU_TOKENS) -> None:
    """Print the table."""
    audio, training = PRESET.audio, PRESET.frontend.frames
    assert isinstance(audio, NaFlexConfig)
    pairs = real_pairs(batch)
    frames_B = pairs.audio.frames_B
    assert frames_B is not None
    ratio = batch * audio.tokens(training) / sum(map(audio.tokens, frames_B.tolist()))
    silence_BVTF = F.pad(pairs.audio.mel_BVTF, (0, 0, 0, training - pairs.audio.mel_BVTF.shape[2]))
    whole = replace(pairs.audio, mel_BVTF=silence_BVTF, frames_B=torch.full_like(frames_B, training))
    torch.manual_seed(0)
    clap = build_clap(PRESET)
    clap.train()
    take = training_step(clap)
    contestants = {
        "at their own length": (pairs, patches),
        "padded to the longest": (pairs, 0),
        "padded to 10 s": (replace(pairs, audio=whole), patches),
    }
    best, losses = dict.fromkeys(contestants, float("inf")), dict.fromkeys(contestants, 0.0)
    with retain_freed_memory():
        take([pairs])  # memory is asked for
        for _ in range(rounds):
            for name, (given, at_a_time) in contestants.items():
                clap.audio_tower.group_by_length(at_a_time)  # type: ignore[operator]
                started = time.process_time()
                losses[name] = take([given])["loss"]
                best[name] = min(best[name], time.process_time() - started)
    seconds = frames_B.double() * PRESET.frontend.mel.hop / PRESET.frontend.mel.rate
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; naflexclap-little, {batch} pairs of the demo:"
    )
    print(f"  median {seconds.median():.2f} s, mean {seconds.mean():.2f} s; ratio of tokens to 10 s {ratio:.2f}")
    own = best["at their own length"]
    for name, each in best.items():
        print(f"{name:22} {batch / each:7.2f} pairs/s   {each / own:5.2f} × the time   loss {losses[name]:.5f}")
    gain = best["padded to 10 s"] / own
    print(f"gain over padding: {gain:.2f}, {gain / ratio:.2f} of the ratio of tokens")


def real_pairs(count: int) -> PairBatch:
    """Pairs of the demo, drawn from a fixed seed."""
    records = read_table(SOUNDS / "sounds.csv")
    chosen = np.random.default_rng(0).permutation(len(records))[:count]
    frontend = FrontEnd(PRESET.frontend)
    waves = [read_mono(records[n].audio, frontend.sample_rate)[: frontend.samples] for n in chosen]
    words = Tokenizer.read(merges.tokenizer_file(PRESET.text), PRESET.text.context, padded=PRESET.text.padded)
    number = torch.arange(count)
    # By length, as the loader deals them.
    order = np.argsort([len(wave) for wave in waves], kind="stable")
    captions = [records[chosen[place]].captions[0] for place in order]
    audio = frontend([waves[place] for place in order])
    return PairBatch(audio, words(captions), number, number, tuple(map(str, chosen[order])))


def training_step(clap: CLAP) -> TrainingStep:
    """A training step as the loop takes it."""
    accelerator = Accelerator(cpu=True)
    objective = build_objective(ObjectiveConfig(), clap)
    wrapped, optimizer = accelerator.prepare(clap, build_optimizer(clap, OptimConfig()))
    set_learning_rate(optimizer, 0.0)
    return TrainingStep(accelerator, wrapped, objective, optimizer, clip_norm=1.0)
