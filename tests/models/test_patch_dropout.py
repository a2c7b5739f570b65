"""Towers that read part of the time in training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from openclap.models.config import HTSATConfig, PANNConfig
from openclap.models.htsat import HTSAT
from openclap.models.pann import PANN
from openclap.models.patch_dropout import PartOfMap, TimeCrop, WholeMap
from openclap.models.swin import Permutation, SwinBlock, SwinStage
from openclap.types import AudioBatch

SMALL = HTSATConfig(width=8, depths=(2, 2, 2), heads=(1, 2, 4), n_mels=32, image=128, classes=0)


def network(config: HTSATConfig = SMALL) -> HTSAT:
    torch.manual_seed(0)
    tower = HTSAT(config)
    for name, parameter in tower.named_parameters():
        if name.endswith("bias_table"):
            torch.nn.init.normal_(parameter)  # large enough to be seen
    return tower


def clips(count: int = 2, views: int = 1, frames: int = 512, bins: int = 32) -> AudioBatch:
    mel = torch.randn(count, views, frames, bins, generator=torch.Generator().manual_seed(1))
    return AudioBatch(mel, torch.full((count,), views > 1))


def without_drop_path(tower: HTSAT) -> HTSAT:
    for module in tower.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0  # type: ignore[assignment]
    return tower


def dense_block(block: SwinBlock, x_BHWC: Tensor, window: tuple[int, int], shifted: bool) -> Tensor:
    """A Swin block as attention of every token to every token, those outside the window masked; nothing is
    rearranged."""
    _, height, width, channels = x_BHWC.shape
    rows, columns = (
        grid.flatten() for grid in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    allowed = torch.ones(height * width, height * width, dtype=torch.bool)
    for place, length, side in ((rows, height, window[0]), (columns, width, window[1])):
        by = side // 2 if shifted and length > side else 0
        rolled = (place - by) % length
        for group in (rolled // side, place < by):  # the same window, and not torn apart by the roll
            allowed &= group[:, None] == group[None, :]
    normed = block.norm1(x_BHWC).flatten(1, 2)
    heads = block.attn.heads
    q, k, v = block.attn.qkv(normed).unflatten(2, (3, heads, channels // heads)).permute(2, 0, 3, 1, 4)
    down, right = rows[:, None] - rows[None, :], columns[:, None] - columns[None, :]
    row_of_table = ((down + 7) * 15 + right + 7).where(allowed, torch.tensor(0))
    bias = block.attn.relative_position_bias_table[row_of_table].permute(2, 0, 1)
    scores = (q @ k.transpose(2, 3)) * (channels // heads) ** -0.5 + bias
    attended = scores.masked_fill(~allowed, -torch.inf).softmax(dim=3) @ v
    x = x_BHWC.flatten(1, 2) + block.attn.proj(attended.transpose(1, 2).flatten(2))
    return (x + block.mlp(block.norm2(x))).unflatten(1, (height, width))


def dense_stage(stage: SwinStage, x_BHWC: Tensor, window: tuple[int, int]) -> Tensor:
    for number, block in enumerate(stage.blocks):
        x_BHWC = dense_block(block, x_BHWC, window, number % 2 == 1)  # type: ignore[arg-type]
    if isinstance(stage.downsample, torch.nn.Identity):
        return x_BHWC
    corners = [x_BHWC[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    return stage.downsample.reduction(stage.downsample.norm(torch.cat(corners, dim=3)))  # type: ignore[operator, union-attr]


@torch.no_grad()
@pytest.mark.parametrize(
    ("kept", "widths"), [(8, (8, 8, 8)), (7, (7, 7, 7)), (6, (8, 6, 6)), (4, (8, 8, 4)), (1, (4, 2, 1))]
)
def test_a_narrower_map_is_read_as_attention_of_all_to_all_would(kept: int, widths: tuple[int, ...]) -> None:
    tower, side = network().eval(), 32
    tokens = WholeMap(side, 8, SMALL.depths) if kept == 8 else PartOfMap(side, 8, SMALL.depths, kept)
    numbered = torch.arange(side * side).float().view(1, -1, 1).expand(2, -1, -1)
    torch.manual_seed(3)
    windowed = tokens(numbered)[:, :, 0].long()
    torch.manual_seed(3)
    x_BNC = torch.randn(2, side * side, 8, generator=torch.Generator().manual_seed(2))
    dense = x_BNC.gather(1, windowed.sort(dim=1).values.unsqueeze(2).expand(-1, -1, 8))
    ours, dense = tokens(x_BNC), dense.unflatten(1, (side, 4 * kept))
    for stage, layout, width in zip(tower.layers, tokens.layouts, widths, strict=True):
        ours = stage(ours, layout)
        dense = dense_stage(stage, dense, (8, width))  # type: ignore[arg-type]
    torch.testing.assert_close(ours, dense.flatten(1, 2), rtol=1e-4, atol=1e-5)


def test_blocks_of_columns_remain_equally_often() -> None:
    part = PartOfMap(64, 8, (2, 2, 6, 2), remaining=3)
    numbered = torch.arange(64 * 64).float().view(1, -1, 1).expand(400, -1, -1)
    torch.manual_seed(0)
    kept_BN = part(numbered)[:, :, 0].long()
    assert kept_BN.shape == (400, 64 * 24)
    counts, ways = torch.zeros(8), set()
    for tokens in kept_BN:
        columns = torch.unique(tokens % 64)
        assert torch.equal(torch.bincount(tokens // 64), torch.full((64,), 24)) and len(torch.unique(tokens)) == 64 * 24
        blocks = torch.unique(columns // 8)
        assert torch.equal(columns, (blocks[:, None] * 8 + torch.arange(8)).flatten())
        counts[blocks] += 1
        ways.add(tuple(blocks.tolist()))
    assert torch.all((counts - 150).abs() < 40) and len(ways) > 45  # of 56
    torch.manual_seed(0)
    assert torch.equal(part(numbered)[:, :, 0].long(), kept_BN)


def test_evaluation_reads_the_whole_map_without_randomness() -> None:
    tower, pann = network().eval(), PANN(PANNConfig((4, 8), "average")).eval()
    for model in (tower, pann):
        whole = model(clips())
        model.drop_patches(0.5)
        before = torch.get_rng_state()
        assert torch.equal(model(clips()), whole) and torch.equal(torch.get_rng_state(), before)


def test_share_zero_equals_no_patch_dropout() -> None:
    tower, pann = without_drop_path(network()), PANN(PANNConfig((4, 8), "average"))
    for model in (tower, pann):
        results = []
        for share in (None, 0.0):
            if share is not None:
                model.drop_patches(0.5)
                model.drop_patches(share)
            results.append(model.train()(clips()))
        assert torch.equal(*results)


def test_leaving_out_makes_steps_cheaper() -> None:
    tower = network().train()
    work = {}
    for share in (0.0, 0.5, 0.75):
        tower.drop_patches(share)
        with FlopCounterMode(display=False) as counter:
            tower(clips(1)).sum().backward()
        work[share] = counter.get_total_flops()
    for share, flops in work.items():
        assert abs(flops / work[0.0] - (1 - share)) < 0.05


def test_dropped_patches_are_replayed() -> None:
    tower = network().train()
    tower.drop_patches(0.5)
    results = []
    for seed in (5, 6, 5):
        torch.manual_seed(seed)
        results.append(tower(clips()))
    assert torch.equal(results[0], results[2]) and not torch.equal(results[0], results[1])


@pytest.mark.parametrize(("share", "columns"), [(0.0, 8), (0.05, 8), (0.3, 6), (0.5, 4), (0.99, 1)])
def test_the_share_is_rounded_to_columns_of_the_last_map(share: float, columns: int) -> None:
    tower = network().train()
    tower.drop_patches(share)
    assert tower.last_map(clips(), tower.training_map).shape[1] == 8 * columns


@pytest.mark.parametrize("fusion", ["aff_2d", "iaff_1d", "channel_map"])
def test_every_parameter_of_a_fused_tower_learns_from_a_part(fusion: str) -> None:
    config = HTSATConfig(8, (2, 2, 2), (1, 2, 4), n_mels=32, image=128, classes=0, fusion=fusion)  # type: ignore[arg-type]
    pann = PANNConfig((8, 8), "average", n_mels=32, fusion=fusion)  # type: ignore[arg-type]
    for tower in (network(config), PANN(pann)):
        tower.train().drop_patches(0.5)
        tower(clips(views=4)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in tower.parameters())


def test_a_crop_in_time_is_one_stretch_from_anywhere() -> None:
    crop = TimeCrop().train()
    crop.share = 0.75
    frames = torch.arange(12.0).view(1, 1, 12, 1).expand(600, 2, 12, 3)
    torch.manual_seed(1)
    cropped = crop(frames)
    assert cropped.shape == (600, 2, 3, 3)
    first_B = cropped[:, 0, 0, 0]
    assert torch.equal(cropped, (first_B[:, None] + torch.arange(3))[:, None, :, None].expand(600, 2, 3, 3))
    counts = torch.bincount(first_B.long(), minlength=10)
    assert len(counts) == 10 and counts.min() > 35 and counts.max() < 90


def test_a_permutation_and_its_gradients_are_those_of_an_index() -> None:
    generator = torch.Generator().manual_seed(4)
    source, target = (torch.randperm(12, generator=generator).numpy() for _ in range(2))
    permute = Permutation(source, target)
    tokens = torch.from_numpy(source).double().view(1, 12, 1)
    assert permute(tokens).flatten().tolist() == target.tolist()
    x = torch.randn(2, 12, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    torch.testing.assert_close(permute(x), x[:, permute.order], rtol=0, atol=0)
    assert torch.autograd.gradcheck(permute, x) and torch.autograd.gradgradcheck(permute, x)
