from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import openclap
from openclap.embedder import Embedder
from openclap.errors import (
    AudioError,
    AudioWarning,
    CheckpointError,
    ConfigError,
    DataError,
    MissingTokenizerError,
)
from support.errors import raises_naming


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Embedder:
    return openclap.load(tiny_model)


def noise(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (max(1, int(seconds * rate)), channels) if channels > 1 else (max(1, int(seconds * rate)),)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.05, 8.0), st.sampled_from([8000, 16000, 44100, 48000, 96000]), st.integers(1, 6)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 9),
)
def test_a_vector_depends_on_its_clip_alone(
    model: Embedder, clips: list[tuple[float, int, int]], batch_size: int
) -> None:
    sounds = [(noise(*clip, seed=number), clip[1]) for number, clip in enumerate(clips)]
    together = model.embed_audio(sounds, batch_size=batch_size)
    alone = np.concatenate([model.embed_audio([sound]) for sound in sounds])
    assert together.shape == (len(clips), 16) and together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together, model.embed_audio(sounds, batch_size=batch_size))
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_text_depends_on_its_sentence_alone(model: Embedder) -> None:
    texts = ["a wolf howling", "rain", "rain on a roof in the low wolf noise number 3", "", "a dog"]
    together = model.embed_text(texts, batch_size=3)
    alone = np.concatenate([model.embed_text([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert model.embed_text([]).shape == (0, 16) and model.embed_audio([]).shape == (0, 16)


def test_every_kind_of_source_gives_the_same_vector(model: Embedder, tmp_path: Path) -> None:
    wave = noise(1.2, 16000)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    content = (tmp_path / "a.wav").read_bytes()
    sources = [tmp_path / "a.wav", str(tmp_path / "a.wav"), content, io.BytesIO(content), (wave, 16000)]
    vectors = model.embed_audio([*sources, (wave.astype(np.float64), 16000), (wave[:, None], 16000)])
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], len(vectors), axis=0), atol=1e-6)


def test_integers_are_scaled_by_their_type(model: Embedder) -> None:
    wave = noise(0.4, 16000)
    as_int = np.round(wave * 32768).astype(np.int16)
    np.testing.assert_allclose(model.embed_audio([(as_int, 16000)]), model.embed_audio([(wave, 16000)]), atol=1e-3)


def test_unsigned_samples_have_their_middle_at_zero(model: Embedder) -> None:
    wave = noise(0.4, 16000)
    as_uint8 = np.clip(np.round(wave * 128 + 128), 0, 255).astype(np.uint8)
    assert (model.embed_audio([(as_uint8, 16000)]) @ model.embed_audio([(wave, 16000)]).T).item() > 0.99


def test_a_long_clip_is_the_mean_of_its_windows(model: Embedder) -> None:
    wave = noise(1.3, 16000)  # the model reads half a second
    starts = [0, 8000, len(wave) - 8000]
    parts = model.embed_audio([(wave[start : start + 8000], 16000) for start in starts])
    mean = parts.mean(axis=0)
    np.testing.assert_allclose(model.embed_audio([(wave, 16000)])[0], mean / np.linalg.norm(mean), atol=1e-5)
    windows = model.windows((wave, 16000))
    assert [(w.start_s, w.end_s) for w in windows] == [(0.0, 0.5), (0.5, 1.0), (0.8, 1.3)]
    np.testing.assert_allclose([w.vector for w in windows], parts, atol=1e-5)


def test_windows_of_other_lengths(model: Embedder) -> None:
    wave = noise(2.0, 16000)
    windows = model.windows((wave, 16000), length_s=1.0, hop_s=0.4)
    assert [round(w.start_s, 3) for w in windows] == [0.0, 0.4, 0.8, 1.0]
    expected = model.embed_audio([(wave[:16000], 16000)])[0]
    np.testing.assert_allclose(windows[0].vector, expected, atol=1e-5)
    with raises_naming(ConfigError, "length_s", 0.0):
        model.windows((wave, 16000), length_s=0.0)


def test_classify_is_a_softmax_of_scaled_cosines(model: Embedder) -> None:
    sounds, labels = [(noise(0.3, 16000), 16000), (noise(0.9, 16000, seed=1), 16000)], ["dog", "rain", "big_bell"]
    probabilities = model.classify(sounds, labels)
    texts = model.embed_text([f"This is a sound of {label.replace('_', ' ')}." for label in labels])
    scores = np.exp(model.embed_audio(sounds) @ texts.T / 0.07)
    np.testing.assert_allclose(probabilities, scores / scores.sum(axis=1, keepdims=True), rtol=1e-4)
    with pytest.raises(ConfigError):
        model.classify(sounds, [])


def test_tensors_carry_gradients_and_agree(model: Embedder) -> None:
    wave = torch.tensor(noise(1.3, 16000), requires_grad=True)
    vectors = model.audio_tensor([wave, torch.tensor(noise(0.2, 16000, seed=1))])
    vectors[0, 0].backward()
    assert wave.grad is not None and wave.grad.abs().sum() > 0
    expected = model.embed_audio([(wave.detach().numpy(), 16000)])
    np.testing.assert_allclose(vectors[:1].detach().numpy(), expected, atol=1e-5)
    batch = model.tokenizer(["a dog"])
    np.testing.assert_allclose(
        model.text_tensor(batch.ids_BL, batch.mask_BL).detach().numpy(), model.embed_text(["a dog"]), atol=1e-6
    )


def test_saved_and_loaded_it_is_the_same(model: Embedder, tmp_path: Path) -> None:
    model.save(tmp_path / "again")
    again = openclap.load(tmp_path / "again")
    sound = (noise(0.7, 22050), 22050)
    np.testing.assert_array_equal(again.embed_audio([sound]), model.embed_audio([sound]))
    np.testing.assert_array_equal(again.embed_text(["a dog"]), model.embed_text(["a dog"]))
    assert again.digest() == model.digest() and again.preset == model.preset


def test_silence_and_one_sample_have_vectors(model: Embedder) -> None:
    vectors = model.embed_audio([(np.zeros(16000, np.float32), 16000), (np.ones(1, np.float32), 16000)])
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("sound", "value"),
    [
        ((np.zeros(0, np.float32), 16000), "(0,)"),
        ((np.zeros((2, 3, 4), np.float32), 16000), "(2, 3, 4)"),
        ((np.zeros((2, 16000), np.float32), 16000), "(2, 16000)"),
        ((np.full(100, np.nan, np.float32), 16000), "NaN"),
        ((np.zeros(100, np.float32), 0), "0 Hz"),
        ((np.zeros(100, bool), 16000), "bool"),
        ((np.full(100, 1e30, np.float32), 16000), "32768"),
        ((np.full(100, 900, np.int32), 16000), "16-bit"),
        ((np.full(100, 900, np.int64), 16000), "int64"),
        ((np.zeros(100, np.float32), 16000.5), "16000.5 Hz"),
        ((np.zeros(100, np.float32), 48), "48000"),
        ((np.zeros(100, np.float32), float("nan")), "nan Hz"),
        ((np.zeros(100, np.float32), float("inf")), "inf Hz"),
        ((np.zeros(100, np.float32), "16000"), "str"),
        ((16000, np.zeros(100, np.float32)), "ndarray"),
        ((np.zeros(100, np.float32), 16000, 1), "tuple of 3"),
        ([np.zeros(100, np.float32), 16000], "list of 2"),
        (([[0.0, 0.1], [0.2]], 16000), "array"),
        ((torch.zeros(100, requires_grad=True), 16000), "tensor.detach().numpy()"),
        ((np.arange(-8388607, 8388607, 999, dtype=np.int32), 16000), "24-bit"),
        (None, "NoneType"),
        ({"array": np.zeros(100), "sampling_rate": 16000}, "dict"),
        (np.zeros(100, np.float32), "rate"),
        ("missing.wav", "missing.wav"),
    ],
)
def test_invalid_sounds_raise_audio_error(model: Embedder, sound: object, value: str) -> None:
    good = (noise(0.3, 16000), 16000)
    with raises_naming(AudioError, value):
        model.embed_audio([sound])  # type: ignore[list-item]
    found = list(model.embed_each([good, sound, good]))  # type: ignore[list-item]
    assert [isinstance(each, AudioError) for each in found] == [False, True, False]
    assert str(found[1]).startswith(("sounds[1]: ", "missing.wav: "))


def test_single_sound_or_text_in_place_of_a_list_is_refused(model: Embedder) -> None:
    wave = noise(0.3, 16000)
    for one in ("a.wav", Path("a.wav"), b"RIFF", wave, (wave, 16000), io.BytesIO(b"RIFF"), {"array": wave}, None, 5):
        with raises_naming(ConfigError, "sounds"):
            model.embed_audio(one)  # type: ignore[arg-type]
    with raises_naming(AudioError, "list of 1"):
        model.windows([Path("a.wav")])  # type: ignore[arg-type]
    for texts in ("a dog", None, ["a", 1]):
        with raises_naming(ConfigError, "texts"):
            model.embed_text(texts)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.embed_text(text for text in ["a dog"]), model.embed_text(["a dog"]))


def test_buffers_and_rows_of_stereo_are_sounds(model: Embedder) -> None:
    file = io.BytesIO()
    soundfile.write(file, noise(0.3, 16000), 16000, format="WAV")
    vectors = model.embed_audio([bytearray(file.getvalue()), memoryview(file.getvalue()), file.getvalue()])
    np.testing.assert_allclose(vectors, vectors[[2, 2, 2]], atol=1e-6)
    assert model.embed_audio([(np.ones((1, 2), np.float32), 16000)]).shape == (1, 16)  # one sample of two channels
    quiet = np.full(8000, 256, np.int32)  # the lowest bit of 24, in 32
    assert model.read((quiet, 16000)).max() == np.float32(256 / 2**31)


def test_audio_tensor_refuses_other_inputs(model: Embedder) -> None:
    assert model.audio_tensor([]).shape == (0, 16)
    wave = torch.tensor(noise(0.3, 16000))
    torch.testing.assert_close(model.audio_tensor([wave.double()]), model.audio_tensor([wave]))
    for waves in ([noise(0.3, 16000)], [torch.zeros(9, dtype=torch.int16)], [[0.0]], [torch.zeros(2, 9)]):
        with raises_naming(ConfigError, "audio_tensor"):
            model.audio_tensor(waves)  # type: ignore[arg-type]


def test_invalid_window_lengths_are_refused(model: Embedder) -> None:
    for length in (float("nan"), float("inf"), 1e305, -1.0, "5"):
        with raises_naming(ConfigError, "length_s", repr(length)):
            model.windows((noise(0.3, 16000), 16000), length_s=length)  # type: ignore[arg-type]


def test_one_bad_sound_stops_no_other(model: Embedder, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    results = list(model.windows_each([(noise(0.3, 16000), 16000), tmp_path / "bad.wav", (noise(0.9, 16000), 16000)]))
    assert [isinstance(result, AudioError) for result in results] == [False, True, False]


def test_invalid_models_and_options_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with raises_naming(CheckpointError, tmp_path / "nothing"):
        openclap.load(tmp_path / "nothing")
    with raises_naming(ConfigError, "precision", "'fp8'"):
        openclap.load(tiny_model, precision="fp8")
    with raises_naming(ConfigError, "texts"):
        openclap.load(tiny_model).embed_text("a dog")
    for wrong in ({"batch_size": 0}, {"batch_size": -3}, {"batch_size": 1.5}, {"batch_size": "4"}):
        with raises_naming(ConfigError, "batch_size"):
            openclap.load(tiny_model).embed_audio([(noise(0.3, 16000), 16000)], **wrong)
    with raises_naming(ConfigError, "labels"):
        openclap.load(tiny_model).classify([(noise(0.3, 16000), 16000)], "dog")
    for device in ("foo", "cuda:99", "meta"):
        with raises_naming(ConfigError, "device", repr(device), "cpu"):
            openclap.load(tiny_model, device=device)
    with raises_naming(DataError, "UTF-8"):
        openclap.load(tiny_model).embed_text(["\ud800"])
    bare = Path(shutil.copytree(tiny_model, tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    model = openclap.load(bare)  # sounds need no tokenizer
    assert model.embed_audio([(noise(0.3, 16000), 16000)]).shape == (1, 16)
    with raises_naming(MissingTokenizerError, "tokenizer.json"):
        model.embed_text(["a dog"])
    given_one = openclap.load(bare, tokenizer=tiny_model / "tokenizer.json")
    assert given_one.embed_text(["a dog"]).shape == (1, 16)


def test_silence_around_a_sound_does_not_move_its_vector(model: Embedder) -> None:
    wave, nothing = noise(0.5, 16000), np.zeros(40000, np.float32)  # the model reads half a second
    nothing[::7] = 0.9e-4  # below -80 dBFS
    [wanted] = model.embed_audio([(wave, 16000)])
    around = [np.concatenate([nothing[:24000], wave]), np.concatenate([wave, nothing[:32000]]), nothing]
    found = model.embed_audio([(each, 16000) for each in around], batch_size=2)
    np.testing.assert_allclose(found[:2], [wanted] * 2, atol=1e-5)
    tensors = model.audio_tensor([torch.from_numpy(each) for each in around]).detach().numpy()
    np.testing.assert_allclose(tensors, found, atol=1e-5)
    parts = model.embed_audio([(nothing[start : start + 8000], 16000) for start in range(0, 40000, 8000)])
    mean = parts.mean(axis=0)
    np.testing.assert_allclose(found[2], mean / np.linalg.norm(mean), atol=1e-5)  # all silent: all of them
    [window] = model.windows((np.concatenate([nothing, wave]), 16000), length_s=3.0)
    np.testing.assert_allclose(window.vector, wanted, atol=1e-5)


def test_silent_ends_are_cut_on_request(model: Embedder, tiny_model: Path, tmp_path: Path) -> None:
    wave = noise(0.3, 16000)
    wave[[0, -1]] = 0.1
    within = np.concatenate([np.zeros(2400, np.float32), wave, np.zeros(800, np.float32)])  # one window holds all
    soundfile.write(tmp_path / "a.wav", within, 16000, subtype="FLOAT")
    [wanted], [as_it_is] = model.embed_audio([(wave, 16000)]), model.embed_audio([tmp_path / "a.wav"])
    trimming = openclap.load(tiny_model, trim_silence=True)
    with (tmp_path / "a.wav").open("rb") as file:
        found = trimming.embed_audio([tmp_path / "a.wav", (within, 16000), file])
    np.testing.assert_allclose(found, [wanted] * 3, atol=1e-6)
    tensor = trimming.audio_tensor([torch.from_numpy(within)])
    np.testing.assert_allclose(tensor.detach().numpy(), [wanted], atol=1e-5)
    assert not np.allclose(as_it_is, wanted, atol=1e-4)
    [window] = trimming.windows(tmp_path / "a.wav")
    assert (window.start_s, window.end_s) == pytest.approx((0.15, 0.45))  # of the file, not of what was left of it
    assert trimming.digest() != model.digest() and "silent ends" in trimming.clip_policy


@pytest.mark.parametrize("channels", ["left", "right", "loudest"])
def test_channels_are_chosen_on_request(model: Embedder, tiny_model: Path, channels: str) -> None:
    left, right = noise(0.9, 16000), 2 * noise(0.9, 16000, seed=1)
    choosing = openclap.load(tiny_model, channels=channels)  # type: ignore[arg-type]
    found = choosing.embed_audio([(np.stack([left, right], axis=1), 16000)])
    np.testing.assert_allclose(found, model.embed_audio([(left if channels == "left" else right, 16000)]), atol=1e-6)
    assert choosing.digest() != model.digest() and channels in choosing.clip_policy
    with pytest.raises(ConfigError):
        openclap.load(tiny_model, channels="centre")  # type: ignore[arg-type]


def test_stereo_with_one_side_inverted_warns(model: Embedder, tmp_path: Path) -> None:
    wave = noise(0.9, 16000)
    soundfile.write(tmp_path / "phone.wav", np.stack([wave, -wave], axis=1), 16000)
    with pytest.warns(AudioWarning, match=r"phone\.wav"):
        model.embed_audio([tmp_path / "phone.wav"])


def test_columns_of_paths_are_lists_of_sounds(model: Embedder, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.wav") for number in range(2)]
    for number, path in enumerate(paths):
        soundfile.write(path, noise(0.3, 16000, seed=number), 16000)
    wanted = model.embed_audio(paths)
    for column in (np.array(paths), np.array(paths, dtype=object), np.array([Path(path) for path in paths])):
        np.testing.assert_array_equal(model.embed_audio(column), wanted)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.embed_text(np.array(["a dog"])), model.embed_text(["a dog"]))  # type: ignore[arg-type]
    for one in (np.zeros(8000, np.float32), np.array("a.wav"), np.array([[paths[0]]])):
        with pytest.raises(ConfigError):
            model.embed_audio(one)  # type: ignore[arg-type]
