"""Training of NaFlex models from end to end: real sounds of different lengths, a kill, every option at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

import openclap
from openclap.checkpoints import openclap_folder
from openclap.data.build import pack
from openclap.data.lengths import LengthConfig
from openclap.data.scenes import SceneConfig, SceneMaker, write_scenes
from openclap.data.shards import index_shards
from openclap.demo.run import SOUNDS, TABLE
from openclap.evals.metrics import retrieval_metrics
from openclap.models.build import build_clap
from openclap.models.config import NaFlexConfig, ObjectiveConfig
from openclap.presets import NAFLEX_FRONT_END, Preset
from openclap.sources import Record, read_table
from openclap.text.tokenizer import Tokenizer
from openclap.training.config import OptimConfig, TrainConfig
from openclap.training.logging import read_log
from openclap.training.profiling import plan_training
from openclap.training.trainer import train
from support.runs import assert_equal_runs, signal_at, start_command, stopped_at
from support.tiny_models import TINY_PRESET

CLIPS, LONGEST_S = 16, 3.0


def records() -> list[Record]:
    """Bundled sounds with different captions, from the shortest upwards in steps."""
    chosen: dict[str, Record] = {}
    for record in read_table(TABLE):
        if soundfile.info(SOUNDS / record.audio.name).duration <= LONGEST_S:
            chosen.setdefault(record.captions[0], record)
    by_length = sorted(chosen.values(), key=lambda record: soundfile.info(SOUNDS / record.audio.name).duration)
    return by_length[:: len(by_length) // CLIPS][:CLIPS]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("naflex") / "set"
    pack(records(), folder, splits={"train": 1.0}, shard_size=5)
    return folder / "train"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """Random weights of a small NaFlex tower and a BERT of one layer with a vocabulary of the captions' words."""
    from tokenizers import Tokenizer as Fast
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import BertPreTokenizer

    texts = [record.captions[0] for record in records()]
    words = sorted({word for text in texts for word, _ in BertPreTokenizer().pre_tokenize_str(text)})
    fast = Fast(WordLevel({word: number for number, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]"))
    fast.pre_tokenizer = BertPreTokenizer()
    text = replace(TINY_PRESET.text, sizes=dict(TINY_PRESET.text.sizes) | {"vocab_size": len(words) + 2})
    audio = NaFlexConfig(width=32, depth=2, heads=2, patch_freq=16, patch_time=16, registers=1, pre_norm=True)
    preset = Preset("small", NAFLEX_FRONT_END, audio, text, 32, audio_head="mlp_gelu", text_head="linear")
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start") / "start"
    openclap_folder.save(folder, build_clap(preset), preset, Tokenizer(fast.to_str(), text.context))
    return folder


@pytest.mark.long
def test_sixteen_real_sounds_of_different_lengths_are_learnt_by_heart(
    start: Path, shards: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        start=str(start),
        data=str(shards),
        epochs=100,
        batch_size=CLIPS,
        caption="first",
        optim=OptimConfig(lr=3e-3, tower_lr=3e-3, weight_decay=0.0, warmup_steps=10, schedule="wsd"),
        trackers=(),
        save_every=1000,
    )
    outcome = train(config, tmp_path / "run")
    model, index = openclap.load(outcome.model), index_shards(shards)
    samples = [index.read_sample(number) for number in range(len(index))]
    audio_ND = model.embed_audio([sample.audio for sample in samples])
    text_ND = model.embed_text([sample.captions[0] for sample in samples])
    found = retrieval_metrics(audio_ND @ text_ND.T, range(CLIPS))
    assert found["text_to_audio_R@1"] >= 0.99 and found["audio_to_text_R@1"] >= 0.99, found
    # A clip costs what its length costs: 100 % of the peak and more would mean that ten seconds each were counted.
    assert all(0 < row["mfu"] < 1 for row in read_log(tmp_path / "run" / "log.jsonl"))


RECIPE = """
from openclap.audio.augment import AugmentConfig
from openclap.data.lengths import LengthConfig
from openclap.models.config import ObjectiveConfig
from openclap.training.config import OptimConfig, TrainConfig

def config():
    return TrainConfig(
        start={start!r}, data={data!r}, epochs=8, batch_size=4, save_every=5, trackers=(), keep_checkpoints=50,
        objective=ObjectiveConfig("siglip", initial_scale=10.0), augment=AugmentConfig(patch_dropout=0.3, mixup=0.3),
        optim=OptimConfig(warmup_steps=4, schedule="wsd", layer_decay=0.8, ema=0.9),
        caption_fields=("text=0.7", "original_data.label=0.3"),
        lengths=LengthConfig(longest_s=1.5, part="random", patches=40, pool=2),
    )
"""


@pytest.mark.long
def test_killed_run_with_every_option_resumes_bit_for_bit(start: Path, shards: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(start=str(start), data=str(shards)), encoding="utf-8")

    def words(out: str) -> list[str]:
        return ["train", str(recipe), "--out", str(tmp_path / out)]

    command = [sys.executable, "-m", "openclap"]

    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    whole = subprocess.Popen([*command, *words("whole")], env=environment, stderr=subprocess.DEVNULL)
    killed = start_command(words("killed"), 20)
    assert signal_at(killed, 13, signal.SIGKILL) == -signal.SIGKILL and whole.wait(timeout=600) == 0
    assert not (tmp_path / "killed" / "model").exists()
    assert subprocess.run([*command, *words("killed")], env=environment, check=False).returncode == 0
    assert_equal_runs(tmp_path / "whole", tmp_path / "killed")
    last = [tmp_path / run / "checkpoints" / "step-00000032" for run in ("whole", "killed")]
    for name in ("model.safetensors", "custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl"):
        one, other = ((folder / name).read_bytes() for folder in last)
        assert one == other, name


@pytest.mark.parametrize("frozen", [(), ("audio_tower",)])
def test_frames_teachers_and_averages_go_together_and_resume_bit_for_bit(
    frozen: tuple[str, ...], start: Path, tiny_model: Path, tmp_path: Path
) -> None:
    scenes = SceneMaker(records(), SceneConfig(length_s=4.0, pieces=2, longest_s=1.0, gap_s=0.3))
    pack([*write_scenes(scenes, tmp_path / "scenes", 4), *records()[:4]], tmp_path / "set", splits={"train": 1.0})
    config = TrainConfig(
        start=str(start),
        data=str(tmp_path / "set" / "train"),
        epochs=2,
        batch_size=2,
        accumulate=2,
        caption="all",
        caption_fields=("text=0.7", "original_data.label=0.3"),
        lengths=LengthConfig(longest_s=3.0, part="random", patches=40, pool=2),
        objective=ObjectiveConfig(frames=0.5),
        teacher=(str(tiny_model),),
        optim=OptimConfig(warmup_steps=1, schedule="wsd", layer_decay=0.8, ema=0.9),
        frozen=frozen,
        start_share=0.5,
        save_every=1,
        keep_checkpoints=9,
        trackers=(),
    )
    result = train(config, tmp_path / "whole")
    assert result.step == 4 and not result.skipped
    resumed = stopped_at(tmp_path / "whole", 1, tmp_path / "resumed")
    train(config, resumed)
    assert_equal_runs(tmp_path / "whole", resumed)


def test_a_plan_counts_clips_at_their_own_length(start: Path, shards: Path) -> None:
    config = TrainConfig(start=str(start), data=str(shards), epochs=2, batch_size=4)
    own = plan_training(config)
    shorter = plan_training(replace(config, lengths=replace(config.lengths, longest_s=0.5)))
    assert own.pairs == CLIPS and any("own length" in note for note in own.notes)
    assert shorter.flops < own.flops and shorter.memory.activations < own.memory.activations
    assert json.dumps(config.to_dict()["lengths"])
