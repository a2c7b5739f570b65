from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.audio.io import decode, describe, read_mono, resample
from openclap.errors import AudioError

RATE = 22050
STEREO = (0.3 * np.sin(np.linspace(0, 900, RATE))[:, None] * np.array([1.0, 0.5])).astype(np.float32)


def write_m4a(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(STEREO.T), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode(None)])


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff", "m4a"])
def test_every_common_format_decodes_to_the_same_sound(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    write_m4a(path) if ending == "m4a" else soundfile.write(path, STEREO, RATE)
    wave_NC, rate = decode(path)
    assert rate == RATE and wave_NC.shape[1] == 2 and wave_NC.dtype == np.float32
    assert abs(len(wave_NC) - RATE) <= 3 * 1152  # coded frames of MP3 and AAC
    assert describe(path) == (len(wave_NC) / rate, rate, 2)
    loud = np.abs(wave_NC[2000:20000]).max(axis=0)
    np.testing.assert_allclose(loud, [0.3, 0.15], atol=0.03)


def test_paths_bytes_and_open_files_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, STEREO, RATE)
    expected = decode(path)[0]
    opened = io.BytesIO(path.read_bytes())
    for source in (str(path), path.read_bytes(), opened, opened):  # an open file can be read again
        np.testing.assert_array_equal(decode(source)[0], expected)


def test_channels_are_averaged_and_the_rate_changed() -> None:
    file = io.BytesIO()
    soundfile.write(file, STEREO, RATE, format="WAV", subtype="FLOAT")
    mono = read_mono(file.getvalue(), RATE)
    np.testing.assert_allclose(mono, STEREO.mean(axis=1), atol=1e-7)
    assert len(read_mono(file.getvalue(), 48000)) == 48000


def test_resampling_keeps_a_tone() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)
    np.testing.assert_allclose(resample(tone, 44100, 48000)[500:-500], expected[500:-500], atol=1e-3)
    assert resample(tone, 44100, 44100) is tone
    assert len(resample(tone[:1], 96000, 8000)) == 1


def damaged(tmp_path: Path) -> dict[str, Path]:
    flac = tmp_path / "whole.flac"
    soundfile.write(flac, STEREO, RATE)
    contents = {
        "empty.wav": b"",
        "text.wav": b"this is a text file, not a sound\n" * 20,
        "cut.flac": flac.read_bytes()[: flac.stat().st_size // 2],
        "header.mp3": b"ID3\x04\x00\x00\x00\x00\x00\x00",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan, np.float32), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), RATE)
    names = [*contents, "nan.wav", "none.wav", "missing.wav", "."]
    return {name: tmp_path / name for name in names}


def test_damage_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        with pytest.raises(AudioError) as caught:
            decode(path)
        assert path.name in str(caught.value), name
        assert "\n" not in str(caught.value)


def test_a_header_that_promises_hours_takes_no_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", STEREO, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F  # STREAMINFO: the highest bits of the number of samples
    content[22:26] = b"\xff" * 4
    with pytest.raises(AudioError, match=r"truncated|damaged"):
        decode(bytes(content))


def test_a_url_is_not_fetched() -> None:
    with pytest.raises(AudioError, match="URL"):
        decode("https://example.org/a.wav")
