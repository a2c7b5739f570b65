"""Near-duplicates: clips that sound like an earlier one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from openclap.audio.inputs import Sound
from openclap.audio.io import decode
from openclap.data import near_duplicates as module
from openclap.data.build import build, fetch_and_decode, write_tars
from openclap.data.config import DataConfig
from openclap.data.filters import plan
from openclap.data.layout import read_table
from openclap.data.manifest import finish
from openclap.data.near_duplicates import NearDuplicates, find_near_duplicates, nearest_included
from openclap.data.parallel import Share
from openclap.errors import AudioError, ConfigError, DataError
from openclap.sources import Record
from support.errors import raises_naming
from support.fetching import environment
from support.packs import contents


def by_force(vectors_ND: NDArray[np.float16], threshold: float) -> list[tuple[int, float]]:
    """Compute row by row in float64: the first included row at the threshold or above, and its cosine."""
    unit_ND = vectors_ND.astype(np.float64)
    unit_ND /= np.linalg.norm(unit_ND, axis=1, keepdims=True)
    included: list[int] = []
    found = []
    for row in range(len(unit_ND)):
        cosines = {other: float(unit_ND[other] @ unit_ND[row]) for other in included}
        twin = next((other for other, cosine in cosines.items() if cosine >= threshold), -1)
        found.append((twin, cosines.get(twin, 0.0)))
        if twin < 0:
            included.append(row)
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("slab", [5, 1000])
def test_nearest_included_equals_brute_force(monkeypatch: pytest.MonkeyPatch, block: int, slab: int) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "SLAB", slab)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, 8))
    vectors_ND = (centres[rng.integers(0, 30, 300)] + 0.35 * rng.standard_normal((300, 8))).astype(np.float16)
    for threshold in (0.7, 0.9, 0.95):
        twin_N, cosine_N = nearest_included(vectors_ND, threshold)
        expected = by_force(vectors_ND, threshold)
        assert twin_N.tolist() == [twin for twin, _ in expected]
        np.testing.assert_allclose(cosine_N, [cosine for _, cosine in expected], atol=1e-6)
        assert 20 < (twin_N >= 0).sum() < 290


def test_chain_of_similar_clips_is_not_left_out_as_a_whole() -> None:
    """Six clips, each similar only to the one before: every second one is left out, and its neighbours stay."""
    angles = np.radians(np.arange(6) * 10.0)
    vectors_N2 = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert nearest_included(vectors_N2, np.cos(np.radians(15)))[0].tolist() == [-1, 0, -1, 2, -1, 4]


def test_equal_embeddings_match_and_zero_embeddings_do_not() -> None:
    vectors_ND = np.random.default_rng(1).standard_normal((50, 512)).astype(np.float16)
    doubled_ND = np.concatenate([vectors_ND, np.zeros((3, 512), np.float16), vectors_ND])
    assert nearest_included(doubled_ND, 1.0)[0].tolist() == [-1] * 53 + list(range(50))
    assert nearest_included(doubled_ND[:0], 0.5)[0].tolist() == []


def spectrum(wave_NC: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """The strength of 64 bands up to 8 kHz: insensitive to level and to changes by codecs."""
    power = np.abs(np.fft.rfft(wave_NC[:, 0], 16_384 * rate // 16_000))[:8192]
    bands = np.sqrt((power**2).reshape(64, -1).sum(axis=1))
    unit: NDArray[np.float32] = (bands / np.linalg.norm(bands)).astype(np.float32)
    return unit


@dataclass
class SpectrumModel:
    """Embeds by `spectrum`, and counts the sounds it embeds."""

    embedded: int = 0
    stop_after: int | None = None
    lengths: list[int] = field(default_factory=list)

    def __call__(self, sounds: Iterable[Sound]) -> Iterator[NDArray[np.float32] | AudioError]:
        for sound in sounds:
            if self.embedded == self.stop_after:
                raise KeyboardInterrupt
            self.embedded += 1
            wave_NC, rate = sound if isinstance(sound, tuple) else decode(sound)
            self.lengths.append(len(wave_NC))
            yield AudioError("too loud for this model") if wave_NC[:3, 0].max() > 0.9 else spectrum(wave_NC, rate)


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """Three noises, a quieter copy of the second, a part of the third, and one noise twice that the model refuses."""
    rng = np.random.default_rng(0)
    noises = [np.convolve(rng.standard_normal(32_000), rng.standard_normal(6), "same") for _ in range(3)]
    noises = [0.5 * noise / np.abs(noise).max() for noise in noises]
    loud = np.concatenate([np.full(5, 0.95), noises[0][::-1][:9000]])
    waves = {"a": noises[0], "b": noises[1], "c": noises[2], "b-quiet": 0.3 * noises[1], "loud": loud, "louder": loud}
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000, subtype="FLOAT" if name == "louder" else "PCM_16")
    made = [Record(name, tmp_path / f"{name}.wav", (f"Sound {name}.",), "test") for name in waves]
    return [*made, replace(made[2], id="c-part", start_s=1.0, length_s=0.75)]


def test_near_duplicates_are_left_out_and_named(tmp_path: Path, records: list[Record]) -> None:
    model = SpectrumModel()
    report = build(
        records, tmp_path / "out", DataConfig(splits={"train": 1.0}), near=NearDuplicates(0.9, "spectrum", model)
    )
    assert [(item.id, item.kind) for item in report.skipped] == [
        ("b-quiet", "near duplicate"),
        ("c-part", "near duplicate"),
    ]
    assert report.skipped[0].reason.startswith("sounds like b of test (cosine 1.0")
    assert report.skipped[1].reason.startswith("sounds like c of test (cosine 0.9")
    assert model.lengths[-1] == 12_000
    lines = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["near duplicate"] * 2


def test_clip_left_out_for_another_reason_matches_nothing(tmp_path: Path, records: list[Record]) -> None:
    first = [records[1], *records]  # "b" twice: the second has the same samples
    config = DataConfig(splits={"train": 1.0}, drop_duplicates=True, shortest_s=0.8)
    report = build(first, tmp_path / "out", config, near=NearDuplicates(0.9, "spectrum", SpectrumModel()))
    kinds = [(item.id, item.kind) for item in report.skipped]
    assert kinds[:2] == [("b", "duplicate"), ("b-quiet", "near duplicate")]


def test_stopped_step_resumes_and_another_model_starts_over(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("near_duplicates", "decode", "download"):
        monkeypatch.setattr(sys.modules[f"openclap.data.{name}"], "CHUNK", 2)
    out = tmp_path / "out"
    plan(records, out, DataConfig(splits={"train": 1.0}))
    with raises_naming(DataError, out, "openclap dataset fetch"):
        find_near_duplicates(out, NearDuplicates(0.9, "spectrum", SpectrumModel()))
    fetch_and_decode(out)
    with pytest.raises(KeyboardInterrupt):
        find_near_duplicates(out, NearDuplicates(0.9, "spectrum", SpectrumModel(stop_after=5)))
    with raises_naming(DataError, out, "openclap dataset fetch --near-duplicates"):
        write_tars(out)
    model = SpectrumModel()
    assert find_near_duplicates(out, NearDuplicates(0.9, "spectrum", model)) == 2
    assert model.embedded == len(records) - 4
    assert (
        find_near_duplicates(out, NearDuplicates(0.999, "spectrum", model)) == 1 and model.embedded == len(records) - 4
    )
    before = contents(out / "work/near")
    assert (
        find_near_duplicates(out, NearDuplicates(0.9, "another model", model)) == 2
        and model.embedded == 2 * len(records) - 4
    )
    assert before.items() <= contents(out / "work/near").items()


def test_parts_embed_and_the_last_one_compares(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("near_duplicates", "decode", "download"):
        monkeypatch.setattr(sys.modules[f"openclap.data.{name}"], "CHUNK", 2)
    out, whole = tmp_path / "parts", tmp_path / "whole"
    for folder in (out, whole):
        plan(records, folder, DataConfig(splits={"train": 1.0}))
    found = []
    for number in (3, 1, 2):
        fetch_and_decode(out, Share(number, 3))
        found.append(find_near_duplicates(out, NearDuplicates(0.9, "spectrum", SpectrumModel()), Share(number, 3)))
    assert found == [None, None, 2]
    fetch_and_decode(whole)
    find_near_duplicates(whole, NearDuplicates(0.9, "spectrum", SpectrumModel()))
    assert read_table(out / "work/near.parquet").equals(read_table(whole / "work/near.parquet"))


def test_smaller_selection_removes_surplus_tars(tmp_path: Path, records: list[Record]) -> None:
    config = DataConfig(splits={"train": 1.0}, shard_size=2)
    build(records, tmp_path / "out", config)
    assert len(list((tmp_path / "out/train").glob("*.tar"))) == 4
    report = build(records, tmp_path / "out", config, near=NearDuplicates(0.9, "spectrum", SpectrumModel()))
    assert report.packed == {"train": 5} and len(list((tmp_path / "out/train").glob("*.tar"))) == 3
    build(records, tmp_path / "new", config, near=NearDuplicates(0.9, "spectrum", SpectrumModel()))
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_tars_of_an_earlier_selection_are_not_valid(tmp_path: Path, records: list[Record]) -> None:
    out = tmp_path / "out"
    build(records, out, DataConfig(splits={"train": 1.0}, shard_size=2))
    find_near_duplicates(out, NearDuplicates(0.9, "spectrum", SpectrumModel()))
    write_tars(out, Share(1, 3))
    with raises_naming(DataError, "2 of 3", "openclap dataset pack"):
        finish(out)
    for number in (2, 3):
        write_tars(out, Share(number, 3))
    assert finish(out).packed == {"train": 5}


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan")])
def test_invalid_thresholds(threshold: float) -> None:
    with raises_naming(ConfigError, "--near-duplicates", threshold):
        NearDuplicates(threshold, "spectrum", SpectrumModel())


COMPARE_MANY = """
import resource, sys
import numpy as np
from openclap.audio.inputs import Sound
from openclap.data.near_duplicates import nearest_included
rng = np.random.default_rng(0)
vectors = np.concatenate([rng.standard_normal((5000, 512)).astype(np.float16) for _ in range(20)])
vectors[60_000:60_100] = vectors[:100]
twin, cosine = nearest_included(vectors, 0.98)
assert twin[60_000:60_100].tolist() == list(range(100)) and (twin >= 0).sum() == 100
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.long
def test_hundred_thousand_embeddings_need_less_than_two_gigabytes() -> None:
    command = [sys.executable, "-c", COMPARE_MANY]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000  # kB
