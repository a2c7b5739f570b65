"""The bundled sounds: table and files agree, words are words, licences are met, adjectives are true."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

SOUNDS = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds"
HEADER = "file,captions,tags,label,group,source,original_title,author,licence,link,caption_from"
RATE = 44_100

# adjective → (measure, +1: at or above the median of its label, -1: at or below)
MEASURED = {
    **dict.fromkeys(("short", "quick", "brief", "briefly", "tiny", "tight"), ("length", -1)),
    **dict.fromkeys(("long", "longer"), ("length", 1)),
    **dict.fromkeys(("bright", "high"), ("brightness", 1)),
    **dict.fromkeys(("deep", "dark", "darker", "dull", "muffled", "low"), ("brightness", -1)),
    **dict.fromkeys(("loud", "loudly"), ("level", 1)),
    **dict.fromkeys(("quiet", "faint"), ("level", -1)),
    **dict.fromkeys(("busy",), ("hits", 1)),
    **dict.fromkeys(("sparse", "slow", "slowly"), ("hits", -1)),
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return pl.read_csv(SOUNDS / "sounds.csv", infer_schema=False).fill_null("").to_dicts()


@pytest.fixture(scope="module")
def waves(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    decoded = {row["file"]: soundfile.read(SOUNDS / row["file"], dtype="float32") for row in rows}
    assert {rate for _, rate in decoded.values()} == {RATE}
    return {file: wave for file, (wave, _) in decoded.items()}


def measure(wave_N: np.ndarray) -> dict[str, float]:
    """Seconds holding 97 % of the energy; centroid in Hz; RMS; sudden rises (9 dB in 40 ms) a second."""
    energy_N = np.cumsum(wave_N.astype(np.float64) ** 2)
    first, last = np.searchsorted(energy_N, energy_N[-1] * np.array([0.01, 0.98]))
    magnitude_F = np.abs(np.fft.rfft(wave_N * np.hanning(wave_N.size)))
    level_T = 10 * np.log10((wave_N[: wave_N.size // 441 * 441].reshape(-1, 441) ** 2).mean(axis=1) + 1e-9)
    rising_T = (level_T[4:] - level_T[:-4] > 9) & (level_T[4:] > level_T.max() - 20)
    return {
        "length": float(last - first) / RATE,
        "brightness": float(magnitude_F @ np.fft.rfftfreq(wave_N.size, 1 / RATE) / magnitude_F.sum()),
        "level": float(np.sqrt(np.mean(wave_N**2))),
        "hits": float((np.diff(rising_T.astype(int), prepend=0) > 0).sum()) / (wave_N.size / RATE),
    }


def claims(row: dict[str, str]) -> list[str]:
    """A row's measured adjectives, less those its name gives: "drum_tom_hi" is high by name."""
    name = set(re.sub(r"[^a-z]+", " ", row["original_title"].lower()).split())
    given = name | {{"hi": "high", "lo": "low"}.get(word, word) for word in name}
    return sorted((set(re.findall(r"\w+", row["captions"])) & MEASURED.keys()) - given)


def test_the_table_lists_every_file_once(rows: list[dict[str, str]]) -> None:
    assert ",".join(rows[0]) == HEADER
    assert len(rows) >= 300
    assert [row["file"] for row in rows] == sorted(path.name for path in SOUNDS.glob("*.ogg"))
    assert sum(path.stat().st_size for path in SOUNDS.iterdir()) <= 15e6


def test_every_clip_is_distinct(waves: dict[str, np.ndarray]) -> None:
    for file, wave in waves.items():
        assert wave.ndim == 1, file
        assert 0.05 <= wave.size / RATE <= 20, file
        assert np.abs(wave).max() > 1e-3, file
    assert len({hashlib.sha256(wave.tobytes()).digest() for wave in waves.values()}) == len(waves)


def test_captions_read_like_sentences_not_file_names(rows: list[dict[str, str]]) -> None:
    for row in rows:
        captions = row["captions"].split(" | ")
        assert 1 <= len(captions) <= 3 and len(set(captions)) == len(captions), row
        for caption in captions:
            assert re.fullmatch(r"(3d |808 |[a-z][a-z', -]*)+[a-z]", caption), caption
            assert len(caption.split()) >= 2, caption
        assert row["tags"] == row["tags"].lower() and row["tags"] and row["label"], row
        assert set(row["caption_from"].split("+")) <= {"name", "folder", "original", "measured"}, row


def test_measured_adjectives_are_true_within_their_label(
    rows: list[dict[str, str]], waves: dict[str, np.ndarray]
) -> None:
    measures = {file: measure(wave) for file, wave in waves.items()}
    peers = defaultdict(list)
    for row in rows:
        peers[row["label"]].append(measures[row["file"]])
    wrong = []
    for row in rows:
        assert ("measured" in row["caption_from"]) == bool(claims(row)), row
        for word in claims(row):
            what, side = MEASURED[word]
            own, median = measures[row["file"]][what], np.median([peer[what] for peer in peers[row["label"]]])
            if side * (own - median) < -0.02 * median:
                wrong.append(f"{row['file']}: '{word}', but its {what} is {own:.3g}, the median {median:.3g}")
    assert not wrong, "\n".join(wrong)


def test_licences_are_stated_and_attributed(rows: list[dict[str, str]]) -> None:
    attribution = (SOUNDS / "ATTRIBUTION.md").read_text()
    for row in rows:
        assert row["licence"] in {"CC0-1.0", "CC-BY-3.0", "CC-BY-SA-3.0"}, row
        assert row["author"] and row["original_title"] and row["link"].startswith(("http://", "https://")), row
        assert not row["author"].startswith("edited by"), row
        if row["licence"] != "CC0-1.0":
            (line,) = (line for line in attribution.splitlines() if line.startswith(f"| {row['file']} |"))
            assert all(row[part] in line for part in ("original_title", "author", "licence", "link")), row


def test_one_original_recording_never_falls_into_two_groups(rows: list[dict[str, str]]) -> None:
    groups = defaultdict(set)
    for row in rows:
        for link in row["link"].split():
            if "/sounds/" in link.lower():
                groups[link.lower()].add(row["group"])
    assert all(len(names) == 1 for names in groups.values()), groups


def test_every_label_has_clips_of_many_origins(rows: list[dict[str, str]]) -> None:
    groups = defaultdict(set)
    for row in rows:
        groups[row["label"]].add(row["group"])
    assert all(len(names) >= 8 for names in groups.values()), {label: len(names) for label, names in groups.items()}
