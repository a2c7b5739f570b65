"""`--near-duplicates` of `openclap dataset`: leave out clips that sound like an earlier one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile

from openclap.cli import run
from openclap.embedder import Embedder

SOUNDS = Path(__file__).parents[2] / "src" / "openclap" / "demo" / "sounds"


def openclap(*words: object) -> int:
    return run([str(word) for word in words])


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three recordings, and the first again as a 24-bit file of another level."""
    folder = tmp_path / "collection"
    folder.mkdir()
    for name in ("dog1", "water-running", "garden"):
        shutil.copy(SOUNDS / f"scratch-{name}.ogg", folder / f"{name}.ogg")
    wave_NC, rate = soundfile.read(folder / "dog1.ogg")
    soundfile.write(folder / "dog2.flac", 0.99 * wave_NC, rate, subtype="PCM_24")
    return folder


def left_out(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    return {Path(line["file"]).name: line["kind"] for line in lines}


def test_near_duplicate_of_another_encoding_is_left_out(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "build", collection, out, "--near-duplicates", "0.99", "--model", "mini", "--json") == 0
    assert left_out(out) == {"dog2.flac": "near duplicate"}
    [skipped] = json.loads(capsys.readouterr().out)["skipped"]
    assert skipped["reason"].startswith("sounds like ") and "dog1" in skipped["reason"]


def test_another_data_set_of_the_same_sounds_embeds_none(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--near-duplicates", "0.99", "--model", "mini")
    assert openclap("dataset", "build", collection, tmp_path / "one", *options) == 0
    for path in sorted(collection.iterdir()):
        path.rename(path.with_stem(f"new-{path.stem}"))
    monkeypatch.setattr(Embedder, "embed_each", lambda self, sounds: iter(list(sounds)[:0]))
    assert openclap("dataset", "build", collection, tmp_path / "two", *options) == 0
    assert list(left_out(tmp_path / "one").values()) == list(left_out(tmp_path / "two").values())


def test_steps_leave_out_the_same_near_duplicates(
    collection: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert openclap("dataset", "plan", collection, out) == 0
    assert openclap("dataset", "fetch", out, "--part", "2/2", "--near-duplicates", "0.99", "--model", "mini") == 0
    assert "The other parts must be embedded too" in capsys.readouterr().err
    assert openclap("dataset", "fetch", out, "--part", "1/2", "--near-duplicates", "0.99", "--model", "mini") == 0
    assert "Near-duplicates: 1." in capsys.readouterr().err
    assert openclap("dataset", "pack", out) == 0 and openclap("dataset", "merge", out) == 0
    assert left_out(out) == {"dog2.flac": "near duplicate"}


@pytest.mark.parametrize(
    "words", [("--near-duplicates", "1.5"), ("--near-duplicates", "0.9", "--model", "no/such/model"), ("--model", "x")]
)
def test_invalid_options_are_reported_before_any_work(
    collection: Path, tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert openclap("dataset", "build", collection, tmp_path / "out", *words) == 2
    assert capsys.readouterr().err.startswith("openclap: ")
    assert not (tmp_path / "out").exists()
