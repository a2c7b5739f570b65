from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import ClapFeatureExtractor, ClapProcessor

from openclap.checkpoints import detect, huggingface
from openclap.errors import CheckpointError
from support.errors import raises_naming
from support.tiny_models import tiny_clap_model, tiny_roberta_tokenizer


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    huggingface.write(tiny_clap_model(), tmp_path / "hf")
    return tmp_path / "hf"


def test_front_end_is_read_from_the_processor_file_of_transformers_5(hf: Path) -> None:
    """transformers 5 saves a processor as one file."""
    extractor = ClapFeatureExtractor(
        sampling_rate=16000, frequency_min=0, frequency_max=8000, hop_length=160, fft_window_size=512, max_length_s=5
    )
    huggingface.write(replace(tiny_clap_model(), tokenizer=tiny_roberta_tokenizer(hf.parent / "tokenizer.json")), hf)
    tokenizer = ClapProcessor.from_pretrained(hf).tokenizer
    (hf / "preprocessor_config.json").unlink()
    ClapProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(hf)
    assert (hf / "processor_config.json").is_file() and not (hf / "preprocessor_config.json").exists()
    found = detect.read(hf).preset.frontend
    assert (found.mel.rate, found.mel.hop, found.mel.n_fft, found.samples) == (16000, 160, 512, 80000)
    assert (found.mel.f_min, found.mel.f_max) == (0.0, 8000.0)


@pytest.mark.parametrize(
    ("edit", "values"),
    [
        (lambda c: c.update(projection_hidden_act="gelu"), ("projection_hidden_act", "gelu", "relu")),
        (lambda c: c["audio_config"].update(hidden_act="relu"), ("audio_config.hidden_act", "relu", "gelu")),
        (lambda c: c["audio_config"].update(layer_norm_eps=1e-2), ("audio_config.layer_norm_eps", "0.01")),
        (lambda c: c["audio_config"].update(patch_stride=[2, 4]), ("audio_config.patch_stride",)),
        (lambda c: c["audio_config"].update(mlp_ratio=2.0), ("audio_config.mlp_ratio", "2.0")),
        (lambda c: c["audio_config"].update(qkv_bias=False), ("audio_config.qkv_bias", "False")),
    ],
)
def test_unsupported_settings_of_a_clap_config_are_refused(
    hf: Path, edit: Callable[[dict[str, Any]], Any], values: tuple[str, ...]
) -> None:
    config = json.loads((hf / "config.json").read_text(encoding="utf-8"))
    edit(config)
    (hf / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with raises_naming(CheckpointError, *values):
        detect.read(hf)


def test_model_that_would_read_back_differently_is_refused(tmp_path: Path) -> None:
    whole = tiny_clap_model().preset
    frontend, mel, text = whole.frontend, whole.frontend.mel, whole.text
    for changes, values in (
        ({"frontend": replace(frontend, samples=120000)}, ("frontend.samples", 120000, 96000)),
        (
            {"frontend": replace(frontend, mel=replace(mel, scale="htk", norm="none"))},
            ("frontend.mel.norm", "none", "area"),
        ),
        ({"frontend": replace(frontend, antialias=True)}, ("frontend.antialias", True)),
        ({"text": replace(text, context=32)}, ("text.context", 32, 77)),
        ({"text": replace(text, tokenizer=None)}, ("text.tokenizer", None, "roberta-base")),
    ):
        with raises_naming(CheckpointError, "ClapModel", *values):
            huggingface.write(tiny_clap_model(**changes), tmp_path / "hf")
    assert not any(tmp_path.iterdir())
    own = replace(
        tiny_clap_model(text=replace(text, tokenizer=None)),
        tokenizer=tiny_roberta_tokenizer(tmp_path / "tokenizer.json"),
    )
    assert huggingface.write(own, tmp_path / "hf").changed == ("frontend.int16 True (it would read back as False)",)


def test_other_rate_and_length_survive_the_round_trip(tmp_path: Path) -> None:
    whole = tiny_clap_model().preset
    mel = replace(whole.frontend.mel, rate=16000, hop=160, n_fft=512, f_max=8000.0)
    frontend = replace(whole.frontend, mel=mel, samples=80000, int16=False)
    assert huggingface.write(tiny_clap_model(frontend=frontend), tmp_path / "hf").changed == ()
    assert detect.read(tmp_path / "hf").preset.frontend == frontend
