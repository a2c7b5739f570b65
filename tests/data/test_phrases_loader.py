"""Phrases with segments in batches of training, and composed scenes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.data.build import pack
from openclap.data.loader import PairLoader
from openclap.data.phrases import TimedPhrases, cut_phrases, phrase_batch
from openclap.data.scenes import SceneConfig, SceneMaker, write_scenes
from openclap.data.shards import index_shards
from openclap.errors import ConfigError
from openclap.sources.record import Record
from openclap.types import Phrase, TextBatch

RATE = 16000


def tokenize(texts: list[str]) -> TextBatch:
    ids = torch.tensor([[len(text)] for text in texts])
    return TextBatch(ids, torch.ones_like(ids))


def test_a_moment_is_active_where_its_middle_is_in_a_segment() -> None:
    phrases = (Phrase("a dog", ((0.26, 0.55),)), Phrase("rain", ((0.0, 1.0),)))
    batch = phrase_batch([TimedPhrases(1000, phrases), TimedPhrases(500, ())], 100.0, 1000, tokenize)
    assert batch is not None
    # Middles are 0.05, 0.15, …
    assert batch.active_BMP[0, :, 0].tolist() == [False, False, False, True, True, *[False] * 5]
    assert batch.active_BMP[0, :, 1].all() and not batch.active_BMP[1].any()
    assert batch.valid_BM.tolist() == [[True] * 10, [False] * 10]


def test_a_sound_between_two_middles_is_in_the_moment_of_its_own() -> None:
    batch = phrase_batch([TimedPhrases(1000, (Phrase("a click", ((0.36, 0.39),)),))], 100.0, 1000, tokenize)
    assert batch is not None and batch.active_BMP[0, :, 0].nonzero().flatten().tolist() == [3]


def test_equal_phrases_of_a_batch_are_one() -> None:
    clips = [TimedPhrases(1000, (Phrase("a dog", ((0.0, 0.2),)), Phrase("a dog", ((0.8, 1.0),)))) for _ in range(2)]
    batch = phrase_batch(clips, 100.0, 1000, tokenize)
    assert batch is not None and batch.active_BMP.shape == (2, 10, 1)
    assert batch.active_BMP[1, :, 0].nonzero().flatten().tolist() == [0, 1, 8, 9]


def test_no_phrases_are_no_batch() -> None:
    assert phrase_batch([TimedPhrases(1000, ())], 100.0, 1000, tokenize) is None


def test_segments_move_with_the_stretch_that_is_read() -> None:
    phrases = (Phrase("a dog", ((1.0, 2.0), (4.5, 6.0))), Phrase("rain", ((0.0, 0.5),)))
    assert cut_phrases(phrases, 1500, 3500, 1000).phrases == (Phrase("a dog", ((0.0, 0.5), (3.0, 3.5))),)


@pytest.mark.parametrize("segment", [(2.0, 1.0), (1.0, 1.0), (math.nan, 1.0), (-1.0, 0.5), (0.5, math.inf)])
def test_segments_that_are_none_are_left_out(segment: tuple[float, float]) -> None:
    assert cut_phrases((Phrase("a dog", (segment, (0.1, 0.2))),), 0, 1000, 1000).phrases == (
        Phrase("a dog", ((0.1, 0.2),)),
    )


# -- scenes


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Twelve tones of three labels, with silence before and after."""
    made = []
    for number in range(12):
        seconds = 0.3 + 0.05 * number
        tone = 0.5 * np.sin(2 * np.pi * (300 + 100 * number) * np.arange(int(seconds * RATE)) / RATE)
        file = tmp_path / f"{number}.wav"
        soundfile.write(file, np.concatenate([np.zeros(RATE), tone, np.zeros(RATE)]), RATE)
        label = f"kind {number % 3}"
        made.append(Record(str(number), file, (f"tone number {number}",), "tones", label=label, group=str(number)))
    return made


CONFIG = SceneConfig(rate=RATE, length_s=4.0, pieces=3, shortest_s=0.2, longest_s=0.6, gap_s=0.3, noise_db=-60.0)


def test_the_clips_of_a_scene_are_where_it_says(records: list[Record]) -> None:
    for scene in SceneMaker(records, CONFIG).scenes(20):
        assert len(scene.wave) == 4 * RATE and len(scene.pieces) == 3
        assert len({records[piece.record].label for piece in scene.pieces}) == 3
        level = np.abs(scene.wave)
        silent = np.ones(len(level), bool)
        end = 0.0
        for piece in scene.pieces:
            first, last = round(piece.onset_s * RATE), round(piece.offset_s * RATE)
            assert piece.onset_s - end >= CONFIG.gap_s - 1e-6 and 0.2 <= piece.offset_s - piece.onset_s <= 0.6001
            assert level[first:last].max() > 0.2
            silent[first:last] = False
            end = piece.offset_s
        assert end <= 4.0 and level[silent].max() < 0.02


def test_scenes_are_a_function_of_their_seed_and_use_every_clip(records: list[Record]) -> None:
    maker = SceneMaker(records, CONFIG)
    first, second, other = (list(maker.scenes(8, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a.wave, b.wave) and a.pieces == b.pieces for a, b in zip(first, second, strict=True))
    assert [a.pieces for a in first] != [b.pieces for b in other]
    assert {piece.record for scene in first for piece in scene.pieces} == set(range(12))


def test_clips_that_cannot_be_used_are_left_out_of_scenes(records: list[Record], tmp_path: Path) -> None:
    (tmp_path / "damaged.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    bad = [Record(name, tmp_path / f"{name}.wav", ("x",), "tones") for name in ("damaged", "silent", "missing")]
    uncaptioned = Record("none", records[0].audio, (), "tones")
    assert set(SceneMaker([*bad, uncaptioned, *records], CONFIG).clips) == set(range(4, 16))
    with pytest.raises(ConfigError):
        SceneMaker(bad, CONFIG)


@pytest.mark.parametrize("values", [{"pieces": 0}, {"shortest_s": 0.0}, {"longest_s": 9.0}, {"gap_s": -1.0}])
def test_impossible_scenes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SceneConfig(rate=RATE, length_s=4.0, **values)  # type: ignore[arg-type]


def test_scenes_are_written_in_finelaps_form_and_train(records: list[Record], tmp_path: Path, tiny_model: Path) -> None:
    made = write_scenes(SceneMaker(records, CONFIG), tmp_path / "scenes", 6)
    lines = [json.loads(line) for line in (tmp_path / "scenes" / "phrases.jsonl").read_text().splitlines()]
    assert [line["audio_id"] for line in lines] == [record.id for record in made]
    assert all(len(line["phrases"]) == 3 and Path(line["audio_path"]).is_file() for line in lines)
    pack(made, tmp_path / "shards", splits={"train": 1.0})
    embedder = openclap.load(tiny_model, runtime="torch")
    step = embedder.preset.moment_samples
    options = {"batch_size": 6, "seed": 0, "caption": "first"}
    shards = index_shards(tmp_path / "shards" / "train")
    plain = PairLoader(shards, embedder.frontend, embedder.tokenizer, **options)  # type: ignore[arg-type]
    timed = PairLoader(
        shards,
        embedder.frontend,
        embedder.tokenizer,
        moment_samples=step,
        **options,  # type: ignore[arg-type]
    )
    for one, other in zip(plain.batches(0, epochs=3), timed.batches(0, epochs=3), strict=True):
        # The stretch that is read is the same with and without phrases.
        torch.testing.assert_close(one.audio.mel_BVTF, other.audio.mel_BVTF)
        assert one.keys == other.keys and one.phrases is None
        if other.phrases is not None:
            assert other.phrases.active_BMP.shape[:2] == (6, math.ceil(embedder.input_samples / step))
            assert not (other.phrases.active_BMP.any(2) & ~other.phrases.valid_BM).any()


def test_the_options_of_the_frame_loss_exclude_what_moves_sounds() -> None:
    from openclap.audio.augment import AugmentConfig
    from openclap.models.config import ObjectiveConfig
    from openclap.training.config import TrainConfig

    base = {"start": "x", "data": "y", "epochs": 1, "batch_size": 4, "objective": ObjectiveConfig(frames=1.0)}
    TrainConfig(**base)  # type: ignore[arg-type]
    for more in (
        {"chunk": 2},
        {"augment": AugmentConfig(shift=0.1)},
        {"augment": AugmentConfig(mixup=0.5)},
        {"augment": AugmentConfig(patch_dropout=0.5)},
    ):
        with pytest.raises(ConfigError, match=r"objective\.frames"):
            TrainConfig(**base, **more)  # type: ignore[arg-type]
