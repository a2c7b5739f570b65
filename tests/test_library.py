from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import av
import lancedb
import numpy as np
import pytest
import soundfile
import torch

import openclap
from openclap.audio import io as io_of_audio
from openclap.audio import opened
from openclap.audio.io import AudioBlock
from openclap.audio.streams import EncodedStream
from openclap.checkpoints import openclap_folder
from openclap.cli import run
from openclap.errors import CheckpointError, DataError, IndexMismatchError
from openclap.library import Library
from openclap.models.build import build_clap
from openclap.search import scan
from openclap.search.index import Index
from openclap.sources import read_table
from support.errors import raises_naming
from support.tiny_models import TINY_PRESET, tiny_tokenizer

SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


def test_sounds_are_found_by_words_and_by_sound(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    library = Library.open(tmp_path / "index", str(tiny_model))
    report = library.add([sounds], records=read_table(sounds / "sounds.csv"))
    assert (report.added, report.skipped) == (6, [])
    found = Library.open(tmp_path / "index").search("a low tone", 10)
    assert len(found) == 6 and [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert {hit.caption for hit in found} == {"a low tone", "a high tone", "a noise tone"}
    assert {hit.licence for hit in found} == {"CC0-1.0"}
    similar = library.similar(sounds / "low-0.wav", 5)
    assert len(similar) == 5 and str(sounds / "low-0.wav") not in {hit.path for hit in similar}
    assert Path(similar[0].path).name == "low-3.wav"


def test_scores_are_the_cosines_of_the_model(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    library = Library.open(tmp_path / "index", str(tiny_model))
    library.add([sounds])
    text = library.embedder.embed_text(["rain"])[0]
    for hit in library.search("rain", 6):
        best = max(window.vector @ text for window in library.embedder.windows(hit.path))
        assert abs(hit.score - best) < 2e-3  # vectors are stored as float16


def test_another_model_is_refused(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    Library.open(tmp_path / "index", str(tiny_model)).add([sounds])
    torch.manual_seed(1)
    openclap_folder.save(tmp_path / "other", build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    with pytest.raises(IndexMismatchError):
        Library.open(tmp_path / "index", str(tmp_path / "other"))


def test_changed_or_missing_model_is_refused(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(tiny_model, tmp_path / "mine"))
    Library.open(tmp_path / "index", str(mine)).add([sounds])
    torch.manual_seed(1)
    openclap_folder.save(mine, build_clap(TINY_PRESET), TINY_PRESET, tiny_tokenizer())
    with pytest.raises(IndexMismatchError):
        Library.open(tmp_path / "index")
    shutil.rmtree(mine)
    with raises_naming(CheckpointError, mine):
        Library.open(tmp_path / "index")


def test_captions_come_with_a_table_and_stay_without_it(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    library = Library.open(tmp_path / "index", str(tiny_model))

    def captions() -> dict[str, str | None]:
        return {Path(hit.path).name: hit.caption for hit in library.search("rain", 10)}

    library.add([sounds])
    assert set(captions().values()) == {None}
    report = library.add([sounds], records=read_table(sounds / "sounds.csv"))  # later, nothing is embedded again
    assert (report.added, report.unchanged) == (0, 6) and captions()["low-0.wav"] == "a low tone"
    (sounds / "low-0.wav").touch()
    (sounds / "high-1.wav").rename(sounds / "moved.wav")
    library.add([sounds])
    assert captions()["low-0.wav"] == "a low tone" and captions()["moved.wav"] == "a high tone"


def test_a_file_is_not_similar_to_itself_under_another_name(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    library = Library.open(tmp_path / "index", str(tiny_model))
    library.add([sounds])
    (tmp_path / "link").symlink_to(sounds)
    assert "low-0.wav" not in {Path(hit.path).name for hit in library.similar(tmp_path / "link" / "low-0.wav", 9)}


def test_index_uses_its_own_channel_options(tiny_model: Path, tmp_path: Path) -> None:
    left, right = 0.1 * np.random.default_rng(0).standard_normal((2, 12000))
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    choices = {"channels": "right", "trim_silence": True}
    Library.open(tmp_path / "index", str(tiny_model), **choices).add([tmp_path / "a.wav"])  # type: ignore[arg-type]
    library = Library.open(tmp_path / "index")
    assert (library.embedder.mono.channels, library.embedder.mono.trim_silence) == ("right", True)
    [hit] = library.search("rain", 1)
    windows = openclap.load(tiny_model).windows((right, 16000))
    assert hit.score == pytest.approx(
        max(each.vector @ library.embedder.embed_text(["rain"])[0] for each in windows), abs=2e-3
    )
    assert Library.open(tmp_path / "index", tiny_model).embedder.mono == library.embedder.mono
    for other in ({"channels": "mean"}, {"trim_silence": False}, {"precision": "int8"}):
        with pytest.raises(IndexMismatchError):
            Library.open(tmp_path / "index", tiny_model, **other)  # type: ignore[arg-type]


def test_an_index_keeps_its_precision(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    Library.open(tmp_path / "index", tiny_model, precision="int8").add([sounds / "low-0.wav"])
    assert Library.open(tmp_path / "index").embedder.precision == "int8"
    finer = Library.open(tmp_path / "index", tiny_model, precision="fp32")
    assert len(finer.search("a low tone", 5)) == 1
    for change in (lambda: finer.add([sounds]), finer.update, lambda: finer.update([str(sounds)])):
        with raises_naming(IndexMismatchError, tmp_path / "index", "int8", "fp32"):
            change()
    assert finer.index.count()[0] == 1


def test_a_coarse_query_is_refused(tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    """int8 states a cosine of 0.99 only."""
    Library.open(tmp_path / "index", tiny_model).add([sounds])
    with raises_naming(IndexMismatchError, tmp_path / "index", "int8", "0.99", "fp32 or bf16"):
        Library.open(tmp_path / "index", precision="int8")


@pytest.mark.long
@pytest.mark.parametrize("is_old", [False, True])
def test_an_index_moves_between_precisions_and_runtimes(is_old: bool, tiny_model: Path, tmp_path: Path) -> None:
    """Real sounds, indexed in bf16 by torch, are found in fp32 by onnxruntime, with scores within the stated bound;
    also in an index whose digest includes the precision, as older ones have it."""
    dogs = sorted(SOUNDS.glob("scratch-dog*.ogg"))[:3] + sorted(SOUNDS.glob("scratch-cat*.ogg"))[:2]
    assert run(["convert", str(tiny_model), "--to", "onnx"]) == 0  # into this home, for the runtime below
    built = Library.open(tmp_path / "index", tiny_model, precision="bf16", device="cpu", runtime="torch")
    built.add(dogs)
    if is_old:
        file = tmp_path / "index" / "index.json"
        facts = json.loads(file.read_text(encoding="utf-8"))
        digest = facts["identity"]["digest"]
        facts["identity"]["digest"] = hashlib.sha256(f"{digest} bf16".encode()).hexdigest()
        file.write_text(json.dumps(facts), encoding="utf-8")
        built = Library.open(tmp_path / "index", device="cpu")
        assert built.add(dogs).unchanged == len(dogs)
    for options in (
        {"precision": "fp32", "runtime": "onnx"},
        {"precision": "fp32", "runtime": "torch"},
        {"precision": "auto"},
    ):
        other = Library.open(tmp_path / "index", device="cpu", **options)  # type: ignore[arg-type]
        queries = [library.embedder.embed_audio(dogs) for library in (built, other)]
        assert (queries[0] * queries[1]).sum(axis=1).min() >= 0.999
        for query in ("a dog barking", "a cat"):
            expected, found = ({hit.path: hit.score for hit in each.search(query, 5)} for each in (built, other))
            assert found == pytest.approx(expected, abs=0.02)
        [hit] = other.similar(dogs[0], 1)
        assert hit.path == built.similar(dogs[0], 1)[0].path


def test_without_torch_an_index_is_searched_in_fp32(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dogs = sorted(SOUNDS.glob("scratch-dog*.ogg"))[:2]
    assert run(["convert", str(tiny_model), "--to", "onnx"]) == 0
    Library.open(tmp_path / "index", tiny_model, precision="bf16", device="cpu").add(dogs)
    monkeypatch.setattr("openclap.runtimes.has", lambda package: False)
    library = Library.open(tmp_path / "index")
    assert library.embedder.runtime.name == "onnxruntime fp32" and len(library.search("a dog", 5)) == 2
    with raises_naming(IndexMismatchError, tmp_path / "index", "bf16", "fp32"):
        library.update()


def test_a_new_index_has_the_bundled_model(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "index"):
        Library.open(tmp_path / "index", create=False)
    assert not (tmp_path / "index").exists()
    assert Library.open(tmp_path / "index").index.identity.model == "mini"
    assert Library.open(tmp_path / "index", create=False).embedder.runtime.name == "onnxruntime fp32"


def test_a_new_sound_is_opened_and_decoded_once(
    tiny_model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library.open(tmp_path / "index", tiny_model)
    decoded: list[str] = []
    decode = io_of_audio.decode_stream

    def count(file: BinaryIO, stream: EncodedStream, name: str) -> Iterator[AudioBlock]:
        decoded.append(name)
        return decode(file, stream, name)

    def refuse(*_: object) -> None:
        raise AssertionError("a small file was opened again")

    monkeypatch.setattr(io_of_audio, "decode_stream", count)
    monkeypatch.setattr(opened, "_File", refuse)
    assert library.add([sounds]).added == 6
    assert sorted(decoded) == sorted(path.name for path in sounds.glob("*.wav"))
    monkeypatch.undo()
    for row in library.index._rows(["true"]):
        assert (row.duration_s, row.rate, row.channels) == io_of_audio.describe(row.path)


def test_a_large_sound_is_read_from_its_file(
    tiny_model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Library.open(tmp_path / "small", tiny_model)
    assert small.add([sounds]).added == 6
    monkeypatch.setattr(scan, "READ_WHOLE", 1000)
    large = Library.open(tmp_path / "large", tiny_model)
    assert large.add([sounds]).added == 6
    assert large.index._rows(["true"]) == small.index._rows(["true"])
    assert large.search("low", 6) == small.search("low", 6)


def test_an_index_is_opened_once(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Library.open(tmp_path / "index", tiny_model)
    opened: list[str] = []
    connect = lancedb.connect
    monkeypatch.setattr(
        lancedb, "connect", lambda place, **options: (opened.append(place), connect(place, **options))[1]
    )
    Library.open(tmp_path / "index")
    Library.open(tmp_path / "index", tiny_model)
    assert len(opened) == 2


MEASURED = """
import resource, sys
from openclap.cli import run
assert run(["index", "add", sys.argv[1], "--index", sys.argv[2], "--model", sys.argv[3]]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_mp3(path: Path, minutes: float, repeats: int) -> Path:
    """Frames of a noise of some minutes, over and over, without a header that counts them."""
    rate = 16000
    wave = 0.1 * np.random.default_rng(0).standard_normal(int(60 * minutes * rate)).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("mp3", rate=rate, layout="mono")
        stream.bit_rate = 32000
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with path.open("wb") as out:
        for _ in range(repeats):
            out.write(file.getvalue())
    return path


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_ten_hours_of_mp3_are_indexed_in_bounded_memory(tmp_path: Path) -> None:
    """With embeddings of 512 numbers every 2.3 s, as of the demo's model, but networks that are quicker."""
    preset = replace(TINY_PRESET, embedding_size=512, frontend=replace(TINY_PRESET.frontend, samples=36800))
    openclap_folder.save(tmp_path / "model", build_clap(preset), preset, tiny_tokenizer())
    peaks_mb = []
    for name, minutes, repeats in (("seconds", 1 / 6, 1), ("hours", 1, 600)):
        sound = write_mp3(tmp_path / f"{name}.mp3", minutes, repeats)
        words = [sys.executable, "-c", MEASURED, sound, tmp_path / f"{name}.index", tmp_path / "model"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks_mb.append(int(done.stdout.splitlines()[-1]) / 1024)
        [row] = Index.open(tmp_path / f"{name}.index")._rows(["true"])
        assert row.duration_s == pytest.approx(60 * minutes * repeats, rel=0.01)
    assert peaks_mb[1] - peaks_mb[0] < 100, peaks_mb
