"""Where sounds and their descriptions come from: one file a source, each yields records."""

from openclap.sources.record import Record
from openclap.sources.table import read_table

__all__ = ["Record", "read_table"]
