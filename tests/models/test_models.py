from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from openclap.models.build import build_clap
from openclap.models.clap import CLAP
from openclap.models.config import PANNConfig
from openclap.models.loss import contrastive_loss
from openclap.models.pann import PANN
from openclap.models.text_tower import POOLINGS
from openclap.types import AudioBatch, PairBatch, TextBatch
from support.reference import GOLDEN
from support.tiny_models import TINY_PRESET


def batches() -> tuple[AudioBatch, TextBatch]:
    generator = torch.Generator().manual_seed(1)
    mel = torch.rand(3, 1, 32, 24, generator=generator)
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0], [2, 8, 9, 3]])
    return AudioBatch(mel, torch.zeros(3, dtype=torch.bool)), TextBatch(ids, (ids > 0).long())


def tiny() -> CLAP:
    torch.manual_seed(0)
    return build_clap(TINY_PRESET).eval()


def test_both_sides_are_unit_vectors() -> None:
    one_each = torch.arange(3)
    features = tiny()(PairBatch(*batches(), owner_T=one_each, caption_id_T=one_each, keys=("a", "b", "c")))
    assert features.audio_BD.shape == features.text_TD.shape == (3, 16)
    torch.testing.assert_close(features.audio_BD.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(features.text_TD.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(features.scale, torch.tensor(1 / 0.07))


def test_the_temperature_is_clamped() -> None:
    model = tiny()
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
        assert model.scale.item() == torch.tensor(100.0).log().exp().item()
        model.logit_scale.fill_(-9.0)
        assert model.scale.item() == 1.0


def test_padding_changes_no_text_vector() -> None:
    model, (_, text) = tiny(), batches()
    padded = TextBatch(F.pad(text.ids_BL, (0, 6)), F.pad(text.mask_BL, (0, 6)))
    torch.testing.assert_close(model.encode_text(text), model.encode_text(padded), rtol=1e-5, atol=1e-6)


def test_poolings_by_hand() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    batch = TextBatch(torch.tensor([[5, 9, 0]]), torch.tensor([[1, 1, 0]]))
    output = SimpleNamespace(last_hidden_state=states)
    assert POOLINGS["mean"](output, batch).tolist() == [[2.0, 3.0]]
    assert POOLINGS["cls"](output, batch).tolist() == [[1.0, 2.0]]
    assert POOLINGS["eot"](output, batch).tolist() == [[3.0, 4.0]]
    torch.testing.assert_close(POOLINGS["mean_padded"](output, batch), torch.tensor([[104 / 3, 106 / 3]]))


def test_pann_reads_any_number_of_frames() -> None:
    tower = PANN(PANNConfig((4, 8, 16), "average")).eval()
    for frames in (8, 33, 100):
        batch = AudioBatch(torch.rand(2, 1, frames, 24), torch.zeros(2, dtype=torch.bool))
        assert tower(batch).shape == (2, 16)


def test_the_loss_and_its_gradient_are_the_references() -> None:
    golden = np.load(GOLDEN / "loss.npz")
    audio, text = (torch.from_numpy(golden["inputs"][i]) for i in (0, 1))
    audio.requires_grad_()
    loss = contrastive_loss(audio, text, torch.tensor(14.2857))
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden["plain"], rtol=1e-5)
    np.testing.assert_allclose(audio.grad, golden["plain_gradA"], rtol=1e-4, atol=1e-7)


def test_the_loss_by_hand() -> None:
    pair = torch.eye(2)
    expected = float(np.log(1 + np.exp(-2.0)))  # each row: scores 2 and 0
    assert abs(contrastive_loss(pair, pair, 2.0).item() - expected) < 1e-6
