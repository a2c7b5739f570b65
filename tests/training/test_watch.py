from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openclap import presets
from openclap.training.logging import UtilisationMeter
from openclap.training.optimizer import freeze
from openclap.training.profiling import FlopCount, count_flops, matmul_peak, peak_memory
from openclap.training.step import alignment, uniformity
from openclap.types import AudioBatch, PairBatch, TextBatch
from tiny import PRESET


def test_alignment_and_uniformity_by_hand() -> None:
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert alignment(east, east) == 0 and alignment(east, -east) == 4 and alignment(east, north) == 2
    # three points: squared distances 2, 2 and 4
    three = torch.cat([east, north, -east])
    expected = np.log((2 * np.exp(-4.0) + np.exp(-8.0)) / 3)
    assert uniformity(three).item() == pytest.approx(expected, rel=1e-6)
    assert uniformity(east.repeat(5, 1)) == 0


def test_uniformity_of_a_high_dimensional_sphere_is_near_its_bound() -> None:
    spread = F.normalize(torch.randn(500, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert -4.0 < uniformity(spread).item() < -3.9


def test_flop_count_by_hand() -> None:
    """A text tower of one BERT layer, 16 wide with 32 inside, a head of 16 to 16 to 16: by hand."""
    clap = presets.build(PRESET)
    tokens, width, inner = 24, 16, 32
    linear = 2 * (4 * width * width + 2 * width * inner)  # per token: q, k, v, out; up and down
    attention = 2 * 2 * tokens * width  # per token: scores and mixing
    head = 2 * 2 * width * width / tokens  # once a caption
    forward = linear + attention + head
    work = count_flops(clap, PRESET.frontend)
    assert forward * 2.9 < work.token <= forward * 3.0  # each product twice more, backward
    freeze(clap, ("text_tower",))
    frozen = count_flops(clap, PRESET.frontend)
    assert frozen.token == pytest.approx(
        linear + attention + head * 2.5, rel=1e-3
    )  # the first layer's input needs none
    assert frozen.clip == work.clip


def test_counting_flops_changes_no_state() -> None:
    clap = presets.build(PRESET).train()
    freeze(clap, ("audio_tower",))
    before = {name: tensor.clone() for name, tensor in clap.state_dict().items()}
    modes, random = [module.training for module in clap.modules()], torch.get_rng_state()
    count_flops(clap, PRESET.frontend)
    assert all(torch.equal(tensor, before[name]) for name, tensor in clap.state_dict().items())
    assert [module.training for module in clap.modules()] == modes and torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in clap.parameters())


def test_utilisation_includes_padding_and_waiting() -> None:
    gauge = UtilisationMeter(presets.build(PRESET), PRESET.frontend)
    gauge.flops, gauge.peak = FlopCount(clip=100.0, token=10.0), 1000.0
    batch = PairBatch(
        audio=AudioBatch(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.bool)),
        text=TextBatch(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5, dtype=torch.long)),
        owner_T=torch.arange(2),
        caption_id_T=torch.arange(2),
        keys=("a", "b"),
    )
    row = gauge.measure([batch], seconds=2.0)
    assert row["mfu"] == pytest.approx((2 * 100 + 10 * 10) / 2.0 / 1000)
    assert 50 < row["memory_mb"] < 100_000


def test_matmul_and_memory_peaks_are_plausible() -> None:
    assert 1e8 < matmul_peak(torch.device("cpu")) < 1e15
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(before // 4)  # as many bytes again, beside all that is held already
    assert peak_memory(torch.device("cpu")) > before and held.nbytes > 1e8
