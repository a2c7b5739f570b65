"""The loader: batches are the same with any workers and from any start."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import tarfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from openclap.arrays import Wave
from openclap.audio.augment import AugmentConfig
from openclap.audio.config import FrontEndConfig, MelConfig
from openclap.audio.frontend import FrontEnd
from openclap.audio.io import read_mono
from openclap.data.build import pack
from openclap.data.loader import CHOICES, PairLoader
from openclap.data.shards import ShardIndex, index_shards
from openclap.errors import ConfigError, DataError
from openclap.types import AudioBatch, PairBatch, TextBatch
from support.errors import raises_naming
from support.packs import MakeRecords

RATE = 16_000


class CropFrontEnd:
    """Takes 8 samples from a random place, which identify both the sound and the random draw."""

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
    """Overwrite the sound of a sample inside its tar; return its key."""
    offset, size = map(int, shards.spans_S4[number, :2])
    with (shards.folder / shards.tars[shards.tar_S[number]]).open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    return shards.keys[number]


def test_batch_has_one_caption_per_clip(shards: ShardIndex) -> None:
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


def test_all_captions_of_each_clip(shards: ShardIndex) -> None:
    for batch in loader_of(shards, batch_size=5, caption="all").batches(0):
        assert batch.owner_T.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        said = [caption for key in batch.keys for caption in shards.read_sample(int(key)).captions]
        assert batch.text.ids_BL.tolist() == tokenize(said).ids_BL.tolist()
        assert len(set(batch.caption_id_T[1::2].tolist())) == 1  # "A tone." is said of every one
        assert len(set(batch.caption_id_T.tolist())) == 6


def test_surplus_captions_are_drawn_uniformly_in_order() -> None:
    captions, drawn = tuple("abcdefg"), Counter[str]()
    for seed in range(2100):
        chosen = CHOICES["all"](captions, 3, np.random.default_rng(seed))
        assert len(chosen) == 3 and sorted(chosen) == list(chosen)
        drawn.update(chosen)
    assert all(abs(count - 900) < 100 for count in drawn.values()) and len(drawn) == 7
    assert CHOICES["all"](captions, 7, np.random.default_rng(0)) == captions


def test_clips_with_different_numbers_of_captions(tmp_path: Path, make_records: MakeRecords) -> None:
    records = [replace(record, captions=record.captions[: 1 + n % 2]) for n, record in enumerate(make_records(6))]
    pack(records, tmp_path / "out", splits={"train": 1.0})
    shards = index_shards(tmp_path / "out/train")
    [batch] = loader_of(shards, batch_size=6, caption="all").batches(0)
    counts = [len(shards.read_sample(int(key)).captions) for key in batch.keys]
    assert sorted(counts) == [1, 1, 1, 2, 2, 2]
    assert torch.bincount(batch.owner_T).tolist() == counts
    assert batch.owner_T.tolist() == sorted(batch.owner_T.tolist())


def test_equal_captions_have_equal_numbers(shards: ShardIndex) -> None:
    numbers = {"A tone.": 0}
    seen = set()
    for batch in loader_of(shards, batch_size=11).batches(0):
        ids = [tuple(row) for row in batch.text.ids_BL.tolist()]
        for one, one_number in zip(ids, batch.caption_id_T.tolist(), strict=True):
            for other, other_number in zip(ids, batch.caption_id_T.tolist(), strict=True):
                assert (one == other) == (one_number == other_number)
        seen |= set(ids)
    assert len(seen) > len(numbers)  # a random caption is drawn, not always the same of the two
    assert tuple(tokenize(["A tone."]).ids_BL[0].tolist()) in seen


def test_batches_are_a_pure_function_of_seed_and_epoch(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    first = all_of(loader)
    assert all_of(loader, epoch=1) != first
    assert all_of(loader) == all_of(loader_of(shards)) == first
    assert all_of(loader_of(shards, seed=1)) != first
    assert len(first) == loader.batches_per_epoch == 7


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_partition_an_epoch(shards: ShardIndex, world: int) -> None:
    for epoch in range(2):
        ranks = [all_of(loader_of(shards, rank=rank, world=world), epoch) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {23 // (3 * world)}
        keys = [key for batches in ranks for batch in batches for key in batch[0]]
        assert len(set(keys)) == len(keys) == 23 // (3 * world) * 3 * world


def test_resuming_at_any_batch_gives_the_remaining_batches(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards), epoch=4)
    for start in range(len(whole) + 1):
        loader = loader_of(shards)
        assert all_of(loader, epoch=4, start=start) == whole[start:]
        assert loader.position == len(whole)


def test_position_counts_consumed_batches(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    assert [loader.position for _ in loader.batches(0, start=2)] == [3, 4, 5, 6, 7]


def test_consecutive_epochs(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    read = [(loader.epoch, loader.position, flat(batch)) for batch in loader.batches(3, 5, epochs=3)]
    assert [place[:2] for place in read] == [(3, 6), (3, 7), *((epoch, n) for epoch in (4, 5) for n in range(1, 8))]
    apart = [*all_of(loader, 3, 5), *all_of(loader, 4), *all_of(loader, 5)]
    assert [batch for _, _, batch in read] == apart
    assert [flat(batch) for batch in loader.batches(0, 7, epochs=2)] == all_of(loader, 1)


def test_workers_do_not_change_batches(shards: ShardIndex) -> None:
    broken = [break_sample(shards, number) for number in (2, 11)]
    alone, helped = loader_of(shards), loader_of(shards, workers=2)
    assert all_of(alone, epoch=1) == all_of(helped, epoch=1)
    assert alone.skipped == helped.skipped
    assert {skipped.key for skipped in helped.skipped} <= set(broken)


@pytest.mark.filterwarnings("ignore:UPath 'away'")
def test_workers_read_from_an_object_store(shards: ShardIndex) -> None:
    pytest.importorskip("upath")
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    class Away(LocalFileSystem):  # type: ignore[misc]
        """This machine's disk, with a connection that a forked process cannot share, as s3fs has one."""

        protocol = "away"

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.connected_by = os.getpid()

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return str(LocalFileSystem._strip_protocol(path.removeprefix("away://")))

        def open(self, path: str, mode: str = "rb", **more: Any) -> Any:
            assert self.connected_by == os.getpid(), "This class is not fork-safe"
            return super().open(path, mode)

    fsspec.register_implementation("away", Away, clobber=True)
    stored = index_shards(f"away://{shards.folder}")
    assert all_of(loader_of(stored, workers=2), epoch=1) == all_of(loader_of(shards), epoch=1)


EVERYTHING = AugmentConfig(
    gain_db=6, shift=0.2, mixup=0.5, time_stripes=2, time_width=3, mel_stripes=1, mel_width=4, patch_dropout=0.5
)


def augmented(shards: ShardIndex, **options: Any) -> PairLoader:
    mel = MelConfig(RATE, 256, 40, 16, 50, 8000, "slaney", "area", "db")
    frontend = FrontEnd(FrontEndConfig(mel=mel, samples=200, fill="repeatpad", int16=True))
    chosen = {"batch_size": 3, "seed": 5, "caption": "all", "augment": EVERYTHING} | options
    return PairLoader(shards, frontend, tokenize, **chosen)


def test_workers_do_not_change_augmented_batches(shards: ShardIndex) -> None:
    alone = all_of(augmented(shards), epoch=2)
    for workers in (1, 2):
        assert all_of(augmented(shards, workers=workers), epoch=2) == alone


def test_augmented_batches_resume_and_differ_between_epochs(shards: ShardIndex) -> None:
    whole = all_of(augmented(shards), epoch=1)
    for start in (0, 1, 4, 7):
        assert all_of(augmented(shards, workers=start % 2), 1, start) == whole[start:]
    mels = [
        {key: mel for batch in all_of(augmented(shards), epoch) for key, mel in zip(batch[0], batch[1], strict=True)}
        for epoch in (1, 2)
    ]
    both = mels[0].keys() & mels[1].keys()
    assert len(both) > 15 and all(mels[0][key] != mels[1][key] for key in both)


def test_augmentation_does_not_depend_on_rank(shards: ShardIndex) -> None:
    whole: dict[str, Any] = {}
    for world in (1, 2, 3):
        for rank in range(world):
            for batch in all_of(augmented(shards, world=world, rank=rank), epoch=3):
                for key, mel in zip(batch[0], batch[1], strict=True):
                    assert whole.setdefault(key, mel) == mel
    assert len(whole) >= 21


def test_mixup_joins_two_clips_of_one_shard_and_their_captions(shards: ShardIndex) -> None:
    class Whole(CropFrontEnd):
        def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch:
            padded = np.zeros((len(waves), 400), np.float32)
            padded[0, : len(waves[0])] = waves[0]
            return AudioBatch(torch.from_numpy(padded).view(1, 1, 20, 20), torch.zeros(1, dtype=torch.bool))

    said: list[str] = []

    def listen(captions: list[str]) -> TextBatch:
        said.extend(captions)
        return tokenize(captions)

    loader = PairLoader(
        shards, Whole(), listen, batch_size=23, seed=0, caption="first", augment=AugmentConfig(mixup=1.0)
    )
    [batch] = loader.batches(0)
    own = {shards.read_sample(n).captions[0]: n for n in range(23)}
    partners = set()
    for place, key in enumerate(batch.keys):
        number = int(key)
        own_caption, theirs = said[place].split(" and ")
        assert own_caption == shards.read_sample(number).captions[0].rstrip(".")
        if theirs in own:
            partner = own[theirs]
            assert partner != number and shards.tar_S[partner] == shards.tar_S[number]
            partners.add(partner)
            waves = [read_mono(shards.read_sample(n).audio, RATE).astype(np.float64) for n in (number, partner)]
            mixed = batch.audio.mel_BVTF[place].flatten().numpy()[: len(waves[0])]
            assert is_made_of(mixed, *waves)
    assert len(partners) > 5


def is_made_of(mixed: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether it is a weighted sum of one sound and some segment of the other, which is repeated if it is shorter."""
    stretches = [np.resize(other, len(one))]
    if len(other) > len(one):
        stretches = [other[start : start + len(one)] for start in range(len(other) - len(one) + 1)]
    fits = (np.linalg.lstsq(np.stack([one, segment], 1), mixed, rcond=None) for segment in stretches)
    return any(residual.size and residual[0] < 1e-8 and min(weights) > 0 for weights, residual, *_ in fits)


def test_mixup_without_readable_neighbour_leaves_clip_unchanged(tmp_path: Path, make_records: MakeRecords) -> None:
    pack(make_records(4), tmp_path / "out", splits={"train": 1.0}, shard_size=1)
    lonely = index_shards(tmp_path / "out/train")
    mixing = AugmentConfig(mixup=1.0)
    assert all_of(loader_of(lonely, augment=mixing)) == all_of(loader_of(lonely, augment=AugmentConfig()))
    pack(make_records(2), tmp_path / "two", splits={"train": 1.0})
    pair = index_shards(tmp_path / "two/train")
    break_sample(pair, 1)
    loader = loader_of(pair, batch_size=2, augment=mixing)
    [[keys, *_]] = all_of(loader)
    assert keys == ("0",) and [skipped.key for skipped in loader.skipped] == ["1"]


def test_next_batch_is_prefetched(shards: ShardIndex) -> None:
    read = [threading.Event() for _ in range(2)]

    class Telling(CropFrontEnd):
        calls = 0

        def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch:
            assert threading.current_thread() is not threading.main_thread()
            Telling.calls += 1
            if Telling.calls % 3 == 0:
                read[Telling.calls // 3 - 1].set()
            return super().__call__(waves, rng=rng)

    batches = PairLoader(shards, Telling(), tokenize, batch_size=3, seed=0).batches(0)
    next(batches)
    assert read[1].wait(timeout=30)  # before the second batch is requested
    batches.close()  # type: ignore[attr-defined]
    assert Telling.calls == 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


class Failing(CropFrontEnd):
    """Fails at the sound of one length, with an error or by killing its process, as the system does."""

    def __init__(self, length: int, *, killed: bool) -> None:
        self.length, self.killed = length, killed

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch:
        if len(waves[0]) == self.length:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("no such luck")
        return super().__call__(waves, rng=rng)


def length_of(shards: ShardIndex, number: int) -> int:
    return len(read_mono(shards.read_sample(number).audio, RATE))


@pytest.mark.parametrize("workers", [0, 2])
def test_unexpected_error_names_the_sample(shards: ShardIndex, workers: int) -> None:
    frontend = Failing(length_of(shards, 9), killed=False)
    loader = PairLoader(shards, frontend, tokenize, batch_size=3, seed=0, workers=workers)
    with pytest.raises(DataError) as raised:
        all_of(loader)
    assert str(raised.value).startswith(f"{shards.where(9)}: could not be read (ZeroDivisionError: no such luck).")
    assert "Traceback" not in str(raised.value) and "in __call__" in raised.value.__notes__[0]


def test_failing_tokenizer_names_the_batch(shards: ShardIndex) -> None:
    def fail(captions: list[str]) -> TextBatch:
        raise KeyError("tone")

    loader = PairLoader(shards, CropFrontEnd(), fail, batch_size=3, seed=0)
    with pytest.raises(DataError, match=r"\d+, \d+, \d+: .*KeyError: 'tone'"):
        all_of(loader)


def test_killed_worker_names_the_sample(shards: ShardIndex) -> None:
    frontend = Failing(length_of(shards, 9), killed=True)
    loader = PairLoader(shards, frontend, tokenize, batch_size=3, seed=0, workers=2)
    with raises_naming(DataError, shards.where(9)):
        all_of(loader)
    fatal = [9 in map(int, batch[0]) for batch in all_of(loader_of(shards))].index(True)
    assert loader.position <= fatal  # what the worker had ready may be lost with it


class Interrupting(CropFrontEnd):
    """Gets the SIGINT that Ctrl-C sends to all processes of a terminal."""

    def __call__(self, waves: Sequence[Wave], *, rng: np.random.Generator | None = None) -> AudioBatch:
        if multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__call__(waves, rng=rng)


def test_interrupt_does_not_stop_workers(shards: ShardIndex) -> None:
    loader = PairLoader(shards, Interrupting(), tokenize, batch_size=3, seed=0, workers=1)
    assert all_of(loader) == all_of(loader_of(shards))


def test_missing_shard_is_skipped_until_a_whole_batch_is_missing(shards: ShardIndex) -> None:
    batches = all_of(loader_of(shards, batch_size=8))
    tars = [{int(shards.tar_S[int(key)]) for key in batch[0]} for batch in batches]
    assert all(len(of_batch) > 1 for of_batch in tars)
    lost = sorted(tars[1])
    (shards.folder / shards.tars[lost[0]]).unlink()
    loader = loader_of(shards, batch_size=8)
    assert len(all_of(loader)) == 2
    assert len(loader.skipped) == sum(shards.tar_S[int(key)] == lost[0] for batch in batches for key in batch[0])
    for tar in lost[1:]:
        (shards.folder / shards.tars[tar]).unlink()
    names = ", ".join(shards.tars[tar] for tar in lost[:4])
    with raises_naming(DataError, names):
        all_of(loader_of(shards, batch_size=8))


def test_global_random_generators_are_unchanged(shards: ShardIndex) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    all_of(loader_of(shards))
    assert torch.equal(torch.get_rng_state(), before)


def test_damaged_sample_is_skipped_and_counted(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards, batch_size=23))
    key = break_sample(shards, 9)
    loader = loader_of(shards, batch_size=23)
    [batch] = all_of(loader)
    assert batch[0] == tuple(other for other in whole[0][0] if other != key)
    assert batch[-2] == list(range(22))
    [skipped] = loader.skipped
    assert (skipped.key, skipped.epoch) == (key, 0)
    assert skipped.reason.startswith(f"sample {key} of 2.tar: ")


def test_batch_without_readable_samples_is_empty(shards: ShardIndex) -> None:
    whole = all_of(loader_of(shards))
    for key in whole[2][0]:
        break_sample(shards, int(key))
    loader = loader_of(shards)
    batches = list(loader.batches(0))
    assert [flat(batch) for batch in batches[:2] + batches[3:]] == whole[:2] + whole[3:]
    empty, other = batches[2], batches[0]
    assert empty.keys == () and not len(empty.audio.is_long_B) and not len(empty.text.ids_BL) and not len(empty.owner_T)
    assert empty.audio.mel_BVTF.shape[1:] == other.audio.mel_BVTF.shape[1:] and empty.audio.frames_B is not None
    assert (loader.position, [skipped.key for skipped in loader.skipped]) == (7, list(whole[2][0]))


@pytest.mark.parametrize("channels", ["mean", "left", "right", "loudest"])
def test_multichannel_tars_from_elsewhere(tmp_path: Path, channels: Any) -> None:
    left, right = 0.1 * np.random.default_rng(0).standard_normal((2, 400))
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number in range(2):
            sound = io.BytesIO()
            soundfile.write(sound, np.stack([left, 2 * right], axis=1), RATE, format="FLAC", subtype="PCM_24")
            for name, content in ((f"{number}.flac", sound.getvalue()), (f"{number}.json", b'{"text": "A hiss"}')):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    wanted = {"mean": (left + 2 * right) / 2, "left": left}.get(channels, 2 * right)
    [batch] = loader_of(index_shards(tmp_path), batch_size=2, channels=channels).batches(0)
    for clip, start in zip(batch.audio.mel_BVTF.flatten(1), batch.audio.frames_B.tolist(), strict=True):
        np.testing.assert_allclose(clip, wanted[start : start + 8], atol=1e-6)


def test_loader_can_be_pickled(shards: ShardIndex) -> None:
    loader = loader_of(shards)
    assert all_of(pickle.loads(pickle.dumps(loader))) == all_of(loader)


@pytest.mark.parametrize(("batch_size", "world"), [(24, 1), (12, 2)])
def test_batch_larger_than_the_data(shards: ShardIndex, batch_size: int, world: int) -> None:
    with raises_naming(DataError, 23, batch_size):
        loader_of(shards, batch_size=batch_size, world=world)


def test_tars_without_readable_samples(shards: ShardIndex) -> None:
    for tar in shards.tars:
        (shards.folder / tar).write_bytes(b"")
    with raises_naming(DataError, "0 samples", "6 of 6", "0.tar"):
        loader_of(index_shards(shards.folder))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"rank": 2, "world": 2},
        {"workers": -1},
        {"seed": -1},
        {"caption": "last"},
        {"most_captions": 0},
    ],
)
def test_invalid_options(shards: ShardIndex, options: dict[str, Any]) -> None:
    with raises_naming(ConfigError, *options):
        loader_of(shards, **options)


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 8)])
def test_invalid_positions(shards: ShardIndex, epoch: int, start: int) -> None:
    with raises_naming(ConfigError, epoch, start):
        loader_of(shards).batches(epoch, start)


def test_with_our_front_end(shards: ShardIndex) -> None:
    mel = MelConfig(16_000, 256, 80, 16, 50, 8000, "slaney", "area", "db")
    frontend = FrontEnd(FrontEndConfig(mel=mel, samples=160, fill="repeatpad"))
    loader = PairLoader(shards, frontend, tokenize, batch_size=8, seed=0)
    batches = all_of(pickle.loads(pickle.dumps(loader)))
    assert batches == all_of(loader)
    assert np.array(batches[0][1]).shape == (8, 1, 3, 16)
