"""Suites of TOML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclap.errors import ConfigError
from openclap.evals.runner import run_suite
from openclap.evals.suites import read_suite
from openclap.evals.tasks import Task
from support.errors import raises_naming
from support.evals_helpers import cached


def test_a_suite_file_describes_tasks(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("bell\tthe bell\ndog\na big cat\t\nrain\twolf howling\nwolf\n")
    (tmp_path / "suite.toml").write_text(
        """
        [[task]]
        name = "genres as classes"
        kind = "zero_shot"
        source = "classes"
        folder = "gtzan/genres"
        templates = ["This is a sound of {}.", "the noise of {}"]
        classes = "words.txt"

        [[task]]
        name = "few"
        kind = "few_shot"
        source = "esc50"
        folder = "esc50"
        folds = 5

        [[task]]
        name = "folds"
        kind = "probe"
        source = "esc50"
        folder = "esc50"
        folds = 5
        """
    )
    tasks = read_suite(tmp_path / "suite.toml")
    result = run_suite("mine", tasks, [cached(tiny_model, tmp_path)], sets)
    assert result.skipped == {} and {row.task for row in result.rows} == {"genres as classes", "few", "folds"}
    notes = " ".join(sentence for _, sentence in result.notes)
    assert "1 of 5 classes have no clip here: a big cat." in notes and "Logistic regression with C = " in notes
    (tmp_path / "words.txt").write_text("bells\ndog\n")
    result = run_suite("mine", tasks[:1], [cached(tiny_model, tmp_path)], sets)
    assert "3 labels of genres as classes are not in it: bell, rain, wolf" in result.skipped["genres as classes"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ["[[task]]"]),
        ("[[task]", ["TOML"]),
        ('[[task]]\nname = "a"\nkind = "zero_shot"', ["no source"]),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nwords = 1', ["words"]),
        ('[[task]]\nname = "a"\nkind = "guess"\nsource = "esc50"', ["kind", "'guess'"]),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc51"', ["source", "'esc51'"]),
        ('[[task]]\nname = "a"\nkind = "probe"\nsource = "esc50"', ["`train`", "`folds`"]),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\ntemplate = "x"', ["templates", "{}"]),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\n' * 2, ["'a'"]),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nclasses = 3',
            ["classes", 3],
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\ntemplates = 5',
            ["templates", 5],
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nfolds = "five"',
            ["folds", "'five'"],
        ),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nepochs = true',
            ["epochs", True],
        ),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nprobe = ["mlp"]', ["probe"]),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\nfolders = "x"',
            ["folders", "'x'"],
        ),
        ('[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\noptions = 3', ["options", 3]),
        (
            '[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "esc50"\noptions = {foo = 1}',
            ["options", "esc50", "foo"],
        ),
        ("task = [1]", ["task 1"]),
    ],
)
def test_an_invalid_suite_file_is_refused(tmp_path: Path, text: str, values: list[object]) -> None:
    (tmp_path / "suite.toml").write_text(text)
    with raises_naming(ConfigError, tmp_path / "suite.toml", *values):
        read_suite(tmp_path / "suite.toml")
    with raises_naming(ConfigError, tmp_path / "none"):
        read_suite(tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ('template = ["a {}", "b {}"]', 'template is a list; write templates = ["a {}", "b {}"].'),
        ('folder = ["x"]', 'folder is a list; write folders = ["x"].'),
        ('templates = "a {}"', 'expected a list of texts. Write templates = ["a {}"].'),
    ],
)
def test_a_list_for_a_single_value_suggests_the_plural_key(tmp_path: Path, line: str, advice: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[[task]]\nname = "a"\nkind = "zero_shot"\nsource = "table"\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_suite(file)
    assert str(error.value).endswith(advice)


def test_the_suite_in_the_guide_is_the_demo_suite() -> None:
    root = Path(__file__).parents[2]
    suite = (root / "src" / "openclap" / "demo" / "suite.toml").read_text(encoding="utf-8")
    assert f"```toml\n{suite}```" in (root / "docs" / "howto" / "evaluate.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "ignored", [{"split": "valid"}, {"valid": "valid"}, {"folds": 5}, {"folders": ("a",)}, {"train": "other"}]
)
def test_attributes_of_published_sets_are_refused_for_a_collection(ignored: dict[str, object]) -> None:
    with raises_naming(ConfigError, *ignored):
        Task(**({"name": "mine", "kind": "probe", "source": "collection", "train": "train"} | ignored))  # type: ignore[arg-type]
