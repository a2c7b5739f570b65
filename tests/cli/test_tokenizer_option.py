"""Messages that name an option: the command at hand has it, and it helps; a missing tokenizer is found before long
work."""

from __future__ import annotations

import ast
import pickle
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cyclopts
import pytest

import openclap
from openclap.cli import _sentence, app, run
from openclap.errors import MissingTokenizerError
from openclap.training.config import TrainConfig, option_names
from support.errors import check_refusal

SOURCE = Path(openclap.__file__).parent
OPTION = re.compile(r"(?<![\w-])--([a-z](?:[\w.-]*\w)?)")
READ = ["dataset build", "dataset plan", "finetune", "eval", "score", "index add"]
REACHED = {
    ("checkpoints/open_clip.py", "--patch-order"): ["convert"],
    ("cli/demo.py", "--open"): ["serve"],
    ("cli/index.py", "--watch"): ["index add"],
    ("cli/index.py", "--part"): ["index add"],
    ("sources/recognise.py", "--source"): READ,
    ("sources/recognise.py", "--caption-column"): READ,
    ("data/near_duplicates.py", "--near-duplicates"): ["dataset build", "dataset fetch"],
    ("data/filters.py", "--near-duplicates"): ["dataset build", "dataset fetch"],
    ("data/decode.py", "--retry-failed"): ["dataset fetch"],
    ("data/build.py", "--skip-caption-check"): ["dataset build", "dataset plan", "finetune"],
    ("data/parallel.py", "--part"): ["dataset fetch", "dataset caption", "dataset pack"],
    ("data/parallel.py", "--processes"): [
        "dataset build",
        "dataset fetch",
        "dataset pack",
        "dataset check",
        "finetune",
    ],
    ("training/finetune_config.py", "--validation-fraction"): ["finetune"],
    ("cli/index.py", "--queries"): ["index verify"],
    ("search/duplicates.py", "--judged"): ["duplicates"],
    ("server/service.py", "--matryoshka"): ["serve"],
    ("server/inputs.py", "--fetch-from"): ["serve"],
    ("server/security.py", "--host-name"): ["serve"],
}
"""Options that modules outside of cli name, and the commands that reach such a message."""
OTHERS = ("interop/hear.py", "checkpoints/starts.py", "data/parallel.py", "training/config.py")
"""Modules that name options of other programs, or the user's own words."""
PATTERNS = ("--name", "--help")


@cache
def commands() -> dict[str, cyclopts.App]:
    """Every command by its words."""
    found: dict[str, cyclopts.App] = {}

    def walk(place: cyclopts.App, words: str) -> None:
        names = [name for name in place if not name.startswith("-")]
        for name in names:
            walk(place[name], f"{words} {name}".strip())
        if not names:
            found[words] = place

    walk(app, "")
    return found


@cache
def options_of(command: str) -> set[str]:
    place = commands()[command]
    names = {name for argument in place.assemble_argument_collection() for name in argument.names}
    if command in ("train", "finetune"):
        config = TrainConfig("start", "data", epochs=1, batch_size=2)
        names |= {f"--{name.replace('_', '-')}" for name in option_names(config)}
    return names


def sentences(file: Path) -> Iterator[str]:
    """The texts of a module, but for docstrings; what is computed in them is a gap."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (bare | inner):
            yield node.value


def named(text: str) -> Iterator[tuple[str, list[str]]]:
    """The options that a text names, each with the commands that the text names for it."""
    for match in OPTION.finditer(text):
        before = text[: match.start()]
        spoken = [name for name in commands() if f"openclap {name} " in before or f"Run: {name} " in before]
        yield f"--{match.group(1)}", spoken


def of_module(place: str) -> list[str]:
    """The commands that a module of cli defines."""
    module = "openclap." + place.removesuffix(".py").replace("/", ".")
    return [name for name, one in commands().items() if getattr(one.default_command, "__module__", "") == module]


def test_every_option_that_a_message_names_is_one_of_its_command() -> None:
    wrong, count = [], 0
    for file in SOURCE.rglob("*.py"):
        place = file.relative_to(SOURCE).as_posix()
        for text in sentences(file) if place not in OTHERS else ():
            for option, spoken in named(text):
                count += 1
                meant = REACHED.get((place, option)) or spoken or of_module(place)
                if not meant and place.startswith("cli/"):  # a part that several commands share
                    meant = [name for name in commands() if option in options_of(name)]
                if option not in PATTERNS and not (meant and all(option in options_of(name) for name in meant)):
                    wrong.append((place, option, text, meant))
    assert wrong == [] and count > 40


def test_every_command_that_loads_a_model_takes_a_tokenizer() -> None:
    loading = ("embed", "classify", "score", "fad", "eval", "index add", "search", "similar", "train", "finetune")
    assert [name for name in (*loading, "init", "convert") if "--tokenizer" not in options_of(name)] == []


@pytest.fixture
def bare(tiny_model: Path, tmp_path: Path) -> Path:
    """The small model without its tokenizer."""
    return Path(shutil.copytree(tiny_model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer.json")))


def test_commands_ask_for_the_tokenizer_first_and_take_it(
    bare: Path, tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, index, wave = tmp_path / "shards", tmp_path / "index", sounds / "low-0.wav"
    assert run(["dataset", "build", str(sounds / "sounds.csv"), str(shards), "--test-fraction", "0.4"]) == 0
    assert run(["index", "add", str(sounds), "--index", str(index), "--model", str(bare)]) == 0
    labels = ["--labels", "low,high"]
    cases: dict[str, list[object]] = {
        "search": ["a low tone", "--index", index],
        "score": [wave, "a low tone", "--model", bare],
        "classify": [wave, *labels, "--model", bare],
        "eval": [bare, "--data", shards],
        "finetune": [sounds, "--from", bare, "--out", tmp_path / "tuned", "--epochs", 1, "--processes", 1],
        "train": ["demo", "--out", tmp_path / "run", "--start", bare, "--data", shards / "train", "--batch-size", 2],
    }
    file = tiny_model / "tokenizer.json"
    for name, given in cases.items():
        capsys.readouterr()
        words = [name, *map(str, given)]
        assert run(words) == 2, name
        check_refusal(capsys.readouterr().err, "tokenizer.json", "--tokenizer")
        assert run([*words, "--tokenizer", str(tmp_path / "typo.json")]) == 2
        check_refusal(capsys.readouterr().err, tmp_path / "typo.json", "--tokenizer")
        if name == "finetune":
            assert not (tmp_path / "tuned").exists()  # before anything was packed
        if name not in ("eval", "train"):  # the former below, the latter takes it as the value that finetune sets
            assert run([*words, "--tokenizer", str(file)]) == 0, (name, capsys.readouterr().err)


def test_an_index_remembers_the_tokenizer(
    bare: Path, tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name, given in {"own": [tiny_model], "bare": [bare, "--tokenizer", tiny_model / "tokenizer.json"]}.items():
        index = str(tmp_path / f"index-{name}")
        assert run(["index", "add", str(sounds), "--index", index, "--model", *map(str, given)]) == 0
        capsys.readouterr()
        assert run(["search", "a low tone", "--index", index, "--json"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]


def test_a_suite_of_a_model_without_a_tokenizer_ends_at_once(
    bare: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text(
        f'[[task]]\nname = "mine"\nkind = "zero_shot"\nsource = "table"\nfolder = "{sounds / "sounds.csv"}"\n',
        encoding="utf-8",
    )
    assert run(["eval", str(bare), "--suite", str(tmp_path / "mine.toml")]) == 2
    check_refusal(capsys.readouterr().err, "--tokenizer")


def test_eval_gives_the_tokenizer_to_models_without_one_alone(
    bare: Path, tiny_model: Path, sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, other = tmp_path / "shards", tmp_path / "other.json"
    assert run(["dataset", "build", str(sounds / "sounds.csv"), str(shards), "--test-fraction", "0.4"]) == 0
    text = (tiny_model / "tokenizer.json").read_text(encoding="utf-8")
    other.write_text(text.replace('"low":', '"l0w":'), encoding="utf-8")  # "low" is unknown to it
    outs = []
    for words in ([tiny_model], [tiny_model, "--tokenizer", other], [bare, "--tokenizer", other]):
        capsys.readouterr()
        assert run(["eval", *map(str, words), "--data", str(shards)]) == 0, capsys.readouterr().err
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1]


def test_a_command_without_the_option_says_how_the_model_gets_one() -> None:
    assert "--tokenizer" not in options_of("demo") and "--tokenizer" in options_of("convert")
    error = MissingTokenizerError("There is none.")
    assert _sentence(
        error, "demo "
    ) == "There is none. Give the model one: openclap convert MODEL OUT --to openclap " + ("--tokenizer FILE.")
    assert _sentence(error, "index add ") == "There is none. Pass a tokenizer.json with --tokenizer."
    assert str(error) == "There is none. Pass a tokenizer.json as tokenizer=."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
