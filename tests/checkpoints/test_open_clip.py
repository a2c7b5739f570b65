"""Read and write open_clip's CLAP models: folders, training checkpoints, options, older patch order, bad input."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import openclap
from openclap import presets
from openclap.checkpoints import detect, laion, open_clip, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint, empty_network
from openclap.checkpoints.open_clip_config import read_config, write_config
from openclap.cli import run
from openclap.errors import CheckpointError, CheckpointWarning, ConfigError
from openclap.interop.conversion import convert
from support.errors import check_refusal, raises_naming
from support.open_clip import CONFIG, WEIGHTS, captions, config, golden, keys, state, write_folder
from support.reference import state as laion_state
from support.reference import wave

PATCHES = "audio.encoder.vit.embeds.proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("models") / "tiny", "tiny")


def unit(model: openclap.Embedder) -> np.ndarray:
    return model.embed_audio([(wave("s1", 48000), 48000)])[0]


def close(ours: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def edited(model: str, part: str = "audio_cfg", **options: Any) -> dict[str, Any]:
    """A `model_cfg` with other options in one of its parts."""
    model_cfg = json.loads(json.dumps(config(model)["model_cfg"]))
    target = model_cfg if part == "" else model_cfg["audio_cfg"] if part == "naflexvit_cfg" else model_cfg[part]
    target = target["naflexvit_cfg"] if part == "naflexvit_cfg" else target
    target.update(options)
    return model_cfg


# ---------------------------------------------------------------------------------------------------------------------
# Where the weights are.


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder_is_loaded_with_its_tokenizer(tiny: Path, prefix: str) -> None:
    model = openclap.load(f"{prefix}{tiny}")
    close(unit(model), golden("tiny")["unit_s1"])
    close(model.embed_audio([(wave("s37.3", 1790400), 48000)])[0], golden("tiny")["unit_s37.3"])
    close(model.embed_text(captions()), golden("tiny")["text_unit"])
    assert "60.00 s" in model.clip_policy and model.window_s == 10


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "epoch_3.pt", "wrapped.pt"])
def test_weights_of_torch_and_of_training_are_loaded(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    tensors = load_file(folder / WEIGHTS)
    prefix = {"epoch_3.pt": "module.", "wrapped.pt": "trainable_module._orig_mod."}.get(name, "")
    content: Any = {f"{prefix}{key}": tensor for key, tensor in tensors.items()}
    if name.endswith(".pt"):
        content = {"epoch": 3, "name": "run", "state_dict": content, "optimizer": {}}
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / name)
    close(unit(openclap.load(folder)), golden("tiny")["unit_s1"])
    if name.endswith(".pt"):  # a file finds the configuration beside it
        close(unit(openclap.load(folder / name)), golden("tiny")["unit_s1"])
        (folder / CONFIG).unlink()
        with raises_naming(CheckpointError, name, CONFIG):
            openclap.load(folder / name)


def test_files_of_transformers_beside_are_not_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    (folder / "config.json").write_text(json.dumps({"model_type": "clap"}))
    save_file({"text_model.weight": torch.zeros(2)}, folder / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        close(unit(openclap.load(folder)), golden("tiny")["unit_s1"])
    (folder / WEIGHTS).unlink()
    with raises_naming(CheckpointError, folder, WEIGHTS, "model.safetensors"):
        openclap.load(folder)


def test_of_two_sets_of_weights_the_safe_one_is_read_and_the_other_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    torch.save({}, folder / "open_clip_pytorch_model.bin")
    with pytest.warns(CheckpointWarning, match=r"open_clip_pytorch_model\.bin"):
        openclap.load(folder)


def test_two_unnamed_sets_of_weights_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    (folder / WEIGHTS).rename(folder / "epoch_1.safetensors")
    (folder / "epoch_2.safetensors").write_bytes((folder / "epoch_1.safetensors").read_bytes())
    with raises_naming(CheckpointError, "epoch_1.safetensors", "epoch_2.safetensors", WEIGHTS):
        openclap.load(folder)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    (folder / WEIGHTS).unlink()
    with raises_naming(CheckpointError, folder, WEIGHTS, CONFIG):
        openclap.load(folder)


def test_weights_in_half_precision_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    save_file({key: tensor.half() for key, tensor in state("tiny").items()}, folder / WEIGHTS)
    model = openclap.load(folder)
    assert next(model.clap.parameters()).dtype == torch.float32
    np.testing.assert_allclose(unit(model), golden("tiny")["unit_s1"], atol=2e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Configuration.


def test_a_contradiction_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny", edited("tiny", patch_time=40))
    with raises_naming(CheckpointError, PATCHES, "(64, 80)", "(64, 160)", CONFIG):
        openclap.load(folder)
    folder = write_folder(tmp_path / "other", "tiny", edited("tiny", "naflexvit_cfg", attn_gated=False))
    with raises_naming(CheckpointError, "audio.encoder.vit.blocks.0.attn.gate.bias", CONFIG):
        openclap.load(folder)


def test_unknown_options_are_named_in_a_warning(tmp_path: Path) -> None:
    model_cfg = edited("tiny", "text_cfg", sparkle=3) | {"glitter": 1}
    folder = write_folder(tmp_path / "model", "tiny", model_cfg)
    with pytest.warns(CheckpointWarning, match=r"glitter, text_cfg\.sparkle"):
        openclap.load(folder)


@pytest.mark.parametrize("kind", ["genlap_cfg", "genlip_cfg"])
def test_generative_models_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "model", "tiny", {**config("tiny")["model_cfg"], kind: {}})
    with raises_naming(CheckpointError, kind):
        openclap.load(folder)


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        ("audio_cfg", "in_chans", 2),
        ("naflexvit_cfg", "rope_type", "mixed"),
        ("naflexvit_cfg", "global_pool", "avg"),
        ("naflexvit_cfg", "class_token", True),
        ("naflexvit_cfg", "num_kv_heads", 2),
        ("naflexvit_cfg", "scale_mlp_norm", True),
        ("text_cfg", "mlp_type", "gelu"),
        ("text_cfg", "norm_type", "layernorm"),
        ("text_cfg", "pos_embed", "learned"),
        ("text_cfg", "pool_type", "max"),
        ("text_cfg", "tiktoken_name", "cl100k_base"),
        ("audio_cfg", "patch_pad_mode", "mirror"),
        ("audio_cfg", "patch_freq", 5),
        ("audio_cfg", "audio_seq_len", 7),
        ("audio_cfg", "model_type", "conformer"),
    ],
)
def test_options_that_no_network_here_has_are_refused(part: str, option: str, value: Any) -> None:
    with raises_naming(CheckpointError, value):
        read_config(edited("tiny", part, **{option: value}), CONFIG)


@pytest.mark.parametrize(
    ("model", "option", "value"),
    [
        ("naflexclap_test", "text_arch", "recurrent"),
        ("naflexclap_test", "pool_type", "last"),
        ("htsat-tiny-roberta", "hf_model_name", "t5-base"),
        ("htsat-tiny-roberta", "hf_pooler_type", "max_pooler"),
        ("htsat-tiny-roberta", "hf_proj_type", "conv"),
    ],
)
def test_text_towers_that_are_not_here_are_refused(model: str, option: str, value: str) -> None:
    with raises_naming(CheckpointError, value, CONFIG):
        read_config(edited(model, "text_cfg", **{option: value}), CONFIG)


@pytest.mark.parametrize(("part", "option"), [("", "embed_dim"), ("audio_cfg", "patch_freq"), ("text_cfg", "width")])
def test_a_missing_size_is_named(part: str, option: str) -> None:
    with raises_naming(CheckpointError, option, CONFIG):
        read_config(edited("tiny", part, **{option: None}), CONFIG)


def test_a_part_that_is_no_object_is_named() -> None:
    with raises_naming(CheckpointError, "text_cfg", "roberta"):
        read_config(edited("tiny", "", text_cfg="roberta"), CONFIG)


def test_an_image_model_and_a_damaged_configuration_are_refused(tmp_path: Path) -> None:
    with raises_naming(CheckpointError, "vision_cfg", "audio_cfg"):
        read_config({"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}, CONFIG)
    folder = write_folder(tmp_path / "model", "tiny")
    (folder / CONFIG).write_text("{")
    with raises_naming(CheckpointError, CONFIG):
        openclap.load(folder)


@pytest.mark.parametrize("model", ["tiny", "tiny-causal", "naflexclap_test", "htsat-tiny-roberta"])
def test_a_written_configuration_reads_back_as_the_same_preset(model: str) -> None:
    preset = read_config(config(model)["model_cfg"], CONFIG).preset
    for same in (preset, replace(preset, unit_audio=True)):
        assert read_config(write_config(same), CONFIG).preset == same


def test_pre_norm_of_the_audio_means_a_unit_vector_before_the_projection(tmp_path: Path) -> None:
    plain = openclap.load(write_folder(tmp_path / "plain", "tiny-causal"))
    folder = write_folder(tmp_path / "normed", "tiny-causal", edited("tiny-causal", pre_norm=True))
    normed = openclap.load(folder)
    pooled = torch.from_numpy(golden("tiny-causal")["pooled_s1"])
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(plain.clap.audio_head(pooled / pooled.norm()), dim=-1)
    close(unit(normed), expected.numpy())


def test_the_activation_of_the_audio_head_is_gelu_unless_relu_is_asked_for(tmp_path: Path) -> None:
    preset = read_config(config("tiny")["model_cfg"], CONFIG).preset
    assert preset.audio_head == "mlp_gelu"
    assert read_config(edited("tiny", proj_act="relu"), CONFIG).preset.audio_head == "mlp_relu"
    assert read_config(config("htsat-tiny-roberta")["model_cfg"], CONFIG).preset.audio_head == "mlp_relu"


# ---------------------------------------------------------------------------------------------------------------------
# The bias of logits.


def test_a_missing_bias_is_zero_and_a_surplus_one_is_used(tmp_path: Path) -> None:
    asked = write_folder(tmp_path / "asked", "tiny", config("tiny-siglip")["model_cfg"])
    assert detect.read(asked).objective == {"bias": torch.tensor(0.0)}
    surplus = write_folder(tmp_path / "surplus", "tiny")
    save_file({**state("tiny"), "logit_bias": torch.tensor([-7.0])}, surplus / WEIGHTS)
    assert detect.read(surplus).objective == {"bias": torch.tensor(-7.0)}
    assert detect.read(write_folder(tmp_path / "none", "tiny")).objective == {}


def test_a_scale_of_one_element_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", "tiny")
    save_file({**state("tiny"), "logit_scale": torch.tensor([1.5])}, folder / WEIGHTS)
    assert detect.read(folder).weights["logit_scale"].shape == ()


# ---------------------------------------------------------------------------------------------------------------------
# The order of elements within a patch.


def legacy(tensor_DP: torch.Tensor) -> torch.Tensor:
    """A patch projection with frequency as the fastest element."""
    return tensor_DP.reshape(-1, 4, 20).permute(0, 2, 1).reshape(-1, 80).contiguous()


@pytest.fixture
def old_model(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "old", "tiny")
    tensors = state("tiny")
    save_file({**tensors, PATCHES: legacy(tensors[PATCHES])}, folder / WEIGHTS)
    return folder


def test_the_older_patch_order_is_converted(old_model: Path, tmp_path: Path) -> None:
    # Loaded as it is, it gives other embeddings without any complaint.
    assert abs(unit(openclap.load(old_model)) - golden("tiny")["unit_s1"]).max() > 0.01
    words = ["convert", str(old_model), str(tmp_path / "new"), "--to", "open-clip", "--patch-order", "legacy"]
    assert run(words) == 0
    assert torch.equal(load_file(tmp_path / "new" / WEIGHTS)[PATCHES], state("tiny")[PATCHES])
    close(unit(openclap.load(tmp_path / "new")), golden("tiny")["unit_s1"])
    # What was converted says so, and is not converted twice.
    with raises_naming(ConfigError, WEIGHTS, "canonical"):
        convert(tmp_path / "new", tmp_path / "again", "open-clip", patch_order="legacy")


def test_a_checkpoint_that_states_its_order_is_read_in_it(old_model: Path, tmp_path: Path) -> None:
    save_file(load_file(old_model / WEIGHTS), old_model / WEIGHTS, metadata={open_clip.LAYOUT: "legacy"})
    close(unit(openclap.load(old_model)), golden("tiny")["unit_s1"])
    trained = write_folder(tmp_path / "trained", "tiny")
    (trained / WEIGHTS).unlink()
    torch.save({"state_dict": state("tiny"), open_clip.LAYOUT: "canonical"}, trained / "epoch_1.pt")
    with raises_naming(ConfigError, "epoch_1.pt", "canonical"):
        convert(trained, tmp_path / "new", "openclap", patch_order="legacy")


def test_other_models_have_no_patch_order() -> None:
    model = Checkpoint("laion", presets.laion(presets.HTSAT_TINY), {})
    with raises_naming(ConfigError, "--patch-order"):
        open_clip.from_legacy_order(model)


# ---------------------------------------------------------------------------------------------------------------------
# Write.


@pytest.mark.parametrize(
    "model",
    [
        *("tiny", "tiny-siglip", "tiny-causal", "naflexclap_test"),
        pytest.param("whisper-tiny-roberta", marks=pytest.mark.long),
    ],
)
def test_a_written_folder_has_the_names_shapes_and_values_that_open_clip_requires(tmp_path: Path, model: str) -> None:
    source = write_folder(tmp_path / "model", model)
    convert(source, tmp_path / "ours", "openclap")
    convert(tmp_path / "ours", tmp_path / "theirs", "open-clip")
    written, expected = load_file(tmp_path / "theirs" / WEIGHTS), state(model)
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == {n: s for n, s, _ in keys(model)}
    assert [name for name in expected if not torch.equal(written[name], expected[name])] == []
    convert(tmp_path / "theirs", tmp_path / "ours-again", "openclap")
    before, after = openclap_folder.read(tmp_path / "ours"), openclap_folder.read(tmp_path / "ours-again")
    assert before.preset == after.preset
    assert all(torch.equal(after.weights[name], tensor) for name, tensor in before.weights.items())


def test_laions_model_to_open_clip_and_back_is_the_same(tmp_path: Path) -> None:
    whole = laion_state("htsat-tiny+roberta")
    ours = laion.read(whole, "laion")
    losses = open_clip.write(ours, tmp_path / "theirs")
    written = load_file(tmp_path / "theirs" / WEIGHTS)
    assert {n: tuple(t.shape) for n, t in written.items()} == {n: s for n, s, _ in keys("htsat-tiny-roberta")}
    back = detect.read(tmp_path / "theirs")
    left_out = {name for name in ours.weights if name.startswith(("logit_scale_text", "audio_trans", "text_trans"))}
    assert set(losses.left_out) == left_out and losses.untrained == ()
    assert back.weights.keys() == ours.weights.keys() - left_out
    assert all(torch.equal(back.weights[name], ours.weights[name]) for name in back.weights)
    assert back.preset.frontend == replace(ours.preset.frontend, int16=False)
    assert any("int16" in change for change in losses.changed)


def test_parts_that_open_clip_requires_are_added_and_left_out_again(tmp_path: Path) -> None:
    ours = laion.read(laion_state("htsat-tiny+roberta"), "laion")
    losses = open_clip.write(replace(ours, unused={}), tmp_path / "theirs")
    assert losses.untrained == ("audio.encoder.head.weight", "audio.encoder.head.bias")
    assert "audio.encoder.head.weight" in load_file(tmp_path / "theirs" / WEIGHTS)
    assert detect.read(tmp_path / "theirs").unused == {}


def test_models_that_open_clip_does_not_have_are_refused(tmp_path: Path) -> None:
    pann = presets.named("pann-14-roberta")
    narrow = replace(presets.named("htsat-tiny-roberta"), audio=replace(presets.HTSAT_TINY, width=48))
    linear = replace(presets.named("htsat-tiny-roberta"), audio_head="linear")
    for preset in (pann, narrow, linear, presets.named("htsat-tiny-bart")):
        weights = empty_network(preset, "test").state_dict()
        with raises_naming(CheckpointError, preset.name):
            open_clip.write(Checkpoint("openclap", preset, weights), tmp_path / "out")


def test_a_folder_that_openclap_did_not_write_is_not_replaced(tiny: Path, tmp_path: Path) -> None:
    foreign = write_folder(tmp_path / "foreign", "tiny")
    with raises_naming(CheckpointError, foreign):
        convert(tiny, foreign, "open-clip")
    convert(tiny, tmp_path / "own", "open-clip")
    convert(tiny, tmp_path / "own", "open-clip")  # its own output is


def test_other_formats_refuse_the_new_towers(tiny: Path, tmp_path: Path) -> None:
    for to, name in (("hf", "out"), ("laion", "out.pt")):
        with raises_naming(CheckpointError, "modern"):
            convert(tiny, tmp_path / name, to)


# ---------------------------------------------------------------------------------------------------------------------
# The command line.


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path / "home"))
    yield


def test_inspect_describes_the_towers(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(tiny), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["format"] == "open_clip" and facts["audio tower"] == "naflex-64x3-4x20"
    assert facts["text tower"].startswith("modern, 3 layers") and facts["missing"] == []


def test_the_command_line_refuses_a_contradiction_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "model", "tiny", edited("tiny", patch_time=40))
    assert run(["inspect", str(folder)]) == 2
    check_refusal(capsys.readouterr().err, PATCHES, "(64, 80)", "(64, 160)")
