"""Towers, heads and MLPs against what the reference computes with the same weights."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openclap.audio.frontend import FrontEnd
from openclap.checkpoints import laion
from openclap.checkpoints.checkpoint import ZeroInit, load_weights
from openclap.checkpoints.translate_keys import translate_key
from openclap.models.clap import MLPTransform, mlp_relu
from openclap.models.config import HTSATConfig
from openclap.models.htsat import HTSAT
from openclap.models.pann import PANN
from openclap.models.swin import merge_order, row_order, window_order
from openclap.models.text_tower import TextTower
from openclap.presets import LAION_PLAIN
from openclap.types import AudioBatch, TextBatch
from support.reference import GOLDEN, rng, state, wave

FUSIONS = ("daf_1d", "aff_1d", "iaff_1d", "daf_2d", "aff_2d", "iaff_2d", "channel_map")


def close(ours: torch.Tensor, golden: np.ndarray) -> None:
    torch.testing.assert_close(ours, torch.from_numpy(golden), rtol=1e-4, atol=1e-5)


@cache
def plain() -> AudioBatch:
    """From the raw waveform, without the round trip through 16 bits, as the goldens are."""
    frontend = FrontEnd(LAION_PLAIN)
    frontend._round = lambda wave_N: wave_N
    return frontend([wave("ten", 480000), wave("ten-b", 480000)])


@cache
def views() -> AudioBatch:
    mel = rng("fusion-input").standard_normal((3, 4, 1001, 64)).astype(np.float32) * 10 - 25
    return AudioBatch(torch.from_numpy(mel.astype(np.float32)), torch.tensor([True, False, True]))


def tower(model: str) -> tuple[HTSAT | PANN, dict[str, torch.Tensor]]:
    weights = state(model, "audio_")
    config = laion.infer_audio_tower(weights, model)
    with ZeroInit():
        network = HTSAT(config) if isinstance(config, HTSATConfig) else PANN(config)
    mine = laion.audio_key_table(config)
    learned = {
        translate_key(name, (mine,)).removeprefix("audio_tower."): tensor
        for name, tensor in weights.items()
        if name.startswith("audio_branch.") and not name.startswith("audio_branch.head.") and "global_att2" not in name
    }
    load_weights(network, learned, model)
    return network.eval(), weights


def projected(embedding: torch.Tensor, weights: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    head = mlp_relu(embedding.shape[1], 512)
    head.load_state_dict({n: weights[f"{side}_projection.{n}"] for n in ("0.weight", "0.bias", "2.weight", "2.bias")})
    return F.normalize(head(embedding), dim=-1)


def transformed(vector: torch.Tensor, weights: dict[str, torch.Tensor], side: str) -> torch.Tensor:
    mlp = MLPTransform(512).eval()
    names = ("0.weight", "0.bias", "3.weight", "3.bias")
    mlp.load_state_dict({n: weights[f"{side}_transform.sequential.{n}"] for n in names})
    return mlp(vector)


@torch.inference_mode()
def test_htsat_tiny_stage_by_stage() -> None:
    golden = np.load(GOLDEN / "htsat_tiny_plain.npz")
    network, weights = tower("htsat-tiny+roberta")
    assert isinstance(network, HTSAT)
    features = network.features(plain())
    close(features.embedding, golden["embedding"])
    assert features.clipwise is not None and features.framewise is not None and features.fine is not None
    assert features.framewise.shape == (2, 1024, 527) and features.fine.shape == (2, 1024, 768)
    close(features.clipwise, golden["clipwise"])
    close(features.framewise[:, ::16, ::17], golden["framewise"])
    close(features.fine[:, ::64, ::13], golden["fine"])
    vector = projected(features.embedding, weights, "audio")
    close(vector, golden["projected"])
    close(transformed(vector, weights, "audio"), golden["transformed"])
    map_BNC = network.last_map(plain(), network.whole)
    close(map_BNC.flatten(1).flatten()[:4096], golden["norm"].flatten())


@torch.inference_mode()
def test_htsat_stages_keep_the_order_of_windows() -> None:
    golden = np.load(GOLDEN / "htsat_tiny_plain.npz")
    network, _ = tower("htsat-tiny+roberta")
    assert isinstance(network, HTSAT)
    mel = network.bn0(plain().mel_BVTF.transpose(1, 3)).transpose(1, 3)
    x = network.patch_embed(network.fold(mel), plain().is_long_B)
    close(x.flatten()[:4096], golden["patch_embed"].flatten())
    x = network.whole(x)
    for stage, (layer, layout) in enumerate(zip(network.layers, network.whole.layouts, strict=True)):
        x = layer(x, layout)
        size = (64 // 2 ** min(stage + 1, 3),) * 2
        order = window_order(size, (8, 8)) if stage < 3 else row_order(size)
        rows = x[:, torch.from_numpy(np.argsort(order))]
        close(rows.flatten()[:4096], golden[f"stage{stage}"].flatten())


@torch.inference_mode()
@pytest.mark.parametrize(
    ("model", "file"),
    [("HTSAT-base", "htsat_base"), ("PANN-14", "pann_14"), ("PANN-10", "pann_10"), ("PANN-6", "pann_6")],
)
def test_plain_towers(model: str, file: str) -> None:
    golden = np.load(GOLDEN / f"{file}.npz")
    network, weights = tower(model)
    features = network.features(plain())
    close(features.embedding, golden["embedding"])
    assert features.clipwise is not None
    close(features.clipwise, golden["clipwise"])
    close(projected(features.embedding, weights, "audio"), golden["projected"])


@torch.inference_mode()
@pytest.mark.parametrize("fusion", FUSIONS)
def test_fused_towers(fusion: str) -> None:
    golden = np.load(GOLDEN / f"htsat_tiny_{fusion}.npz")
    network, weights = tower(f"htsat-tiny-{fusion}")
    assert network.config.fusion == fusion
    embedding = network(views())
    close(embedding, golden["embedding"])
    close(projected(embedding, weights, "audio"), golden["projected"])
    if "none_longer" in golden:
        close(network(AudioBatch(views().mel_BVTF, torch.zeros(3, dtype=torch.bool))), golden["none_longer"])


@torch.inference_mode()
def test_fused_pann() -> None:
    network, _ = tower("PANN-14-aff_2d")
    close(network(views()), np.load(GOLDEN / "pann_14_aff_2d.npz")["embedding"])


@torch.inference_mode()
@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("htsat-tiny+roberta", "text_roberta"),
        ("text-bert", "text_bert"),
        ("text-bart", "text_bart"),
        ("text-transformer", "text_transformer"),
    ],
)
def test_text_towers(model: str, file: str) -> None:
    golden, weights = np.load(GOLDEN / f"{file}.npz"), state(model, "text_", "token_", "positional_", "ln_final")
    config = laion.infer_text_tower(weights, model)
    with ZeroInit():
        network = TextTower(config).eval()
    found = {name: tensor for name, tensor in weights.items() if "_projection" not in name and "_transform" not in name}
    checkpoint = laion.read(
        {n: t for n, t in found.items() if not n.startswith(("audio_", "logit_"))}, model, preset_with(config)
    )
    load_weights(network, {n.removeprefix("text_tower."): t for n, t in checkpoint.weights.items()}, model)
    ids = torch.from_numpy(golden["ids"]).long()
    mask = torch.from_numpy(golden["mask"]).long() if "mask" in golden else torch.ones_like(ids)
    vector = projected(network(TextBatch(ids, mask)), weights, "text")
    close(vector, golden["embedding"])
    if "transformed" in golden:
        close(transformed(vector, weights, "text"), golden["transformed"])


def preset_with(config: object) -> object:
    from dataclasses import replace

    from openclap.presets import PRESETS

    return replace(PRESETS["htsat-tiny-roberta"], text=config)


def test_iaff_reuses_the_first_global_branch() -> None:
    network, _ = tower("htsat-tiny-iaff_2d")
    fusion = network.patch_embed.fusion_model  # type: ignore[union-attr]
    assert hasattr(fusion, "global_att") and not hasattr(fusion, "global_att2")
    calls = []
    fusion.global_att.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr, operator]
    with torch.inference_mode():
        network(views())
    assert len(calls) == 2


def test_a_lone_long_clip_can_be_learned_from() -> None:
    from openclap.models.fusion import AttentionFusion

    fusion = AttentionFusion(8, torch.nn.Conv2d).train()
    whole, local = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    assert fusion(whole, local).isfinite().all()


def test_merging_groups_neighbours() -> None:
    order = merge_order((16, 16), (8, 8)).reshape(-1, 4)
    for top_left, bottom_left, top_right, bottom_right in order[:20]:
        assert (bottom_left, top_right, bottom_right) == (top_left + 16, top_left + 1, top_left + 17)
