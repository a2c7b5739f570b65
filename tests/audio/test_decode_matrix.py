"""Every container and codec, as made, damaged and joined, against the samples that went in.

`docs/decoding.md` shows what is asserted here; `python tests/audio/encoded.py` prints its table.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from openclap.audio import decode
from openclap.audio.find_streams import find_streams
from openclap.audio.io import BLOCK, decoded, describe, read_blocks, read_mono
from openclap.audio.streams import WINDOW
from openclap.errors import AudioError
from support.encoded import (
    FORMATS,
    ID3_BYTES,
    IN_WAV,
    REFUSING_JUNK,
    Coder,
    Field,
    Format,
    Wave,
    by_soundfile,
    id3,
    in_the_middle,
    junk,
    likeness,
    sound,
    table,
)
from support.errors import raises_naming

BY_NAME = {made.name: made for made in FORMATS}
LENGTH_S = 0.1
GAP = 2100
"""Samples between joined streams of lossy coders: the last frame is filled up."""

RATE = 48_000
FIRST, SECOND = sound(1), sound(2)

every = pytest.mark.parametrize("made", FORMATS, ids=list(BY_NAME))


def check(made: Format, content: bytes, *sources: Wave) -> None:
    """The streams of a file are these, one behind the other."""
    wave_NC, rate = decode(io.BytesIO(content))
    at = 0
    assert rate == made.rate
    assert abs(len(wave_NC) - sum(map(len, sources))) <= LENGTH_S * rate
    for number, source_NC in enumerate(sources):
        gap = 0 if made.correlation >= 0.99999 else GAP * number
        correlation, lag = likeness(wave_NC, source_NC, at, (number + 1) * made.late + gap)
        assert correlation >= made.correlation, (number, correlation, lag)
        at += len(source_NC)


def check_outcome(made: Format, content: bytes, outcome: str) -> None:
    """A whole sound, or one sentence."""
    if outcome == "refused":
        with raises_naming(AudioError):
            decode(content)
        return
    wave_NC, rate = decode(content)
    source_NC = made.source(1)
    half = len(source_NC) // 2
    assert abs(len(wave_NC) - len(source_NC)) <= LENGTH_S * rate
    for first, last in ((0, half - 4000), (half + 4000, len(source_NC))):  # a wrong number of frames trims in between
        slack = made.late or (GAP if made.framed else 0)
        assert likeness(wave_NC, source_NC[first:last], first, slack)[0] >= made.correlation
    assert describe(content) == (len(wave_NC) / rate, rate, made.channels)


def reader_of(content: bytes) -> str:
    (part,) = find_streams(io.BytesIO(content))
    if not part.by_libsndfile:
        return "FFmpeg"
    try:
        return str(soundfile.info(io.BytesIO(content)).format and "libsndfile")
    except soundfile.LibsndfileError:
        return "FFmpeg"


@every
def test_as_made(made: Format) -> None:
    check(made, made.encode(1), made.source(1))
    assert reader_of(made.encode(1)) == made.reader


@every
def test_joined(made: Format) -> None:
    content = made.encode(1) + made.encode(2)
    check(made, content, made.source(1), made.source(2))
    samples = sum(len(wave_NC) for wave_NC, _ in decoded(content))
    assert describe(content) == (samples / made.rate, made.rate, made.channels)


@pytest.mark.parametrize("first", ["WAV, 16 bit", "AIFF, 16 bit", "W64", "M4A, ALAC"])
@pytest.mark.parametrize("second", ["WAV, 16 bit", "CAF, 16 bit", "FLAC, 16 bit", "Ogg, FLAC", "MP3, constant rate"])
def test_joined_to_another_format(first: str, second: str) -> None:
    """Where the first one's structure says where it ends."""
    content = BY_NAME[first].encode(1) + BY_NAME[second].encode(2)
    wave_NC, _ = decode(content)
    assert abs(len(wave_NC) - len(FIRST) - len(SECOND)) <= LENGTH_S * RATE
    assert likeness(wave_NC, FIRST)[0] >= 0.99999
    assert likeness(wave_NC, SECOND, len(FIRST), GAP)[0] >= min(BY_NAME[second].correlation, 0.999)


@every
def test_tags_in_front(made: Format) -> None:
    for size in ID3_BYTES:
        check(made, id3(size) + made.encode(1), made.source(1))
    check(made, id3(3000) + id3(500) + made.encode(1) + id3(60_000) + made.encode(2), made.source(1), made.source(2))


@pytest.mark.parametrize("made", [made for made in FORMATS if made.length], ids=lambda made: made.name)
def test_lengths_that_are_missing_or_wrong(made: Format) -> None:
    assert made.length is not None
    for unknown in made.length.unknown:
        check(made, made.length.written(made.encode(1), lambda _, unknown=unknown: unknown), made.source(1))
    check_outcome(made, made.length.written(made.encode(1), lambda stated: stated // 2), made.length.small)
    check_outcome(made, made.length.written(made.encode(1), lambda stated: 2 * stated), made.length.large)


@pytest.mark.parametrize("made", [made for made in FORMATS if made.framed], ids=lambda made: made.name)
def test_junk_inside(made: Format) -> None:
    for seed in range(3):
        wave_NC, rate = decode(in_the_middle(made.encode(1), junk(400, seed)))
        source_NC = made.source(1)
        half = len(source_NC) // 2
        assert abs(len(wave_NC) - len(source_NC)) <= LENGTH_S * rate
        for first, last in ((0, half - 12_000), (half + 12_000, len(source_NC))):
            assert likeness(wave_NC, source_NC[first:last], first, made.late + 5000)[0] >= made.correlation


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith(REFUSING_JUNK)])
def test_junk_that_loses_more_is_refused(name: str) -> None:
    with raises_naming(AudioError):
        decode(in_the_middle(BY_NAME[name].encode(1), junk()))


@pytest.mark.parametrize("name", ["Ogg, Vorbis", "Ogg, Opus", "Ogg, FLAC"])
def test_a_lost_page_is_refused(name: str) -> None:
    """Decoders leave it out without a word: up to a second each."""
    content = BY_NAME[name].encode(1)
    inside = content.rindex(b"OggS") - 2000  # of the last page but one
    for damaged in (in_the_middle(content, junk()), content[:inside] + content[inside + 400 :]):
        with raises_naming(AudioError, "Ogg"):
            decode(damaged)
    second = content.index(b"OggS", content.index(b"OggS", 1) + 1)  # junk between pages
    check(BY_NAME[name], content[:second] + junk() + content[second:] + junk(), FIRST)


@pytest.mark.parametrize("size", [100, 400, 3000])
def test_junk_in_a_cluster_is_refused(size: int) -> None:
    """FFmpeg leaves out what is left of the cluster. Also where a byte that names a block comes to lie behind it, and
    where it is the last element of the file."""
    content = BY_NAME["Matroska, FLAC"].encode(1)
    cues, body = content.rindex(b"\x1c\x53\xbb\x6b"), content.index(b"\x18\x53\x80\x67") + 12
    size = next(more for more in range(size, 10_000) if content[cues - more] == 0xA3 and content[cues - more + 1] > 1)
    without_cues = BY_NAME["Matroska, FLAC"].length.written(content[:cues], lambda _: cues - body)
    check(BY_NAME["Matroska, FLAC"], without_cues, FIRST)
    check(BY_NAME["Matroska, FLAC"], without_cues + bytes(100), FIRST)
    half = len(content) // 2
    over = content[:half] + junk(4000) + content[half + 4000 :]
    for damaged in (in_the_middle(content, junk(size)), in_the_middle(without_cues, junk(size)), over):
        with raises_naming(AudioError, "clusters"):
            decode(damaged)


@every
def test_cut(made: Format) -> None:
    content = made.encode(1)
    content = content[: int(0.7 * len(content))]
    if made.exact:
        check_outcome(made, content, "refused")
        return
    wave_NC, _ = decode(content)
    source_NC = made.source(1)
    assert len(wave_NC) > 0.4 * len(source_NC)
    kept = min(len(wave_NC) - made.late, len(source_NC))
    assert likeness(wave_NC, source_NC[:kept], 0, made.late)[0] >= made.correlation


def same(content: bytes, expected_NC: Wave, at_least: float = 0.99999) -> bool:
    wave_NC, rate = decode(content)
    assert rate == RATE and wave_NC.shape == expected_NC.shape
    return likeness(wave_NC, expected_NC)[0] >= at_least


@pytest.mark.parametrize("codec", ["flac", "aac"])
@pytest.mark.parametrize("default", [0, 1])
def test_default_track_is_decoded(codec: str, default: int) -> None:
    coder = Coder("matroska", codec, "s16" if codec == "flac" else "fltp")
    content = coder.tracks([(FIRST, RATE), (SECOND, RATE)], default=default)
    wave_NC, _ = decode(content)
    assert likeness(wave_NC, (FIRST, SECOND)[default], 0, 0)[0] > 0.999


JOINED = ("WAV, 16 bit", "FLAC, 16 bit", "Ogg, Vorbis", "MP3, constant rate", "AAC (ADTS)", "WavPack", "M4A, ALAC")


@pytest.mark.parametrize("name", JOINED)
def test_streams_of_other_rates_and_channels_become_as_the_first(name: str) -> None:
    made = BY_NAME[name]
    at_44100 = sound(2, 44_100)
    resampled = np.stack([soxr.resample(at_44100[:, c], 44_100, RATE) for c in (0, 1)], axis=1).astype(np.float32)
    check(made, made.encode(1) + made.make(at_44100, 44_100), FIRST, resampled)
    both = np.repeat(SECOND[:, :1], 2, axis=1)
    check(made, made.encode(1) + made.make(SECOND[:, :1], RATE), FIRST, both)
    kinds = {(rate, wave_NC.shape[1]) for wave_NC, rate in decoded(made.encode(1) + made.make(at_44100, 44_100))}
    assert kinds == {(RATE, 2)}


def test_chunks_behind_a_sound_end_it() -> None:
    """Structure that delimits audio is obeyed, also where more would follow."""
    whole = BY_NAME["WAV, 16 bit"].encode(1)
    half = len(whole) // 2
    note = b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    stated = IN_WAV.written(whole, lambda _: half - 44)[:half]
    rest = b"JUNK" + (len(whole) - half).to_bytes(4, "little") + whole[half:]
    assert same(stated + note + rest, FIRST[: (half - 44) // 4])
    for behind in (note, b"TAG" + b"a" * 125, id3(5000), bytes(100_000), b"\1" * 10):
        assert same(whole + behind, FIRST)
    for nothing in (b"", note):
        with raises_naming(AudioError, "samples"):
            decode(IN_WAV.written(whole, lambda _: 0)[:44] + nothing)


def test_the_other_dialects_of_wav() -> None:
    big_endian = by_soundfile("WAV", "PCM_16", endian="BIG")(FIRST, RATE)
    assert same(big_endian * 2, np.concatenate([FIRST] * 2))
    assert same(Field(b"data", 4, 4, "big").written(big_endian, lambda _: 0), FIRST)
    assert same(b"BW64" + BY_NAME["RF64"].encode(1)[4:], FIRST)
    odd = by_soundfile("WAV", "PCM_24")(FIRST[:1001, :1], RATE)  # 3003 bytes, and one to fill up
    for content in (odd, odd[:-1]):
        assert same(content + content, np.concatenate([FIRST[:1001, :1]] * 2))


@pytest.mark.parametrize("codec", [0x674F, 0x676F])
def test_an_ogg_in_a_wav_is_the_ogg(codec: int) -> None:
    """As in LMMS's samples, with a fmt chunk that libsndfile refuses."""
    ogg = BY_NAME["Ogg, Vorbis"].encode(1)
    fmt = struct.pack("<HHIIHHH8s", codec, 2, RATE, 16_000, 1, 16, 8, bytes(8))
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(ogg)) + ogg
    wav = b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    np.testing.assert_array_equal(decode(wav)[0], decode(ogg)[0])
    with raises_naming(AudioError, "truncated"):
        decode(wav[: len(wav) // 2])


@pytest.mark.parametrize("name", ["MP3, constant rate", "MP3, variable rate, no Xing", "AAC (ADTS)"])
def test_tags_and_junk_around_frames(name: str) -> None:
    made = BY_NAME[name]
    ape = b"APETAGEX" + (2000).to_bytes(4, "little") + (60_032).to_bytes(4, "little") + bytes(16)
    ape_tag = junk(60_000) + ape[:12] + (60_032).to_bytes(4, "little") + bytes(16)
    for behind in (b"TAG" + b"a" * 125, ape_tag, ape_tag + b"TAG" + b"a" * 125, id3(60_000)):
        check(made, made.encode(1) + behind, FIRST)
    for before in (junk(400, 1), junk(400, 5)):
        wave_NC, _ = decode(before + made.encode(1))
        assert likeness(wave_NC, FIRST, 0, 2500)[0] >= made.correlation


def test_sizes_beyond_4_gib_are_read_to_the_end(tmp_path: Path) -> None:
    whole = BY_NAME["WAV, 16 bit"].encode(1)
    for size in (0, 0xFFFFFFFF, 1000):
        with (tmp_path / "long.wav").open("wb") as file:
            file.write(IN_WAV.written(whole, lambda _, size=size: size))
            file.seek(5 << 30)
            file.write(whole[44:])
        with (tmp_path / "long.wav").open("rb") as file:
            (part,) = find_streams(file)
        assert (part.end, part.by_libsndfile, part.stated) == ((5 << 30) + len(whole) - 44, False, 1.0)
        assert len(next(decoded(tmp_path / "long.wav"))[0]) >= BLOCK // 2


@pytest.mark.long
def test_samples_beyond_4_gib_are_counted(tmp_path: Path) -> None:
    whole = by_soundfile("WAV", "PCM_16")(sound(1, 8000, 1), 8000)
    with (tmp_path / "long.wav").open("wb") as file:
        file.write(IN_WAV.written(whole, lambda _: 0))
        file.seek(44 + (5 << 30))
        file.write(whole[44:])
    assert sum(len(wave_NC) for wave_NC, _ in decoded(tmp_path / "long.wav")) == ((5 << 30) + len(whole) - 44) // 2


def test_a_chain_is_found_where_blocks_of_reading_meet() -> None:
    """The signature of the second stream lies across the border of two windows of the search."""
    made = BY_NAME["FLAC, 16 bit"]
    first = made.encode(1)
    for at in (WINDOW - 3, WINDOW, WINDOW + 1):
        padding = at - len(first)
        # a PADDING block behind STREAMINFO, so that the second stream begins at `at`
        block = b"\x01" + (padding - 4).to_bytes(3, "big") + bytes(padding - 4)
        content = first[:42] + block + first[42:] + made.encode(2)
        check(made, content, FIRST, SECOND)


def test_frames_of_amr_are_joined() -> None:
    """FFmpeg has no encoder for it: frames of 12.2 kbit/s by hand, 20 ms each."""
    content = b"#!AMR\n" + b"".join(b"\x3c" + junk(31, seed) for seed in range(50))
    assert [len(decode(content * times)[0]) for times in (1, 2)] == [8000, 16_000]


@pytest.mark.parametrize("ending", ["al", "ul", "sw", "dfpwm"])
def test_samples_without_a_header_have_no_rate(ending: str, tmp_path: Path) -> None:
    """FFmpeg takes 44.1 kHz, because of the name."""
    (tmp_path / f"a.{ending}").write_bytes(bytes(range(256)) * 100)
    with raises_naming(AudioError, f"a.{ending}", "rate"):
        decode(tmp_path / f"a.{ending}")


class Piped(io.BytesIO):
    def seekable(self) -> bool:
        return False


@pytest.mark.parametrize("name", ["WAV, MP3", "MP3, variable rate, no Xing", "Ogg, Opus", "FLAC, 16 bit", "M4A, AAC"])
def test_all_kinds_of_sources_give_the_same(name: str, tmp_path: Path) -> None:
    """Paths, bytes, open files and pipes; whole, in blocks and as mono."""
    made = BY_NAME[name]
    content = id3(60_000) + made.encode(1) + made.encode(2)
    (tmp_path / "a.sound").write_bytes(content)
    expected_NC, rate = decode(content)
    behind = io.BytesIO(b"before" + content)
    behind.seek(6)
    with (tmp_path / "a.sound").open("rb") as file:
        for source in (tmp_path / "a.sound", str(tmp_path / "a.sound"), file, behind, Piped(content)):
            np.testing.assert_array_equal(decode(source)[0], expected_NC)
        for source in (file, tmp_path / "a.sound", Piped(content)):
            assert describe(source) == (len(expected_NC) / rate, rate, 2)
    mono_N = expected_NC.mean(axis=1)
    np.testing.assert_allclose(read_mono(content, rate), mono_N, atol=1e-7)
    np.testing.assert_allclose(np.concatenate(list(read_blocks(content, rate))), mono_N, atol=1e-7)
    assert abs(len(read_mono(content, 16_000)) - len(mono_N) / 3) <= 2


@pytest.mark.parametrize("name", [made.name for made in FORMATS if made.framed] + ["Ogg, Vorbis", "FLAC, 16 bit"])
def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """libmpg123 and FFmpeg write to the terminal, without the file's name, unless they are kept from it."""
    made = BY_NAME[name]
    content = made.encode(1)
    for damaged in (content + made.encode(2), in_the_middle(content, junk()), content[: len(content) // 2]):
        with suppress(AudioError):
            decode(damaged)
    assert capfd.readouterr() == ("", "")


def test_counting_samples_takes_no_memory() -> None:
    content = BY_NAME["MP3, constant rate, no Info"].encode(1) * 20
    tracemalloc.start()
    seconds, rate, channels = describe(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds > 27 and peak < 4 * channels * rate * seconds / 2


def test_table_in_documentation_equals_these_cases() -> None:
    document = Path(__file__).parents[2] / "docs" / "decoding.md"
    assert table() in document.read_text(encoding="utf-8"), "Put in the rows that tests/audio/encoded.py prints."
