"""What a data set chooses. A recipe returns one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from openclap.audio.mono import Channels, MonoConfig
from openclap.data.split import TRAIN_AND_TEST, check_shares
from openclap.errors import ConfigError

ANY_SOURCE = "*"


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which records a data set takes, and how they are laid out.

    Attributes:
        splits: the shares of splits, for records whose source has no splits of its own.
        by_source: shards stand in `<source>/<split>`, as LAION's do; without it in `<split>`.
        licences: families that may be used, such as ("cc0", "by"); () for any, unknown ones included.
        shortest_s, longest_s: seconds; `longest_s` by source, "*" standing for all others.
        lowest_rate: Hz; recordings below it are left out.
        quietest_db: of the loudest sample, in dB below full scale; what is more silent is left out.
        most_clipped: the largest share of samples at full scale.
        channels: of recordings with several: "mean", "left", "right" or "loudest" (see `openclap.audio.mono`). With
            "mean", recordings whose channels cancel each other are left out.
        drop_duplicates: of clips with the same samples the first one stays.
        apart: names of the sets to stay apart from, for the record.
        shard_size: samples in each tar.
        seed: of the split.
    """

    splits: Mapping[str, float] = field(default_factory=lambda: dict(TRAIN_AND_TEST))
    by_source: bool = False
    licences: tuple[str, ...] = ()
    shortest_s: float = 0.0
    longest_s: Mapping[str, float] = field(default_factory=dict)
    lowest_rate: int = 0
    quietest_db: float | None = None
    most_clipped: float = 1.0
    channels: Channels = "mean"
    drop_duplicates: bool = False
    apart: tuple[str, ...] = ()
    shard_size: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check_shares(self.splits)
        MonoConfig(self.channels)
        if isinstance(self.licences, str) or not all(self.licences):
            raise ConfigError(f"licences are {self.licences!r}, expected families such as cc0, by, by-sa.")
        if self.shard_size < 1:
            raise ConfigError(f"shard_size {self.shard_size}: expected at least 1 sample in each tar.")
        if self.shortest_s < 0 or any(not self.shortest_s < seconds for seconds in self.longest_s.values()):
            raise ConfigError(
                f"shortest_s {self.shortest_s}, longest_s {dict(self.longest_s)}: expected lengths from 0 on, and the "
                "shortest below the longest."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be written beside the records."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
