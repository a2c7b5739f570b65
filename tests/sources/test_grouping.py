"""Groups: numbered takes, ids in addresses, and names of YouTube clips."""

from __future__ import annotations

import pytest

from openclap.sources.grouping import freesound_id, strip_take_number


@pytest.mark.parametrize(
    ("title", "without"),
    [
        ("DoorCreak-01_take2", "DoorCreak"),
        ("Wrestling Crowd 5", "Wrestling Crowd"),
        ("Bubble 02", "Bubble"),
        ("Glass (3)", "Glass"),
        ("Rain tk 12", "Rain"),
        ("mistake 4", "mistake"),
        ("Retake", "Retake"),
        ("Boeing 747 take-off", "Boeing 747 take-off"),
        ("1234", "1234"),
        ("", ""),
    ],
)
def test_take_numbers_are_removed_from_titles(title: str, without: str) -> None:
    assert strip_take_number(title) == without


@pytest.mark.parametrize(
    "address",
    [
        "https://freesound.org/apiv2/sounds/282776/download/",
        "https://freesound.org/people/modularsamples/sounds/282776/",
        "http://www.freesound.org/people/modularsamples/sounds/282776",
        "https://freesound.org/s/282776/",
    ],
)
def test_freesound_ids_in_addresses(address: str) -> None:
    assert freesound_id(address) == 282776


def test_other_addresses_have_no_freesound_id() -> None:
    assert freesound_id("https://example.org/sounds/12") is None
    assert freesound_id(None) is None
