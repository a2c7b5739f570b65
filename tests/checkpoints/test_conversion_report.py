from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openclap import presets
from openclap.checkpoints.conversion_report import setting_changes
from openclap.errors import CheckpointError
from support.errors import raises_naming

LAION = presets.PRESETS["htsat-tiny-roberta"]


def sized(**sizes: Any) -> presets.Preset:
    return replace(LAION, text=replace(LAION.text, sizes=dict(LAION.text.sizes) | sizes))


def test_equal_models_have_no_changes() -> None:
    again = replace(sized(hidden_act="gelu"), name="other", temperatures=1, transforms=False)
    assert setting_changes(LAION, again, "it") == ()
    assert setting_changes(LAION, replace(again, audio=replace(LAION.audio, classes=0)), "it") == ()


def test_small_changes_are_reported() -> None:
    again = replace(sized(layer_norm_eps=1e-12), frontend=replace(LAION.frontend, int16=False))
    assert setting_changes(LAION, again, "it") == (
        "frontend.int16 True (it would read back as False)",
        "text.sizes.layer_norm_eps 1e-05 (it would read back as 1e-12)",
    )


@pytest.mark.parametrize(
    ("again", "values"),
    [
        (replace(LAION, frontend=replace(LAION.frontend, samples=240000)), ("frontend.samples", 480000, 240000)),
        (
            replace(LAION, frontend=replace(LAION.frontend, mel=presets.MINI.frontend.mel)),
            ("frontend.mel.hop", 480, 1024),
        ),
        (replace(LAION, audio=presets.HTSAT_BASE), ("audio.width", 96, 128)),
        (replace(LAION, audio=presets.PANN_14), ("audio.tower", "htsat", "pann")),
        (replace(LAION, text=presets.BERT), ("text.model_type", "roberta", "bert")),
        (replace(LAION, text=replace(LAION.text, pooling="mean")), ("text.pooling", "pooler", "mean")),
        (
            replace(LAION, text=replace(LAION.text, tokenizer="me/words")),
            ("text.tokenizer", "roberta-base", "me/words"),
        ),
        (sized(layer_norm_eps=1e-3), ("text.sizes.layer_norm_eps", "1e-05", "0.001")),
        (sized(hidden_act="relu"), ("text.sizes.hidden_act", "gelu", "relu")),
    ],
)
def test_large_change_is_refused(again: presets.Preset, values: tuple[object, ...]) -> None:
    with raises_naming(CheckpointError, "htsat-tiny-roberta", *values):
        setting_changes(LAION, again, "it")


def test_ignored_settings_are_not_compared() -> None:
    again = replace(LAION, text=replace(LAION.text, tokenizer=None))
    assert setting_changes(LAION, again, "it", ignore=("text.tokenizer",)) == ()
