"""Overfitting to real recordings: a loop that mixes up sounds and captions cannot do it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import soundfile
import torch

import openclap
from openclap.checkpoints import openclap_folder
from openclap.data.build import pack
from openclap.data.shards import index_shards
from openclap.demo.run import SOUNDS, TABLE
from openclap.evals.metrics import retrieval_metrics
from openclap.models.build import build_clap
from openclap.sources import Record, read_table
from openclap.text.tokenizer import Tokenizer
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.trainer import train
from support.tiny_models import TINY_PRESET

CLIPS, LONGEST_S = 16, 1.0


def test_run_memorises_real_sounds(tmp_path: Path) -> None:
    records = short_records()
    pack(records, tmp_path / "shards", splits={"train": 1.0}, shard_size=5)
    config = TrainConfig(
        start=str(small_model(tmp_path / "start", [caption for record in records for caption in record.captions])),
        data=str(tmp_path / "shards" / "train"),
        epochs=110,
        batch_size=CLIPS,
        caption="first",
        optim=OptimConfig(lr=3e-3, tower_lr=3e-3, weight_decay=0.0, warmup_steps=10),
        trackers=(),
        save_every=1000,
    )
    outcome = train(config, tmp_path / "run")
    model, shards = openclap.load(outcome.model), index_shards(config.data)
    samples = [shards.read_sample(number) for number in range(len(shards))]
    audio = torch.from_numpy(model.embed_audio([sample.audio for sample in samples]))
    text = torch.from_numpy(model.embed_text([sample.captions[0] for sample in samples]))
    found = retrieval_metrics(audio @ text.T, torch.arange(CLIPS))
    assert found["text_to_audio_R@1"] >= 0.99 and found["audio_to_text_R@1"] >= 0.99, found


def short_records() -> list[Record]:
    """Select the first bundled sounds that fit into the model's input, with different captions."""
    chosen: dict[str, Record] = {}
    for record in read_table(TABLE):
        if soundfile.info(SOUNDS / record.audio.name).duration <= LONGEST_S:
            chosen.setdefault(record.captions[0], record)
    return list(chosen.values())[:CLIPS]


def small_model(place: Path, captions: list[str]) -> Path:
    """Save a model of random weights with an input of one second and a vocabulary of the captions' words."""
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer

    words = sorted({word for caption in captions for word, _ in BertPreTokenizer().pre_tokenize_str(caption)})
    fast = Fast(WordLevel({word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    fast.pre_tokenizer = BertPreTokenizer()
    text = replace(TINY_PRESET.text, sizes=dict(TINY_PRESET.text.sizes) | {"vocab_size": len(words) + 2})
    preset = replace(TINY_PRESET, frontend=replace(TINY_PRESET.frontend, samples=16000), text=text)
    torch.manual_seed(0)
    openclap_folder.save(place, build_clap(preset), preset, Tokenizer(fast.to_str(), text.context))
    return place
