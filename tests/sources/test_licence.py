"""Normalise licences as sources write them."""

from __future__ import annotations

import pytest

from openclap.sources.licence import normalise_licence


@pytest.mark.parametrize(
    ("written", "name"),
    [
        # as Freesound's API, FSD50K and Clotho write them
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/", "CC-BY-3.0"),
        ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("http://creativecommons.org/licenses/by-nc/3.0/", "CC-BY-NC-3.0"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "Sampling+"),
        # as its pages and filters write them
        ("Attribution", "CC-BY"),
        ("Attribution NonCommercial", "CC-BY-NC"),
        ("Attribution Noncommercial", "CC-BY-NC"),
        ("Creative Commons 0", "CC0-1.0"),
        ("Sampling+", "Sampling+"),
        # other licences and spellings
        ("http://creativecommons.org/licenses/nc-sampling+/1.0/", "NC-Sampling+"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode", "CC-BY-NC-SA-4.0"),
        ("http://creativecommons.org/licenses/by/2.5/es/", "CC-BY-2.5-ES"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International", "CC-BY-NC-SA-4.0"),
        ("Creative Commons Attribution-NoDerivatives 4.0", "CC-BY-ND-4.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
        ("CC BY-NC", "CC-BY-NC"),
        ("by-nc", "CC-BY-NC"),
        ("cc0-1.0", "CC0-1.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        # not Creative Commons': kept as written
        ("GPL-2+", "GPL-2+"),
        ("Apache-2.0", "Apache-2.0"),
        ("  LicenseRef-BBC-RemArc ", "LicenseRef-BBC-RemArc"),
        ("http://creativecommons.org/licenses/devnations/2.0/", "http://creativecommons.org/licenses/devnations/2.0/"),
        ("by arrangement with the author", "by arrangement with the author"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_licences_are_normalised(written: str | None, name: str | None) -> None:
    assert normalise_licence(written) == name
    assert normalise_licence(name) == name
