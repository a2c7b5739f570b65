"""Several processes compute what one computes on the same global batch, however clips are distributed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.features import CONFIGS, TAUGHT_CONFIGS
from support.processes import DEALS, DTYPES, objective_results, results, run_groups
from support.step_cases import CASES, make_batch, step_results


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compute the results of groups of two, three and four processes."""
    folder = tmp_path_factory.mktemp("groups")
    run_groups(folder)
    return folder


@pytest.mark.parametrize("world", DEALS)
def test_objective_shares_and_gradients_equal_one_process(groups: Path, world: int) -> None:
    per_process = results(groups, "objectives", world)
    for name in CONFIGS | TAUGHT_CONFIGS:
        for precision, dtype in DTYPES.items():
            close = {"rtol": 1e-6, "atol": 1e-6 if dtype == torch.float32 else 1e-9}
            one = objective_results(name, dtype)
            shares = [found[f"{name}, {precision}"] for found in per_process]
            torch.testing.assert_close(sum(share["share"] for share in shares), one["share"], **close)
            for key, gradient in one["rows"].items():
                theirs = [share["rows"][key] for share in shares]
                if gradient is None:
                    assert theirs == [None] * world, (name, key)
                else:
                    torch.testing.assert_close(torch.cat(theirs), gradient, **close)
            for key, gradient in one["sums"].items():
                if gradient is not None:
                    torch.testing.assert_close(sum(share["sums"][key] for share in shares), gradient, **close)


STEPS = [(name, world) for name, case in CASES.items() for world in case.worlds]


@pytest.mark.parametrize(("name", "world"), STEPS)
def test_model_step_equals_one_process(groups: Path, name: str, world: int) -> None:
    case = CASES[name]
    one = step_results(case, [make_batch(seed, long=case.fusion) for seed in range(case.batches)])
    for found in (process[name] for process in results(groups, "steps", world)):
        for key, value in one["report"].items():
            assert found["report"][key] == pytest.approx(value, rel=1e-6), key
        assert one["gradients"].keys() <= found["gradients"].keys()
        for key, gradient in found["gradients"].items():  # an unused part has no gradient, or zeros
            expected = one["gradients"].get(key, torch.zeros_like(gradient))
            torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    assert any(gradient.abs().max() > 1e-3 for gradient in one["gradients"].values())
