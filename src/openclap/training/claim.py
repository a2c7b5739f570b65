"""Check that a run folder belongs to this configuration, data and start, and refuse any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclap.data.shards import ShardIndex
from openclap.errors import ConfigError
from openclap.locks import LOCK
from openclap.paths import is_url
from openclap.storage import Place, partial_of
from openclap.training.config import TrainConfig

CONFIG, SHARDS = "config.json", "shards"
Identity = dict[str, Any]


def identity(config: TrainConfig, shards: ShardIndex, start_digest: str, processes: int) -> Identity:
    """What a run hangs on, as JSON has it: the configuration, its paths from the root, digests of what they lead to,
    and how many processes there are. Where states are copied to changes nothing of it."""
    chosen = config.to_dict() | {"data": str(shards.folder.absolute())}
    del chosen["states"]
    if config.tokenizer:
        chosen["tokenizer"] = str(Path(config.tokenizer).absolute())
    else:
        del chosen["tokenizer"]  # runs of before there was a choice go on
    if Path(config.start).exists():
        chosen["start"] = str(Path(config.start).absolute())
    chosen |= {"data_digest": shards.digest(), "start_digest": start_digest, "processes": processes}
    return dict(json.loads(json.dumps(chosen)))


def as_text(wanted: Identity) -> bytes:
    """How an identity is written down."""
    return json.dumps(wanted, indent=2).encode() + b"\n"


def check_folder(out: Path) -> None:
    """Raises ConfigError for what cannot become the folder of a run, before anything is written there."""
    if is_url(out):
        raise ConfigError(
            f"{out}: is an address, and a run's folder is on this machine. The value states copies it elsewhere."
        )
    ours = {LOCK, SHARDS, partial_of(out / CONFIG).name}  # a kill may leave these alone
    strange = out.is_dir() and not (out / CONFIG).exists() and {path.name for path in out.iterdir()} - ours
    if strange or out.is_file() or _is_other(out / CONFIG):
        raise ConfigError(f"{out}: is there already and holds no run. Choose another folder.")


def _is_other(written: Path) -> bool:
    """Is it somebody else's file of that name, such as a model's?"""
    try:
        return written.is_file() and "data_digest" not in json.loads(written.read_bytes())
    except (TypeError, ValueError):
        return False  # damaged, which is told when it is claimed


def is_claimed(folder: Place, wanted: Identity) -> bool:
    """Does the folder hold this run? Raises ConfigError where it holds another, or nobody can tell."""
    written = folder / CONFIG
    try:
        found = dict(json.loads(written.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    except (TypeError, ValueError):
        raise ConfigError(f"{written}: is damaged. Choose another folder, or delete this one.") from None
    if other := sorted(key for key in wanted if found.get(key) != wanted[key]):
        raise ConfigError(
            f"{folder}: holds a run with another configuration ({', '.join(other)}). "
            "Choose another folder, or give the same options and data to go on with it."
        )
    return True
