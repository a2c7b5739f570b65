"""Normalise licences to one short name each, however a source writes them.

Names are SPDX's identifiers where there is one (https://spdx.org/licenses/): "CC0-1.0", "CC-BY-4.0"; without a stated
version "CC-BY". Creative Commons' retired sampling licences, which SPDX lacks, are "Sampling+" and "NC-Sampling+". A
vendor's own terms begin with "LicenseRef-", as SPDX prescribes.
"""

from __future__ import annotations

import re
from functools import lru_cache

_URL = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)(?:/(\d\.\d))?(?:/([a-z]{2})(?![a-z]))?")
_VERSION = re.compile(r"(?<![\d.])([1-4]\.[05])(?![\d.])")
_ZERO = re.compile(r"\b(?:cc[\s-]?0|creative commons (?:0|zero))\b")
_CODE = re.compile(r"(?:cc[\s-]*)?(by(?:[\s-]+(?:nc|sa|nd))*)")
_TERMS = (("nc", re.compile("non-?commercial")), ("sa", re.compile("share-?alike")), ("nd", re.compile("no-?deriv")))


@lru_cache(maxsize=4096)
def normalise_licence(text: str | None) -> str | None:
    """Return the short name of a licence given as a URL, a name or an identifier; None for a blank text.

    Unknown licences are returned unchanged but for white space: nothing is guessed and nothing is lost.
    """
    plain = " ".join((text or "").split())
    lower = plain.lower()
    if found := _URL.search(lower):
        return _short(found[1], found[2], found[3]) or plain
    # Before the Creative Commons codes: "Sampling+" has no code, and "NC Sampling+" contains one.
    if "sampling+" in lower or "sampling plus" in lower:
        return "NC-Sampling+" if lower.startswith("nc") or "noncommercial" in lower else "Sampling+"
    if _ZERO.search(lower):
        return "CC0-1.0"
    version = found[1] if (found := _VERSION.search(lower)) else None
    if found := _CODE.fullmatch(_VERSION.sub("", lower).strip(" -")):
        return _short("-".join(re.split(r"[\s-]+", found[1])), version)
    if re.match(r"(?:creative commons |cc )?attribution\b", lower):
        return _short("-".join(["by", *(code for code, word in _TERMS if word.search(lower))]), version)
    return plain or None


def _short(code: str, version: str | None, country: str | None = None) -> str | None:
    """Return the name of the Creative Commons licence `code`, as it appears in their URLs."""
    if code == "zero":
        return "CC0-1.0"
    if code == "mark":
        return "CC-PDM-1.0"
    if code in ("sampling+", "nc-sampling+"):
        return "Sampling+" if code == "sampling+" else "NC-Sampling+"
    if not re.fullmatch(r"by(?:-(?:nc|sa|nd))*", code):
        return None
    return "-".join(part.upper() for part in ("cc", code, version, country) if part)


@lru_cache(maxsize=4096)
def licence_family(name: str | None) -> str | None:
    """Return a licence without its version and country: "cc0", "by", "by-nc-sa", "sampling+".

    A vendor's own terms lose "LicenseRef-"; None for an unknown licence.
    """
    if name is None:
        return None
    plain = name.lower().removeprefix("licenseref-")
    found = _FAMILY.match(plain)
    return "cc0" if plain.startswith("cc0") else found[1] if found else plain


_FAMILY = re.compile(r"(?:cc-)?(by(?:-(?:nc|sa|nd))*)(?=-|$)")
