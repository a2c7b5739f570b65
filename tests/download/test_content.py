"""What begins like a sound, and what does not."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from openclap.download.content import HEAD, non_audio_kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"<!DOCTYPE html>", "page"),
        (b"\xef\xbb\xbf\r\n <HTML lang=en>", "page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "page"),
        (b"<!-- gone -->", "page"),
        (b'{"detail": "Not found."}', "JSON"),
        (b"{}", "JSON"),
        (b'[ {"a": 1}]', "JSON"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"GIF89a", "GIF"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "WebP"),
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08\x00", "gzip"),
    ],
)
@pytest.mark.parametrize("content_type", ["audio/mpeg", "", "text/html"])
def test_other_content_is_recognised(head: bytes, kind: str, content_type: str) -> None:
    assert kind in str(non_audio_kind(head, content_type))


def test_text_is_recognised_only_with_a_text_type(tmp_path: Path) -> None:
    assert non_audio_kind(b"This sound was removed.", "text/plain; charset=utf-8") == "text"
    assert non_audio_kind(b"This sound was removed.", "audio/mpeg") is None


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64", "VOC"])
@pytest.mark.parametrize("content_type", ["audio/x", "text/html", "application/json"])
def test_audio_is_accepted_under_any_type(format: str, content_type: str) -> None:
    wave_N = np.random.default_rng(0).uniform(-1, 1, 24_000)
    file = io.BytesIO()
    soundfile.write(file, wave_N, 48_000, format=format)
    assert non_audio_kind(file.getvalue()[:HEAD], content_type) is None


@pytest.mark.parametrize(("format", "codec"), [("mp4", "aac"), ("adts", "aac"), ("matroska", "flac"), ("mp3", "mp3")])
def test_audio_in_other_containers(format: str, codec: str) -> None:
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=format) as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            for start in range(4):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
                frame.sample_rate, frame.pts = 48_000, start * 1024
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.error.FFmpegError:
        pytest.skip(f"PyAV here cannot write {codec}")
    assert non_audio_kind(file.getvalue()[:HEAD], "text/plain") is None
