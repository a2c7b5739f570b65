from __future__ import annotations

import io
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from openclap.audio.io import BLOCK, decode, decoded, describe, read_blocks, read_mono
from openclap.audio.resample import resample
from openclap.errors import AudioError
from support.errors import raises_naming

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
    for path in damaged(tmp_path).values():
        with raises_naming(AudioError, path.name):
            decode(path)


def test_a_header_that_promises_hours_takes_no_memory(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", STEREO, RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F  # STREAMINFO: the highest bits of the number of samples
    content[22:26] = b"\xff" * 4
    with raises_naming(AudioError, "1.00 s"):
        decode(bytes(content))


def test_a_url_is_not_fetched() -> None:
    for address in ("https://example.org/a.wav", Path("https://example.org/a.wav"), "file:/a.wav"):
        with raises_naming(AudioError, "URL"):
            decode(address)


def wav(rate: int, content: bytes, promised: int | None = None) -> bytes:
    """16 bits, mono, by the letter of the format."""
    size = len(content) if promised is None else promised
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(content), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return head + struct.pack("<4sI", b"data", size) + content


@pytest.mark.parametrize("rate", [1, 48, 999, 2**31 - 1])
def test_invalid_rates_are_refused(rate: int) -> None:
    with raises_naming(AudioError, "Hz"):
        read_mono(wav(rate, b"\0\1" * 50000), 48000)


def test_upsampling_is_done_in_blocks() -> None:
    longest = max(map(len, read_blocks(wav(1000, b"\0\1" * 100_000), 48000)))
    assert longest < 2 * BLOCK


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    """Text that FFmpeg would follow to another file, or to a host."""
    write_m4a(tmp_path / "secret.m4a")
    secret = tmp_path / "secret.m4a"
    for text in (
        f"ffconcat version 1.0\nfile {secret}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 50004 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n",
    ):
        (tmp_path / "text.wav").write_text(text, encoding="utf-8")
        began = time.monotonic()
        with raises_naming(AudioError, "text.wav"):
            decode(tmp_path / "text.wav")
        assert time.monotonic() - began < 5


def test_truncated_wav_is_refused() -> None:
    content = (np.arange(3 * RATE) % 999).astype("<i2").tobytes()
    with raises_naming(AudioError, "1.50 s", "3.00 s"):
        decode(wav(RATE, content[: len(content) // 2], len(content)))
    aiff = io.BytesIO()
    soundfile.write(aiff, STEREO, RATE, format="AIFF")
    with raises_naming(AudioError, "1.00 s"):
        decode(aiff.getvalue()[:40000])
    for written_to_a_pipe in (0xFFFFFFFF, 0x7FFFF000, len(content) + 44):
        assert len(decode(wav(RATE, content, written_to_a_pipe))[0]) == 3 * RATE


def test_samples_far_beyond_one_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", STEREO * 32768, RATE, subtype="FLOAT")
    with raises_naming(AudioError, "loud.wav", 32768):
        decode(tmp_path / "loud.wav")


class Piped(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_open_files_are_read_in_pieces_and_left_where_they_stood(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile(STEREO, (40, 1)), RATE)
    with path.open("rb") as file:
        first = next(decoded(file))[0]
        assert file.tell() == 0 and len(first) < 20 * RATE
        file.seek(0, 2)
        with raises_naming(AudioError, "a.wav", "0 bytes"):
            decode(file)
    behind = io.BytesIO(b"something" + path.read_bytes())
    behind.seek(9)
    np.testing.assert_array_equal(decode(behind)[0], decode(path)[0])
    assert behind.tell() == 9 and len(decode(Piped(path.read_bytes()))[0]) == 40 * RATE
    with path.open(encoding="latin-1") as text, raises_naming(AudioError, "a.wav", "rb"):
        decode(text)  # type: ignore[arg-type]
    with raises_naming(AudioError, "a.wav", "closed"):
        decode(file)
    with raises_naming(AudioError, "empty"):
        decode("")


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path) -> None:
    for ending in ("wav", "mp3"):
        soundfile.write(tmp_path / f"plain.{ending}", STEREO, RATE)
        odd = tmp_path / f"caf\udce9.{ending}"
        (tmp_path / f"plain.{ending}").rename(odd)
        assert describe(odd)[1:] == (RATE, 2) and len(decode(odd)[0]) == len(STEREO)
