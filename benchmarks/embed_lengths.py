"""Clips and captions of different lengths through a NaFlex model: the part `--lengths` of `embed.py`.

The model has the sizes of open_clip's naflexclap_little and random weights. 512 clips with the lengths of the demo's
sounds, and 512 of half a second, each against the same clips padded to 10 s, and through LAION's HTSAT-tiny, which
fills every clip to 10 s itself; 16 clips of 10 s as a share of the fastest matrix product; 256 captions against the
same padded to the longest. Figures are by processor time, the best of the rounds, in which the contestants take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import openclap
from openclap import presets
from openclap.checkpoints.open_clip_config import read_config
from openclap.embedder import Embedder
from openclap.models.build import build_clap
from openclap.runtimes import backends, fetch_tokenizer
from openclap.runtimes.torch import TorchRuntime
from openclap.text.tokenizer import Tokenizer
from openclap.types import TextBatch

RATE, CLIPS, TEN, CAPTIONS = 48000, 512, 480000, 256
SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"
LITTLE = {
    "embed_dim": 512,
    "audio_cfg": {
        "model_type": "naflexvit",
        "patch_freq": 16,
        "patch_time": 16,
        "audio_seq_len": 252,
        "naflexvit_cfg": {
            "embed_dim": 320,
            "depth": 14,
            "num_heads": 5,
            "mlp_ratio": 5.6,
            "init_values": 1e-05,
            "reg_tokens": 1,
        },
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
"""open_clip's naflexclap_little."""
WORDS = (
    *("a", "the", "of", "rain", "dog", "barks", "loud", "small", "engine", "door", "wind", "bird", "metal", "quiet"),
    *("room", "water", "over", "street", "drum", "and"),
)


def lengths(rounds: int) -> None:
    """Print the table."""
    torch.manual_seed(0)
    naflex = _random(read_config(LITTLE, "naflexclap_little").preset)
    htsat = _random(presets.named("htsat-tiny-roberta"))
    real = _demo_clips(naflex)
    half = [wave[: RATE // 2] for wave in _noise(CLIPS, RATE // 2)]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; clips/s by processor time")
    for name, waves in (("lengths of the demo's sounds", real), ("half a second", half)):
        _clips(name, waves, naflex, htsat, rounds)
    ten = [(wave, RATE) for wave in _noise(16, TEN)]
    batch = naflex.frontend([torch.from_numpy(wave) for wave, _ in ten])
    for parameter in naflex.clap.parameters():
        parameter.requires_grad_(False)  # the counter follows gradients
    with FlopCounterMode(display=False) as counter:
        naflex.clap.encode_audio(batch)
    seconds, top = float("inf"), 0.0
    for _ in range(rounds):
        top = max(top, _peak())
        seconds = min(seconds, _processor_s(lambda: naflex.embed_audio(ten)))
    # Processor time counts all threads, in both, so that the share does not depend on their number.
    share = counter.get_total_flops() / seconds / top
    print(f"\n16 clips of 10 s: {16 / seconds:.2f} clips/s, {share:.0%} of the fp32 peak")
    fastest = _random(naflex.preset, "auto")
    faster = min(_processor_s(lambda: fastest.embed_audio(ten)) for _ in range(rounds + 1))
    print(f"in the precision auto ({fastest.runtime.name}): {seconds / faster:.2f} × that")
    _captions(naflex, rounds)


def _random(preset: presets.Preset, precision: str = "fp32") -> Embedder:
    choice = backends.choose(precision, torch.device("cpu"))
    # The tokenizer is read when text is first embedded, and HTSAT's embeds none here.
    words = partial(fetch_tokenizer, preset, offline=True)
    return Embedder(TorchRuntime(build_clap(preset), preset, words, device=torch.device("cpu"), choice=choice))


def _demo_clips(model: Embedder) -> list[np.ndarray]:
    files = sorted(SOUNDS.glob("*.ogg"))
    waves = [model.read(file)[:TEN] for file in files]
    return [waves[number % len(waves)] for number in range(CLIPS)]


def _noise(clips: int, samples: int) -> list[np.ndarray]:
    return list((0.1 * np.random.default_rng(0).standard_normal((clips, samples))).astype(np.float32))


def _clips(name: str, waves: list[np.ndarray], naflex: Embedder, htsat: Embedder, rounds: int) -> None:
    audio, mel = naflex.preset.audio, naflex.preset.frontend.mel
    tokens = [audio.tokens(mel.frames(max(len(wave), mel.n_fft))) for wave in waves]  # type: ignore[union-attr]
    ratio = audio.tokens(mel.frames(TEN)) * len(waves) / sum(tokens)  # type: ignore[union-attr]
    sounds = [(wave, RATE) for wave in waves]
    few = slice(0, len(waves), 16)  # every clip padded to 10 s costs the same, so that a sixteenth of them tells it
    padded = [(np.pad(wave, (0, TEN - len(wave))), RATE) for wave in waves[few]]
    calls = {
        "at their own length": (naflex, sounds),
        "padded to 10 s": (naflex, padded),
        "HTSAT-tiny of LAION": (htsat, sounds[few]),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for call, (model, given) in calls.items():
            best[call] = min(best[call], _processor_s(lambda m=model, g=given: m.embed_audio(g)) / len(given))
    seconds = np.array([len(wave) for wave in waves]) / RATE
    print(f"\n{len(waves)} clips, {name}: median {np.median(seconds):.2f} s, mean {seconds.mean():.2f} s")
    print(f"ratio of tokens to 10 s: {ratio:.2f}")
    own = best["at their own length"]
    for call, each in best.items():
        print(f"{call:22} {1 / each:8.2f} clips/s   {each / own:6.2f} × the time")
    gain = best["padded to 10 s"] / own
    print(f"gain over padding: {gain:.2f}, {gain / ratio:.2f} of the ratio of tokens")


def _captions(model: Embedder, rounds: int) -> None:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, size=draw.integers(4, 31))) for _ in range(CAPTIONS)]
    words = model.tokenizer
    assert isinstance(words, Tokenizer)

    def padded() -> None:
        ids_BL, mask_BL = map(torch.from_numpy, words.encode(texts))
        for start in range(0, CAPTIONS, 32):
            rows = slice(start, start + 32)
            model.runtime.backend.encode_text(TextBatch(ids_BL[rows], mask_BL[rows]))  # type: ignore[attr-defined]

    calls = {"by length": lambda: model.embed_text(texts), "padded to the longest": padded}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], _processor_s(call))
    gain = best["padded to the longest"] / best["by length"]
    print(f"\n{CAPTIONS} captions of 4 to 30 words: {CAPTIONS / best['by length']:.1f}/s, {gain:.2f} × padded")


def _peak(side: int = 2048) -> float:
    """The rate of the fastest of eight matrix products in fp32, by processor time."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / min(_processor_s(lambda: left @ right) for _ in range(8))


def _processor_s(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
