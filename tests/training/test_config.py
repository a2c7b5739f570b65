from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from openclap.cli.train import parse_options
from openclap.errors import ConfigError
from openclap.models.build import build_clap
from openclap.models.config import OBJECTIVE_KINDS
from openclap.models.objectives import OBJECTIVES
from openclap.recipes import RECIPES, recipe
from openclap.training.config import OptimConfig, TrainConfig, describe_options, option_names, override
from openclap.training.optimizer import SCHEDULES, build_optimizer, freeze, parameter_groups, warmup_cosine
from support.errors import raises_naming
from support.reference import GOLDEN
from support.tiny_models import TINY_PRESET

CONFIG = TrainConfig(start="x", data="y", epochs=3, batch_size=4)


def test_cosine_schedule_equals_reference() -> None:
    golden = np.load(GOLDEN / "cosine_lr.npz")
    ours = [1e-4 * warmup_cosine(int(step), warmup_steps=320, total_steps=4000) for step in golden["step"]]
    np.testing.assert_allclose(ours, golden["lr"], rtol=1e-9, atol=1e-12)


def test_schedules_share_warmup_and_reach_their_final_rates() -> None:
    shares = {name: [f(step, warmup_steps=4, total_steps=12) for step in range(12)] for name, f in SCHEDULES.items()}
    assert all(share[:4] == [0.25, 0.5, 0.75, 1.0] for share in shares.values())
    assert shares["linear"][4:] == pytest.approx([1 - n / 8 for n in range(8)])
    assert shares["constant"][4:] == [1.0] * 8


def test_override_converts_text_by_field_type() -> None:
    changed = override(
        CONFIG, {"epochs": "7", "optim.lr": "3e-4", "frozen": "audio_tower,text_tower", "optim.betas": "0.8,0.9"}
    )
    assert (changed.epochs, changed.optim.lr, changed.optim.betas) == (7, 3e-4, (0.8, 0.9))
    assert changed.frozen == ("audio_tower", "text_tower") and CONFIG.epochs == 3
    assert override(CONFIG, {"batch-size": "8", "optim.weight-decay": "0"}).batch_size == 8
    others = {
        "optim.betas": "0.5,0.5",
        "optim.schedule": "linear",
        "precision": "bf16",
        "caption": "all",
        "channels": "left",
        "objective.teacher_share": "0.9",
        "start_share": "0.5",
    }
    flags = dict.fromkeys(("freeze_batch_norm", "compile", "activation_checkpointing"), "yes")
    flags["objective.spare_equal_captions"] = "yes"
    shares = {f"augment.{name}": "0.5" for name in ("shift", "mixup", "patch_dropout")}
    others |= flags | shares | {"objective.kind": "siglip", "objective.label_smoothing": "0.5"}
    for name in option_names(CONFIG):
        assert override(CONFIG, {name: others.get(name, "5")}) != CONFIG, name


def test_override_takes_typed_values_and_whole_groups() -> None:
    changed = override(CONFIG, {"epochs": 7, "optim.lr": 3e-4, "frozen": ("audio_tower",)})
    assert (changed.epochs, changed.optim.lr, changed.frozen) == (7, 3e-4, ("audio_tower",))
    assert override(CONFIG, {"optim": OptimConfig(lr=0.5)}).optim == OptimConfig(lr=0.5)
    with raises_naming(ConfigError, "--epoch", "--epochs"):
        override(CONFIG, {"epoch": 7})
    with raises_naming(ConfigError, "epochs", 0):
        override(CONFIG, {"epochs": 0})
    with raises_naming(ConfigError, "--optimiser"):
        override(CONFIG, {"optimiser": OptimConfig()})


def test_boolean_option_needs_no_value() -> None:
    assert override(CONFIG, {"objective.spare-equal-captions": None}).objective.spare_equal_captions
    with raises_naming(ConfigError, "--epochs", 3):
        override(CONFIG, {"epochs": None})
    given = ("--compile", "--epochs", "5", "--optim.lr=1", "--activation-checkpointing")
    assert parse_options(given) == {"compile": None, "epochs": "5", "optim.lr": "1", "activation-checkpointing": None}


def test_every_option_has_a_description_and_round_trips() -> None:
    described = {name: (value, meaning) for name, value, meaning in describe_options(CONFIG)}
    assert {name[2:].replace("-", "_") for name in described} == set(option_names(CONFIG))
    assert all(meaning for _, meaning in described.values())
    assert override(CONFIG, {name[2:]: value for name, (value, _) in described.items()}) == CONFIG
    assert described["--optim.betas"][0] == "0.9,0.98" and described["--compile"][0] == "no"


def test_override_reads_nested_groups() -> None:
    assert override(CONFIG, {"compile": "no", "trackers": ""}).trackers == ()
    deep = override(Outer(), {"inner.most": "0.5", "inner.core.note": "None", "inner.core.sizes": "3, 4", "limit": "7"})
    assert deep == Outer(limit=7, inner=Inner(most=0.5, core=Core(note=None, sizes=(3, 4))))
    assert option_names(deep) == ["limit", "inner.most", "inner.core.note", "inner.core.sizes"]
    assert override(deep, {"limit": "none", "inner.core.note": "7"}) == Outer(
        limit=None, inner=Inner(most=0.5, core=Core(note="7", sizes=(3, 4)))
    )
    with raises_naming(ConfigError, "--inner.core.size", "--inner.core.sizes"):
        override(deep, {"inner.core.size": "3"})
    with raises_naming(ConfigError, "--inner.core"):
        override(deep, {"inner.core": "3"})


@dataclass(frozen=True)
class Core:
    note: str | None = "x"
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inner:
    most: float = 1.0
    core: Core = field(default_factory=Core)


@dataclass(frozen=True)
class Outer:
    limit: int | None = 3
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"epoch": "3"}, "--epochs"),
        ({"optim.lrr": "3"}, "--optim.lr"),
        ({"zzzzzzz": "3"}, "start"),
        ({"optim": "3"}, "--optim"),
        ({"data.lr": "3"}, "--data.lr"),
        ({"epochs": "three"}, 3),
        ({"epochs": "0"}, 1),
        ({"batch_size": "1"}, 2),
        ({"seed": "-1"}, -1),
        ({"optim.lr": "-1"}, -1.0),
        ({"compile": "perhaps"}, "yes or no"),
        ({"precision": "fp8"}, "fp32, bf16, fp16"),
        ({"optim.schedule": "cosin"}, "cosine"),
        ({"accumulate": "0"}, 1),
        ({"patience": "-1"}, -1),
        ({"optim.lr": "nan"}, "nan"),
        ({"optim.warmup_steps": "-4"}, -4),
        ({"optim.betas": "0.9"}, "0.9"),
        ({"optim.betas": "2,3"}, "(2.0, 3.0)"),
        ({"optim.clip_norm": "0"}, 0.0),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], value: object) -> None:
    with raises_naming(ConfigError, *options, value):
        override(CONFIG, options)


def test_parameter_groups_of_towers_heads_and_decay() -> None:
    clap = build_clap(TINY_PRESET)
    groups = parameter_groups(clap, OptimConfig(lr=1.0, tower_lr=0.1, weight_decay=0.5))
    rate = {id(p): (g["base_lr"], g["weight_decay"]) for g in groups for p in g["params"]}  # type: ignore[attr-defined]
    assert len(rate) == len(list(clap.parameters()))
    assert rate[id(clap.logit_scale)] == (1.0, 0.0)
    assert rate[id(clap.audio_head[0].weight)] == (1.0, 0.5)
    assert rate[id(clap.audio_head[0].bias)] == (1.0, 0.0)
    assert rate[id(clap.audio_tower.blocks[0].conv1.weight)] == (0.1, 0.5)
    assert rate[id(clap.audio_tower.blocks[0].bn1.weight)] == (0.1, 0.0)


def test_freeze_stops_gradients_and_batch_norms() -> None:
    clap = build_clap(TINY_PRESET).train()
    freeze(clap, ("audio_tower", "text_head.0"))
    assert not any(p.requires_grad for p in clap.audio_tower.parameters())
    assert not clap.audio_tower.blocks[0].bn1.training and clap.text_tower.training
    assert not clap.text_head[0].weight.requires_grad and clap.text_head[2].weight.requires_grad
    with raises_naming(ConfigError, "'audio_towel'"):
        freeze(clap, ("audio_towel",))
    freeze(clap, ("audio_head", "text_tower", "text_head", "logit_scale"))
    with raises_naming(ConfigError):
        build_optimizer(clap, OptimConfig())


def test_recipes_are_found_by_name_and_by_file(tmp_path: Path) -> None:
    for name in RECIPES:
        assert isinstance(recipe(name), TrainConfig)
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from openclap.training.config import TrainConfig\n"
        "def config():\n    return TrainConfig(start='a', data='b', epochs=1, batch_size=2)\n",
        encoding="utf-8",
    )
    assert recipe(str(mine)).start == "a"
    for content, value in [("def config(): return 3\n", "TrainConfig"), ("1 / 0\n", "ZeroDivisionError")]:
        mine.write_text(content, encoding="utf-8")
        with raises_naming(ConfigError, mine, value):
            recipe(str(mine))
    with raises_naming(ConfigError, "'dmeo'", *RECIPES):
        recipe("dmeo")


def test_recipes_and_configurations_import_no_torch() -> None:
    script = (
        "import sys\nfrom openclap.recipes import RECIPES\nfor each in RECIPES.values(): each.config()\n"
        "from openclap.training.config import describe_options, override\n"
        "describe_options(override(RECIPES['demo'].config(), {'epochs': '3'}))\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_objective_kinds_are_the_objectives() -> None:
    assert tuple(OBJECTIVES) == OBJECTIVE_KINDS


def test_warmup_rate_is_never_zero() -> None:
    assert warmup_cosine(0, warmup_steps=0, total_steps=1) == 1.0
    assert torch.tensor([warmup_cosine(step, warmup_steps=5, total_steps=5) for step in range(5)]).min() > 0


def test_python_values_are_checked_and_made_comparable() -> None:
    config = override(CONFIG, {"frozen": ["audio_tower"], "start": Path("mini"), "optim.lr": 1, "workers": 2})
    assert (config.frozen, config.start, config.optim.lr, config.workers) == (("audio_tower",), "mini", 1, 2)
    for name, value in (
        ("optim.lr", [1e-3]),
        ("frozen", ("audio_tower", 1)),
        ("compile", 3),
        ("precision", 16),
        ("start", 5),
        ("epochs", 1.5),
    ):
        with raises_naming(ConfigError, name):
            override(CONFIG, {name: value})
