"""NaFlex towers in training: groups by length, patch dropout, initial weights, presets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from openclap import presets
from openclap.checkpoints.open_clip_config import read_config
from openclap.models.build import build_audio_tower, build_clap, build_text_tower
from openclap.models.clap import HEADS
from openclap.models.config import NaFlexConfig
from openclap.models.naflex import NaFlex
from openclap.models.patch_dropout import PartOfPatches
from openclap.types import AudioBatch
from support.open_clip import FOLDER

CONFIG = NaFlexConfig(
    width=16, depth=2, heads=2, patch_freq=8, patch_time=4, n_mels=16, registers=2, gated=True, qk_norm=True
)
FRAMES = (5, 40, 12, 33, 4, 21)


def tower(config: NaFlexConfig = CONFIG) -> NaFlex:
    torch.manual_seed(0)
    return NaFlex(config).double()


def clips(frames: tuple[int, ...] = FRAMES, seed: int = 0) -> AudioBatch:
    generator = torch.Generator().manual_seed(seed)
    mel_BVTF = torch.randn(len(frames), 1, max(frames), CONFIG.n_mels, generator=generator, dtype=torch.float64)
    return AudioBatch(mel_BVTF, torch.zeros(len(frames), dtype=torch.bool), torch.tensor(frames))


def gradients(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("at_a_time", [1, 30, 60, 10_000])
def test_groups_by_length_give_the_same_embeddings_and_gradients(at_a_time: int) -> None:
    network, batch = tower().train(), clips()
    target = torch.randn(len(FRAMES), CONFIG.width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = network(batch)
    (together * target).sum().backward()
    expected = gradients(network)
    network.zero_grad()
    network.group_by_length(at_a_time)
    grouped = network(batch)
    (grouped * target).sum().backward()
    torch.testing.assert_close(grouped, together, rtol=1e-10, atol=1e-12)
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("at_a_time", [1, 30, 60, 10_000])
def test_groups_by_length_give_the_same_moments_and_gradients(at_a_time: int) -> None:
    network, batch = tower().train(), clips()
    columns = [CONFIG.columns(frames) for frames in FRAMES]
    together, expected_moments = network.with_moments(batch)
    inside_BM1 = (torch.arange(max(columns)) < torch.tensor(columns)[:, None])[..., None]
    target = torch.randn(expected_moments.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected_moments * target * inside_BM1).sum().backward()
    expected = gradients(network)
    network.zero_grad()
    network.group_by_length(at_a_time)
    grouped, moments = network.with_moments(batch)
    (moments * target * inside_BM1).sum().backward()
    torch.testing.assert_close(grouped, together, rtol=1e-10, atol=1e-12)
    assert moments.shape == expected_moments.shape
    torch.testing.assert_close(moments * inside_BM1, expected_moments * inside_BM1, rtol=1e-10, atol=1e-12)
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-11)


def test_moments_are_computed_a_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more patches with padding pass at once than is stated, or a single clip's."""
    network, sizes = tower(), []
    states = NaFlex.states

    def counted(self: NaFlex, batch: AudioBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        sizes.append(len(batch.is_long_B) * CONFIG.tokens(batch.mel_BVTF.shape[2]))
        return states(self, batch)

    monkeypatch.setattr(NaFlex, "states", counted)
    network.group_by_length(30)
    network.with_moments(clips())
    assert len(sizes) > 1 and max(sizes) <= 30


def test_each_clip_keeps_its_share_of_patches_at_their_own_positions() -> None:
    network, dropout = tower(), PartOfPatches(0.4).train()
    columns, frames = 6, torch.tensor([24, 9, 2])
    patches_BNP = torch.arange(12.0).view(1, 12, 1).expand(3, 12, 4)
    valid_BN = (torch.arange(columns) < -(-frames // 4)[:, None]).repeat(1, CONFIG.rows)
    by = network.positions(columns, torch.device("cpu"))
    seen: set[tuple[float, ...]] = set()
    for seed in range(50):
        torch.manual_seed(seed)
        kept_BKP, valid_BK, rotations = dropout(patches_BNP, valid_BN, by)
        assert valid_BK is not None and valid_BK.sum(dim=1).tolist() == [7, 4, 1]  # of 12, 6 and 2 patches
        for clip in range(3):
            numbers = kept_BKP[clip, valid_BK[clip], 0].long()
            assert len(set(numbers.tolist())) == len(numbers) and bool(valid_BN[clip, numbers].all())
            for table_BHLE, table_LE in zip(rotations, by, strict=True):
                torch.testing.assert_close(table_BHLE[clip, 0, : CONFIG.registers], table_LE[: CONFIG.registers])
                rows = table_BHLE[clip, 0, CONFIG.registers :][valid_BK[clip]]
                torch.testing.assert_close(rows, table_LE[CONFIG.registers + numbers])
        seen.add(tuple(kept_BKP[0, :, 0].tolist()))
    assert len(seen) == 50
    assert dropout.eval()(patches_BNP, valid_BN, by)[0] is patches_BNP


def test_dropped_patches_do_not_matter() -> None:
    """The embedding is that of the kept patches alone: values of the others change nothing."""
    network = tower().train()
    network.drop_patches(0.5)
    batch = clips()
    torch.manual_seed(3)
    before = network(batch)
    torch.manual_seed(3)
    drawn = torch.rand(len(FRAMES), CONFIG.tokens(40), device="cpu")
    last = int(drawn[1].argmax())  # the longest clip has no padding, so its largest number is dropped
    row, column = divmod(last, CONFIG.columns(40))
    changed = batch.mel_BVTF.clone()
    # Not below the clip's lowest value, which would change how shorter clips' last columns are filled.
    changed[1, 0, 4 * column : 4 * column + 4, 8 * row : 8 * row + 8] += 1.0
    torch.manual_seed(3)
    torch.testing.assert_close(network(replace(batch, mel_BVTF=changed)), before)
    network.eval()
    assert not torch.allclose(network(replace(batch, mel_BVTF=changed))[1], network(batch)[1])


def test_share_zero_keeps_every_patch() -> None:
    network, batch = tower().train(), clips()
    before = network(batch)
    network.drop_patches(0.0)
    torch.testing.assert_close(network(batch), before, rtol=1e-9, atol=1e-11)


def test_fresh_embeddings_differ_between_sounds() -> None:
    """Raw decibels share a large mean: initial embeddings must still tell clips apart."""
    torch.manual_seed(0)
    clap = build_clap(replace(presets.NAFLEXCLAP["naflexclap-nano"], text=_tiny_text()))
    mel_BVTF = 20 * torch.randn(8, 1, 200, 64) - 40 + 10 * torch.randn(8, 1, 1, 64)
    audio_BD = clap.encode_audio(AudioBatch(mel_BVTF, torch.zeros(8, dtype=torch.bool)))
    assert (audio_BD @ audio_BD.T).fill_diagonal_(-1).max() < 0.9999


def _tiny_text() -> Any:
    text = presets.MODERN_TEXT
    return replace(text, hidden_size=32, sizes={**text.sizes, "num_hidden_layers": 1, "heads": 2, "vocab_size": 50260})


def test_initial_branches_do_not_grow_with_depth() -> None:
    torch.manual_seed(0)
    deep = NaFlex(replace(CONFIG, depth=30, width=64, gated=False))
    last, first = (deep.get_parameter(f"blocks.{number}.mlp.fc2.weight").detach() for number in (29, 0))
    assert float(last.std() / first.std()) == pytest.approx((1 / 30) ** 0.5, rel=0.1)
    text = build_text_tower(_tiny_text())
    assert float(text.token_embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not text.token_embedding.weight[50258].any()


def test_presets_are_open_clips_configurations() -> None:
    goldens = json.loads((FOLDER / "configs.json").read_text(encoding="utf-8"))
    for ours, theirs in {"naflexclap-test": "naflexclap_test", "naflexclap-little": "naflexclap_little"}.items():
        read = read_config(goldens[theirs]["model_cfg"], theirs).preset
        assert replace(presets.named(ours), name=read.name) == read


@pytest.mark.parametrize(("name", "million"), [("test", 0.37), ("little", 23.94), ("mediumd", 66.88), ("base", 92.92)])
def test_presets_have_the_parameters_of_open_clips_audio_side(name: str, million: float) -> None:
    preset = presets.named(f"naflexclap-{name}")
    with torch.device("meta"):
        parts = [build_audio_tower(preset.audio), HEADS[preset.audio_head](preset.audio.width, preset.embedding_size)]  # type: ignore[union-attr]
    assert sum(p.numel() for part in parts for p in part.parameters()) / 1e6 == pytest.approx(million, abs=0.005)
