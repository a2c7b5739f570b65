"""Splits by the names of folders and files."""

from __future__ import annotations

import pytest

from openclap.sources.split_names import split_of, split_of_folders


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/validation-00000-of-00001-0123456789abcdef.parquet", "valid"),
        ("dev/0.tar", "valid"),
        ("train/test/0.tar", "test"),
        ("training_set/evaluation notes.wav", "train"),
        ("my_test_0.csv", "test"),
        ("restrained/contest.wav", None),
        ("0.tar", None),
    ],
)
def test_split_words_between_separators(path: str, split: str | None) -> None:
    assert split_of(path) == split


def test_split_from_folders_of_audio() -> None:
    assert split_of_folders("dev/horns/freight train.wav") == "valid"
    assert split_of_folders("train.wav") is None
