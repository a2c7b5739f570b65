"""The memory of gradient caching: a large batch in chunks beside a small one taken whole.

    python benchmarks/gradient_cache.py --batch 256 --chunk 12 --small 16

Each is a training step (forward, backward, AdamW) of HTSAT-tiny and RoBERTa with random weights on random clips of
10 s, in a process of its own; printed is the most memory that the process held (ru_maxrss), and for how long it ran.
Two steps are taken by default, so that the optimizer's state is there while activations are. From its second chunk on,
a batch in chunks holds gradients beside activations, which a whole batch never does; chunks of a little less than the
small batch make up for them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from openclap.models.build import build_clap

TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="htsat-tiny-roberta")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--small", type=int, help="of the batch taken whole; a chunk's size by default")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one object and nothing else")
    parser.add_argument("--one", nargs=2, type=int, metavar=("BATCH", "CHUNK"), help="measure in this process")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.preset, *args.one, args.steps)))
        return
    whole = args.small or args.chunk
    chunked = apart(args.preset, args.batch, args.chunk, args.steps)
    small = apart(args.preset, whole, 0, args.steps)
    found = {"batch": args.batch, "chunk": args.chunk, "small": whole}
    found |= {"chunked_bytes": chunked["bytes"], "small_bytes": small["bytes"]}
    if args.json:
        print(json.dumps(found))
        return
    for name, one in (
        (f"{args.batch} clips in chunks of {args.chunk}", chunked),
        (f"{whole} clips, plain", small),
    ):
        print(f"{name:28}{one['bytes'] / 2**30:8.2f} GiB{one['seconds']:8.1f} s a step   loss {one['loss']:.4f}")
    print(f"{'ratio':28}{chunked['bytes'] / small['bytes']:8.3f}")


def apart(preset: str, batch: int, chunk: int, steps: int) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--preset", preset, "--steps", str(steps), "--one", str(batch), str(chunk)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def measure(preset_name: str, batch: int, chunk: int, steps: int) -> dict[str, float]:
    """Peak bytes, seconds a step and the last loss."""
    import torch
    from accelerate import Accelerator

    from openclap import presets
    from openclap.models.config import ObjectiveConfig
    from openclap.models.objectives import build_objective
    from openclap.training.step import TrainingStep

    torch.manual_seed(0)
    preset = presets.PRESETS[preset_name]
    model = build_clap(preset).train()
    objective = build_objective(ObjectiveConfig(), model)
    accelerator = Accelerator(cpu=True)
    wrapped, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-6))
    step = TrainingStep(accelerator, wrapped, objective, optimizer, clip_norm=1.0, chunk=chunk)
    pairs = random_pairs(preset, batch)
    start = time.monotonic()
    for _ in range(steps):
        report = step([pairs])
    seconds = (time.monotonic() - start) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"bytes": peak, "seconds": seconds, "loss": report["loss"]}


def random_pairs(preset, clips: int):
    """Clips of noise with one caption of random tokens each."""
    import torch

    from openclap.types import AudioBatch, PairBatch, TextBatch

    mel = preset.frontend.mel
    frames, number = mel.frames(preset.frontend.samples), torch.arange(clips)
    ids_BL = torch.randint(4, 30_000, (clips, TOKENS))
    return PairBatch(
        AudioBatch(torch.randn(clips, 1, frames, mel.n_mels), torch.zeros(clips, dtype=torch.bool)),
        TextBatch(ids_BL, torch.ones_like(ids_BL)),
        owner_T=number,
        caption_id_T=number,
        keys=tuple(map(str, number.tolist())),
    )


if __name__ == "__main__":
    main()
