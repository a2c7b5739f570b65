"""Phrases with segments, in the form of FineLAP's files: which sounds are in a clip, and when.

    "phrases": [{"phrase": "a dog barks", "segments": [[0.5, 1.25], [4.0, 6.5]]}, …]

Segments are (onset, offset) in seconds from the beginning of the clip. Sources, shards and manifests share this form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from openclap.types import Phrase

TOLERANCE_S = 0.05
"""An offset up to this many seconds beyond the end of the clip is set to the end: annotations are rounded, and encoders
pad or trim. Later ones describe another clip."""


def phrases_of_json(value: Any) -> tuple[Phrase, ...]:
    """Read the value of "phrases", or its JSON in a cell of a table; () for anything else.

    Times that are no numbers become NaN, so that `usable_phrases` names them.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple(
        Phrase(" ".join(each["phrase"].split()), tuple(map(_segment, _items(each.get("segments")))))
        for each in value
        if isinstance(each, dict) and isinstance(each.get("phrase"), str) and each["phrase"].strip()
    )


def phrases_to_json(phrases: Iterable[Phrase]) -> list[dict[str, Any]]:
    """Return the value of "phrases"."""
    return [{"phrase": each.text, "segments": [list(segment) for segment in each.segments]} for each in phrases]


def usable_phrases(phrases: Iterable[Phrase], seconds: float) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
    """Return the phrases with the segments that can be in a clip of that length, and a sentence on each other segment.

    A segment is left out where a time is no number or negative, where it does not end after its beginning, and where it
    goes on after the end of the clip (by more than TOLERANCE_S). A phrase without any segment is left out.
    """
    usable, reasons = [], []
    for phrase in phrases:
        segments = []
        for onset_s, offset_s in phrase.segments:
            if reason := _fault(onset_s, offset_s, seconds):
                reasons.append(f"'{phrase.text}' from {onset_s:g} to {offset_s:g} s: {reason}")
            else:
                segments.append((onset_s, min(offset_s, seconds)))
        if not phrase.segments:
            reasons.append(f"'{phrase.text}': has no segment")
        if segments:
            usable.append(Phrase(phrase.text, tuple(segments)))
    return tuple(usable), tuple(reasons)


def _fault(onset_s: float, offset_s: float, seconds: float) -> str | None:
    if not (math.isfinite(onset_s) and math.isfinite(offset_s)):
        return "its times are no numbers"
    if onset_s < 0:
        return "begins before the clip"
    if offset_s <= onset_s:
        return "does not end after its beginning"
    if onset_s >= seconds or offset_s > seconds + TOLERANCE_S:
        return f"goes on after the end of the clip, at {seconds:.2f} s"
    return None


def _items(value: Any) -> Sequence[Any]:
    """FineLAP's files hold lists of segments; a single segment is read too."""
    if not isinstance(value, (list, tuple)):
        return ()
    return [value] if len(value) == 2 and not any(isinstance(part, (list, tuple)) for part in value) else value


def _segment(value: Any) -> tuple[float, float]:
    times = value if isinstance(value, (list, tuple)) and len(value) == 2 else (None, None)
    return as_seconds(times[0]), as_seconds(times[1])


def as_seconds(value: Any) -> float:
    """Parse a time; NaN for anything but a number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
