"""`openclap embed`: what it writes, and going on after it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet
import pytest
import soundfile

import openclap
from openclap.cli import run
from openclap.embedder import Embedder
from openclap.locks import open_alone
from openclap.storage import partial_of
from support.errors import check_refusal

Call = Callable[..., tuple[int, str]]
SOUNDS = Path(openclap.__file__).parent / "demo" / "sounds"


@pytest.fixture
def embed(capsys: pytest.CaptureFixture[str], tiny_model: Path) -> Call:
    """Run `openclap embed` with the tiny model: (exit code, what it said)."""

    def call(*words: object) -> tuple[int, str]:
        model = [] if "--model" in words else ["--model", str(tiny_model)]
        code = run(["embed", *map(str, words), *model])
        said = capsys.readouterr()
        assert not said.out
        return code, said.err

    return call


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sounds that are embedded."""
    names: list[str] = []
    real = Embedder.embed_each

    def noted(self: Embedder, sounds: Iterable[Any], *sizes: int, **options: Any) -> Iterator[Any]:
        listed = list(sounds)
        names.extend(Path(sound).name for sound in listed)
        return real(self, listed, *sizes, **options)

    monkeypatch.setattr(Embedder, "embed_each", noted)
    return names


def test_parquet_equals_embed_audio(embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    output, real = tmp_path / "new" / "v.parquet", sorted(SOUNDS.glob("scratch-d*.ogg"))[:4]
    code, said = embed(sounds, *real, "-o", output)
    assert code == 0 and said == f"Wrote 10 vectors of 16 numbers to {output}\n"
    table = polars.read_parquet(output)
    assert table.schema == {"path": polars.String, "vector": polars.Array(polars.Float32, 16)}
    assert table["path"].to_list() == [*map(str, sorted(sounds.glob("*.wav"))), *map(str, real)]
    model = openclap.load(tiny_model)
    np.testing.assert_allclose(table["vector"].to_numpy(), model.embed_audio(table["path"].to_list()), atol=1e-6)
    file = pyarrow.parquet.ParquetFile(output)
    facts = {key.decode(): value.decode() for key, value in file.schema_arrow.metadata.items()}
    assert facts == {
        "openclap.model": str(tiny_model),
        "openclap.digest": model.digest(),
        "openclap.precision": "fp32",
        "openclap.channels": "mean",
        "openclap.trim_silence": "false",
        "openclap.dimension": "16",
        "openclap.windows": "null",
    }
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert sorted(path.name for path in output.parent.iterdir()) == ["v.parquet"]


@pytest.mark.parametrize("cut", [[], ["--length-s", "0.8", "--hop-s", "0.3"]])
def test_windows_are_those_of_python(
    cut: list[str], embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path
) -> None:
    (sounds / "broken.wav").write_bytes(b"RIFF")
    options = {"length_s": float(cut[1]) if cut else None, "hop_s": float(cut[3]) if cut[3:] else None}
    code, said = embed(sounds, "-o", tmp_path / "v.parquet", "--windows", "--batch-size", 4, *cut)
    assert code == 0 and "Skipped 1:" in said and "broken.wav" in said
    model = openclap.load(tiny_model)
    wanted = [
        (str(path), window) for path in sorted(sounds.glob("*[0-9].wav")) for window in model.windows(path, **options)
    ]
    table = polars.read_parquet(tmp_path / "v.parquet")
    assert table.columns == ["path", "start_s", "end_s", "vector"]
    assert [row[:3] for row in table.rows()] == [(path, each.start_s, each.end_s) for path, each in wanted]
    np.testing.assert_allclose(table["vector"].to_numpy(), [each.vector for _, each in wanted], atol=1e-6)
    assert embed(sounds, "-o", tmp_path / "v.npy", "--windows", *cut)[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), table["vector"].to_numpy(), atol=1e-6)
    assert json.loads((tmp_path / "v.npy.json").read_text()) == table.drop("vector").to_dicts()


KILLED = """
    import os, signal, sys
    from openclap import embedding_cache
    from openclap.cli import run

    embedding_cache._WRITE_EVERY_S = 0
    real, done = embedding_cache.EmbeddingCache._add_soon, []

    def add(self, embeddings):
        real(self, embeddings)
        done.append(embeddings)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    embedding_cache.EmbeddingCache._add_soon = add
    run(sys.argv[1:])
"""


def test_a_kill_costs_no_stored_embedding(
    embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path, read: list[str]
) -> None:
    output = tmp_path / "v.parquet"
    words = ["embed", str(sounds), "-o", str(output), "--model", str(tiny_model)]
    child = [sys.executable, "-c", textwrap.dedent(KILLED), *words]
    assert subprocess.run(child, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert not output.exists()
    code, said = embed(sounds, "-o", output)
    assert code == 0 and "3 files of 6 came from the cache." in said
    assert read == ["low-3.wav", "noise-2.wav", "noise-5.wav"]
    assert sorted(path.name for path in tmp_path.glob("*v.parquet*")) == ["v.parquet"]
    resumed = polars.read_parquet(output)
    assert resumed["path"].to_list() == sorted(map(str, sounds.glob("*.wav")))
    whole_ND = openclap.load(tiny_model).embed_audio(resumed["path"].to_list())
    np.testing.assert_allclose(resumed["vector"].to_numpy(), whole_ND, atol=1e-5)  # other batches


def stop_after_two(
    embed: Call, sounds: Path, output: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> tuple[int, str]:
    """Embed two sounds and stop."""
    real = Embedder.embed_each

    def stopped(self: Embedder, paths: Iterator[str], *sizes: int, **options: Any) -> Iterator[Any]:
        yield from real(self, list(islice(paths, 2)), *sizes, **options)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_each", stopped)
        return embed(sounds, "-o", output)


def test_ctrl_c_says_how_to_resume(
    embed: Call, sounds: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "v.npy"
    code, said = stop_after_two(embed, sounds, output, monkeypatch, KeyboardInterrupt())
    assert code == 130 and "2 files are done and cached. Run the same command to resume." in said
    assert list(tmp_path.glob("*v.npy*")) == []
    read.clear()
    assert embed(sounds, "-o", tmp_path / "another.npy")[0] == 0
    assert len(read) == 4 and len(np.load(tmp_path / "another.npy")) == 6


def test_changed_files_are_embedded_again_and_renamed_ones_are_not(
    embed: Call, sounds: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = stop_after_two(embed, sounds, tmp_path / "v.npy", monkeypatch, OSError(28, "No space left", "v.npy"))
    assert code == 2 and "No space left" in said
    first, second = sorted(sounds.glob("*.wav"))[:2]
    first.rename(sounds / "renamed.wav")
    content, before = bytearray(second.read_bytes()), second.stat()
    content[-1] ^= 1
    second.write_bytes(content)
    os.utime(second, ns=(before.st_atime_ns, before.st_mtime_ns))
    read.clear()
    assert embed(sounds, "-o", tmp_path / "v.npy")[0] == 0
    assert "renamed.wav" not in read and second.name in read and len(read) == 5


def test_a_file_that_changes_while_it_is_embedded_is_not_cached(
    embed: Call, sounds: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, changed = Embedder.embed_each, sorted(sounds.glob("*.wav"))[1]

    def changing(self: Embedder, paths: Iterator[str], *sizes: int, **options: Any) -> Iterator[Any]:
        each = real(self, paths, *sizes, **options)
        yield next(each)
        changed.write_bytes(changed.read_bytes() + b"\0")
        yield from each

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_each", changing)
        assert embed(sounds, "-o", tmp_path / "v.npy")[0] == 0
    changed.write_bytes(changed.read_bytes()[:-1])
    read.clear()
    assert embed(sounds, "-o", tmp_path / "v.npy")[0] == 0
    assert read == [changed.name]


def test_another_model_or_option_never_hits(embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path) -> None:
    changed, other = openclap.load(tiny_model), tmp_path / "other"
    changed.clap.audio_head[0].weight.data *= 2
    changed.save(other)
    options: list[list[object]] = [
        [],
        ["--model", other],
        ["--precision", "bf16"],
        ["--channels", "left"],
        ["--trim-silence"],
        ["--windows"],
        ["--windows", "--length-s", "0.25"],
        ["--windows", "--length-s", "0.25", "--hop-s", "0.2"],
    ]
    for number, words in enumerate(options):
        code, said = embed(sounds, "-o", tmp_path / f"{number}.npy", *words)
        assert code == 0 and "from the cache" not in said, words
    for number, words in enumerate(options):
        code, said = embed(sounds, "-o", tmp_path / f"again-{number}.npy", *words)
        assert code == 0 and "6 files of 6 came from the cache." in said, words
        for end in (".npy", ".npy.json"):
            first, again = (tmp_path / f"{name}{number}{end}" for name in ("", "again-"))
            assert first.read_bytes() == again.read_bytes()


def test_outputs_without_a_cache_are_the_same_bytes(
    embed: Call, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def outputs(name: str) -> list[bytes]:
        words: list[list[object]] = [["v.parquet"], ["v.npy"], ["w.parquet", "--windows"]]
        for file, *options in words:
            assert embed(sounds, "-o", tmp_path / f"{name}-{file}", *options)[0] == 0
        return [(tmp_path / f"{name}-{file}").read_bytes() for file, *_ in words]

    monkeypatch.setenv("OPENCLAP_CACHE_SIZE", "0")
    without = outputs("without")
    monkeypatch.delenv("OPENCLAP_CACHE_SIZE")
    assert outputs("new") == without and outputs("cached") == without
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path / "file"))
    assert outputs("nowhere") == without
    assert caplog.text.count("embeddings cannot be cached there") == 1


def test_files_that_cannot_be_decoded_are_skipped(embed: Call, sounds: Path, tmp_path: Path) -> None:
    (sounds / "text.wav").write_text("not a sound", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    code, said = embed(sounds, tmp_path / "none.wav", tmp_path / "empty", "-o", tmp_path / "v.parquet")
    assert code == 0 and "Skipped 3:" in said and "Wrote 6 vectors" in said
    for path in sounds.glob("*.wav"):
        path.write_bytes(b"")
    code, said = embed(sounds, "-o", tmp_path / "w.parquet")
    assert code == 2
    check_refusal(said, "7 files", tmp_path / "w.parquet")
    assert not list(tmp_path.glob("w.parquet*"))


def test_json_describes_the_output(
    sounds: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sounds / "more").mkdir()
    for folder in (sounds, sounds / "more"):
        (folder / "bad.wav").write_bytes(b"")
    output = tmp_path / "v.npy"
    assert run(["embed", str(sounds), "-o", str(output), "--model", str(tiny_model), "--json"]) == 0
    said = capsys.readouterr()
    facts = json.loads(said.out)
    assert facts["output"] == str(output) and facts["names"] == f"{output}.json"
    assert (facts["rows"], facts["files"], facts["dimension"]) == (6, 6, 16)
    bad = [str(sounds / "bad.wav"), str(sounds / "more" / "bad.wav")]
    assert facts["skipped"] == [
        {"path": path, "reason": "the file is empty (0 bytes), expected a sound."} for path in bad
    ]
    assert all(f"  {path}: the file is empty" in said.err for path in bad)  # each told apart from the other


KEPT = {
    "own.parquet",
    "own.npy",
    "page.parquet",
    "page.npy",
    "list.npy.json",
    "deep.npy.json/letter",
}


def test_errors_are_one_sentence_and_change_no_file(embed: Call, sounds: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in KEPT:
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("precious", encoding="utf-8")
    polars.DataFrame({"path": ["a.wav"]}).write_parquet(mine / "own.parquet")  # such as a data set's manifest
    np.save(mine / "own.npy", np.zeros(3))
    (tmp_path / "empty").mkdir()
    new = mine / "v.parquet"
    for words, what in [
        (["-o", new], "requires an argument"),
        ([sounds, "-o", mine / "v.csv"], ".npy or .parquet"),
        ([sounds, "-o", mine], "is a folder"),
        ([sounds, "-o", mine / "page.parquet"], "did not write it"),
        ([sounds, "-o", mine / "own.parquet"], "did not write it"),
        ([sounds, "-o", mine / "own.npy"], "did not write it"),
        ([sounds, "-o", mine / "page.npy"], "did not write it"),
        ([sounds, "-o", mine / "list.npy"], "list.npy.json: exists"),
        ([sounds, "-o", mine / "deep.npy"], "deep.npy.json: exists"),
        (["https://example.com/a.wav", "-o", new], "https:/example.com/a.wav: is a URL"),
        (["-", "-o", new], "Standard input is not read"),
        ([sounds, "-o", new, "--windows", "--length-s", "1e305"], "at least one sample"),
        ([sounds, "-o", new, "--device", "meta"], "Expected: cpu"),
        ([tmp_path / "none.wav", "-o", new], "no such file or folder"),
        ([tmp_path / "empty", "-o", new], "there is no sound in this folder"),
        ([sounds, "-o", new, "--hop-s", "1"], "--windows"),
        ([sounds, "-o", new, "--windows", "--hop-s", "0"], "at least one sample"),
        ([sounds, "-o", new, "--windows", "--length-s", "nan"], "at least one sample"),
        ([sounds, "-o", new, "--precision", "fp7"], "precision"),
        ([sounds, "-o", new, "--batch-size", "0"], "--batch-size"),
        ([sounds, "-o", new, "--windows", "--batch-size", "0"], "--batch-size"),
    ]:
        code, said = embed(*words)
        assert code == 2 and what in said, (words, said)
        assert said.startswith("openclap: ") and len(said.splitlines()) == 1, said
    left = {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()}
    assert left == KEPT


def test_a_second_process_is_refused(embed: Call, sounds: Path, tmp_path: Path) -> None:
    lock = open_alone(partial_of(tmp_path / "v.npy"))
    assert lock is not None
    with lock:
        code, said = embed(sounds, "-o", tmp_path / "v.npy")
    assert code == 2 and "another process is writing" in said
    assert embed(sounds, "-o", tmp_path / "v.npy")[0] == 0
    assert sorted(path.name for path in tmp_path.glob("*v.npy*")) == ["v.npy", "v.npy.json"]


def test_channels_and_silent_ends_are_choices(embed: Call, tiny_model: Path, tmp_path: Path) -> None:
    wave = (0.2 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    both = np.pad(np.stack([wave, -wave], axis=1), ((2000, 1000), (0, 0)))
    soundfile.write(tmp_path / "phone.wav", both, 16000, subtype="FLOAT")
    code, said = embed(tmp_path / "phone.wav", "-o", tmp_path / "mean.npy")
    assert code == 0 and "phone.wav: Its channels cancel each other" in said
    choices = ["--channels", "left", "--trim-silence"]
    code, said = embed(tmp_path / "phone.wav", "-o", tmp_path / "v.parquet", *choices)
    assert code == 0 and "cancel" not in said
    facts = pyarrow.parquet.ParquetFile(tmp_path / "v.parquet").schema_arrow.metadata
    assert facts[b"openclap.channels"] == b"left" and facts[b"openclap.trim_silence"] == b"true"
    [vector] = polars.read_parquet(tmp_path / "v.parquet")["vector"].to_numpy()
    np.testing.assert_allclose(vector, openclap.load(tiny_model).embed_audio([(wave, 16000)])[0], atol=1e-5)
    for name in range(22):
        soundfile.write(tmp_path / f"{name}.wav", (0.9 - 0.01 * name) * both, 16000, subtype="FLOAT")
    code, said = embed(tmp_path, "-o", tmp_path / "many.npy")
    assert code == 0 and said.count("cancel each other") == 20 and "… and 2 more such notes." in said
