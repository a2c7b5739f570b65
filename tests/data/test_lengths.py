"""Clips at their own length in training: durations, the part that is read, steps dealt out by length."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.audio.frontend import FrontEnd
from openclap.data import shards as shards_module
from openclap.data.build import pack
from openclap.data.lengths import ClipLengths, LengthConfig, clip_lengths, durations
from openclap.data.loader import PairLoader, draw_field
from openclap.data.order import deal_by_length, epoch_order, rank_batches, sort_in_pools
from openclap.data.shards import ShardIndex, index_shards
from openclap.errors import ConfigError
from openclap.sources import Record
from openclap.types import PairBatch, TextBatch
from support.errors import raises_naming

RATE = 16_000
SECONDS = (0.1, 0.2, 0.35, 0.5, 0.8, 0.9, 1.0, 1.5, 2.0, 2.5, 3.0, 0.05)
ALL_LENGTHS = LengthConfig()
MEL = MelConfig(RATE, 256, 160, 16, 50, 8000, "htk", "none", "db")


@pytest.fixture
def shards(tmp_path: Path) -> ShardIndex:
    """Noise of different lengths, three to a tar."""
    rng = np.random.default_rng(0)
    records = []
    for number, seconds in enumerate(SECONDS):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
        records.append(Record(str(number), path, (f"noise {number}",), "test", title=f"title {number}"))
    pack(records, tmp_path / "set", splits={"train": 1.0}, shard_size=3)
    return index_shards(tmp_path / "set" / "train")


def tokenize(captions: list[str]) -> TextBatch:
    ids_BL = torch.tensor([[len(caption), sum(map(ord, caption))] for caption in captions])
    return TextBatch(ids_BL, torch.ones_like(ids_BL))


def loader_of(shards: ShardIndex, config: LengthConfig = ALL_LENGTHS, **options: object) -> PairLoader:
    frontend = FrontEnd(FrontEndConfig(MEL, samples=RATE, fill="none", longest=60 * RATE))
    lengths = clip_lengths(shards, config, RATE, RATE)
    given = {"batch_size": 2, "seed": 3, "lengths": lengths} | options
    return PairLoader(shards, frontend, tokenize, **given)  # type: ignore[arg-type]


def test_durations_of_the_manifest_are_those_of_the_headers(shards: ShardIndex, tmp_path: Path) -> None:
    found = durations(shards)
    seconds = [SECONDS[int(shards.read_sample(number).captions[0].split()[1])] for number in range(len(shards))]
    np.testing.assert_allclose(found, seconds, atol=1e-4)
    (tmp_path / "set" / "manifest.parquet").unlink()
    np.testing.assert_array_equal(durations(shards), found)


@pytest.mark.parametrize("suffix", ["flac", "wav", "ogg"])
def test_headers_alone_are_read_where_they_state_a_duration(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 20.0
    sound = io.BytesIO()
    soundfile.write(sound, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)), RATE, format=suffix)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in ((f"a.{suffix}", sound.getvalue()), ("a.json", b'{"text": ["noise"]}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    shards = index_shards(tmp_path)
    with shards.open_audio(0) as file:
        assert file.read() == sound.getvalue()
    read: list[int] = []

    def counting(file: BinaryIO, offset: int, size: int) -> bytes:
        file.seek(offset)
        read.append(size)
        return file.read(size)

    monkeypatch.setattr(shards_module, "_read", counting)
    assert durations(shards).tolist() == [seconds]
    # Ogg has no number of samples in its header: libsndfile reads its pages.
    assert suffix == "ogg" or 0 < sum(read) < len(sound.getvalue()) / 20


def test_a_damaged_sound_has_no_duration(shards: ShardIndex, tmp_path: Path) -> None:
    (tmp_path / "set" / "manifest.parquet").unlink()
    offset, size = map(int, shards.spans_S4[4, :2])
    with (shards.folder / shards.tars[shards.tar_S[4]]).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    assert np.flatnonzero(durations(shards) == 0).tolist() == [4]
    batches = list(loader_of(shards).batches(0))
    assert sum(len(batch.keys) for batch in batches) == len(shards) - 1


orders = st.tuples(st.integers(0, 50), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))


@given(orders)
def test_a_step_has_the_same_samples_dealt_out_evenly(values: tuple[int, int, int, int]) -> None:
    samples, batch, world, seed = values
    seconds_S = np.random.default_rng(seed).exponential(size=samples)
    order_S = epoch_order(np.arange(samples) // 4, seed, 0)
    plain = [rank_batches(order_S, batch, rank, world) for rank in range(world)]
    dealt = [deal_by_length(order_S, seconds_S, batch, rank, world) for rank in range(world)]
    assert {part.shape for part in dealt} == {part.shape for part in plain}
    for step in range(len(plain[0])):
        before, after = (sorted(np.concatenate([part[step] for part in parts])) for parts in (plain, dealt))
        assert before == after
        for part in dealt:
            assert (np.diff(seconds_S[part[step]]) >= 0).all()
        # Turns that go back and forth differ by no more than the longest sample.
        sums = [seconds_S[part[step]].sum() for part in dealt]
        assert max(sums) - min(sums) <= seconds_S[before].max() + 1e-9


@given(orders, st.integers(1, 4))
def test_pools_rearrange_an_epoch(values: tuple[int, int, int, int], pool: int) -> None:
    samples, batch, world, seed = values
    seconds_S = np.random.default_rng(seed).exponential(size=samples)
    order_S, step = epoch_order(np.arange(samples) // 4, seed, 0), batch * world
    pooled_S = sort_in_pools(order_S, seconds_S, step, pool, seed=seed, epoch=0)
    assert sorted(pooled_S) == sorted(order_S)
    np.testing.assert_array_equal(pooled_S, sort_in_pools(order_S, seconds_S, step, pool, seed=seed, epoch=0))
    whole = samples // step * step
    np.testing.assert_array_equal(pooled_S[whole:], order_S[whole:])
    for start in range(0, whole, pool * step):
        part = slice(start, min(start + pool * step, whole))
        assert sorted(pooled_S[part]) == sorted(order_S[part])
        steps = seconds_S[pooled_S[part]].reshape(-1, step) if pool > 1 else np.empty((0, step))
        bounds = sorted((each.min(), each.max()) for each in steps)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(bounds))


def test_only_the_stated_part_of_a_long_clip_is_read() -> None:
    def start(part: str, seed: int = 0, samples: int = 40) -> int:
        lengths = ClipLengths(np.ones(1), samples, samples / RATE, part)  # type: ignore[arg-type]
        return lengths.draw_start(100, np.random.default_rng(seed))

    assert start("start") == 0 and start("middle") == 30
    starts = {start("random", seed) for seed in range(300)}
    assert min(starts) == 0 and max(starts) == 60 and start("random", 1) == start("random", 1)
    assert start("random", samples=100) == start("middle", samples=101) == 0


@pytest.mark.parametrize("part", ["start", "random"])
def test_batches_are_functions_of_seed_and_epoch(shards: ShardIndex, part: str) -> None:
    config = LengthConfig(longest_s=0.7, part=part, pool=2)  # type: ignore[arg-type]

    def read(epoch: int = 1, start: int = 0, **options: object) -> list[PairBatch]:
        return list(loader_of(shards, config, **options).batches(epoch, start))

    def contents(batches: list[PairBatch]) -> list[object]:
        return [(b.keys, b.audio.mel_BVTF.tolist(), b.audio.frames_B, b.text.ids_BL.tolist()) for b in batches]

    whole = read()
    for batch in whole:
        frames = batch.audio.frames_B
        assert frames is not None and frames.tolist() == sorted(frames.tolist())
        assert int(frames.max()) == batch.audio.mel_BVTF.shape[2] <= MEL.frames(round(0.7 * RATE))
    text = str(contents(whole))
    assert str(contents(read(start=2))) == str(contents(whole[2:]))
    assert str(contents(read(workers=2))) == text != str(contents(read(epoch=2)))
    ranks = [read(rank=rank, world=2) for rank in range(2)]
    keys = sorted(key for batches in ranks for batch in batches for key in batch.keys)
    assert keys == sorted(shards.keys) and {len(batch.keys) for batches in ranks for batch in batches} == {2}


def test_fields_of_captions_are_drawn_by_their_weights(shards: ShardIndex) -> None:
    by_field = {"text": ("a", "b"), "original_data.title": ("t",), "rest": ("r",)}
    fields = {"text": 3.0, "original_data.title": 1.0, "rest": 0.0}
    drawn = Counter(draw_field(by_field, fields, np.random.default_rng(seed)) for seed in range(2000))
    assert drawn.keys() == {("a", "b"), ("t",)} and abs(drawn["t",] - 500) < 80
    assert draw_field({"rest": ("r",)}, fields, np.random.default_rng(0)) == ("r",)
    first = np.random.default_rng(0)
    draw_field({"text": ("a",), "rest": ("r",)}, fields, first)
    assert first.random() == np.random.default_rng(0).random()  # no choice, no draw
    fields = {"original_data.title": 1.0, "text": 1.0}
    [epoch, again] = [[b.text.ids_BL for b in loader_of(shards, fields=fields).batches(0)] for _ in range(2)]
    assert all(map(torch.equal, epoch, again))
    said = {tuple(ids) for ids_BL in epoch for ids in ids_BL.tolist()}
    of_fields = [tokenize([f"{name} {n}" for n in range(len(shards))]).ids_BL.tolist() for name in ("noise", "title")]
    titles, texts = ({tuple(ids) for ids in rows} for rows in of_fields)
    assert said <= titles | texts and said & titles and said & texts
    assert shards.read_sample(0, fields).captions[0].startswith("title")


def test_a_sample_without_any_of_the_fields_is_skipped_and_named(shards: ShardIndex) -> None:
    loader = loader_of(shards, fields={"caption": 1.0})
    assert all(batch.keys == () for batch in loader.batches(0))
    assert len(loader.skipped) == len(shards) and '"caption"' in loader.skipped[0].reason


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"longest_s": -1.0}, "longest_s"),
        ({"longest_s": 1e9}, "600"),
        ({"part": "end"}, "random"),
        ({"pool": 0}, "pool"),
        ({"patches": -1}, "patches"),
    ],
)
def test_impossible_options_are_refused(values: dict[str, object], named: str) -> None:
    with raises_naming(ConfigError, named):
        LengthConfig(**values)  # type: ignore[arg-type]
