"""Tokenizers that are part of this package: the byte-pair merges of GPT-2 (tiktoken's r50k_base) and of CLIP.

Each becomes the text of a `tokenizer.json`, which `NumpyTokenizer` reads like any other.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openclap import paths
from openclap.errors import CheckpointError
from openclap.storage import write_bytes

if TYPE_CHECKING:
    from openclap.models.config import TextTowerConfig

R50K, CLIP, GPT2 = "r50k_base", "clip", "gpt2_endoftext"
DIGESTS = {
    R50K: "ac33235097fe06d4a8fff0feac994644809e6eb6ab70669e1e9fd40ae032428e",
    CLIP: "d308b7377a8ceaa9707a21614fe8c831b9196e197b7aeb69833359362907af02",
}
"""SHA-256 of the merges, uncompressed."""
GPT2_SPACE, GPT2_END = 220, 50256
CLIP_START, CLIP_END = 49406, 49407
STRAIGHT = {"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "‚": "'"}
"""Quotes that CLIP's cleaning of text makes straight. Its other repairs, of wrongly decoded text and of HTML entities,
are not made here."""


def tokenizer_file(text: TextTowerConfig) -> Path:
    """Write the `tokenizer.json` of a text tower that names one of these tokenizers, under openclap's home.

    Raises CheckpointError where the merges are missing or altered.
    """
    assert text.tokenizer is not None
    definition = json.dumps(DEFINITIONS[text.tokenizer](text.sizes), ensure_ascii=False).encode()
    place = paths.home() / "tokenizers" / f"{text.tokenizer}-{hashlib.sha256(definition).hexdigest()[:16]}.json"
    if not place.is_file() or place.read_bytes() != definition:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, definition)
    return place


def read_merges(name: str, folder: Path = Path(__file__).parent) -> list[str]:
    """The merges of a tokenizer, in order: two parts each, with a space between them. Raises CheckpointError."""
    file = folder / f"{name}.txt.gz"
    try:
        content = gzip.decompress(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file. Install openclap again.") from None
    except (OSError, EOFError, zlib.error):
        content = b""
    if (digest := hashlib.sha256(content).hexdigest()) != DIGESTS[name]:
        raise CheckpointError(
            f"{file}: is altered: its merges have the SHA-256 {digest[:16]}…, expected {DIGESTS[name][:16]}…. Install "
            "openclap again."
        )
    return content.decode().splitlines()


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in merges, in the order of token ids: first the bytes that are
    printable in Latin-1, then the others, as GPT-2 has them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [*map(chr, printable), *map(chr, range(256, 256 + others))]


def r50k_definition(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's tokenizer between the markers of the modern text tower, whose ids are in its `sizes`.

    Text is taken as it is, and markup of special tokens in it as ordinary characters.
    """
    merges = read_merges(R50K)
    vocabulary = [*byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": _between(("<|begin|>", sizes["bos_id"]), ("<|end|>", sizes["eos_id"])),
        "padding": _padding("<|pad|>", sizes["pad_id"]),
        "model": _model(vocabulary, merges, end_of_word=""),
    }


def clip_definition(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """CLIP's tokenizer, which lower-cases text and joins white space."""
    merges = read_merges(CLIP)
    letters = byte_characters()
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "NFC"},
                *(_replace({"String": curly}, straight) for curly, straight in STRAIGHT.items()),
                _replace({"Regex": r"\s+"}, " "),
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": _between(("<start_of_text>", CLIP_START), ("<end_of_text>", CLIP_END)),
        "padding": _padding("!", 0),
        "model": _model(vocabulary, merges, end_of_word="</w>"),
    }


def gpt2_definition(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's tokenizer as Microsoft's CLAP of 2023 uses it: " <|endoftext|>" follows each text, and "!" is the padding
    and therefore always a token of its own. Markup of the end in a text is read as the end.

    The space before the end is a token of its own here; there, white space at the end of a text is joined with it.
    """
    merges = read_merges(R50K)
    vocabulary = [*byte_characters(), *(merge.replace(" ", "") for merge in merges)]
    whole = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return {
        "version": "1.0",
        "added_tokens": [{"id": 0, "content": "!", **whole}, {"id": GPT2_END, "content": "<|endoftext|>", **whole}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": _between(("Ġ", GPT2_SPACE), ("<|endoftext|>", GPT2_END), before=False),
        "padding": _padding("!", 0),
        "model": _model(vocabulary, merges, end_of_word=""),
    }


DEFINITIONS = {R50K: r50k_definition, CLIP: clip_definition, GPT2: gpt2_definition}


def _model(vocabulary: list[str], merges: list[str], *, end_of_word: str) -> dict[str, Any]:
    ids = {token: number for number, token in enumerate(vocabulary)}
    return {"type": "BPE", "end_of_word_suffix": end_of_word, "vocab": ids, "merges": merges}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _padding(token: str, number: int) -> dict[str, Any]:
    return {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": number,
        "pad_type_id": 0,
        "pad_token": token,
    }


def _between(first: tuple[str, int], last: tuple[str, int], *, before: bool = True) -> dict[str, Any]:
    """A post-processor that puts a marker before and after each text, or, unless `before`, both after it."""
    markers = [{"SpecialToken": {"id": token, "type_id": 0}} for token, _ in (first, last)]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [markers[0], text, markers[1]] if before else [text, *markers]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}, markers[1]],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (first, last)},
    }
