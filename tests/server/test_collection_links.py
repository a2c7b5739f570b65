"""Collections as folders of links: real folders and links under a home of each test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from openclap.library import Library
from openclap.server import collection_links
from openclap.server.collection_links import link_folder, link_names, safe_name
from openclap.server.errors import ApiError
from openclap.server.security import Access
from support.serving import Served


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENCLAP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def local(serve_own: Callable[..., Served], home: Path) -> Any:
    return serve_own(access=Access(is_local=True)).client


def sounds_of(library: Library) -> list[str]:
    return sorted(library.index.files_by_path())


def export(client: Any, name: str, paths: list[str], **body: Any) -> Any:
    assert client.put(f"/v1/collections/{quote(name)}", json={"paths": paths}).status_code == 200
    return client.post(f"/v1/collections/{quote(name)}/links", json=body)


def test_a_collection_becomes_a_folder_of_links(local: Any, own: Library, home: Path) -> None:
    sounds = sounds_of(own)[:3]
    answer = export(local, "Film: noir?", sounds).json()
    folder = Path(answer["folder"])
    assert folder == home / "collections" / "Film_ noir_" and answer["links"] == 3 and answer["missing"] == []
    assert [str(link.readlink()) for link in sorted(folder.iterdir())] == sounds
    assert all(
        link.read_bytes() == Path(sound).read_bytes()
        for link, sound in zip(sorted(folder.iterdir()), sounds, strict=True)
    )
    assert export(local, "Film: noir?", sounds).json() == answer, "the same again is the same folder"


def test_what_is_there_already_is_left_alone(local: Any, own: Library, home: Path) -> None:
    sounds = sounds_of(own)
    first = Path(export(local, "mine", sounds[:2]).json()["folder"])
    (first / "notes.txt").write_text("my own")
    before = {entry.name: entry.lstat().st_mtime_ns for entry in first.iterdir()}
    second = Path(export(local, "mine", sounds[:2]).json()["folder"])
    third = Path(export(local, "mine", sounds[:3]).json()["folder"])
    assert (first.name, second.name, third.name) == ("mine", "mine 2", "mine 3")
    assert {entry.name: entry.lstat().st_mtime_ns for entry in first.iterdir()} == before
    (home / "collections" / "taken").write_text("a file of that name")
    assert Path(export(local, "taken", sounds[:1]).json()["folder"]).name == "taken 2"
    assert (home / "collections" / "taken").read_text() == "a file of that name"


def test_sounds_that_are_gone_are_named(local: Any, own: Library) -> None:
    sounds = sounds_of(own)[:2]
    assert local.put("/v1/collections/some", json={"paths": sounds}).status_code == 200
    Path(sounds[0]).unlink()
    answer = local.post("/v1/collections/some/links", json={}).json()
    assert (answer["links"], answer["missing"]) == (1, [sounds[0]])
    Path(sounds[1]).unlink()
    answer = local.post("/v1/collections/some/links", json={})
    assert answer.status_code == 404 and "still there" in answer.json()["error"]["message"]
    assert local.post("/v1/collections/none/links", json={}).status_code == 404


@pytest.mark.parametrize(
    "name", ["..", "../../x", "/etc", "a/b", "con", "nul.txt", " . ", "x" * 200, "🎵" * 200, "\u202e"]
)
def test_no_name_leaves_the_folder_of_collections(local: Any, own: Library, home: Path, name: str) -> None:
    sounds = sounds_of(own)[:1]
    folder = link_folder(home / "collections", name, sounds)
    assert folder.parent == home / "collections" and folder.resolve().parent == (home / "collections").resolve()
    assert len(folder.name.encode()) <= 130 and not folder.name.startswith(".")
    assert [str(link.readlink()) for link in folder.iterdir()] == sounds


def test_equal_names_are_numbered() -> None:
    sounds = ["/a/kick.wav", "/b/kick.wav", "/c/Kick.WAV", "/d/kick (2).wav", "/e/two\nlines.wav", "/f/שלום.ogg"]
    expected = ["kick.wav", "kick (2).wav", "Kick (2) (2).WAV", "kick (2) (2).wav", "two_lines.wav", "שלום.ogg"]
    names = link_names(sounds)
    assert len({name.casefold() for name in names}) == len(names)
    assert names[:2] == expected[:2] and names[4:] == expected[4:]
    assert all(name.lower().endswith(Path(sound).suffix.lower()) for name, sound in zip(names, sounds, strict=True))


def test_long_names_keep_their_suffix() -> None:
    name = safe_name("ä" * 300 + ".flac", 240)
    assert name.endswith(".flac") and len(name.encode()) <= 240


def test_hard_links_where_symbolic_ones_are_refused(
    local: Any, own: Library, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    sounds = sounds_of(own)[:2]
    answer = export(local, "hard", sounds).json()
    assert all(
        link.samefile(sound) for link, sound in zip(sorted(Path(answer["folder"]).iterdir()), sounds, strict=True)
    )
    assert export(local, "hard", sounds).json() == answer
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    failed = export(local, "none", sounds)
    assert failed.status_code == 503 and "privilege" in failed.json()["error"]["message"]
    assert not (home / "collections" / "none").exists(), "a folder that could not be filled is removed"


def test_only_a_local_server_makes_links(serve: Callable[..., Served], library: Library, home: Path) -> None:
    client = serve(access=Access(is_local=False)).client
    answer = export(client, "some", sounds_of(library)[:1])
    assert answer.status_code == 403 and "CSV" in answer.json()["error"]["message"]
    assert not (home / "collections").exists()


def test_the_folder_opens_where_that_was_asked(local: Any, own: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(collection_links, "reveal", opened.append)
    answer = export(local, "some", sounds_of(own)[:1], reveal=True).json()
    assert opened == [Path(answer["folder"])]


def test_folders_of_one_name_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_links, "MOST_FOLDERS", 3)
    (tmp_path / "kick.wav").touch()
    for name in ("x", "x 2", "x 3"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "other").touch()
    with pytest.raises(ApiError):
        link_folder(tmp_path / "out", "x", [str(tmp_path / "kick.wav")])
