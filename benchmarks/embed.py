"""Embedding beside transformers' ClapModel: the same random weights (HTSAT-tiny and RoBERTa), in one run.

    python benchmarks/embed.py [--rounds 5] [--device cpu] [--compile] [--files 0] [--lengths]

Audio: 16 clips of 10 s in memory, front end included, against ClapModel with its own feature extractor. Text: 256
captions of 4 to 30 words, tokenizing included, against ClapModel padded to 77 tokens and to the longest of each batch
of 32. With `--files N`, N files of mixed formats and rates from disk against the same clips from memory. Times are the
best of the rounds, in which the contestants take turns; beside each stands its share of the fastest large matrix
product in fp32, which takes its turn in every round, too. With `--lengths`, only what `embed_lengths.py` describes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
from embed_lengths import lengths
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

import openclap
from openclap.types import AudioBatch, TextBatch

RATE, CLIPS, CAPTIONS, BATCH = 48000, 16, 256, 32
FORMATS = {"wav": "pcm_s16le", "flac": "flac", "ogg": "vorbis", "mp3": "libmp3lame", "m4a": "aac"}
RATES = (8000, 16000, 22050, 32000, 44100, 48000, 96000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--lengths", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.lengths:
        lengths(options.rounds)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(Path(scratch) / "model")
        theirs = ClapModel.from_pretrained(folder).eval().to(options.device)
        kinds = {"fp32": {"precision": "fp32"}, "bf16": {"precision": "bf16"}, "auto": {"precision": "auto"}}
        if options.device == "cpu":
            kinds["int8"] = {"precision": "int8"}
            if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                del kinds["bf16"]  # no units for it here: minutes a clip
        if options.compile:
            kinds |= {
                f"{name} compiled": kind | {"compile": True} for name, kind in kinds.items() if name in ("fp32", "bf16")
            }
        ours = {name: openclap.load(folder, device=options.device, **kind) for name, kind in kinds.items()}
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
        print(f"largest matrix product in bf16: {peak(torch.bfloat16, options.device) / 1e9:,.0f} GFLOP/s")
        audio(theirs, ours, folder, options.rounds)
        text(theirs, ours, folder, options.rounds)
        if options.files:
            files(ours["fp32"], Path(scratch), options.files)


def audio(theirs: ClapModel, ours: dict[str, openclap.Embedder], folder: Path, rounds: int) -> None:
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    waves = list((0.1 * np.random.default_rng(0).standard_normal((CLIPS, 10 * RATE))).astype(np.float32))
    sounds = [(wave, RATE) for wave in waves]

    def reference() -> np.ndarray:
        features = extractor(waves, sampling_rate=RATE, return_tensors="pt").to(theirs.device)
        return unit(theirs.get_audio_features(**features))

    calls = {"transformers": reference} | {
        name: (lambda embedder=embedder: embedder.embed_audio(sounds, batch_size=CLIPS))
        for name, embedder in ours.items()
    }
    clap = ours["fp32"].clap
    batch = AudioBatch(
        torch.zeros(1, 1, 1001, 64, device=theirs.device), torch.zeros(1, dtype=torch.bool, device=theirs.device)
    )
    table("Audio, 16 clips of 10 s", calls, rounds, CLIPS * flops(lambda: clap.encode_audio(batch)), ours)


def text(theirs: ClapModel, ours: dict[str, openclap.Embedder], folder: Path, rounds: int) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    draw = random.Random(0)
    captions = [" ".join(draw.choices(WORDS, k=draw.randint(4, 30))) for _ in range(CAPTIONS)]
    batches = [captions[start : start + BATCH] for start in range(0, CAPTIONS, BATCH)]

    def reference(padding: str) -> np.ndarray:
        tokens = (tokenizer(b, padding=padding, max_length=77, truncation=True, return_tensors="pt") for b in batches)
        rows = [
            theirs.get_text_features(**{k: v.to(theirs.device) for k, v in t.items() if k != "token_type_ids"})
            for t in tokens
        ]
        return np.concatenate([unit(row) for row in rows])

    calls = {
        "transformers, longest": lambda: reference("longest"),
        "transformers, 77": lambda: reference("max_length"),
    } | {name: (lambda embedder=embedder: embedder.embed_text(captions)) for name, embedder in ours.items()}
    tokens = ours["fp32"].tokenizer(captions)
    row = TextBatch(tokens.ids_BL[:1, :10].to(theirs.device), torch.ones(1, 10, dtype=torch.long, device=theirs.device))
    work = flops(lambda: ours["fp32"].clap.encode_text(row)) / 10 * int(tokens.mask_BL.sum())
    table("Text, 256 captions of 4 to 30 words", calls, rounds, work, ours)


def files(embedder: openclap.Embedder, scratch: Path, number: int) -> None:
    """Files from disk against the same clips, decoded and resampled, from memory."""
    paths = [write_file(scratch / f"{i}.{ending(i)}", i) for i in range(number)]
    clips = [(embedder.read(path), embedder.frontend.sample_rate) for path in paths]
    seconds = {}
    for name, sounds in (("memory", clips), ("disk", paths), ("memory ", clips)):
        start = time.perf_counter()
        embedder.embed_audio(sounds)
        seconds[name] = time.perf_counter() - start
    memory = min(seconds["memory"], seconds["memory "])
    print(f"\n{number} files of 1 to 10 s, wav flac ogg mp3 m4a, 8 to 96 kHz")
    disk = seconds["disk"]
    print(f"memory {number / memory:6.2f} clips/s   disk {number / disk:6.2f} clips/s   {memory / disk:.2f}")


def ending(number: int) -> str:
    return list(FORMATS)[number % len(FORMATS)]


def write_file(path: Path, number: int) -> Path:
    import av

    draw = np.random.default_rng(number)
    rates = [rate for rate in RATES if path.suffix != ".mp3" or rate <= 48000]
    rate = int(draw.choice(rates))
    wave = (8000 * draw.standard_normal((1, int(rate * draw.uniform(1, 10))))).clip(-32768, 32767).astype(np.int16)
    if path.suffix == ".ogg":  # PyAV has no encoder for it
        soundfile.write(path, wave[0], rate)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream(FORMATS[path.suffix[1:]], rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 4096
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def table(
    title: str,
    calls: dict[str, Callable[[], np.ndarray]],
    rounds: int,
    work: float,
    ours: dict[str, openclap.Embedder],
) -> None:
    device = str(ours["fp32"].device)
    top = 0.0
    with torch.inference_mode():
        vectors = {name: call() for name, call in calls.items()}
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(rounds):
            top = max(top, peak(torch.float32, device))
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
    print(f"\n{title}: {work / 1e9:,.0f} GFLOP without padding; largest product {top / 1e9:,.0f} GFLOP/s")
    first = next(iter(calls))
    for name, seconds in best.items():
        engine = f" ({ours[name].runtime.name})" if name in ours else ""
        cosine = float((vectors[name] * vectors.get("fp32", vectors[name])).sum(axis=1).min())
        print(
            f"{name + engine:32} {seconds:7.3f} s  {best[first] / seconds:5.2f} × {first}  "
            f"{work / seconds / top:4.0%} of the fp32 peak  cosine to fp32 ≥ {cosine:.6f}"
        )


def flops(call: Callable[[], object]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def peak(dtype: torch.dtype, device: str, side: int = 2048) -> float:
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    if device == "cpu" and dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        left, right, side = left[:256, :256], right[:256, :256], 256
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def unit(output: object) -> np.ndarray:
    tensor = getattr(output, "pooler_output", output)
    return torch.nn.functional.normalize(tensor, dim=-1).cpu().numpy()  # type: ignore[arg-type]


WORDS = [f"word{number}" for number in range(2000)]


def model_folder(folder: Path) -> Path:
    """ClapModel's own defaults, fresh weights, and a tokenizer of one token a word."""
    ClapModel(ClapConfig()).save_pretrained(folder)
    ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc").save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
