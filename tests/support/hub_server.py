"""A hub: as much of the Hugging Face hub's HTTP as its client uses for models and data sets.

Files are downloaded whole or by range; small ones are uploaded inside a commit, others by LFS first. Connections can
be cut in the middle of a file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.http_server import Exchange, HttpServer

TOKEN = "hf_right"
CHUNK = 1 << 16


@dataclass
class Repo:
    """Commits (files by path) and what names them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    status: int | None = None
    messages: list[str] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes], ref: str = "main", message: str = "") -> str:
        """Add files on top of `ref` and return the commit's name."""
        whole = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        digest = hashlib.sha1(repr((sorted(whole.items()), len(self.commits))).encode())
        name = digest.hexdigest()
        self.commits[name], self.refs[ref] = whole, name
        self.messages.append(message)
        return name

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


class Hub(HttpServer):
    """A hub at `hub.url`."""

    def __init__(self, *, lfs_from: int = 1 << 20) -> None:
        super().__init__()
        self.repos: dict[str, Repo] = {}
        self.uploads: dict[str, bytes] = {}
        self.cuts: list[int] = []
        """Each of the next downloads breaks off after so many bytes; a negative number ends it without an error."""
        self.owner = "me"
        self.lfs_from = lfs_from
        self.url = self.root

    @property
    def log(self) -> list[str]:
        """Method, path and range of each request."""
        lines = [(each.method, each.path, each.headers.get("range")) for each in self.requests]
        return [" ".join(filter(None, line)) for line in lines]

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request_
        for method, pattern, action in ROUTES:
            if request.method in method.split() and (match := re.fullmatch(pattern, request.path)):
                body = [request.body] if request.method in ("POST", "PUT") else []
                action(_Actions(self, exchange), *match.groups(), *body)
                return
        exchange.send(404, b"{}")

    def environment(self, cache: Path) -> dict[str, str]:
        """What makes the client, started in a process of its own, ask this hub and keep its files in `cache`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": str(cache / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "",
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
        }

    def add(self, name: str, files: Mapping[str, bytes], **options: bool) -> Repo:
        repo = self.repos[name] = Repo(**options)
        repo.commit(files)
        return repo

    def bodies(self) -> list[str]:
        """The files whose content was asked for."""
        return [line.split("/")[-1] for line in self.log if line.startswith("GET ") and "/resolve/" in line]


class _Actions:
    """What the hub does with one request."""

    def __init__(self, hub: Hub, exchange: Exchange) -> None:
        self._hub, self._exchange = hub, exchange

    # -- answers

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self._exchange.send(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def _json(self, value: Any, status: int = 200) -> None:
        self._exchange.send_json(value, status)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", X_Error_Code=code, X_Error_Message=code)

    # -- rights

    def _token(self) -> str | None:
        return self._exchange.request_.headers.get("authorization", "").removeprefix("Bearer ") or None

    def _readable(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self._hub.repos.get(name)
        if self._token() not in (None, TOKEN, "hf_reader"):
            self._send(401, b"{}", X_Error_Message="Invalid credentials in Authorization header")
        elif repo is None or (repo.private and self._token() != TOKEN):
            self._refuse(401 if self._token() is None else 404, "RepoNotFound")
        elif repo.status:
            self._send(repo.status, b"{}")
        elif repo.gated and self._token() != TOKEN:
            self._refuse(403, "GatedRepo")
        elif (commit := repo.resolve(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        else:
            return commit, repo.commits[commit]
        return None

    def _writable(self) -> bool:
        if self._token() != TOKEN:
            self._send(403 if self._token() else 401, b"{}", X_Error_Message="no right to write")
            return False
        return True

    # -- reading

    def model(self, name: str, revision: str | None = None) -> None:
        if found := self._readable(name, revision or "main"):
            commit, files = found
            self._json({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]})

    def tree(self, name: str, revision: str) -> None:
        if found := self._readable(name, revision):
            self._json(
                [
                    {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                    for path, data in found[1].items()
                ]
            )

    def resolve(self, name: str, revision: str, path: str) -> None:
        found = self._readable(name, revision)
        if not found:
            return
        commit, files = found
        if path not in files:
            self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        data = files[path]
        start, method = self._exchange.request_.start, self._exchange.request_.method
        cut = self._hub.cuts.pop(0) if method == "GET" and self._hub.cuts else None
        headers = {
            "ETag": f'"{_etag(data)}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
            "Content-Length": str(-cut if cut is not None and cut < 0 else len(data) - start),
        }
        headers |= {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self._exchange.head(206 if start else 200, headers)
        if method == "GET":
            self._exchange.wfile.write(data[start:] if cut is None else data[start : start + abs(cut)])
            self._exchange.close_connection = cut is not None

    # -- writing

    def create(self, body: bytes) -> None:
        wanted = json.loads(body)
        owner = wanted.get("organization") or self._hub.owner
        name = f"{owner}/{wanted['name']}"
        if not self._writable():
            return
        if owner != self._hub.owner:
            self._send(403, b"{}", X_Error_Message="no right to write")
        elif name in self._hub.repos:
            self._json({"url": f"{self._hub.url}/{name}"}, 409)
        else:
            self._hub.add(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
            kind = "datasets/" if wanted.get("type") == "dataset" else ""
            self._json({"url": f"{self._hub.url}/{kind}{name}"})

    def validate(self, body: bytes) -> None:
        head = json.loads(body)["content"].split("---")
        bad = len(head) < 3 or "license: [" in head[1]
        self._json({"errors": [{"message": "license is not a string"}], "warnings": []}, 400 if bad else 200)

    def branch(self, name: str, branch: str, body: bytes) -> None:
        if self._writable():
            repo = self._hub.repos[name]
            known = branch in repo.refs
            repo.refs.setdefault(branch, repo.refs["main"])
            self._json({}, 409 if known else 200)

    def preupload(self, name: str, revision: str, body: bytes) -> None:
        if self._writable():
            limit = self._hub.lfs_from
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= limit else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._json({"files": modes})

    def batch(self, name: str, body: bytes) -> None:
        if self._writable():
            wanted = json.loads(body)["objects"]
            action = {"upload": {"href": f"{self._hub.url}/storage/"}}
            objects = [
                {**one, "actions": {"upload": {"href": action["upload"]["href"] + one["oid"]}}} for one in wanted
            ]
            self._json({"transfer": "basic", "objects": objects})

    def store(self, oid: str, body: bytes) -> None:
        self._hub.uploads[oid] = body
        self._send(200)

    def commit(self, name: str, revision: str, body: bytes) -> None:
        if not self._writable():
            return
        lines = [json.loads(line) for line in body.splitlines()]
        files, message = {}, ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self._hub.uploads[value["oid"]]
                assert (hashlib.sha256(data).hexdigest(), len(data)) == (value["oid"], value["size"])
                files[value["path"]] = data
        commit = self._hub.repos[name].commit(files, revision, message)
        self._json({"commitUrl": f"{self._hub.url}/{name}/commit/{commit}", "commitOid": commit})


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


API = r"/api/(?:models|datasets)"
NAME = r"([\w.-]+(?:/[\w.-]+)?)"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", rf"{API}/{NAME}", _Actions.model),
    ("GET", rf"{API}/{NAME}/revision/(.+)", _Actions.model),
    ("GET", rf"{API}/{NAME}/tree/([^/]+)", _Actions.tree),
    ("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", _Actions.resolve),
    ("POST", r"/api/repos/create", _Actions.create),
    ("POST", r"/api/validate-yaml", _Actions.validate),
    ("POST", rf"{API}/{NAME}/branch/(.+)", _Actions.branch),
    ("POST", rf"{API}/{NAME}/preupload/(.+)", _Actions.preupload),
    ("POST", rf"/(?:datasets/)?{NAME}\.git/info/lfs/objects/batch", _Actions.batch),
    ("PUT", r"/storage/(\w+)", _Actions.store),
    ("POST", rf"{API}/{NAME}/commit/(.+)", _Actions.commit),
]
