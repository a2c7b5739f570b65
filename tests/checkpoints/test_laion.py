from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openclap import presets
from openclap.audio.mel import mel_filterbank
from openclap.checkpoints import audioset, detect, laion, openclap_folder
from openclap.checkpoints.checkpoint import Checkpoint, build_network
from openclap.checkpoints.laion import mel_at_rate
from openclap.checkpoints.laion_untrained import BATCH_COUNTER, initialise_missing
from openclap.errors import CheckpointError
from openclap.models.build import build_clap
from support.errors import raises_naming
from support.reference import GOLDEN, all_names, all_shapes, state
from support.tiny_models import TINY_HTSAT, TINY_PANN, TINY_PRESET, tiny_laion_model, tiny_laion_state, tiny_tokenizer

REST = "htsat-tiny+roberta"
PARTS = ("text-bart", "text-transformer", "htsat-tiny-iaff_2d", "PANN-6")


def joined(part: str) -> tuple[dict[str, torch.Tensor], set[str]]:
    """A whole model: the part of that name, and what it lacks from the whole one."""
    others = ("audio_", "logit_") if part.startswith("text") else ("text_", "logit_")
    mine = state(part)
    other = state(REST, *others)
    names = all_names(part) | {name for name in all_names(REST) if name.startswith(others)}
    return other | mine, names


@pytest.mark.parametrize("part", PARTS)
def test_round_trip_is_bit_equal(part: str) -> None:
    learned, names = joined(part)
    again = laion.to_state(laion.read(learned, part))
    for name, tensor in learned.items():
        assert torch.equal(again[name], tensor), name
    counters = {name for name in names if name.endswith(BATCH_COUNTER)}
    assert set(again) - {laion.POSITIONS} == names - counters  # the made-up weights have no counters


def test_published_preset_is_inferred_from_a_whole_model() -> None:
    preset = laion.read(state("htsat-tiny+roberta"), "x").preset
    assert preset == replace(presets.PRESETS["htsat-tiny-roberta"], text=preset.text)
    assert dict(preset.text.sizes) == dict(presets.ROBERTA.sizes)


@pytest.mark.parametrize(
    "audio",
    [TINY_HTSAT, replace(TINY_HTSAT, fusion="aff_2d"), replace(TINY_HTSAT, fusion="daf_1d"), TINY_PANN],
    ids=str,
)
def test_sizes_are_inferred(audio: presets.AudioConfig, tmp_path: Path) -> None:
    preset, weights = tiny_laion_model(audio)
    laion.write(Checkpoint("laion", preset, weights), tmp_path / "a.pt")
    found = detect.read(tmp_path / "a.pt")
    assert found.preset.audio == audio and found.preset.embedding_size == 24
    assert found.preset.frontend.long == ("fusion" if audio.fusion else "windows")
    clap = build_network(found, "a.pt")
    for name, tensor in clap.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_computed_stft_and_filterbank_equal_the_reference() -> None:
    buffers = laion.computed_buffers(presets.PRESETS["htsat-tiny-roberta"])
    golden = np.load(GOLDEN / "mel.npz")
    bank = next(golden[name] for name in golden if golden[name].shape == (513, 64))
    np.testing.assert_allclose(buffers["audio_branch.logmel_extractor.melW"], bank, atol=1e-6)
    wave = torch.randn(1, 1, 1024)
    real = torch.nn.functional.conv1d(wave, buffers["audio_branch.spectrogram_extractor.stft.conv_real.weight"])
    imag = torch.nn.functional.conv1d(wave, buffers["audio_branch.spectrogram_extractor.stft.conv_imag.weight"])
    expected = torch.fft.rfft(wave[0, 0] * torch.hann_window(1024))
    torch.testing.assert_close(torch.complex(real[0, :, 0], imag[0, :, 0]), expected, rtol=1e-4, atol=1e-4)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("legacy", [False, True])
def test_training_checkpoints_of_every_pickle_protocol_are_read(protocol: int, legacy: bool, tmp_path: Path) -> None:
    tensors = tiny_laion_state()
    tensors["text_branch.embeddings.position_ids"] = torch.arange(5)
    content = {
        "epoch": np.int64(45),
        "name": "run",
        "best": np.float64(0.5),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
        "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()},
    }
    path = saved(content, tmp_path / "epoch_45.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    assert detect.read(path).preset.audio == TINY_HTSAT


def test_bare_state_dict_and_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = tiny_laion_state()
    assert detect.read(saved(tensors, tmp_path / "bare.pt")).preset.audio == TINY_HTSAT
    save_file(tensors, tmp_path / "bare.safetensors")
    assert detect.read(tmp_path / "bare.safetensors").preset.audio == TINY_HTSAT


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('executed', 'w')",)


def test_pickled_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": Runs()}, [Runs()]):
        with raises_naming(CheckpointError, "bad.pt", "builtins.eval"):
            detect.read(saved(content, tmp_path / "bad.pt"))
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Runs()))
    with pytest.raises(CheckpointError):
        detect.read(tmp_path / "raw.pt")
    assert not (tmp_path / "executed").exists()


def test_errors_of_wrong_files_say_what_was_found(tmp_path: Path) -> None:
    tensors = tiny_laion_state()
    path = saved({"state_dict": tensors}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:-5000])
    (tmp_path / "text.pt").write_bytes(b"hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    cases = {
        "cut.pt": (),
        "text.pt": (),
        "empty.pt": (),
        "none.pt": (),
        "other.pt": ("(weight)",),
        "things.pt": ("epoch",),
        "lacks.pt": ("text_branch.embeddings.word_embeddings.weight",),
    }
    saved({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    saved({"epoch": 3}, tmp_path / "things.pt")
    saved({n: t for n, t in tensors.items() if "word_embeddings" not in n}, tmp_path / "lacks.pt")
    for name, values in cases.items():
        with raises_naming(CheckpointError, name, *values):
            detect.read(tmp_path / name)


def test_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    tensors = tiny_laion_state()
    del tensors["audio_branch.norm.weight"]
    tensors["audio_projection.0.weight"] = torch.zeros(3, 3)
    tensors["audio_branch.surplus"] = torch.zeros(1)
    with raises_naming(
        CheckpointError,
        "file.pt",
        "audio_tower.norm.weight",
        "audio_head.0.weight",
        "(3, 3)",
        "(24, 32)",
        "audio_tower.surplus",
    ):
        build_network(laion.read(tensors, "file.pt"), "file.pt")


def test_htsat_tower_file_is_read(tmp_path: Path) -> None:
    tower = {n.removeprefix("audio_branch."): t for n, t in tiny_laion_state().items() if n.startswith("audio_branch.")}
    path = saved({"state_dict": {f"sed_model.{n}": t for n, t in tower.items()}}, tmp_path / "htsat.ckpt")
    found = audioset.read(path)
    assert found.config == TINY_HTSAT and found.frontend.mel.rate == 48000
    network, frontend = found.build()
    features = network.features(frontend([np.random.default_rng(0).standard_normal(48000).astype(np.float32)]))
    assert features.clipwise.shape == (1, 5) and features.framewise.shape[2] == 5
    with raises_naming(CheckpointError, "htsat.ckpt", "openclap.checkpoints.audioset"):
        detect.read(path)


def test_official_pann_file_is_read(tmp_path: Path) -> None:
    """`Cnn10_mAP=0.380.pth`: four blocks, 32 kHz, beside an iteration and a sampler's state."""
    config = replace(presets.PANN_14, widths=(4, 8, 8, 8), pooled=4, n_mels=64, classes=7)
    _, weights = tiny_laion_model(config)
    state_ = laion.to_state(Checkpoint("laion", tiny_laion_model(config)[0], weights))
    tower = {n.removeprefix("audio_branch."): t for n, t in state_.items() if n.startswith("audio_branch.")}
    tower["logmel_extractor.melW"] = mel_filterbank(mel_at_rate(32000))
    path = saved({"iteration": 1, "model": tower, "sampler": {"seed": 3}}, tmp_path / "Cnn10.pth")
    found = audioset.read(path)
    assert found.config == config
    assert (found.frontend.mel.rate, found.frontend.mel.hop) == (32000, 320)
    network, frontend = found.build()
    assert network.features(frontend([np.ones(8000, np.float32)])).clipwise.shape == (1, 7)
    assert detect.describe(path)["audio tower"] == "pann-4"


def test_unused_weights_survive_loading_and_saving(tmp_path: Path) -> None:
    import openclap

    tensors = tiny_laion_state() | {"audio_branch.head.weight": torch.arange(25.0).view(5, 5)}
    path = saved({"state_dict": tensors}, tmp_path / "a.pt")
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer().definition, encoding="utf-8")
    openclap.load(path, tokenizer=tmp_path / "tokenizer.json").save(tmp_path / "ours")
    again = laion.to_state(openclap_folder.read(tmp_path / "ours"))
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_model_that_laions_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with raises_naming(CheckpointError, "t5"):
        laion.write(
            Checkpoint("openclap", replace(TINY_PRESET, text=replace(TINY_PRESET.text, model_type="t5")), {}), Path("x")
        )
    weights = dict(build_clap(TINY_PRESET).state_dict())
    with raises_naming(CheckpointError, "LAION's"):
        laion.write(Checkpoint("openclap", TINY_PRESET, weights), tmp_path / "a.pt")
    assert not any(tmp_path.iterdir())


def test_model_that_would_read_back_differently_is_refused(tmp_path: Path) -> None:
    preset, weights = tiny_laion_model()
    mel, text = preset.frontend.mel, preset.text
    without_pooler = {name: tensor for name, tensor in weights.items() if ".pooler." not in name}
    for other, tensors, values in (
        (replace(preset, frontend=replace(preset.frontend, samples=240000)), weights, ("frontend.samples", 240000)),
        (
            replace(preset, frontend=replace(preset.frontend, mel=replace(mel, hop=240))),
            weights,
            ("frontend.mel.hop", 240),
        ),
        (
            replace(preset, frontend=replace(preset.frontend, mel=replace(mel, scale="htk"))),
            weights,
            ("frontend.mel.scale", "htk"),
        ),
        (replace(preset, text=replace(text, context=32)), weights, ("text.context", 32)),
        (replace(preset, text=replace(text, pooling="mean")), without_pooler, ("text.pooling", "mean")),
        (replace(preset, frontend=replace(preset.frontend, mel=replace(mel, f_min=0.0))), weights, ("filterbank",)),
    ):
        with raises_naming(CheckpointError, *values):
            laion.write(Checkpoint("openclap", other, tensors), tmp_path / "a.pt")
    assert not any(tmp_path.iterdir())
    close = replace(preset, frontend=replace(preset.frontend, int16=False))
    assert len(laion.write(Checkpoint("openclap", close, weights), tmp_path / "a.pt").changed) == 1


WHOLE = (REST, *PARTS, "text-bert", "htsat-tiny-aff_2d", "htsat-tiny-iaff_1d", "PANN-14-aff_2d", "HTSAT-base")


@pytest.mark.parametrize("part", WHOLE)
def test_written_names_and_shapes_equal_the_reference(part: str) -> None:
    """Whatever a source lacks that embedding does not read, LAION-CLAP's strict loader finds all it asks for: its own
    names and shapes, and the one that it deletes first."""
    others = ("audio_", "logit_") if part.startswith("text") else ("text_", "logit_")
    shapes = {name: shape for name, shape in all_shapes(REST).items() if name.startswith(others)} | all_shapes(part)
    learned = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items() if "logmel_extractor" not in name}
    whole = laion.read(learned, part)
    head = ("audio_tower.tagger.", "audio_transform.", "text_transform.", "logit_scale_text")
    left = {name: t for name, t in whole.weights.items() if not name.startswith(head)}
    bare = replace(whole, preset=laion.infer_preset(laion.to_state(replace(whole, weights=left)), part), weights=left)
    parts_of: dict[str, tuple[str, ...]] = {}
    for name, checkpoint in {"whole": whole, "bare": replace(bare, unused={})}.items():
        written = laion.to_state(checkpoint)
        untrained, parts_of[name] = initialise_missing(written, checkpoint.preset)
        assert not untrained.keys() & written.keys()
        found = {key: tuple(tensor.shape) for key, tensor in (written | untrained).items()}
        assert found.pop(laion.POSITIONS)[0] == 1 and found == shapes
        assert all(any(part in key for part in parts_of[name]) or BATCH_COUNTER in key for key in untrained)
        again, _ = initialise_missing(written, checkpoint.preset)
        assert all(torch.equal(again[key], tensor) for key, tensor in untrained.items())
    assert parts_of["whole"] == () and {"audio_transform", "text_transform", "logit_scale_t"} <= {*parts_of["bare"]}


def test_untrained_parts_are_initialised_as_in_the_reference() -> None:
    """torch's own for convolutions and MLPs, a normal of 0.02 for HTSAT's linear layers, Xavier's for PANN's."""
    wave_of = presets.PRESETS["htsat-tiny-roberta"], presets.PRESETS["pann-14-roberta"]
    htsat, pann = (initialise_missing({}, preset)[0] for preset in wave_of)
    uniform = {"audio_transform.sequential.0.weight": 512, "audio_branch.tscam_conv.weight": 768 * 2 * 3}
    for name, inputs in uniform.items():
        assert htsat[name].abs().max() <= inputs**-0.5 < 1.001 * htsat[name].abs().max()
        assert htsat[name].std().item() == pytest.approx((3 * inputs) ** -0.5, rel=0.01)
    head = htsat["audio_branch.head.weight"]
    assert head.shape == (527, 527) and head.std().item() == pytest.approx(0.02, rel=0.01)
    tagger, most = pann["audio_branch.fc_audioset.weight"], (6 / (2048 + 527)) ** 0.5
    assert tagger.shape == (527, 2048) and tagger.abs().max() <= most < 1.001 * tagger.abs().max()
    for zeros in (htsat["audio_branch.head.bias"], pann["audio_branch.fc_audioset.bias"]):
        assert not zeros.any()
    assert htsat["logit_scale_t"].exp().item() == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("audio", [TINY_HTSAT, TINY_PANN])
def test_tower_without_tagging_head_survives_the_round_trip(audio: presets.AudioConfig, tmp_path: Path) -> None:
    preset, weights = tiny_laion_model(replace(audio, classes=0))
    losses = laion.write(Checkpoint("openclap", preset, weights), tmp_path / "a.pt")
    assert losses.untrained[0].startswith(("audio_branch.tscam_conv", "audio_branch.fc_audioset"))
    facts = detect.describe(tmp_path / "a.pt")
    assert facts["classes"] == 0 and facts["missing"] == facts["not known"] == []


def test_only_files_written_by_openclap_are_replaced(tmp_path: Path) -> None:
    preset, weights = tiny_laion_model()
    tower = {n.removeprefix("audio_branch."): t for n, t in tiny_laion_state().items() if n.startswith("audio_branch.")}
    others = (
        saved({"epoch": 0, "name": "run", "state_dict": tiny_laion_state()}, tmp_path / "laion.pt"),
        saved({"model": tower, "optimizer": {"a": torch.zeros(3)}}, tmp_path / "Cnn.pth"),
    )
    for path in others:
        before = path.read_bytes()
        with raises_naming(CheckpointError, path):
            laion.write(Checkpoint("laion", preset, weights), path)
        assert path.read_bytes() == before
    for epoch in range(2):
        weights["logit_scale"] = torch.tensor(float(epoch))
        laion.write(Checkpoint("laion", preset, weights), tmp_path / "ours.pt")
        assert detect.read(tmp_path / "ours.pt").weights["logit_scale"] == epoch
    assert torch.load(tmp_path / "ours.pt", weights_only=True)["name"] == "small"  # what LAION-CLAP's loader can read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Cnn.pth", "laion.pt", "ours.pt"]


def test_whole_file_has_no_misfits(tmp_path: Path) -> None:
    facts = detect.describe(saved(tiny_laion_state(), tmp_path / "a.pt"))
    assert facts["missing"] == facts["not known"] == facts["of another shape"] == []
    assert facts["audio tower"] == "htsat-16" and facts["pooling"] == "pooler"
