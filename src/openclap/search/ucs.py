"""Read file names of the Universal Category System (universalcategorysystem.com).

    CatID[-UserCategory]_[VendorCategory-]FXName_CreatorID_SourceID[_UserData].wav

A CatID is a category in capitals and a subcategory with a capital first letter: AMBForst, DOORWood, 8BITMisc. The form
is parsed, and the list of CatIDs is not needed: new ones are added every year.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import NamedTuple

_UCS_NAME = re.compile(
    r"(?P<category>[A-Z0-9]{2,6})(?P<subcategory>[A-Z][a-z][A-Za-z0-9]{0,8})(?:-[^_]+)?"
    r"_(?:[^_-]+-)?(?P<fx>[^_]+)_[^_]+_[^_]+(?:_.*)?"
)


class UcsName(NamedTuple):
    """The parts of a name that an index stores."""

    category: str
    subcategory: str
    fx_name: str


def parse_ucs(path: str) -> UcsName | None:
    """The category, subcategory and FXName of a file name; None when the name does not have the form of UCS."""
    match = _UCS_NAME.fullmatch(PurePath(path).stem)
    if match is None:
        return None
    return UcsName(match["category"], match["subcategory"], match["fx"].strip())
