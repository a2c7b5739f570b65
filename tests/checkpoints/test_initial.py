from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BartConfig, BartModel, CLIPConfig, CLIPModel, RobertaConfig, RobertaForMaskedLM

import openclap
from openclap import presets
from openclap.checkpoints import initial, laion
from openclap.checkpoints.checkpoint import Checkpoint
from openclap.cli import run
from openclap.errors import CheckpointError
from openclap.presets import Preset
from support.errors import raises_naming
from support.tiny_models import TINY_HTSAT, tiny_laion_model, tiny_tokenizer

HF = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64, "vocab_size": 50}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(tiny_tokenizer().definition, encoding="utf-8")
    return path


def audioset_file(path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tower as HTSAT's training leaves it, and its weights under our names."""
    preset, weights = tiny_laion_model()
    state = laion.to_state(Checkpoint("laion", preset, weights))
    tower = {name: tensor for name, tensor in state.items() if name.startswith("audio_branch.")}
    torch.save({"state_dict": {name.replace("audio_branch.", "sed_model."): t for name, t in tower.items()}}, path)
    return path, {name: tensor for name, tensor in weights.items() if name.startswith("audio_tower.")}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return openclap.load(folder).clap.state_dict()


def test_initial_model_has_pretrained_towers_and_fresh_heads(tmp_path: Path, words: Path) -> None:
    preset, _ = tiny_laion_model(replace(TINY_HTSAT, fusion="aff_2d"))
    file, audio = audioset_file(tmp_path / "htsat.ckpt")
    torch.manual_seed(5)
    encoder = RobertaForMaskedLM(RobertaConfig(**HF, layer_norm_eps=1e-5))  # its file has no pooler
    encoder.save_pretrained(tmp_path / "roberta")
    made = initial.make(
        preset, tmp_path / "start", audio_tower=file, text_tower=str(tmp_path / "roberta"), tokenizer=words
    )
    found = weights_of(tmp_path / "start")
    assert made.preset.text.hidden_size == 48 and made.preset.text.sizes["num_hidden_layers"] == 2
    assert all(torch.equal(found[name], tensor) for name, tensor in audio.items())
    for name, tensor in encoder.roberta.state_dict().items():
        if "position_ids" not in name and "token_type_ids" not in name:
            assert torch.equal(found[f"text_tower.encoder.{name}"], tensor), name
    assert {part for part in made.fresh if "tower" in part} == {"audio_tower.patch_embed", "text_tower.encoder"}
    assert {"audio_head.0", "text_head.2", "logit_scale"} <= set(made.fresh)


def test_seed_determines_fresh_weights(tmp_path: Path, words: Path) -> None:
    preset, _ = tiny_laion_model()
    RobertaForMaskedLM(RobertaConfig(**HF)).save_pretrained(tmp_path / "roberta")

    def make(name: str, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(len(name))  # what stands there does not matter
        before = torch.get_rng_state()
        text = str(tmp_path / "roberta")
        initial.make(preset, tmp_path / name, text_tower=text, tokenizer=words, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return weights_of(tmp_path / name)

    one, again, other = make("one", 1), make("again", 1), make("other", 2)
    assert all(torch.equal(tensor, again[name]) for name, tensor in one.items())
    changed = {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}
    assert "audio_head.0.weight" in changed and "text_tower.encoder.pooler.dense.weight" in changed
    assert not any("text_tower.encoder.encoder" in name for name in changed)


def test_text_encoders_of_clip_and_bart_are_taken(tmp_path: Path, words: Path) -> None:
    """The same states come out as from transformers' own networks."""
    ids = torch.tensor([[5, 9, 11, 3, 49]])
    text = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"vocab_size": 50, "hidden_act": "quick_gelu", "eos_token_id": 2}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision | {"image_size": 32, "patch_size": 16})).eval()
    bart = BartModel(
        BartConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=50,
        )
    ).eval()  # fmt: skip
    for name, theirs, like, reference in (
        ("clip", clip, presets.CLIP_TEXT, clip.text_model),
        ("bart", bart, presets.BART, bart.get_encoder()),
    ):
        theirs.save_pretrained(tmp_path / name)
        preset: Preset = replace(tiny_laion_model()[0], text=like)
        initial.make(preset, tmp_path / f"{name}-start", text_tower=str(tmp_path / name), tokenizer=words)
        ours = openclap.load(tmp_path / f"{name}-start").clap.text_tower.encoder
        with torch.no_grad():
            expected, got = reference(input_ids=ids).last_hidden_state, ours(input_ids=ids).last_hidden_state
        torch.testing.assert_close(got, expected)


def test_tower_that_does_not_fit_the_preset_is_refused(tmp_path: Path, words: Path) -> None:
    preset, _ = tiny_laion_model()
    file, _ = audioset_file(tmp_path / "htsat.ckpt")
    RobertaForMaskedLM(RobertaConfig(**HF)).save_pretrained(tmp_path / "roberta")
    (tmp_path / "empty").mkdir()
    wider, bert = replace(preset, audio=replace(TINY_HTSAT, width=32)), replace(preset, text=presets.BERT)
    for wanted_preset, options, values in [
        (wider, {"audio_tower": file}, ("htsat-16", "small", "htsat-32")),
        (bert, {"text_tower": str(tmp_path / "roberta")}, ("roberta", "bert")),
        (preset, {"text_tower": str(tmp_path / "empty")}, (tmp_path / "empty",)),
        (preset, {"text_tower": "nobody/nothing", "offline": True}, ("nobody/nothing",)),
        (replace(preset, text=replace(preset.text, tokenizer=None)), {"tokenizer": None}, ("tokenizer.json",)),
    ]:
        with raises_naming(CheckpointError, *values):
            initial.make(wanted_preset, tmp_path / "start", **{"tokenizer": words} | options)  # type: ignore[arg-type]
    assert not (tmp_path / "start").exists()


def test_init_command(tmp_path: Path, words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "htsat-tiny-robert", "--out", str(tmp_path / "x")]) == 2
    assert "'htsat-tiny-robert'" in capsys.readouterr().err
    assert run(["init", "mini", "--out", str(tmp_path / "start"), "--tokenizer", str(words)]) == 0
    assert "Random weights: " in capsys.readouterr().err
    assert openclap.load(tmp_path / "start").preset.name == "mini"


def test_initial_model_is_not_written_into_a_towers_folder(tmp_path: Path, words: Path) -> None:
    preset, _ = tiny_laion_model()
    RobertaForMaskedLM(RobertaConfig(**HF)).save_pretrained(tmp_path / "roberta")
    before = sorted(path.name for path in (tmp_path / "roberta").iterdir())
    with raises_naming(CheckpointError, tmp_path / "roberta" / "start"):
        initial.make(preset, tmp_path / "roberta" / "start", text_tower=str(tmp_path / "roberta"), tokenizer=words)
    assert sorted(path.name for path in (tmp_path / "roberta").iterdir()) == before
