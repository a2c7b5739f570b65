"""Metadata that FFmpeg and libsndfile wrote, tags and chunks by their specifications, and hostile files."""

from __future__ import annotations

import io
import re
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from openclap.audio.metadata import LONGEST_TEXT, MOST_KEYWORDS, read_metadata
from openclap.search.ucs import UcsName, parse_ucs
from openclap.types import FileMetadata

WRITTEN = {
    "title": "Rain on roof",
    "artist": "Ann Ö",
    "album": "Weather",
    "comment": "tin, heavy",
    "date": "2021-05-03",
    "genre": "Ambience",
    "copyright": "CC0-1.0",
}
READ = FileMetadata("Rain on roof", "Ann Ö", "Weather", "tin, heavy", "CC0-1.0", "2021-05-03", keywords=("Ambience",))


def by_ffmpeg(format: str, codec: str, tags: dict[str, str], **options: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=format, options=options) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        samples = stream.codec_context.format.name
        kind = {"f": np.float32, "s1": np.int16, "s3": np.int32, "u": np.uint8}[re.sub(r"(f|s.|u).*", r"\1", samples)]
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), kind), format=samples, layout="mono")
        frame.rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def wav(*chunks: tuple[bytes, bytes], magic: bytes = b"RIFF") -> bytes:
    """A WAV of two samples with more chunks behind them."""
    all_chunks = ((b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)), (b"data", bytes(4)), *chunks)
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in all_chunks)
    return magic + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def bext(description: str, date: str) -> tuple[bytes, bytes]:
    """EBU Tech 3285: description, originator, its reference, date, time, samples since midnight, version, 254 bytes."""
    fields = (description.encode("latin-1"), b"recorder", b"ref", date.encode(), b"12:00:00", 0, 0, 1, bytes(254))
    return b"bext", struct.pack("<256s32s32s10s8sIIH254s", *fields)


def ixml(text: str, encoding: str = "utf-8") -> tuple[bytes, bytes]:
    return b"iXML", text.encode(encoding)


@pytest.mark.parametrize(
    ("format", "codec", "options"),
    [
        ("mp3", "libmp3lame", {}),
        ("flac", "flac", {}),
        ("ogg", "libopus", {}),
        ("ipod", "aac", {}),
        ("wav", "pcm_s16le", {}),
        ("wav", "pcm_s16le", {"rf64": "always"}),
        ("aiff", "pcm_s16be", {"write_id3v2": "1"}),
        ("matroska", "pcm_s16le", {}),
        ("wv", "wavpack", {}),
        ("tta", "tta", {}),
        ("adts", "aac", {"write_apetag": "1"}),
        ("asf", "pcm_s16le", {}),
        ("avi", "pcm_s16le", {}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_metadata_by_ffmpeg(format: str, codec: str, options: dict[str, str]) -> None:
    assert read_metadata(by_ffmpeg(format, codec, WRITTEN, **options)) == READ


def test_formats_that_hold_fewer_fields() -> None:
    aiff = read_metadata(by_ffmpeg("aiff", "pcm_s16be", WRITTEN))
    assert aiff == FileMetadata("Rain on roof", comment="tin, heavy", copyright="CC0-1.0")
    caf = read_metadata(by_ffmpeg("caf", "pcm_s16le", WRITTEN))
    assert (caf.title, caf.artist, caf.comment, caf.keywords) == ("Rain on roof", "Ann Ö", "tin, heavy", ("Ambience",))


@pytest.mark.parametrize("format", ["WAV", "RF64", "FLAC", "OGG"])
def test_metadata_by_libsndfile(tmp_path: Path, format: str) -> None:
    with soundfile.SoundFile(tmp_path / "a", "w", 8000, 1, format=format) as file:
        file.title, file.artist, file.comment, file.date, file.genre = "T", "A", "C", "2020", "G"
        file.write(np.zeros(800))
    assert read_metadata(tmp_path / "a") == FileMetadata("T", "A", comment="C", date="2020", keywords=("G",))


def test_broadcast_wav_by_ffmpeg() -> None:
    tags = {"description": "a door", "origination_date": "2020-01-02", "title": "Door"}
    found = read_metadata(by_ffmpeg("wav", "pcm_s16le", tags, write_bext="1"))
    assert found == FileMetadata("Door", comment="a door", date="2020-01-02")


def syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def frame(name: str, body: bytes, version: int = 4, flags: bytes = b"\0\0") -> bytes:
    """https://id3.org: the name, the size, from version 2.3 on flags, and what it holds."""
    size = {2: len(body).to_bytes(3), 3: len(body).to_bytes(4), 4: syncsafe(len(body))}[version]
    return name.encode() + size + (flags if version > 2 else b"") + body


def id3(*frames: bytes, version: int = 4, flags: int = 0) -> bytes:
    body = b"".join(frames) + bytes(64)
    return b"ID3" + bytes([version, 0, flags]) + syncsafe(len(body)) + body


def ape(**texts: str) -> bytes:
    """An APEv2 tag without a header: for each item its size, flags, key and text, and then a footer."""
    items = b"".join(
        struct.pack("<II", len(text.encode()), 0) + f"{key}\0{text}".encode() for key, text in texts.items()
    )
    return items + struct.pack("<8sIIIIQ", b"APETAGEX", 2000, len(items) + 32, len(texts), 0, 0)


ID3V1 = struct.pack("<3s30s30s30s4s30sB", b"TAG", b"Old", b"Ann", b"Weather", b"1999", b"tin", 17)
MP3 = by_ffmpeg("mp3", "libmp3lame", {}, id3v2_version="0")


def test_tags_at_the_end_of_a_file() -> None:
    old = FileMetadata("Old", "Ann", "Weather", "tin", date="1999", keywords=("Rock",))
    new = FileMetadata("New", comment="ü", keywords=("a", "b"))
    tag = ape(Title="New", Comment="ü", Genre="a;b")
    assert read_metadata(MP3 + ID3V1) == old
    assert read_metadata(MP3 + tag) == read_metadata(MP3 + tag + ID3V1) == new
    assert read_metadata(id3(frame("TALB", b"\0front")) + MP3 + ID3V1) == FileMetadata(album="front")
    assert read_metadata(id3(frame("TIT2", b"\0front")) + MP3 + tag).title == "front"


def test_id3_by_its_specification() -> None:
    texts = (
        ("TIT2", b"\1" + "Tür".encode("utf-16")),
        ("TPE1", b"\2" + "Ö".encode("utf-16-be")),
        ("TALB", b"\0caf\xe9"),
        ("COMM", b"\3eng\0first"),
        ("COMM", b"\3enghow\0second"),
        ("COMM", b"\3deu\0drittes"),
        ("COMM", b"\0engiTunNORM\000001"),
        ("APIC", b"\0image/png\0\3\0" + bytes(300_000)),
        ("TXXX", b"\3CATEGORY\0DOORS"),
        ("TXXX", b"\3unknown\0x"),
        ("TCON", b"\00017"),
        ("TYER", b"\0002020"),
        ("WCOP", b"https://creativecommons.org/"),
    )
    for version in (3, 4):
        found = read_metadata(id3(*(frame(*text, version=version) for text in texts), version=version))
        assert found == FileMetadata(
            "Tür",
            "Ö",
            "café",
            "first\nsecond\ndrittes",
            "https://creativecommons.org/",
            "2020",
            "DOORS",
            None,
            ("Rock",),
        )
    short = (("TT2", b"\0Door"), ("COM", b"\0eng\0oak"), ("TYE", b"\0001998"), ("TCO", b"\0(17)"), ("WCP", b"a://b"))
    old = read_metadata(id3(*(frame(*text, version=2) for text in short), version=2))
    assert old == FileMetadata("Door", comment="oak", date="1998", copyright="a://b", keywords=("Rock",))


def test_id3_with_what_writers_vary() -> None:
    album, artist = frame("TALB", b"\0kept", 3), frame("TPE1", b"\1\xff\xfeA\0", 3)
    assert read_metadata(id3(b"\0\0\0\6" + bytes(6), album, version=3, flags=0x40)).album == "kept"  # extended header
    assert read_metadata(id3(syncsafe(6) + b"\1\0", frame("TALB", b"\0kept"), flags=0x40)).album == "kept"
    unsynchronised = artist.replace(b"\xff", b"\xff\0") + album
    assert read_metadata(id3(unsynchronised, version=3, flags=0x80)) == FileMetadata(None, "A", "kept")
    each = frame("TPE1", b"\1\xff\0\xfeA\0", flags=b"\0\2") + frame("TALB", b"\0kept")
    assert read_metadata(id3(each, flags=0x80)) == FileMetadata(None, "A", "kept")
    of_itunes = b"COMM" + struct.pack(">IH", 205, 0) + b"\0eng\0" + b"c" * 200  # 8 bits a byte
    assert read_metadata(id3(of_itunes, frame("TALB", b"\0kept"))) == FileMetadata(album="kept", comment="c" * 200)
    several = (("TPE1", b"\3Ann\0Bo\0"), ("TCON", b"\1\xff\xfea\0\0\0\xff\xfeb\0"), ("TXXX", b"\3Keywords\0c\0d"))
    found = read_metadata(id3(*(frame(*text) for text in several)))
    assert found == FileMetadata(artist="Ann;Bo", keywords=("a", "b", "c", "d"))
    cut = id3(frame("TALB", b"\0kept"), frame("APIC", bytes(5000)))[:3000]
    assert read_metadata(cut).album == "kept"


def test_id3_in_front_of_other_formats() -> None:
    front = id3(frame("TIT2", b"\0front"))
    for content in (
        by_ffmpeg("flac", "flac", WRITTEN),
        by_ffmpeg("ogg", "libopus", WRITTEN),
        wav(bext("tin, heavy", "")),
    ):
        found = read_metadata(front + content)
        assert (found.title, found.comment) == ("front", "tin, heavy")


def test_repeated_vorbis_comments_are_joined() -> None:
    """A FLAC that ends behind its metadata: STREAMINFO, and comments of which some have the same name."""
    texts = [
        b"ARTIST=Ann",
        b"artist=Bo",
        b"GENRE=rain",
        b"GENRE=wind",
        b"Keywords=a, b",
        b"DESCRIPTION=d",
        b"LICENSE=CC0",
    ]
    body = struct.pack("<II", 0, len(texts)) + b"".join(struct.pack("<I", len(text)) + text for text in texts)
    stream = struct.pack(">HHHHHQ16s", 4096, 4096, 0, 0, 0, 48000 << 44 | 15 << 36, bytes(16))
    blocks = b"\0" + len(stream).to_bytes(3) + stream + b"\x84" + len(body).to_bytes(3) + body
    found = read_metadata(b"fLaC" + blocks)
    assert found == FileMetadata(None, "Ann;Bo", None, "d", "CC0", keywords=("rain", "wind", "a", "b"))


def test_free_form_atoms_of_mp4() -> None:
    content = bytearray(by_ffmpeg("ipod", "aac", WRITTEN))
    parts = (
        (b"mean", b"\0\0\0\0com.apple.iTunes"),
        (b"name", b"\0\0\0\0CATEGORY"),
        (b"data", b"\0\0\0\1\0\0\0\0DOORS"),
    )
    atom = b"".join(struct.pack(">I", 8 + len(body)) + name + body for name, body in parts)
    atom = struct.pack(">I4s", 8 + len(atom), b"----") + atom
    for name in (b"moov", b"udta", b"meta", b"ilst"):  # each is the last of its parent
        place = content.rindex(name) - 4
        content[place : place + 4] = struct.pack(">I", int.from_bytes(content[place : place + 4]) + len(atom))
    assert read_metadata(bytes(content + atom)).category == "DOORS"


def test_bext_and_ixml_by_their_specifications() -> None:
    text = """<?xml version="1.0" encoding="UTF-8"?>
    <BWFXML><NOTE>wind &amp; rain</NOTE><SPEED><NOTE>24 fps</NOTE></SPEED>
    <USER><CATEGORY>AMBIENCE</CATEGORY><SUBCATEGORY>FOREST</SUBCATEGORY><KEYWORDS>birds, wind; Birds</KEYWORDS></USER>
    <ASWG><fxName>Dawn</fxName><library>Woods</library></ASWG></BWFXML>"""
    found = read_metadata(wav(bext("Forêt", "2019:07:31"), ixml(text)))
    assert found.comment == "Forêt\nwind & rain" and found.date == "2019-07-31"
    assert (found.title, found.album) == ("Dawn", "Woods")
    assert (found.category, found.subcategory, found.keywords) == ("AMBIENCE", "FOREST", ("birds", "wind"))
    assert read_metadata(wav(ixml(text.replace("UTF-8", "UTF-16"), "utf-16"))).title == "Dawn"


def test_text_is_cleaned_and_bounded() -> None:
    info = b"INFO" + b"".join(
        name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
        for name, text in (
            (b"INAM", b" a\x07\nb \0junk"),
            (b"ICMT", b"c" * 9000),
            (b"IART", b"Andr\xe9"),
            (b"IKEY", ",".join(map(str, range(999))).encode()),
            (b"ICRD", b"0000-00-00"),
        )
    )
    found = read_metadata(wav((b"LIST", info)))
    assert (found.title, found.artist, found.date) == ("a b", "André", None)
    assert found.comment == "c" * LONGEST_TEXT and len(found.keywords) == MOST_KEYWORDS


ENTITIES = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{inner};" * 10}">' for inner, name in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "entities": wav(ixml(f"{ENTITIES}]><b><NOTE>&i;</NOTE></b>"), bext("kept", "")),
    "external": wav(ixml('<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/hostname">]><b><NOTE>&x;</NOTE></b>')),
    "deep": wav(ixml("<a>" * 300_000)),
    "unclosed": wav(ixml("<BWFXML><NOTE>kept</NOTE><TITLE>lost")),
    "lying lengths": wav((b"LIST", b"INFOICMT\xff\xff\xff\xffkept")),
    "a chunk that is cut off": wav(bext("kept", ""))[:-400],
    "a million chunks": wav(*[(b"junk", b"")] * 200_000),
    "only a header": b"RIFF\xff\xff\xff\xffWAVE",
    "no W64": b"riff\x2e\x91\xcf\x11" + bytes(100),
    "atoms in atoms": b"\0\0\0\x10ftypM4A \0\0\0\0" + struct.pack(">I", 8 * 20_000) + b"moov" * 20_000,
    "half an Ogg": by_ffmpeg("ogg", "libopus", WRITTEN)[:90],
    "a FLAC of nothing": b"fLaC\x84\xff\xff\xff",
    "an ID3 tag of 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_metadata_is_left_out(content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    tracemalloc.start()
    began = time.monotonic()
    found = read_metadata(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - began < 10 and peak < 64 << 20
    assert found.comment in (None, "kept") and found.title is None
    assert capfd.readouterr() == ("", "")


def test_a_compressed_frame_is_not_decompressed() -> None:
    bomb = zlib.compress(bytes(40 << 20), 9)
    for version, flag, size in ((3, 0x80, struct.pack(">I", len(bomb) + 4)), (4, 0x09, syncsafe(len(bomb) + 4))):
        compressed = b"TALB" + size + bytes([0, flag]) + struct.pack(">I", 40 << 20) + bomb
        title = frame("TIT2", b"\0kept", version)
        assert read_metadata(id3(compressed, title, version=version)) == FileMetadata("kept")


def test_random_damage_raises_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    coded = (("mp3", "libmp3lame"), ("ipod", "aac"), ("flac", "flac"), ("ogg", "libopus"), ("wv", "wavpack"))
    raw = ((format, "pcm_s16le") for format in ("wav", "asf", "matroska"))
    for content in [by_ffmpeg(*made, WRITTEN) for made in (*coded, *raw)]:
        for _ in range(30):
            damaged = np.frombuffer(content, np.uint8).copy()
            damaged[rng.integers(0, min(600, len(damaged)), 12)] = rng.integers(0, 256, 12)
            assert isinstance(read_metadata(damaged.tobytes()), FileMetadata)
    assert capfd.readouterr() == ("", "")


def test_missing_files_have_no_metadata(tmp_path: Path) -> None:
    assert read_metadata(tmp_path / "none.wav") == FileMetadata() == read_metadata(b"")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMBForst_Dawn Chorus_AB_WOODS.wav", UcsName("AMB", "Forst", "Dawn Chorus")),
        ("DOORWood-Indoor_OLD-Door Creak_JDoe_Lib01_MKH8040.wav", UcsName("DOOR", "Wood", "Door Creak")),
        ("/x/GUNAuto_Burst_AB_NONE_close_take 2.flac", UcsName("GUN", "Auto", "Burst")),
        ("rain_on_a_roof.wav", None),
        ("AMBForst.wav", None),
        ("AMBForst_Dawn_AB.wav", None),
        ("IMG_2021_05_03.wav", None),
        ("amb_forest_ab_lib.wav", None),
    ],
)
def test_names_of_the_universal_category_system(name: str, expected: UcsName | None) -> None:
    assert parse_ucs(name) == expected
