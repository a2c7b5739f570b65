"""Read tables row by row and walk folders of audio, intact and damaged."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from openclap.sources.files import DamagedTableError, as_float, as_int, audio_files, csv_rows, parquet_rows, split_text
from support.errors import raises_naming
from support.layouts import put, write


def test_csv_cells_in_requested_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", '\ufeffb, a ,c\n1,"x, ""y""\nz",3\n\n4,5\n', "utf-8")
    assert list(csv_rows(path, ["a", "b"], ["c", "d"])) == [('x, "y"\nz', "1", "3", ""), ("5", "4", "", "")]


def test_csv_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "1,2\n3,4\n")
    assert list(csv_rows(path, ["y"], header=["x", "y"])) == [("2",), ("4",)]


def test_invalid_utf_8_is_read_as_cp1252(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("a\nRenée\n".encode("latin-1") + "Zoë\n".encode())
    assert [row[0] for row in csv_rows(path, ["a"])] == ["Renée", "Zoë"]


def test_rows_without_first_cell_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "t.csv", "a,b\n,1\nx,2\n , 3\n")
    assert list(csv_rows(path, ["a", "b"])) == [("x", "2")]
    assert "2 rows have no a" in caplog.text


def test_parquet_cells_batch_by_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = {"a": [None, *range(1, 100)], "b": [str(value) for value in range(100)]}
    path = tmp_path / "odd [name]*.parquet"
    polars.DataFrame(rows).write_parquet(path, row_group_size=10)
    found = list(parquet_rows(path, ["a"], ["none", "b"], batch=7))
    assert found == [(value, None, str(value)) for value in range(1, 100)]
    assert "1 rows have no a" in caplog.text


def test_parquet_reader_can_be_closed_early(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    polars.DataFrame({"a": range(1000)}).write_parquet(path, row_group_size=10)
    rows = parquet_rows(path, ["a"], batch=5)
    assert next(rows) == (0,)
    rows.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("reader", [csv_rows, parquet_rows])
def test_unreadable_tables_are_refused(tmp_path: Path, reader: object) -> None:
    with raises_naming(DamagedTableError, tmp_path / "nowhere"):
        list(reader(tmp_path / "nowhere", ["a"]))  # type: ignore[operator]
    polars.DataFrame({"b": [1]}).write_parquet(tmp_path / "t.parquet")
    write(tmp_path / "t.csv", "b\n1\n")
    name = "t.csv" if reader is csv_rows else "t.parquet"
    with raises_naming(DamagedTableError, tmp_path / name, "a", "b"):
        list(reader(tmp_path / name, ["a"]))  # type: ignore[operator]


def test_audio_files_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.wav", "a/z.FLAC", "a/y.mp3", ".hidden/x.wav", "a/.y.wav", "__MACOSX/b.wav"):
        if name.endswith("FLAC"):
            put(tmp_path / name.lower()).rename(tmp_path / name)
        else:
            put(tmp_path / name)
    write(tmp_path / "notes.txt", "no sound")
    (tmp_path / "around").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path)] == ["b.wav", "a/y.mp3", "a/z.FLAC"]


def test_cells_are_parsed() -> None:
    assert [as_float(cell) for cell in ("1.5", 2, "", None, "nan", "inf", "x")] == [
        1.5,
        2.0,
        None,
        None,
        None,
        None,
        None,
    ]
    assert [as_int(cell) for cell in ("7", 7.0, "7.5", float("nan"), None, "Not found")] == [
        7,
        7,
        None,
        None,
        None,
        None,
    ]
    assert split_text(" a, ,b c,") == ("a", "b c")
