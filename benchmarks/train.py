"""A training step beside transformers' ClapModel: the same random weights, in one run.

    python benchmarks/train.py [--device cpu] [--batch 8] [--steps 2] [--rounds 4] [--preset tiny|base] [--fusion]
                               [--compile] [--largest]
    python benchmarks/train.py --lengths [--batch 16] [--rounds 2]

A step is forward, loss, backward, clipping of the gradient's norm and AdamW, in training mode. Ours is
`openclap.training.step.TrainingStep`, as the loop calls it, with memory kept as the loop keeps it. Theirs is
`ClapModel(…, return_loss=True)` with its own loss, captions padded to the longest of the batch, and torch's fused
AdamW, which transformers' Trainer takes. Clips of 10 s come as log-mels that were made once for both, so no front end
is in these times; captions have 8 to 16 words. Each contestant trains in a process of its own, as it would at work:
side by side in one, they take each other's memory from the allocator, and every step asks the system for its own
again. They take turns all the same, some steps each; times are the best of the rounds, memory the most that the
process held. Before that both must give the same vectors.
(ClapModel's loss counts the direction from text to audio twice, and the other not at all; it costs the same.)

The models are HTSAT of `--preset` and RoBERTa; `--fusion` gives every clip four views. bf16 is autocast, where the
device has units for it. `--largest` looks for the largest batch that a GPU has room for, in place of times. `--lengths`
measures a NaFlex model on clips at their own length instead (`train_lengths.py`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import nn
from train_lengths import lengths
from transformers import ClapConfig, ClapModel

from openclap import presets
from openclap.audio.config import FrontEndConfig
from openclap.checkpoints.checkpoint import load_weights
from openclap.checkpoints.huggingface import (
    config_from_preset,
    from_state,
    preprocessor_from_front_end,
    preset_from_config,
)
from openclap.malloc import retain_freed_memory
from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import ObjectiveConfig
from openclap.models.objectives import build_objective
from openclap.training.config import OptimConfig
from openclap.training.optimizer import build_optimizer
from openclap.training.profiling import count_flops, matmul_peak, peak_memory
from openclap.training.step import TrainingStep
from openclap.types import AudioBatch, PairBatch, TextBatch

AUDIO = {"tiny": presets.HTSAT_TINY, "base": presets.HTSAT_BASE}
OPTIM = OptimConfig(lr=1e-4, tower_lr=1e-4, weight_decay=0.0)
WORDS = (8, 16)
WARM = 3
"""Rounds that do not count: until then memory is asked for."""
Step = Callable[[PairBatch], float]


def main() -> None:
    options = parse()
    if options.only:
        alone(options)
        return
    if options.lengths:
        lengths(options.batch, options.rounds)
        return
    precisions = ["fp32"] + (["bf16"] if has_bf16(options.device) else [])
    views = "four views" if options.fusion else "one view"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}; HTSAT-{options.preset}")
    print(f"  and RoBERTa, batches of {options.batch}, {views}, {WORDS[0]} to {WORDS[1]} words, log-mels ready")
    if options.largest:
        for precision in precisions:
            for name in CONTESTANTS:
                print(f"{precision} {name:13} largest batch {largest(options, name, precision):5}")
        return
    for precision in precisions:
        compare(options, precision)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--preset", choices=AUDIO, default="tiny")
    parser.add_argument("--fusion", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--lengths", action="store_true")
    parser.add_argument("--only", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="fp32", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(options: argparse.Namespace, precision: str) -> None:
    """Both in turns. They start before this process grows, since a child's peak memory begins at its parent's."""
    rivals = {name: Rival(options, name, precision) for name in CONTESTANTS}
    theirs, ours, frontend = models(options)
    batches = [pairs(options, frontend, seed) for seed in range(options.steps)]
    check(theirs, ours, batches[0])
    work = sum(count_flops(ours, frontend).of_batch(batch) for batch in batches)
    del theirs, ours
    best, peak = dict.fromkeys(rivals, float("inf")), 0.0
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for turn in range(options.rounds + WARM):
        peak = max(peak, matmul_peak(torch.device(options.device), dtype))
        for name, rival in rivals.items():
            seconds = rival.turn()["seconds"]
            best[name] = min(best[name], seconds) if turn >= WARM else best[name]
    print(f"\n{precision}: {work / len(batches) / 1e9:,.0f} GFLOP a step; peak {peak / 1e9:,.0f} GFLOP/s")
    for name, seconds in best.items():
        print(
            f"{name:13} {len(batches) * options.batch / seconds:8.2f} pairs/s  "
            f"{best['transformers'] / seconds:5.2f} ×  {work / seconds / peak:4.0%} of the peak  "
            f"{rivals[name].turn()['memory'] / 1e6:8,.0f} MB"
        )
        rivals[name].end()


class Rival:
    """One contestant in a process of its own, which takes its steps when it is its turn.

    Raises MemoryError where the device has no room for it.
    """

    def __init__(self, options: argparse.Namespace, name: str, precision: str, batch: int | None = None) -> None:
        flags = [f"--{flag}" for flag in ("fusion", "compile") if getattr(options, flag)]
        command = [sys.executable, __file__, "--only", name, "--precision", precision, "--device", options.device]
        command += ["--batch", str(batch or options.batch), "--steps", str(options.steps)]
        command += ["--preset", options.preset, *flags]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def turn(self) -> dict[str, float]:
        """Seconds for its steps, and the most memory that it has held in bytes."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        with suppress(BrokenPipeError):  # why it ended is read below
            print("go", file=self.process.stdin, flush=True)
        if line := self.process.stdout.readline():
            return dict(json.loads(line))
        said = self.process.stderr.read()
        if "out of memory" in said.lower():
            raise MemoryError
        sys.exit(said)

    def end(self) -> None:
        self.process.communicate()


def alone(options: argparse.Namespace) -> None:
    """What a rival's process does: some steps for every line that comes in."""
    theirs, ours, frontend = models(options)
    model = {"transformers": theirs, "openclap": ours}[options.only].train()
    del theirs, ours
    if options.device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = CONTESTANTS[options.only](model, options, options.precision)
    batches = [pairs(options, frontend, seed) for seed in range(options.steps)]
    with retain_freed_memory() if options.only == "openclap" else nullcontext():
        for _ in sys.stdin:
            started = time.perf_counter()
            for batch in batches:
                step(batch)
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds, "memory": peak_memory(torch.device(options.device))}), flush=True)


def models(options: argparse.Namespace) -> tuple[ClapModel, CLAP, FrontEndConfig]:
    """ClapModel with fresh weights, and ours with the same; branches are dropped at the same rates."""
    torch.manual_seed(0)
    audio = replace(AUDIO[options.preset], fusion="aff_2d" if options.fusion else None)
    config: ClapConfig = config_from_preset(presets.laion(audio))
    config.audio_config.drop_path_rate = 0.1
    theirs = ClapModel(config)
    preset = preset_from_config(config.to_dict(), preprocessor_from_front_end(presets.laion(audio).frontend))
    ours = build_clap(preset)
    load_weights(ours, from_state(theirs.state_dict(), "ClapModel"), "ours")
    return theirs.to(options.device), ours.to(options.device), preset.frontend


def pairs(options: argparse.Namespace, frontend: FrontEndConfig, seed: int) -> PairBatch:
    draw = torch.Generator().manual_seed(seed)
    batch, views = options.batch, 4 if options.fusion else 1
    mel_BVTF = 20 * torch.randn(batch, views, frontend.frames, frontend.mel.n_mels, generator=draw) - 40
    lengths = torch.randint(WORDS[0] + 2, WORDS[1] + 3, (batch,), generator=draw)  # and two special tokens
    mask_BL = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids_BL = torch.randint(3, 50265, mask_BL.shape, generator=draw).where(mask_BL.bool(), 1)
    number_B = torch.arange(batch)
    audio = AudioBatch(mel_BVTF, torch.full((batch,), options.fusion))
    whole = PairBatch(audio, TextBatch(ids_BL, mask_BL), number_B, number_B, tuple(map(str, range(batch))))
    return whole.to(torch.device(options.device))


def inputs(batch: PairBatch) -> dict[str, torch.Tensor]:
    """A batch as ClapModel takes it."""
    return {
        "input_features": batch.audio.mel_BVTF,
        "is_longer": batch.audio.is_long_B[:, None],
        "input_ids": batch.text.ids_BL,
        "attention_mask": batch.text.mask_BL,
    }


def check(theirs: ClapModel, ours: CLAP, batch: PairBatch) -> None:
    """Without dropout both must give the same vectors, or they are not compared."""
    theirs.eval(), ours.eval()
    with torch.no_grad():
        audio_BD, text_BD = ours.encode_audio(batch.audio), ours.encode_text(batch.text)
        reference = theirs(**inputs(batch))
    apart = max((audio_BD - reference.audio_embeds).abs().max(), (text_BD - reference.text_embeds).abs().max())
    if apart > 1e-4:
        sys.exit(f"The vectors are {apart:.1e} apart: these are not the same model.")
    theirs.train(), ours.train()


def our_step(model: CLAP, options: argparse.Namespace, precision: str) -> Step:
    accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=PRECISIONS[precision])
    built = torch.compile(model) if options.compile else model
    objective = build_objective(ObjectiveConfig(), model)
    wrapped, optimizer = accelerator.prepare(built, build_optimizer(model, OPTIM))
    take = TrainingStep(accelerator, wrapped, objective, optimizer, clip_norm=OPTIM.clip_norm)
    return lambda batch: take([batch])["loss"]


def their_step(model: ClapModel, options: argparse.Namespace, precision: str) -> Step:
    built: nn.Module = torch.compile(model) if options.compile else model
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=OPTIM.lr, betas=OPTIM.betas, weight_decay=OPTIM.weight_decay, fused=True
    )

    def step(batch: PairBatch) -> float:
        with torch.autocast(options.device, torch.bfloat16, enabled=precision == "bf16"):
            loss = built(**inputs(batch), return_loss=True).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
        optimizer.step()
        return float(loss.item())

    return step


CONTESTANTS = {"transformers": their_step, "openclap": our_step}
PRECISIONS = {"fp32": "no", "bf16": "bf16"}


def largest(options: argparse.Namespace, name: str, precision: str) -> int:
    """By doubling, then by halving the gap down to eight."""

    def fits(batch: int) -> bool:
        rival = Rival(options, name, precision, batch)
        try:
            rival.turn()
        except MemoryError:
            return False
        rival.end()
        return True

    good, bad = 0, 8
    while fits(bad):
        good, bad = bad, 2 * bad
    while bad - good > 8:
        middle = (good + bad) // 16 * 8
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def has_bf16(device: str) -> bool:
    """Units for it, not its emulation, which takes minutes a step."""
    if device == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cuda.get_device_capability() >= (8, 0)


if __name__ == "__main__":
    main()
