from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openclap import presets
from openclap.errors import ConfigError
from openclap.recipes import RECIPES, recipe
from openclap.train.config import OptimConfig, TrainConfig, option_names, override
from openclap.train.optim import build_optimizer, freeze, parameter_groups, warmup_cosine
from reference import GOLDEN
from tiny import PRESET

CONFIG = TrainConfig(start="x", data="y", epochs=3, batch_size=4)


def test_the_schedule_is_the_references() -> None:
    golden = np.load(GOLDEN / "cosine_lr.npz")
    ours = [1e-4 * warmup_cosine(int(step), warmup_steps=320, total_steps=4000) for step in golden["step"]]
    np.testing.assert_allclose(ours, golden["lr"], rtol=1e-9, atol=1e-12)


def test_options_replace_values_by_their_kind() -> None:
    changed = override(
        CONFIG, {"epochs": "7", "optim.lr": "3e-4", "frozen": "audio_tower,text_tower", "optim.betas": "0.8,0.9"}
    )
    assert (changed.epochs, changed.optim.lr, changed.optim.betas) == (7, 3e-4, (0.8, 0.9))
    assert changed.frozen == ("audio_tower", "text_tower") and CONFIG.epochs == 3
    assert override(CONFIG, {"batch-size": "8", "optim.weight-decay": "0"}).batch_size == 8
    for name in option_names(CONFIG):
        value = "0.5,0.5" if name == "optim.betas" else "5"
        assert name in ("start", "data") or override(CONFIG, {name: value})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epoch": "3"}, "Did you mean --epochs"),
        ({"optim.lrr": "3"}, "Did you mean --optim.lr"),
        ({"zzzzzzz": "3"}, "There are: start"),
        ({"optim": "3"}, "There is no option"),
        ({"data.lr": "3"}, "There is no option"),
        ({"epochs": "three"}, "expected something like 3"),
        ({"epochs": "0"}, "expected 1 or more"),
        ({"batch_size": "1"}, "expected 2 or more"),
        ({"seed": "-1"}, "below 2"),
        ({"optim.lr": "-1"}, "expected 0 or more"),
        ({"optim.lr": "nan"}, "expected 0 or more"),
        ({"optim.warmup_steps": "-4"}, "expected 0 or more"),
        ({"optim.betas": "0.9"}, "expected two numbers"),
        ({"optim.betas": "2,3"}, "expected two numbers"),
        ({"optim.clip_norm": "0"}, "more than 0"),
    ],
)
def test_wrong_options_are_told(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        override(CONFIG, options)


def test_decay_is_on_matrices_alone_and_towers_have_their_own_rate() -> None:
    clap = presets.build(PRESET)
    groups = parameter_groups(clap, OptimConfig(lr=1.0, tower_lr=0.1, weight_decay=0.5))
    rate = {id(p): (g["base_lr"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    assert len(rate) == len(list(clap.parameters()))
    assert rate[id(clap.logit_scale)] == (1.0, 0.0)
    assert rate[id(clap.audio_head[0].weight)] == (1.0, 0.5)
    assert rate[id(clap.audio_head[0].bias)] == (1.0, 0.0)
    assert rate[id(clap.audio_tower.blocks[0].conv1.weight)] == (0.1, 0.5)
    assert rate[id(clap.audio_tower.blocks[0].bn1.weight)] == (0.1, 0.0)


def test_freezing_stops_gradients_and_batch_norms() -> None:
    clap = presets.build(PRESET).train()
    freeze(clap, ("audio_tower", "text_head.0"))
    assert not any(p.requires_grad for p in clap.audio_tower.parameters())
    assert not clap.audio_tower.blocks[0].bn1.training and clap.text_tower.training
    assert not clap.text_head[0].weight.requires_grad and clap.text_head[2].weight.requires_grad
    with pytest.raises(ConfigError, match="audio_towel"):
        freeze(clap, ("audio_towel",))
    freeze(clap, ("audio_head", "text_tower", "text_head", "logit_scale"))
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(clap, OptimConfig())


def test_recipes_by_name_and_by_file(tmp_path: Path) -> None:
    for name in RECIPES:
        assert isinstance(recipe(name), TrainConfig)
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from openclap.train.config import TrainConfig\n"
        "def config():\n    return TrainConfig(start='a', data='b', epochs=1, batch_size=2)\n",
        encoding="utf-8",
    )
    assert recipe(str(mine)).start == "a"
    for content, said in [("def config(): return 3\n", "expected a TrainConfig"), ("1 / 0\n", "ZeroDivisionError")]:
        mine.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigError, match=said):
            recipe(str(mine))
    with pytest.raises(ConfigError, match="There is no recipe 'dmeo'"):
        recipe("dmeo")


def test_tiny_rates_do_not_vanish_in_warmup() -> None:
    assert warmup_cosine(0, warmup_steps=0, total_steps=1) == 1.0
    assert torch.tensor([warmup_cosine(step, warmup_steps=5, total_steps=5) for step in range(5)]).min() > 0
