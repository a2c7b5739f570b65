from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch

from openclap.checkpoints.destination import CheckpointKind, drafted
from openclap.checkpoints.tensors import check_equal
from openclap.errors import CheckpointError
from support.errors import is_named, raises_naming

FOLDER = CheckpointKind("note", ("config.json", "text"), lambda path: (path / "config.json").is_file())
FILE = CheckpointKind(
    "letter", (), lambda path: path.is_file() and path.read_text(encoding="utf-8").startswith("letter")
)


def reads(draft: Path) -> None:
    """A reader with nothing to say against the draft."""
    assert draft.exists()


def write(place: Path, text: str = "new", source: Path | None = None) -> None:
    with drafted(place, FOLDER, reads, [source]) as draft:
        draft.mkdir()
        (draft / "config.json").write_text("{}", encoding="utf-8")
        (draft / "text").write_text(text, encoding="utf-8")
        (draft / "text").chmod(0o600)


def read_files(place: Path) -> dict[str, str]:
    """Every file under a folder, hidden ones too."""
    found = (path for path in sorted(place.rglob("*")) if not path.is_dir())
    return {path.relative_to(place).as_posix(): path.read_text(encoding="utf-8") for path in found}


NEW, OLD = {"config.json": "{}", "text": "new"}, {"config.json": "{}", "text": "old"}


def test_folder_is_written_and_replaced_as_a_whole(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "folder"
    write(place, "old")
    assert read_files(tmp_path) == {f"deep/folder/{name}": text for name, text in OLD.items()}
    write(place)
    assert read_files(place) == NEW and [path.name for path in place.parent.iterdir()] == ["folder"]
    plain = tmp_path / "plain"
    plain.touch()
    assert {stat.S_IMODE((place / name).stat().st_mode) for name in NEW} == {stat.S_IMODE(plain.stat().st_mode)}


@pytest.mark.parametrize("strange", ["README.md", "thesis.txt", ".git/HEAD", "sub/x"])
def test_folder_with_foreign_files_is_refused(tmp_path: Path, strange: str) -> None:
    place = tmp_path / "folder"
    write(place, "old")
    (place / strange).parent.mkdir(exist_ok=True)
    (place / strange).write_text("mine", encoding="utf-8")
    with raises_naming(CheckpointError, place, Path(strange).parts[0]):
        write(place)
    assert read_files(place) == OLD | {strange: "mine"} and [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_links_and_folders_with_the_writers_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    for number, make in enumerate((lambda path: path.symlink_to(tmp_path / "mine"), Path.mkdir)):
        place = tmp_path / str(number)
        place.mkdir()
        (place / "config.json").write_text("{}", encoding="utf-8")
        make(place / "text")
        with raises_naming(CheckpointError, place, "text"):
            write(place)


def test_other_content_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for name in ("folder", "file"):
        with raises_naming(CheckpointError, tmp_path / name):
            write(tmp_path / name)
    assert read_files(tmp_path) == {"folder/text": "mine", "file": "mine"}


def test_unwritable_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with raises_naming(CheckpointError, tmp_path / "file" / "folder"):
        write(tmp_path / "file" / "folder")
    assert read_files(tmp_path) == {"file": "mine"}


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    write(place, "old")
    with raises_naming(CheckpointError, place):
        write(place, source=tmp_path / "." / "folder")
    with raises_naming(CheckpointError, place):
        write(place, source=place / "text")
    assert read_files(place) == OLD


@pytest.mark.parametrize("where", ["source/new", "source/deep/er", "link/new", "way-in"])
def test_nothing_is_written_inside_the_source(tmp_path: Path, where: str) -> None:
    source = tmp_path / "source"
    write(source, "old")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "way-in").symlink_to(source / "new")
    for given in (source, tmp_path / "link"):
        with raises_naming(CheckpointError, source):
            write(tmp_path / where, source=given)
    assert read_files(source) == OLD and len(list(source.iterdir())) == 2


def test_targets_of_links_in_a_source_are_protected(tmp_path: Path) -> None:
    """As the hub's cache does: a folder of links to files elsewhere."""
    write(tmp_path / "real", "old")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "text").symlink_to(tmp_path / "real" / "text")
    with raises_naming(CheckpointError, tmp_path / "real"):
        write(tmp_path / "real", source=tmp_path / "source")
    assert read_files(tmp_path / "real") == OLD


def test_draft_that_does_not_read_back_replaces_nothing(tmp_path: Path) -> None:
    def refuse(draft: Path) -> None:
        raise CheckpointError(f"{draft / 'text'}: is damaged.")

    for before in ({}, OLD):
        if before:
            write(tmp_path / "folder", "old")
        with (
            raises_naming(CheckpointError, tmp_path / "folder", "folder/text"),
            drafted(tmp_path / "folder", FOLDER, refuse) as draft,
        ):
            draft.mkdir()
            (draft / "text").write_text("new", encoding="utf-8")
        assert read_files(tmp_path) == {f"folder/{name}": text for name, text in before.items()}


def test_tensors_are_compared_bit_for_bit() -> None:
    odd = torch.tensor([1.0, float("nan"), -0.0])
    state = {"a": odd, "b": torch.tensor(3), "c": torch.ones(2, 3).half().T, "d": torch.zeros(0), "e": odd > 0}
    check_equal({name: tensor.clone() for name, tensor in state.items()}, state)
    for name, other in (
        ("a", torch.tensor([1.0, float("nan"), 0.0])),
        ("b", torch.tensor(3, dtype=torch.int32)),
        ("c", torch.ones(2, 3).half()),
        ("e", odd > 1),
    ):
        with raises_naming(CheckpointError, name):
            check_equal(state | {name: other}, state)
    with raises_naming(CheckpointError, "a"):
        check_equal({name: tensor for name, tensor in state.items() if name != "a"}, state)


def test_file_replaces_only_its_own_kind(tmp_path: Path) -> None:
    place = tmp_path / "a.pt"
    for text in ("letter 1", "letter 2"):
        with drafted(place, FILE, reads) as draft:
            draft.write_text(text, encoding="utf-8")
    assert read_files(tmp_path) == {"a.pt": "letter 2"}
    place.write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for name in ("a.pt", "empty"):
        with raises_naming(CheckpointError, tmp_path / name), drafted(tmp_path / name, FILE, reads):
            pass
    assert read_files(tmp_path) == {"a.pt": "mine"}


def test_empty_folder_is_filled_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be where the user is, or a disk of its own."""
    place = tmp_path / "empty"
    place.mkdir()
    inode = place.stat().st_ino
    monkeypatch.chdir(place)
    write(Path())
    assert read_files(tmp_path) == {f"empty/{name}": text for name, text in NEW.items()}
    assert place.stat().st_ino == inode and read_files(Path()) == NEW


def test_links_to_the_destination_stay_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "far" / "away")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, real in (("link", "real"), ("link", "real"), ("dangling", "far/away")):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink() and read_files(tmp_path / real) == NEW
    with raises_naming(CheckpointError, tmp_path / "loop"):
        write(tmp_path / "loop")


class Stop(BaseException):
    """Whatever ends a process early."""


def test_interrupted_write_leaves_nothing_behind(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    with pytest.raises(Stop), drafted(place, FOLDER, reads) as draft:
        draft.mkdir()
        hidden = [path.name for path in tmp_path.iterdir()]
        raise Stop
    assert len(hidden) == 1 and hidden[0].startswith(".folder.partial-")
    write(place, "old")
    with pytest.raises(Stop), drafted(place, FOLDER, reads) as draft:
        raise Stop
    assert read_files(tmp_path) == {f"folder/{name}": text for name, text in OLD.items()}


@pytest.mark.parametrize("back", [True, False])
def test_old_folder_is_put_back_when_replacing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    place = tmp_path / "folder"
    write(place, "old")
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if Path(target) == place and (".partial-" in str(self) or not back):
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    if back:
        with pytest.raises(OSError, match="No space"):
            write(place)
        assert read_files(tmp_path) == {f"folder/{name}": text for name, text in OLD.items()}
        return
    with raises_naming(CheckpointError, place) as caught:
        write(place)
    [old] = [path for path in tmp_path.rglob("folder") if is_named(path, str(caught.value))]
    assert read_files(old) == OLD


def test_partly_filled_folder_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "config.json":
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "empty")
    assert read_files(tmp_path) == {} and (tmp_path / "empty").is_dir()


def test_files_that_appear_during_the_write_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        place = tmp_path / name
        with raises_naming(CheckpointError, place, "mine"), drafted(place, FOLDER, reads) as draft:
            draft.mkdir()
            place.mkdir(exist_ok=True)
            (place / "mine").write_text("dear", encoding="utf-8")
    assert read_files(tmp_path) == {"new/mine": "dear", "empty/mine": "dear"}
