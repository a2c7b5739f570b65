"""`openclap embed`: what it writes, and going on after it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow.parquet
import pytest
import soundfile

import openclap
from openclap import embedder
from openclap.cli import run
from openclap.cli.resumable_output import resumable_rows
from openclap.embedder import Embedder
from openclap.errors import DataError
from openclap.search.walk import Stamp
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

    def noted(self: Embedder, sounds: list[Any], *sizes: int, **options: Any) -> Iterator[Any]:
        names.extend(Path(sound).name for sound in sounds)
        return real(self, sounds, *sizes, **options)

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
    from openclap.cli import run
    from openclap.cli import resumable_output

    real, done = resumable_output.ResumableRows.add, []

    def add(self, *fields):
        real(self, *fields)
        done.append(fields)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    resumable_output.ResumableRows.add = add
    run(sys.argv[1:])
"""


def test_a_kill_costs_no_finished_file(
    embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path, read: list[str]
) -> None:
    output, part = tmp_path / "v.parquet", tmp_path / "v.parquet.part"
    words = ["embed", str(sounds), "-o", str(output), "--model", str(tiny_model)]
    child = [sys.executable, "-c", textwrap.dedent(KILLED), *words]
    assert subprocess.run(child, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert part.is_dir() and not output.exists()
    with (part / "rows.jsonl").open("ab") as rows:
        rows.write(b'{"path": "torn')  # a line that the kill cut
    code, said = embed(sounds, "-o", output)
    assert code == 0 and "Resuming: 3 of 6 files are done." in said
    assert read == ["low-3.wav", "noise-2.wav", "noise-5.wav"] and not part.exists()
    assert embed(sounds, "-o", tmp_path / "whole.parquet")[0] == 0
    resumed, whole = (polars.read_parquet(place) for place in (output, tmp_path / "whole.parquet"))
    assert resumed["path"].equals(whole["path"])
    np.testing.assert_allclose(resumed["vector"].to_numpy(), whole["vector"].to_numpy(), atol=1e-5)  # other batches


def test_ctrl_c_says_how_to_go_on(
    embed: Call, sounds: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Embedder.embed_each

    def interrupted(self: Embedder, paths: list[str], *sizes: int, **options: Any) -> Iterator[Any]:
        yield from real(self, paths[:2], *sizes, **options)
        raise KeyboardInterrupt

    output, part = tmp_path / "v.npy", tmp_path / "v.npy.part"
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_each", interrupted)
        code, said = embed(sounds, "-o", output)
    assert code == 130 and f"2 files are done and saved in {part}. Run the same command" in said
    read.clear()
    assert embed(sounds, "-o", output)[0] == 0
    assert len(read) == 4 and len(np.load(output)) == 6 and not part.exists()


def stop_after_two(embed: Call, sounds: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a part with two files."""
    real = Embedder.embed_each

    def full(self: Embedder, paths: list[str], *sizes: int, **options: Any) -> Iterator[Any]:
        yield from real(self, paths[:2], *sizes, **options)
        raise OSError(28, "No space left on device", str(output))

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed_each", full)
        code, said = embed(sounds, "-o", output)
    assert code == 2 and "No space left" in said


def test_changed_files_are_embedded_again(
    embed: Call, sounds: Path, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "v.npy"
    stop_after_two(embed, sounds, output, monkeypatch)
    first, second = sorted(sounds.glob("*.wav"))[:2]
    os.utime(second, ns=(1, 1))
    read.clear()
    assert embed(sounds, "-o", output)[0] == 0
    assert first.name not in read and second.name in read and len(read) == 5


def test_another_model_or_option_deletes_no_rows(
    embed: Call, tiny_model: Path, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, other = openclap.load(tiny_model), tmp_path / "other"
    changed.clap.audio_head[0].weight.data *= 2
    changed.save(other)
    for name, words, what in (
        ("a.npy", ["--model", other], "the model"),
        ("b.npy", ["--windows"], "windows"),
        ("c.npy", ["--precision", "bf16"], "precision"),
    ):
        stop_after_two(embed, sounds, tmp_path / name, monkeypatch)
        rows = (tmp_path / f"{name}.part" / "rows.jsonl").read_bytes()
        code, said = embed(sounds, "-o", tmp_path / name, *words)
        assert code == 2
        check_refusal(said, tmp_path / f"{name}.part", "2 finished files", what)
        assert (tmp_path / f"{name}.part" / "rows.jsonl").read_bytes() == rows
        code, said = embed(sounds, "-o", tmp_path / name)
        assert code == 0 and "Resuming: 2 of 6" in said and not (tmp_path / f"{name}.part").exists()


def test_windows_resume(embed: Call, sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, real = tmp_path / "v.npy", embedder.blocks

    def interrupt() -> Any:
        raise KeyboardInterrupt
        yield

    def interrupted(sound: Any, *rest: Any) -> Any:
        made = real(sound, *rest)
        if Path(str(sound)).name == "noise-2.wav":
            made._blocks = interrupt()
        return made

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "blocks", interrupted)
        code, said = embed(sounds, "-o", output, "--windows", "--batch-size", 1)
    assert code == 130 and "4 files are done" in said
    code, said = embed(sounds, "-o", output, "--windows", "--batch-size", 1)
    assert code == 0 and "Resuming: 4 of 6" in said
    assert embed(sounds, "-o", tmp_path / "whole.npy", "--windows", "--batch-size", 1)[0] == 0
    for end in (".npy", ".npy.json"):
        assert (tmp_path / f"v{end}").read_bytes() == (tmp_path / f"whole{end}").read_bytes()


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


def test_finished_rows_are_removed_before_the_lock_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, refused = tmp_path / "v.npy", []
    real = shutil.rmtree

    def late(folder: Path, **options: Any) -> None:
        with pytest.raises(DataError, match="another process"), resumable_rows(output, {}):
            pass
        refused.append(folder)
        real(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", late)
    with resumable_rows(output, {}) as part:
        part.add("a.wav", Stamp(1, 1), np.ones(2, np.float32))
        part.is_written = True
    assert refused == [tmp_path / "v.npy.part"] and not refused[0].exists()


KEPT = {
    "own.parquet",
    "own.npy",
    "page.parquet",
    "page.npy",
    "note.npy.part",
    "busy.npy.part/letter",
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
        ([sounds, "-o", mine / "note.npy"], "unfinished embeddings"),
        ([sounds, "-o", mine / "list.npy"], "list.npy.json: exists"),
        ([sounds, "-o", mine / "deep.npy"], "deep.npy.json: exists"),
        (["https://example.com/a.wav", "-o", new], "https:/example.com/a.wav: is a URL"),
        (["-", "-o", new], "Standard input is not read"),
        ([sounds, "-o", new, "--windows", "--length-s", "1e305"], "at least one sample"),
        ([sounds, "-o", new, "--device", "meta"], "Expected: cpu"),
        ([sounds, "-o", mine / "busy.npy"], "unfinished embeddings"),
        ([tmp_path / "none.wav", "-o", new], "no such file or folder"),
        ([tmp_path / "empty", "-o", new], "there is no sound in this folder"),
        ([sounds, "-o", new, "--hop-s", "1"], "--windows"),
        ([sounds, "-o", new, "--windows", "--hop-s", "0"], "at least one sample"),
        ([sounds, "-o", new, "--windows", "--length-s", "nan"], "at least one sample"),
        ([sounds, "-o", new, "--precision", "fp7"], "precision"),
        ([sounds, "-o", new, "--batch-size", "0"], "batch_size"),
        ([sounds, "-o", new, "--windows", "--batch-size", "0"], "batch_size"),
    ]:
        code, said = embed(*words)
        assert code == 2 and what in said, (words, said)
        assert said.startswith("openclap: ") and len(said.splitlines()) == 1, said
    left = {str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file()}
    assert left == KEPT


def test_a_second_process_is_refused(embed: Call, sounds: Path, tmp_path: Path) -> None:
    from openclap.locks import only_writer

    part = tmp_path / "v.npy.part"
    part.mkdir()
    with only_writer(part):
        code, said = embed(sounds, "-o", tmp_path / "v.npy")
    assert code == 2 and "another process" in said
    assert embed(sounds, "-o", tmp_path / "v.npy")[0] == 0 and not part.exists()


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
        shutil.copy(tmp_path / "phone.wav", tmp_path / f"{name}.wav")
    code, said = embed(tmp_path, "-o", tmp_path / "many.npy")
    assert code == 0 and said.count("cancel each other") == 20 and "… and 3 more such notes." in said
