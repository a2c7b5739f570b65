"""Requests to `openclap serve` by one client and by many at once: throughput, percentiles, errors, memory.

    python benchmarks/serve.py INDEX SOUND [--clients 1 64] [--seconds 120] [--requests 10000] [--kinds text audio ...]

The server is a process of its own on a free port of loopback, and the clients are threads of this one, each with one
connection that it keeps. Each kind of request is measured by itself, and then all in turn (`mixed`). Processor time is
the server's, per request: other work on the machine disturbs it less than the clock. The last step sends --requests
requests of all kinds and prints the server's memory in between.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import numpy as np

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Request:
    """A request, and the status of its answer."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


def kinds_of(sound: Path) -> dict[str, Request]:
    """A request of each kind about an indexed sound."""
    uri = f"data:audio/wav;base64,{base64.b64encode(sound.read_bytes()).decode()}"
    query = urlencode({"path": str(sound)})
    return {
        "text": _posting("/v1/embeddings", {"input": "a low tone in noise", "encoding_format": "base64"}),
        "audio": _posting("/v1/embeddings", {"input": [uri], "encoding_format": "base64"}),
        "search": _posting("/v1/search", {"text": "noise", "k": 10}),
        "search by path": _posting("/v1/search", {"path": str(sound), "k": 10}),
        "file": Request("GET", f"/v1/sounds/file?{query}", headers={"Range": "bytes=0-999"}, status=206),
        "waveform": Request("GET", f"/v1/sounds/peaks?{query}"),
        "mistake": _posting("/v1/embeddings", {"input": "data:audio/wav;base64,AAAA"}, status=400),
    }


def _posting(path: str, body: object, status: int = 200) -> Request:
    return Request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"}, status)


@dataclass
class Load:
    """Answers so far: seconds of the right ones, and the number of others by status or error."""

    seconds: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)


def send(url: str, requests: Sequence[Request], clients: int, *, seconds: float = 1e9, most: int = 1 << 60) -> Load:
    """Send the requests in turn, each client one after the other, for some seconds or until `most` were sent.

    An answer 429 counts as another one, and its client waits as Retry-After says.
    """
    load, numbers, end = Load(), count(), time.monotonic() + seconds

    def run() -> None:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
        while time.monotonic() < end and (number := next(numbers)) < most:
            request = requests[number % len(requests)]
            began = time.monotonic()
            try:
                connection.request(request.method, request.path, request.body, request.headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                load.others[type(error).__name__] += 1
                connection.close()
                continue
            if answer.status == request.status:
                load.seconds.append(time.monotonic() - began)
            else:
                load.others[str(answer.status)] += 1
                time.sleep(float(answer.headers.get("Retry-After") or 0))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load


def resident_mb(process: int) -> float:
    """The memory of a process, in MB."""
    [line] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def processor_s(process: int) -> float:
    """The processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(index: Path) -> tuple[subprocess.Popen[str], str]:
    """Start `openclap serve`, and return the process and its URL. Raises RuntimeError when it does not start."""
    command = [sys.executable, "-m", "openclap", "serve", str(index), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"at (http://\S+)", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would stop it
            return process, match[1]
    raise RuntimeError(f"openclap serve {index} ended with exit code {process.wait()}.")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("sound", type=Path, help="a sound of the index")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=120.0, help="of each kind and number of clients")
    parser.add_argument("--requests", type=int, default=10_000, help="for the measurement of memory; 0 for none")
    parser.add_argument("--kinds", nargs="+", default=["text", "audio", "search", "mixed"])
    options = parser.parse_args()
    requests = kinds_of(options.sound.absolute())
    process, url = start(options.index)
    try:
        send(url, list(requests.values()), 1, most=3 * len(requests))  # graphs are read when they are first used
        print("| requests | clients | requests/s | p50 ms | p95 ms | p99 ms | longest ms | processor ms | others |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
        for kind in options.kinds:
            chosen = list(requests.values()) if kind == "mixed" else [requests[kind]]
            for clients in options.clients:
                used, began = processor_s(process.pid), time.monotonic()
                load = send(url, chosen, clients, seconds=options.seconds)
                took, used = time.monotonic() - began, processor_s(process.pid) - used
                times = " | ".join(f"{ms:.0f}" for ms in 1000 * np.percentile(load.seconds, [50, 95, 99, 100]))
                others = ", ".join(f"{name}: {number}" for name, number in load.others.items()) or "none"
                print(
                    f"| {kind} | {clients} | {len(load.seconds) / took:.1f} | {times} "
                    f"| {1000 * used / len(load.seconds):.1f} | {others} |",
                    flush=True,
                )
        sizes = [resident_mb(process.pid)]
        for _ in range(5 if options.requests else 0):
            send(url, list(requests.values()), 8, most=options.requests // 5)
            sizes.append(resident_mb(process.pid))
        print(
            f"\nMemory in MB, each after {options.requests // 5:,} more requests:", *(f"{size:.0f}" for size in sizes)
        )
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
