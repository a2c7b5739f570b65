"""Training steps in one process: whole, in chunks, and over several batches."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from openclap.models.build import build_clap
from openclap.models.config import ObjectiveConfig
from openclap.models.objectives import build_objective
from openclap.training.optimizer import freeze_running_statistics
from openclap.training.step import TrainingStep, alignment, compute_features, uniformity
from openclap.types import Features, PhraseBatch, TextBatch
from support.features import CAPTIONS
from support.step_cases import CASES, Case, gradients_of, make_batch, step_results

EVERYTHING = ObjectiveConfig("infonce", 0.7, 0.2, (4,), True)


def assert_equal_gradients(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys() and any(gradient.abs().max() > 1e-3 for gradient in one.values())
    for name, gradient in one.items():
        torch.testing.assert_close(
            gradient, other[name], rtol=1e-7, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("chunk", [1, 2, 4, 6, 100])
@pytest.mark.parametrize("kind", [EVERYTHING, ObjectiveConfig("mlp", kappa=1.0), ObjectiveConfig("siglip")])
def test_chunked_step_equals_whole_step_with_frozen_batch_norm(kind: ObjectiveConfig, chunk: int) -> None:
    whole, chunked = (step_results(Case(kind, chunk=size), [make_batch()]) for size in (0, chunk))
    assert chunked["report"] == pytest.approx(whole["report"], rel=1e-6)
    assert_equal_gradients(chunked["gradients"], whole["gradients"])


def test_chunks_replay_their_random_states() -> None:
    """With dropout, the step equals the chunks' features in one graph with the same random numbers."""
    case, batch = Case(ObjectiveConfig("mlp"), chunk=4), make_batch()
    torch.manual_seed(0)
    model = build_clap(case.preset()).double().train()
    model.audio_tower.eval()
    objective = build_objective(case.objective, model)
    torch.manual_seed(1)
    parts = [model(piece) for piece in batch.split(4)]
    after = torch.get_rng_state()
    objective(*[_joined(parts)] * 2).backward()
    expected = gradients_of(model)
    model.zero_grad()
    torch.manual_seed(1)
    TrainingStep(
        Accelerator(cpu=True), model, objective, torch.optim.SGD(model.parameters(), lr=0.0), clip_norm=1e9, chunk=4
    )([batch])
    assert_equal_gradients(gradients_of(model), expected)
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(2)
    model.zero_grad()
    objective(*[_joined([model(piece) for piece in batch.split(4)])] * 2).backward()
    others = gradients_of(model)  # other draws are other gradients: the dropout is there
    assert any((gradient - others[name]).abs().max() > 1e-3 for name, gradient in expected.items())


def _joined(parts: list[Features]) -> Features:
    first, second = parts
    names = ("audio_BD", "text_TD", "audio_mlp_BD", "text_mlp_TD", "caption_id_T")
    rows = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    shifted = {name: torch.cat([getattr(first, name), getattr(second, name) + 4]) for name in ("clip_B", "owner_T")}
    return replace(first, **rows, **shifted)


def test_running_statistics_are_updated_once_per_chunk() -> None:
    """As in one pass over the chunks, though each is computed twice."""
    case, batch = Case(ObjectiveConfig(), chunk=2), make_batch()
    torch.manual_seed(0)
    model = build_clap(case.preset()).double().train()
    start = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for piece in batch.split(2) * 2:  # step_results takes two steps
        model(piece)
    expected = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = step_results(case, [batch], training=True)["buffers"]
    assert any(not torch.equal(start[name], expected[name]) for name in start)
    for name, buffer in expected.items():
        torch.testing.assert_close(found[name], buffer, rtol=1e-6, atol=1e-7)


def test_freeze_running_statistics_within_the_context_only() -> None:
    norm = nn.BatchNorm1d(2)
    x, y = torch.randn(2, 5, 2)
    with freeze_running_statistics(norm):
        torch.testing.assert_close(norm(x), (x - x.mean(0)) / (x.var(0, unbiased=False) + norm.eps).sqrt())
    assert norm.num_batches_tracked.item() == 0 and norm.running_mean.tolist() == [0, 0]
    norm(y)
    torch.testing.assert_close(norm.running_mean, 0.1 * y.mean(0))


def test_accumulating_equal_batches_equals_one_batch() -> None:
    """The mean of equal losses is that loss."""
    for kind in (EVERYTHING, ObjectiveConfig("siglip")):
        one, three = (step_results(Case(kind), [make_batch()] * count) for count in (1, 3))
        assert three["report"] == pytest.approx(one["report"], rel=1e-6)
        assert_equal_gradients(three["gradients"], one["gradients"])


def test_accumulation_averages_losses_and_adds_no_negatives() -> None:
    batches = [make_batch(seed) for seed in (0, 1)]
    losses = [step_results(Case(ObjectiveConfig()), [batch])["report"]["loss"] for batch in batches]
    both = step_results(Case(ObjectiveConfig()), batches)["report"]["loss"]
    assert both == pytest.approx(sum(losses) / 2, rel=1e-6)
    large = step_results(Case(ObjectiveConfig()), [make_batch(0, CAPTIONS * 2)])["report"]["loss"]
    assert large > both + 0.2  # twice the negatives


def test_split_batch_keeps_captions_with_their_clip() -> None:
    batch = make_batch()
    pieces = batch.split(4)
    assert [piece.keys for piece in pieces] == [("0", "1", "2", "3"), ("4", "5")]
    assert [piece.owner_T.tolist() for piece in pieces] == [[0, 1, 1, 1, 2, 3, 3], [0, 1, 1]]
    assert torch.equal(torch.cat([piece.text.ids_BL for piece in pieces]), batch.text.ids_BL)
    assert torch.equal(torch.cat([piece.caption_id_T for piece in pieces]), batch.caption_id_T)
    shuffled = replace(batch, owner_T=batch.owner_T.flip(0))
    assert [piece.owner_T.tolist() for piece in shuffled.split(4)] == [[3, 3, 2, 1, 1, 1, 0], [1, 1, 0]]


def test_empty_batch_gives_zero_gradients_to_the_parameters() -> None:
    model = build_clap(Case(ObjectiveConfig("mlp")).preset()).double().train()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    features = compute_features(model, make_batch(captions=()))
    assert features.audio_BD.shape == features.text_TD.shape == (0, 16) and len(features.owner_T) == 0
    (features.audio_BD.sum() + features.text_TD.sum() + features.scale).backward()
    assert all(not model.get_parameter(name).grad.any() for name in ("audio_head.0.weight", "text_head.0.weight"))
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())


def test_frozen_parts_get_no_gradient_in_chunks() -> None:
    for name in ("frozen towers in chunks", "scale alone in chunks"):
        case = CASES[name]
        chunked, whole = (step_results(replace(case, chunk=size), [make_batch()]) for size in (case.chunk, 0))
        assert_equal_gradients(chunked["gradients"], whole["gradients"])
        assert not any(key.startswith(case.frozen) for key in chunked["gradients"])


@pytest.mark.parametrize("chunk", [0, 2])
def test_loss_scale_is_applied_and_removed_once(chunk: int) -> None:
    """With a GradScaler, as in fp16: every gradient is scaled and unscaled, the objective's own included."""
    case, scaler = Case(ObjectiveConfig("siglip"), chunk=chunk), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled, plain = step_results(case, [make_batch()], scaler=scaler), step_results(case, [make_batch()])
    assert scaled["report"]["grad_norm"] == pytest.approx(2**10 * plain["report"]["grad_norm"], rel=1e-6)
    assert_equal_gradients(scaled["gradients"], plain["gradients"])


def test_autocast_features_and_loss_are_fp32() -> None:
    """Under autocast, the towers compute in bf16, and features, objective and loss are fp32."""
    torch.manual_seed(0)
    model = build_clap(CASES["mlp"].preset()).eval()
    objective, batch = build_objective(ObjectiveConfig("mlp"), model), make_batch()
    batch = replace(batch, audio=replace(batch.audio, mel_BVTF=batch.audio.mel_BVTF.float()))
    with torch.autocast("cpu", torch.bfloat16):
        features = model(batch)
    vectors = (features.audio_BD, features.text_TD, features.audio_mlp_BD, features.text_mlp_TD, features.scale)
    assert {vector.dtype for vector in vectors if vector is not None} == {torch.float32}
    exact = model(batch)
    assert not torch.equal(features.audio_BD, exact.audio_BD)
    close = objective(features, features).item()
    assert close == pytest.approx(objective(exact, exact).item(), rel=0.05)


@pytest.fixture
def bf16() -> Iterator[Accelerator]:
    """An accelerator with mixed precision; accelerate has one state for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)


def test_chunked_step_equals_whole_step_in_mixed_precision(bf16: Accelerator) -> None:
    batch = make_batch()
    batch = replace(batch, audio=replace(batch.audio, mel_BVTF=batch.audio.mel_BVTF.float()))
    gradients = []
    for chunk in (0, 2):
        torch.manual_seed(0)
        model = build_clap(CASES["mlp"].preset()).eval()
        objective = build_objective(ObjectiveConfig("mlp"), model)
        wrapped, optimizer = bf16.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
        TrainingStep(bf16, wrapped, objective, optimizer, clip_norm=1e9, chunk=chunk)([batch])
        gradients.append(torch.cat([gradient.flatten() for gradient in gradients_of(model).values()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=0.02 * gradients[0].abs().max().item())
    assert gradients[0].dtype == torch.float32 and gradients[0].norm() > 1e-2


def test_chunked_step_stores_the_activations_of_one_chunk() -> None:
    """The peak of bytes saved for backward is that of a chunk, not of the batch."""
    captions = (1,) * 32
    small = _peak_saved(Case(ObjectiveConfig()), captions[:4])
    assert _peak_saved(Case(ObjectiveConfig(), chunk=4), captions) < 1.1 * small
    assert _peak_saved(Case(ObjectiveConfig()), captions) > 6 * small


def _peak_saved(case: Case, captions: tuple[int, ...]) -> int:
    """Measure the peak of bytes that graphs store, parameters left out."""
    stored = [0, 0]

    class Stored:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.size = tensor, 0 if isinstance(tensor, nn.Parameter) else tensor.nbytes
            stored[0] += self.size
            stored[1] = max(stored)

        def __del__(self) -> None:
            stored[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Stored, lambda saved: saved.tensor):
        step_results(case, [make_batch(0, captions)])
    return stored[1]


@pytest.mark.long
def test_chunks_fit_a_large_batch_into_the_memory_of_a_small_one() -> None:
    """Compare the benchmark's peaks of the whole process: 64 clips in chunks of 6, and 8 clips at once."""
    script = Path(__file__).parents[2] / "benchmarks" / "gradient_cache.py"
    run = subprocess.run(
        [sys.executable, str(script), "--batch", "64", "--chunk", "6", "--small", "8", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    peaks = json.loads(run.stdout)
    assert peaks["chunked_bytes"] < 1.1 * peaks["small_bytes"]


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


def test_chance_is_the_loss_of_equal_embeddings_in_frames_too() -> None:
    """Logits of 8 everywhere: scale 10 times cosine 1, and bias -2."""
    batch = make_batch(captions=(1, 1, 1))
    ids_BL = torch.tensor([[4, 5], [6, 7]])
    active_BMP = torch.zeros(3, 8, 2, dtype=torch.bool)
    active_BMP[0, 1:3, 0] = active_BMP[1, 4:6, 1] = True
    phrases = PhraseBatch(TextBatch(ids_BL, torch.ones_like(ids_BL)), active_BMP, torch.ones(3, 8, dtype=torch.bool))
    plain, frames = (
        step_results(Case(ObjectiveConfig(frames=weight), naflex=True), [replace(batch, phrases=phrases)])["report"]
        for weight in (0.0, 1.0)
    )
    high, low = math.log1p(math.exp(8)), math.log1p(math.exp(-8))
    assert plain["chance"] == pytest.approx(math.log(3))
    assert frames["chance"] == pytest.approx(math.log(3) + low / 2 + high / 4 + high / 4)
