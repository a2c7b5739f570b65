"""Batches: the same whoever reads them and wherever one begins."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packs import MakeRecords

from openclap.audio.frontend import FrontEnd, FrontEndConfig
from openclap.audio.io import Wave, read_mono
from openclap.audio.mel import MelConfig
from openclap.data.loader import PairLoader
from openclap.data.pack import pack
from openclap.data.shards import ShardIndex, index_shards
from openclap.errors import ConfigError, DataError
from openclap.types import AudioBatch, PairBatch, TextBatch

RATE = 16_000


class CropFrontEnd:
    """The first 8 samples from a random place: enough to see which sound came, and which randomness."""

    sample_rate = RATE

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch:
        starts = [0 if rng is None else int(rng.integers(len(wave_N) - 8)) for wave_N in waves]
        crops = [wave_N[start : start + 8] for wave_N, start in zip(waves, starts, strict=True)]
        mel_BVTF = torch.from_numpy(np.stack(crops)).view(len(waves), 1, 2, 4)
        return AudioBatch(mel_BVTF, torch.zeros(len(waves), dtype=torch.bool), torch.tensor(starts))


def tokenize(captions: list[str]) -> TextBatch:
    ids_BL = torch.tensor([[len(caption), sum(map(ord, caption))] for caption in captions])
    return TextBatch(ids_BL, torch.ones_like(ids_BL))


@pytest.fixture
def shards(tmp_path: Path, make_records: MakeRecords) -> ShardIndex:
    pack(make_records(23), tmp_path / "out", splits={"train": 1.0}, shard_size=4)
    return index_shards(tmp_path / "out/train")


def loader_of(shards: ShardIndex, **options: Any) -> PairLoader:
    return PairLoader(shards, CropFrontEnd(), tokenize, **({"batch_size": 3, "seed": 0} | options))


def flat(batch: PairBatch) -> list[Any]:
    tensors = [getattr(part, f.name) for part in (batch.audio, batch.text) for f in fields(part)]
    return [
        batch.keys,
        *(tensor.tolist() if tensor is not None else None for tensor in [*tensors, batch.owner_T, batch.caption_id_T]),
    ]


def all_of(loader: PairLoader, epoch: int = 0, start: int = 0) -> list[list[Any]]:
    return [flat(batch) for batch in loader.batches(epoch, start)]


def break_sample(shards: ShardIndex, number: int) -> str:
    """Overwrite the sound of a sample where it stands; returns its key."""
    offset, size = map(int, shards.spans_S4[number, :2])
    with (shards.folder / shards.tars[shards.tar_S[number]]).open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    return shards.keys[number]


def test_a_batch_is_clips_with_one_caption_each(shards: ShardIndex) -> None:
    [batch, *_] = loader_of(shards, batch_size=5, caption="first").batches(0)
    captions = [shards.read_sample(int(key)).captions[0] for key in batch.keys]
    assert batch.audio.mel_BVTF.shape == (5, 1, 2, 4)
    assert batch.audio.is_long_B.tolist() == [False] * 5
    assert batch.owner_T.tolist() == [0, 1, 2, 3, 4]
    assert batch.text.ids_BL.tolist() == tokenize(captions).ids_BL.tolist()
    frames_B = batch.audio.frames_B
    assert frames_B is not None
    for place, key in enumerate(batch.keys):
        wave_N = read_mono(shards.read_sample(int(key)).audio, RATE)
        begin = int(frames_B[place])
        np.testing.assert_array_equal(batch.audio.mel_BVTF[place].flatten(), wave_N[begin : begin + 8])


def spell(captions: list[str]) -> TextBatch:
    """A caption's characters, so that no two captions have the same ids."""
    ids_BL = torch.tensor([list(caption.ljust(60).encode()) for caption in captions])
    return TextBatch(ids_BL, torch.ones_like(ids_BL))


def test_equal_captions_have_equal_numbers(shards: ShardIndex) -> None:
    """In all batches and on all processes, and other captions have others."""
    numbers: dict[bytes, int] = {}
    for rank in (0, 1):
        for batch in PairLoader(shards, CropFrontEnd(), spell, batch_size=5, seed=0, rank=rank, world=2).batches(0):
            for ids, number in zip(batch.text.ids_BL.tolist(), batch.caption_id_T.tolist(), strict=True):
                assert numbers.setdefault(bytes(ids).strip(), number) == number and 0 <= number < 2**63
    assert len(set(numbers.values())) == len(numbers)
    assert b"A tone." in numbers and len(numbers) > 1  # one of each clip's captions is drawn at random


def test_pure_in_seed_and_epoch(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    first = all_of(loader)
    assert all_of(loader, epoch=1) != first
    assert all_of(loader) == all_of(loader_of(shards)) == first
    assert all_of(loader_of(shards, seed=1)) != first
    assert len(first) == loader.batches_per_epoch == 7


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_without_loss_or_repetition(shards: ShardIndex, world: int) -> None:
    for epoch in range(2):
        ranks = [all_of(loader_of(shards, rank=rank, world=world), epoch) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {23 // (3 * world)}
        keys = [key for batches in ranks for batch in batches for key in batch[0]]
        assert len(set(keys)) == len(keys) == 23 // (3 * world) * 3 * world


def test_resuming_at_any_batch_gives_the_rest(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards), epoch=4)
    for start in range(len(whole) + 1):
        loader = loader_of(shards)
        assert all_of(loader, epoch=4, start=start) == whole[start:]
        assert loader.position == len(whole)


def test_the_position_counts_the_batches_in_hand(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    assert [loader.position for _ in loader.batches(0, start=2)] == [3, 4, 5, 6, 7]


def test_workers_change_nothing(shards: ShardIndex) -> None:
    broken = [break_sample(shards, number) for number in (2, 11)]
    alone, helped = loader_of(shards), loader_of(shards, workers=2)
    assert all_of(alone, epoch=1) == all_of(helped, epoch=1)
    assert alone.skipped == helped.skipped
    assert {skipped.key for skipped in helped.skipped} <= set(broken)


def test_reading_leaves_the_global_generators_alone(shards: ShardIndex) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    all_of(loader_of(shards))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_sample_is_left_out_and_counted(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards, batch_size=23))
    key = break_sample(shards, 9)
    loader = loader_of(shards, batch_size=23)
    [batch] = all_of(loader)
    assert batch[0] == tuple(other for other in whole[0][0] if other != key)
    assert batch[-2] == list(range(22))
    [skipped] = loader.skipped
    assert (skipped.key, skipped.epoch) == (key, 0)
    assert skipped.reason.startswith(f"sample {key} of 2.tar: ")


def test_a_batch_of_which_nothing_is_left_is_passed_over(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards))
    for key in whole[2][0]:
        break_sample(shards, int(key))
    loader = loader_of(shards)
    positions = []
    for batch, position in ((flat(batch), loader.position) for batch in loader.batches(0)):
        assert batch == whole[position - 1]
        positions.append(position)
    assert positions == [1, 2, 4, 5, 6, 7]
    assert [skipped.key for skipped in loader.skipped] == list(whole[2][0])


def test_an_epoch_of_which_nothing_can_be_read_is_an_error(shards: ShardIndex) -> None:
    for tar in shards.tars:
        (shards.folder / tar).unlink()
    with pytest.raises(DataError, match="no sample of epoch 0 could be read"):
        all_of(loader_of(shards))


def test_the_loader_travels_to_another_process(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    assert all_of(pickle.loads(pickle.dumps(loader))) == all_of(loader)


@pytest.mark.parametrize(("batch_size", "world"), [(24, 1), (12, 2)])
def test_a_batch_larger_than_the_data(shards: ShardIndex, batch_size: int, world: int) -> None:
    with pytest.raises(DataError, match=f"23 samples are fewer than one batch of {batch_size}"):
        loader_of(shards, batch_size=batch_size, world=world)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"rank": 2, "world": 2}, {"workers": -1}, {"seed": -1}, {"caption": "last"}],
)
def test_impossible_choices(shards: ShardIndex, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        loader_of(shards, **options)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 8)])
def test_impossible_places(shards: ShardIndex, epoch: int, start: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        loader_of(shards).batches(epoch, start)


def test_our_own_front_end(shards: ShardIndex) -> None:
    mel = MelConfig(16_000, 256, 80, 16, 50, 8000, "slaney", "area", "db")
    frontend = FrontEnd(FrontEndConfig(mel=mel, samples=160, fill="repeatpad"))
    loader = PairLoader(shards, frontend, tokenize, batch_size=8, seed=0)
    batches = all_of(pickle.loads(pickle.dumps(loader)))
    assert batches == all_of(loader)
    assert np.array(batches[0][1]).shape == (8, 1, 3, 16)
