"""Helpers of download tests; run as a program, it fetches files from a server until it is stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from openclap.download import FailedFetch, FetchedFile, FetchLimits, FileRequest, fetch

QUICK = FetchLimits(allow_private=True, backoff_s=0.005, idle_s=0.5, timeout_s=3.0, max_bytes=1 << 20, attempts=4)


def outcome(wanted: FileRequest, limits: FetchLimits = QUICK, **options: Any) -> FetchedFile | FailedFetch:
    """Fetch one file; return the outcome."""
    [result] = fetch([wanted], limits=limits, **options)
    return result


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left_over(folder: Path) -> list[str]:
    """Names of hidden files: those of unfinished downloads."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def environment() -> dict[str, str]:
    """The environment of a process that runs this file."""
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def main(folder: str, *urls: str) -> None:
    """Fetch to `folder`, and print one line of JSON for each result. After "pause.wav" it does nothing for a minute."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    limits = replace(QUICK, idle_s=10.0, timeout_s=60.0, per_host=8)
    wanted = (FileRequest(url, Path(folder) / url.rpartition("/")[2]) for url in urls)
    print("begun", flush=True)
    for result in fetch(wanted, limits=limits):
        print(json.dumps(asdict(result), default=str), flush=True)
        if result.request.to.name == "pause.wav":
            time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
