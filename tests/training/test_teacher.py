"""Training with a teacher: soft targets against plain torch, and runs whose targets come from stored vectors."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, one_hot, softmax

import openclap
from openclap.audio.augment import AugmentConfig
from openclap.data.loader import caption_id
from openclap.data.shards import index_shards
from openclap.errors import ConfigError
from openclap.models.build import build_clap
from openclap.models.config import ObjectiveConfig
from openclap.models.objectives import build_objective
from openclap.training.teacher import embed_with_teachers, load_teachers, open_teachers
from openclap.training.trainer import Trainer, train
from openclap.types import Features
from support.errors import raises_naming
from support.features import make_taught_features
from support.runs import MakeConfig, assert_equal_runs, launch, signal_at, start_run, stopped_at
from support.step_cases import CASES, make_batch, step_results
from support.tiny_models import TINY_PRESET, save_tiny_model


def loss_of(config: ObjectiveConfig, features: Features) -> Tensor:
    preset = replace(TINY_PRESET, embedding_size=8)
    return build_objective(config, build_clap(preset)).double()(features, features)


def test_soft_targets_are_those_of_plain_torch() -> None:
    """One caption for each of four clips: KL from ¼ one-hot and ¾ of the teacher's softmax, in both directions."""
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(4, size, generator=generator, dtype=torch.float64) for size in (8, 8, 3, 3)]
    audio, text, teacher_audio, teacher_text = vectors
    audio.requires_grad_()
    number, scale = torch.arange(4), torch.tensor(5.0, dtype=torch.float64)
    features = Features(
        audio, text, number, number, number, scale, teacher_audio_BE=teacher_audio, teacher_text_TE=teacher_text
    )
    loss = loss_of(ObjectiveConfig(teacher_share=0.75, teacher_temperature=2.0), features)
    logits, teacher = scale * audio @ text.T, teacher_audio @ teacher_text.T / 2
    expected = torch.zeros((), dtype=torch.float64)
    for student, taught in ((logits, teacher), (logits.T, teacher.T)):
        target = 0.25 * one_hot(number).double() + 0.75 * softmax(taught, dim=1)
        expected = expected + kl_div(log_softmax(student, dim=1), target, reduction="batchmean") / 2
    torch.testing.assert_close(loss, expected)
    for one, other in zip(torch.autograd.grad(loss, [audio]), torch.autograd.grad(expected, [audio]), strict=True):
        torch.testing.assert_close(one, other)


def test_a_student_that_equals_its_teacher_has_no_gradient() -> None:
    features = make_taught_features(dtype=torch.float64)
    own = features.audio_BD.detach() * features.scale.detach().sqrt(), features.text_TD.detach() * features.scale.sqrt()
    taught = replace(features, teacher_audio_BE=own[0], teacher_text_TE=own[1].detach())
    loss = loss_of(ObjectiveConfig(teacher_share=1.0), taught)
    gradients = torch.autograd.grad(loss, [features.audio_BD, features.text_TD, features.scale])
    assert abs(loss.item()) < 1e-12
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients)
    hard = loss_of(ObjectiveConfig(), replace(features, teacher_audio_BE=None, teacher_text_TE=None))
    assert hard.item() > 0.1


def test_a_clip_that_the_teacher_lacks_keeps_its_pair_as_target() -> None:
    """The fourth clip: alone it is trained as without a teacher, and no caption's soft target points to it."""
    features = make_taught_features(dtype=torch.float64)
    loss = loss_of(ObjectiveConfig(teacher_share=1.0), features)
    [gradient] = torch.autograd.grad(loss, [features.audio_BD])
    assert gradient.isfinite().all()
    assert features.teacher_audio_BE is not None
    silent = replace(features, teacher_audio_BE=torch.full_like(features.teacher_audio_BE, torch.nan))
    hard = replace(features, teacher_audio_BE=None, teacher_text_TE=None)
    without = loss_of(ObjectiveConfig(), hard).item()
    # Nothing is known: the targets are the pairs', spread over a clip's captions, whose entropy is taken off.
    spread = np.mean([np.log(captions) for captions in (1, 3, 1, 2, 1, 2)]) / 2
    assert loss_of(ObjectiveConfig(), silent).item() == pytest.approx(without - spread)


def test_chunks_equal_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch()
    generator = torch.Generator().manual_seed(0)
    rows = {
        "teacher_audio_BE": torch.randn(len(batch.keys), 3, generator=generator, dtype=torch.float64),
        "teacher_text_TE": torch.randn(len(batch.owner_T), 3, generator=generator, dtype=torch.float64),
    }
    from openclap.training import step

    real = step.TrainingStep.__init__

    def taught(self: step.TrainingStep, *values: object, **options: object) -> None:
        real(self, *values, **options)  # type: ignore[arg-type]
        self.attach_teacher = lambda features, batch: replace(features, **rows)

    plain = step_results(CASES["whole"], [batch])
    monkeypatch.setattr(step.TrainingStep, "__init__", taught)
    whole, chunks = (step_results(replace(CASES["whole"], chunk=chunk), [batch]) for chunk in (0, 2))
    assert whole["report"]["loss"] == pytest.approx(chunks["report"]["loss"], rel=1e-9)
    for name, gradient in whole["gradients"].items():
        torch.testing.assert_close(chunks["gradients"][name], gradient, rtol=1e-6, atol=1e-9)
    assert whole["report"]["loss"] != pytest.approx(plain["report"]["loss"], rel=1e-3)


@pytest.fixture
def teachers(tmp_path: Path, tiny_swin: Path) -> tuple[str, str]:
    """Two models, the second with another embedding size."""
    return str(tiny_swin), str(save_tiny_model(tmp_path / "larger", replace(TINY_PRESET, embedding_size=24)))


@pytest.mark.parametrize("world", [1, 2])
def test_stored_vectors_give_the_mean_of_the_teachers_logits(
    teachers: tuple[str, str], shards: Path, tmp_path: Path, world: int
) -> None:
    index = index_shards(shards)
    seen: list[tuple[int, int]] = []
    for rank in range(world):
        loaded = load_teachers(teachers, torch.device("cpu"))
        embed_with_teachers(
            loaded,
            teachers,
            index,
            tmp_path,
            rank=rank,
            world=world,
            progress=lambda done, total: seen.append((done, total)),
        )
    assert seen[-1] == (12 // world, 12 // world)
    samples = [index.read_sample(number) for number in (4, 1, 2)]
    captions = [sample.captions[0] for sample in samples]
    batch = replace(
        make_batch(captions=(1, 1, 1)),
        numbers=(4, 1, 2),
        caption_id_T=torch.tensor([caption_id(caption) for caption in captions]),
    )
    features = replace(make_taught_features(dtype=torch.float32), audio_BD=torch.zeros(3, 8))
    taught = open_teachers(2, tmp_path, world)(features, batch)
    assert taught.teacher_audio_BE is not None and taught.teacher_text_TE is not None
    expected = np.zeros((3, 3))
    for name in teachers:
        model = openclap.load(name)
        audio = model.embed_audio([sample.audio for sample in samples])
        expected += audio @ model.embed_text(captions).T * model.runtime.logit_scale / 2
    np.testing.assert_allclose(taught.teacher_audio_BE @ taught.teacher_text_TE.T, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_taught_run_resumes_bit_equal_and_keeps_its_teacher(
    make_config: MakeConfig, teachers: tuple[str, str], tmp_path: Path
) -> None:
    config = make_config(epochs=20, teacher=teachers)
    train(config, tmp_path / "whole")
    assert signal_at(start_run(config, tmp_path / "stopped", 30), 10, signal.SIGKILL) == -signal.SIGKILL
    train(config, tmp_path / "stopped")
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")
    # Another model at the same path is another run.
    stopped = stopped_at(tmp_path / "whole", 56, tmp_path / "copy")
    shutil.rmtree(teachers[1])
    save_tiny_model(Path(teachers[1]), replace(TINY_PRESET, embedding_size=12))
    with raises_naming(ConfigError, "teacher_digests", stopped):
        train(config, stopped)


def test_teacher_changes_the_targets_and_its_damage_is_mended(
    make_config: MakeConfig, teachers: tuple[str, str], tmp_path: Path
) -> None:
    config = make_config(epochs=2, teacher=teachers[:1])
    train(config, tmp_path / "taught")
    train(make_config(epochs=2), tmp_path / "plain")
    with pytest.raises(AssertionError):
        assert_equal_runs(tmp_path / "taught", tmp_path / "plain")
    # A part that was not finished is made again, from the cache of embeddings.
    stopped = stopped_at(tmp_path / "taught", 4, tmp_path / "copy")
    (stopped / "teacher" / "0-of-1" / "model-0" / "teacher.json").write_text('{"dig')
    train(config, stopped)
    assert_equal_runs(tmp_path / "taught", stopped)


@pytest.mark.long
def test_two_processes_learn_what_one_learns(
    make_config: MakeConfig, teachers: tuple[str, str], tmp_path: Path
) -> None:
    one = make_config(epochs=2, batch_size=6, teacher=teachers)
    train(one, tmp_path / "one")
    launch(make_config(epochs=2, batch_size=3, teacher=teachers).to_dict(), tmp_path / "two")
    rows = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)


def test_teachers_read_the_channel_of_the_run(
    make_config: MakeConfig, teachers: tuple[str, str], tmp_path: Path
) -> None:
    made = Trainer(make_config(teacher=teachers, channels="left"), tmp_path / "run", None, None)
    assert [teacher.mono.channels for teacher in made.teachers] == ["left", "left"]


def test_refused_teachers(make_config: MakeConfig, tiny_model: Path, tmp_path: Path) -> None:
    wordless = shutil.copytree(tiny_model, tmp_path / "wordless")
    (wordless / "tokenizer.json").unlink()
    with raises_naming(ConfigError, "teacher", wordless):
        train(make_config(teacher=(str(wordless),)), tmp_path / "run")
    with raises_naming(ConfigError, "teacher", "siglip"):
        make_config(teacher=("mini",), objective=ObjectiveConfig("siglip"))
    with raises_naming(ConfigError, "teacher", "augment.mixup"):
        make_config(teacher=("mini",), augment=AugmentConfig(mixup=0.5))
    with raises_naming(ConfigError, "objective.teacher_share", "1.5"):
        ObjectiveConfig(teacher_share=1.5)
    with raises_naming(ConfigError, "objective.teacher_temperature", "0"):
        ObjectiveConfig(teacher_temperature=0.0)
