"""Tables as people write them, and the errors for those that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import polars
import pytest

from openclap.errors import DataError
from openclap.sources import SOURCES, Record, read_table
from openclap.sources.table import ColumnChoice, open_table
from openclap.sources.text_encoding import decode_text
from support.errors import raises_naming
from support.layouts import put


def table(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_folder_in_place_of_a_table_is_named_with_the_tables_in_it(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path, "is a folder", "None is in it"):
        read_table(tmp_path)
    for name in ("b.csv", "a.jsonl", "notes.txt"):
        table(tmp_path, name, "")
    with raises_naming(DataError, tmp_path, "is a folder", "In it are: a.jsonl, b.csv."):
        read_table(tmp_path)
    with raises_naming(DataError, tmp_path / "nowhere", "no such file"):
        read_table(tmp_path / "nowhere")


def test_every_column_of_a_csv(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "sounds.csv",
        "file,captions,tags,label,group,original_title,licence,author,link,source,id\n"
        'rain/a.wav,Rain falls. | It pours.,"rain, water",rain,take1,Rain,CC0,Ada,https://x.org/a,field,7\n',
    )
    assert read_table(path) == [
        Record(
            id="7",
            audio=tmp_path / "rain" / "a.wav",
            captions=("Rain falls.", "It pours."),
            source="field",
            tags=("rain", "water"),
            label="rain",
            group="take1",
            title="Rain",
            licence="CC0-1.0",
            author="Ada",
            link="https://x.org/a",
        )
    ]


def test_defaults_of_a_table_with_files_and_captions_only(tmp_path: Path) -> None:
    [record] = read_table(table(tmp_path, "mine.csv", "path,caption\n./a.wav,Rain | not split.\n"))
    assert record == Record("./a.wav", tmp_path / "a.wav", ("Rain | not split.",), "mine", group="a.wav")


def test_other_column_names(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "t.csv",
        'Audio , title,license,url,Tags:,caption_10,caption2,Caption1\na.wav,T,BY,u,"x,,y",ten,two,one\n',
    )
    [record] = read_table(path)
    assert (record.title, record.licence, record.link) == ("T", "CC-BY", "u")
    assert record.tags == ("x", "y")
    assert record.captions == ("one", "two", "ten")


def test_tsv_with_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    path = table(tmp_path, "t.tsv", '\ufefffile\tcaption\na.wav\t"A ""big"" dog, barking"\n')
    assert read_table(path)[0].captions == ('A "big" dog, barking',)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_with_semicolons(tmp_path: Path, mark: str) -> None:
    path = table(tmp_path, "t.csv", f'\ufefffile{mark}caption{mark}tags\na.wav{mark}"rain; wind, hail"{mark}x\n')
    [record] = read_table(path)
    assert (record.captions, record.tags) == (("rain; wind, hail",), ("x",))


def test_json_lines_may_mix_lists_and_text(tmp_path: Path) -> None:
    rows = [
        {"file": "a.wav", "captions": ["one", "two"], "tags": ["t"]},
        {"file": "b.wav", "captions": "three | four", "label": 5},
        {"file": "c.wav", "captions": None},
    ]
    path = table(tmp_path, "t.jsonl", "\n\n".join(json.dumps(row) for row in rows))
    records = read_table(path)
    assert [record.captions for record in records] == [("one", "two"), ("three", "four"), ()]
    assert (records[0].tags, records[1].label) == (("t",), "5")


def test_parquet_with_lists_and_numbers(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {"file": ["a.wav", "b.wav"], "captions": [["one", " "], ["two"]], "id": [12.0, None], "group": [3, 4]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    first, second = read_table(tmp_path / "t.parquet")
    assert (first.id, first.captions, first.group) == ("12", ("one",), "3")
    assert second.id == "b.wav"


def test_rows_without_caption_are_read_and_blank_rows_skipped(tmp_path: Path) -> None:
    records = read_table(table(tmp_path, "t.csv", "file,caption\na.wav,  \n\nb.wav,Dog.\n,\n"))
    assert [(record.id, record.captions) for record in records] == [("a.wav", ()), ("b.wav", ("Dog.",))]


def test_absolute_paths_are_read(tmp_path: Path) -> None:
    absolute = tmp_path / "elsewhere" / "a.wav"
    assert read_table(table(tmp_path, "t.csv", f"file,caption\n{absolute},Dog.\n"))[0].audio == absolute


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        (
            "t.csv",
            "thing,caption\na,b\n",
            ["thing, caption", "file, path"],
        ),
        ("t.csv", "a.wav,A dog barks.\nb.wav,b\n", ["header"]),
        ("t.csv", "file,words\na,b\n", ["file, words", "caption1"]),
        ("t.csv", "file,caption\n", ["no rows"]),
        ("t.csv", "file,caption\n,\n", ["no rows"]),
        ("t.csv", "", ["0 bytes"]),
        ("t.csv", "file,caption\na,b,c\n", ["csv"]),
        ("t.csv", "file,caption\na,b\n".encode("utf-16")[:-1], ["UTF-8"]),
        ("t.csv", "file,caption\na,b\n,c\n,d\n", ["2 rows", "row 2", "'file'"]),
        ("t.jsonl", '{"file": "a"\n', ["line 1", "JSON"]),
        ("t.jsonl", '{"file": "a", "caption": "b"}\n[1]\n', ["line 2", "object"]),
        ("t.json", "[1, 2]", ["list of objects"]),
        ("t.json", '{"file": "a.wav"', ["JSON"]),
        ("t.json", "[" * 100_000, ["nested"]),
        ("t.json", '{"version": 2}', ["list of objects"]),
        ("t.jsonl", "\n\n", ["no rows"]),
        ("t.parquet", "PAR1 not really", ["parquet"]),
        ("t.xlsx", "x", [".csv"]),
    ],
)
def test_unusable_table_is_one_sentence(tmp_path: Path, name: str, text: str | bytes, values: list[str]) -> None:
    with raises_naming(DataError, name, *values):
        read_table(table(tmp_path, name, text))


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with raises_naming(DataError, tmp_path / "t.csv"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "folder.csv").mkdir()
    with raises_naming(DataError, tmp_path / "folder.csv"):
        read_table(tmp_path / "folder.csv")


def test_group_does_not_depend_on_the_spelling_of_a_path(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "t.csv"
    table.write_text(f"file,caption\na.wav,x\n../in/a.wav,y\n{tmp_path}/in/a.wav,z\n", encoding="utf-8")
    assert {record.group for record in read_table(table)} == {"a.wav"}


def test_optional_columns(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "t.csv",
        "file,caption,description,split,start_s,length_s,rate,freesound_id,youtube_id\n"
        "a.wav,A dog.,A dog in a yard.,valid,1.5,4,44100,64760,r1nicOVtvkQ\n"
        "b.wav,A cat.,,,,n/a,,,\n",
    )
    first, second = read_table(path)
    assert (first.description, first.split, first.start_s, first.length_s) == ("A dog in a yard.", "valid", 1.5, 4.0)
    assert (first.rate, first.freesound_id, first.youtube_id) == (44_100, 64760, "r1nicOVtvkQ")
    assert first.group == "youtube:r1nicOVtvkQ"
    assert second == Record("b.wav", tmp_path / "b.wav", ("A cat.",), "t", group="b.wav")


def test_released_tables_of_laion_audio_630k(tmp_path: Path) -> None:
    """Addresses in `url`, captions in numbered columns, and the Freesound id as metadata."""
    address = "https://freesound.org/apiv2/sounds/158824/download/"
    path = table(
        tmp_path,
        "freesound.csv",
        f",url,caption1,caption2,freesound_id\n0,{address},futuresoundfx-795.,Sci-Fi Effects.,158824\n",
    )
    assert read_table(path) == [
        Record(
            id=address,
            audio=address,
            captions=("futuresoundfx-795.", "Sci-Fi Effects."),
            source="freesound",
            group=address,
            freesound_id=158824,
        )
    ]


def test_urls_beside_files(tmp_path: Path) -> None:
    path = table(tmp_path, "t.csv", "file,caption,url\nhttps://x.org/a.wav,A.,https://freesound.org/s/7/\nb.wav,B.,\n")
    first, second = read_table(path)
    assert (first.audio, first.link, first.freesound_id) == ("https://x.org/a.wav", "https://freesound.org/s/7/", 7)
    assert second.audio == tmp_path / "b.wav"


def test_table_source_needs_no_captions(tmp_path: Path) -> None:
    path = table(tmp_path, "t.csv", 'file,title,tags\na.wav,Door creak 2,"door, creak"\n')
    [record] = SOURCES["table"].read(path)
    assert (record.captions, record.title, record.tags) == ((), "Door creak 2", ("door", "creak"))


WORDS = "Été à Zürich: ein Wagen fährt vorbei"


@pytest.mark.parametrize(
    ("encoding", "text", "said"),
    [
        ("utf-8", WORDS, ""),
        ("utf-8-sig", WORDS, ""),
        ("latin-1", WORDS, ", encoded in latin-1"),
        ("cp1252", f"{WORDS} – “oh”, 5 €", ", encoded in cp1252"),
        ("utf-16", f"{WORDS} – собака 犬", ", encoded in UTF-16"),
        ("utf-32", WORDS, ", encoded in UTF-32"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_encodings_are_detected(tmp_path: Path, name: str, encoding: str, text: str, said: str) -> None:
    rows = {
        "t.csv": f'file;text\na.wav;"{text}"\n',
        "t.tsv": f"file\ttext\na.wav\t{text}\n",
        "t.jsonl": json.dumps({"file": "a.wav", "text": text}, ensure_ascii=False) + "\n",
        "t.json": json.dumps([{"file": "a.wav", "text": text}], ensure_ascii=False, indent=1),
    }
    found = open_table(table(tmp_path, name, rows[name].encode(encoding)))
    assert found.records[0].captions == (text,)
    assert found.summary == f"a table of 1 row: sound from 'file', caption from 'text'{said}"


def test_pasted_cp1252_line_in_utf_8_is_read(tmp_path: Path) -> None:
    content = "file,caption\na.wav,Ein Bär brüllt über Gräben\n".encode() + "b.wav,Café “là”\n".encode("cp1252")
    found = open_table(table(tmp_path, "t.csv", content))
    assert [record.captions[0] for record in found.records] == ["Ein Bär brüllt über Gräben", "Café “là”"]


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("cp1251", ("собака лает", "идёт дождь")),
        ("koi8-r", ("собака лает", "идёт дождь")),
        ("cp1253", ("γαυγίζει σκύλος", "βροχή πέφτει")),
        ("gbk", ("一只狗在叫", "外面下雨")),
        ("shift_jis", ("犬がほえている", "雨がふっている")),
    ],
)
def test_undetectable_encodings_are_refused(tmp_path: Path, encoding: str, texts: tuple[str, str]) -> None:
    content = f"file,caption\na.wav,{texts[0]}\nb.wav,{texts[1]}\n".encode(encoding)
    with raises_naming(DataError, "t.csv", "UTF-8"):
        open_table(table(tmp_path, "t.csv", content))


@pytest.mark.parametrize(
    "text", ["été", "À l'été, «ça» y est", "Über Öl", "crème brûlée", "œuf – 5 €", "naïf", "hôtel"]
)
def test_western_european_words_are_read(text: str) -> None:
    assert decode_text(text.encode("cp1252"))[0] == text


def test_bytes_undefined_in_cp1252_are_read_as_latin_1(tmp_path: Path) -> None:
    assert decode_text(b"caf\xe9 \x81 \x80") == ("café \x81 €", "cp1252")


@pytest.mark.parametrize("file", ["file_name", "filename", "audio_path", "Audio File", "filepath", "wav", "SOUND"])
@pytest.mark.parametrize("caption", ["text", "Caption 1", "sentence", "captions"])
def test_usual_column_names(tmp_path: Path, file: str, caption: str) -> None:
    path = table(tmp_path, "t.csv", f"{file},{caption}\na.wav,A dog.\n")
    [record] = read_table(path)
    assert (record.audio, record.captions) == (tmp_path / "a.wav", ("A dog.",))


def test_chosen_columns(tmp_path: Path) -> None:
    path = table(tmp_path, "t.csv", "path,where,Was man hört,caption\nx,a.wav,Ein Hund.,dog\n")
    [record] = open_table(path, columns=ColumnChoice("where", ("Was man hört", "caption"))).records
    assert (record.audio, record.captions) == (tmp_path / "a.wav", ("Ein Hund.", "dog"))
    with raises_naming(DataError, "'heard'", "path, where"):
        open_table(path, columns=ColumnChoice(captions=("heard",)))


@pytest.mark.parametrize(
    "value",
    [
        [{"file_name": "a.wav", "caption": "A dog."}, {"file_name": "b.wav", "caption": "A cat."}],
        {
            "num_captions_per_audio": 1,
            "data": [{"path": "a.wav", "text": "A dog."}, {"path": "b.wav", "text": "A cat."}],
        },
        {"a.wav": "A dog.", "b.wav": "A cat."},
        {"a.wav": ["A dog."], "b.wav": ["A cat."]},
        {"a.wav": {"caption": "A dog."}, "b.wav": {"caption": "A cat."}},
        {"file": ["a.wav", "b.wav"], "caption": ["A dog.", "A cat."]},
        {"file": {"0": "a.wav", "1": "b.wav"}, "caption": {"0": "A dog.", "1": "A cat."}},
        [{"audio": {"path": "a.wav", "bytes": None}, "text": "A dog."}, {"audio": {"path": "b.wav"}, "text": "A cat."}],
    ],
)
def test_json_of_every_form(tmp_path: Path, value: object) -> None:
    expected = [(tmp_path / "a.wav", ("A dog.",)), (tmp_path / "b.wav", ("A cat.",))]
    found = read_table(table(tmp_path, "t.json", json.dumps(value, indent=2)))
    assert [(record.audio, record.captions) for record in found] == expected


def test_json_and_json_lines_with_either_suffix(tmp_path: Path) -> None:
    rows = [{"file": "a.wav", "caption": "A dog."}, {"file": "b.wav", "caption": "A cat."}]
    lines, array = "\n".join(map(json.dumps, rows)), json.dumps(rows, indent=1)
    for name, text in (("a.json", lines), ("b.jsonl", array), ("c.ndjson", lines)):
        assert [record.captions for record in read_table(table(tmp_path, name, text))] == [("A dog.",), ("A cat.",)]


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "N/A", " n/a ", "<NA>"])
def test_placeholders_are_not_captions_tags_or_groups(tmp_path: Path, word: str) -> None:
    path = table(
        tmp_path,
        "t.csv",
        f"file,caption,tags,group,split,title\na.wav,{word},{word},{word},{word},{word}\nb.wav,B.,x,,,\n",
    )
    first, _ = read_table(path)
    assert (first.captions, first.tags, first.group, first.split, first.title) == ((), (), "a.wav", None, None)
    rows = [{"file": "a.wav", "captions": [word, "A dog."]}]
    assert read_table(table(tmp_path, "t.json", json.dumps(rows)))[0].captions == ("A dog.",)


def test_files_in_another_folder_and_format_are_found(tmp_path: Path) -> None:
    sound = put(tmp_path / "audio" / "train" / "a.ogg")
    put(tmp_path / "audio" / "b.ogg")
    path = table(tmp_path, "t.csv", "file_name,caption\nold\\place\\a.wav,A.\nc.wav,C.\n")
    first, second = read_table(path)
    assert first.audio == sound and first.group == "audio/train/a.ogg"
    assert second.audio == tmp_path / "c.wav"  # not there, and listed when it is packed


def test_files_named_by_ids_are_found(tmp_path: Path) -> None:
    put(tmp_path / "audio" / "7.ogg")
    put(tmp_path / "audio" / "Yabc.ogg")
    rows = {
        "data": [{"id": "7", "caption": "A dog."}, {"id": "Yabc.wav", "caption": "B."}, {"id": "9", "caption": "C."}]
    }
    found = open_table(table(tmp_path, "t.json", json.dumps(rows)))
    assert [record.audio for record in found.records[:2]] == [tmp_path / "audio/7.ogg", tmp_path / "audio/Yabc.ogg"]
    assert "sound from 'id'" in found.summary


def test_two_files_of_one_name_are_not_confused(tmp_path: Path) -> None:
    for place in ("a/7.ogg", "b/7.ogg", "b/8.ogg"):
        put(tmp_path / place)
    path = table(tmp_path, "t.csv", "id,caption\n7,A.\n8,B.\n")
    first, second = read_table(path)
    assert not Path(first.audio).exists() and second.audio == tmp_path / "b" / "8.ogg"
