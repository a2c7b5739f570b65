"""Find files by words: BM25 over file names, titles, tags, keywords, captions, comments and categories.

A SQLite database with an FTS5 table in the folder of the index (https://sqlite.org/fts5.html). It is derived from the
table of files: the writer of the index keeps it up to date, and makes it again when it is missing, damaged, of another
version of the table, or of another schema. Words are compared without their case, accents, and English endings.

A word that was joined from several ("FruityLoops") counts as its parts, and in facts also as a whole.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path, PurePath

from openclap.errors import DataError
from openclap.search.rows import FileRow

KEYWORDS_NAME = "keywords.sqlite"

_SCHEMA_NUMBER = 2
"""Of the tables below and of what `_texts` stores in them."""
_SCHEMA = f"""
PRAGMA user_version = {_SCHEMA_NUMBER};
CREATE TABLE version(number INTEGER);
CREATE TABLE files(id INTEGER PRIMARY KEY, path TEXT UNIQUE, letters TEXT, words TEXT, facts TEXT);
CREATE INDEX letters ON files(letters);
CREATE VIRTUAL TABLE terms USING fts5(words, facts, content='files', content_rowid='id',
                                      tokenize='porter unicode61 remove_diacritics 2');
"""
_MOST_WORDS = 64
"""Words of a query that are looked up; more say nothing more."""
_MOST_MATCHES = 50_000
"""Files that are ranked, which takes 10 µs each: of a long query the rarer words count."""
_NAME_WEIGHT, _FACTS_WEIGHT = 3.0, 1.0
_WAIT_S = 10.0
"""Wait for another process that commits."""
FUNCTION_WORDS = frozenset("a,an,and,as,at,by,for,from,in,is,it,of,on,or,that,the,this,to,with".split(","))  # noqa: SIM905
_WORDS = re.compile(r"[^\W\d_]+|\d+")


def split_words(text: str) -> list[str]:
    """Words of a name or text, without their case: "RainOnRoof_02" has rain, on, roof, 02."""
    return [word for parts in _split_parts(text) for word in parts]


def _split_parts(text: str) -> list[list[str]]:
    """The words of `split_words`, together where they are written as one: [[rain, on, roof], [02]]."""
    # macOS stores "ö" in names as o and a combining mark, which is no letter and would end the word.
    composed = unicodedata.normalize("NFC", text)
    return [[word.casefold() for word in _split_camel_case(part)] for part in _WORDS.findall(composed)]


def _letters(words: Iterable[str]) -> str:
    """Letters and digits of words without their accents, as FTS5's remove_diacritics has them."""
    decomposed = unicodedata.normalize("NFD", "".join(words))
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def _split_camel_case(word: str) -> Iterator[str]:
    """Split before a capital that follows a small letter, or precedes one: "AMBForest" is AMB and Forest."""
    first = 0
    for at in range(1, len(word)):
        is_next_small = at + 1 < len(word) and word[at + 1].islower()
        if word[at].isupper() and (word[at - 1].islower() or (word[at - 1].isupper() and is_next_small)):
            yield word[first:at]
            first = at
    yield word[first:]


def _has_meaning(word: str) -> bool:
    """Whether a word may be rare because of its meaning: numbers and short parts of names ("s", "fx") are by chance."""
    return word.isalpha() and (len(word) > 2 or not word.isascii()) and word not in FUNCTION_WORDS


class KeywordIndex:
    """The keyword database of an index; without one, or with a damaged one, nothing is found.

    Attributes:
        path: of the database.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / KEYWORDS_NAME

    def version(self) -> int | None:
        """The version of the table of files that the database is derived from; None when there is no sound database."""
        try:
            with self._open("ro") as database:
                if database.execute("PRAGMA user_version").fetchone() != (_SCHEMA_NUMBER,):
                    return None
                row = database.execute("SELECT number FROM version").fetchone()
                return int(row[0]) if row else None
        except sqlite3.Error:
            return None

    def update(
        self,
        files: Collection[FileRow],
        dropped: Collection[str],
        *,
        before: int,
        after: int,
        moved: tuple[str, str] | None = None,
    ) -> None:
        """Apply a change of the table of files from version `before` to `after`.

        A database of another version stays as it is, for `rebuild`. Raises DataError when it cannot be written.
        """
        if self.version() != before:
            return
        with self._writing() as database:
            _remove(database, [*dropped, *(row.path for row in files)])
            _insert(database, files)
            if moved:
                old, new = moved
                database.execute(
                    "UPDATE files SET path = ? || substr(path, ?) WHERE substr(path, 1, ?) = ?",
                    (new, len(old) + 1, len(old), old),
                )
            database.execute("UPDATE version SET number = ?", (after,))

    def rebuild(self, files: Iterable[FileRow], version: int) -> None:
        """Make the database again from all files. Raises DataError when it cannot be written."""
        part = self.path.with_name(KEYWORDS_NAME + ".part")
        part.unlink(missing_ok=True)
        with _as_data_error(part):
            with closing(sqlite3.connect(part)) as database, database:
                database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
                _insert(database, files)
                database.execute("INSERT INTO version VALUES (?)", (version,))
            part.replace(self.path)

    def search(self, query: str, limit: int, allowed: Collection[str] | None = None) -> list[str]:
        """Paths of files, the best first.

        First come names with the words of the query in a row; then, if it has several, names with its letters, whatever
        separates its words ("RainRoof_0" and "rain roof 0" are part of FX_RainRoof_01.wav); then files that have all
        words somewhere, and then those that have some. The letters of a single word come last ("rain" is part of
        "train"), at the beginning of a word before elsewhere. Names are ordered by length, and other files by BM25.

        Args:
            allowed: the files that may be found.
        """
        try:
            with self._open("ro") as database:
                return search_tables(database, query, limit, allowed)
        except sqlite3.Error:
            return []

    def rare_words(self, query: str, most: int) -> list[str]:
        """The words of a query that are in names or facts of 1 to `most` files."""
        try:
            with self._open("ro") as database:
                words = [word for word in dict.fromkeys(split_words(query)[:_MOST_WORDS]) if _has_meaning(word)]
                count = "SELECT count(*) FROM (SELECT 1 FROM terms WHERE terms MATCH ? LIMIT ?)"
                return [w for w in words if 0 < database.execute(count, (f'"{w}"', most + 1)).fetchone()[0] <= most]
        except sqlite3.Error:
            return []

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_WAIT_S)) as database:
            yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with _as_data_error(self.path), self._open("rw") as database, database:
                yield database
        except sqlite3.DatabaseError:
            self.path.unlink(missing_ok=True)  # damaged; it is made again


def in_memory(files: Iterable[FileRow], query: str, limit: int, allowed: Collection[str] | None = None) -> list[str]:
    """As `KeywordIndex.search`, without a database on the disk: for an index that has none and cannot be written."""
    with closing(tables_of(files)) as tables:
        return search_tables(tables, query, limit, allowed)


def tables_of(files: Iterable[FileRow]) -> sqlite3.Connection:
    """A database in memory."""
    tables = sqlite3.connect(":memory:")
    tables.executescript(_SCHEMA)
    _insert(tables, files)
    return tables


def _insert(database: sqlite3.Connection, files: Iterable[FileRow]) -> None:
    [first] = database.execute("SELECT coalesce(max(id), 0) + 1 FROM files").fetchone()
    rows = ((first + number, *_texts(row)) for number, row in enumerate(files))
    for values in rows:
        database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?)", values)
        database.execute("INSERT INTO terms(rowid, words, facts) VALUES (?, ?, ?)", (values[0], values[3], values[4]))


def _texts(row: FileRow) -> tuple[str, str, str, str]:
    """path, letters and digits of the name, words of the name, words of the other facts."""
    single = (row.title, row.caption, row.comment, row.category, row.subcategory, row.artist, row.album)
    facts = [part for text in filter(None, (*single, *row.tags, *row.keywords)) for part in _split_parts(text)]
    joined = ["".join(words) for words in facts if len(words) > 1]
    name = split_words(PurePath(row.path).name)
    return row.path, _letters(name), " ".join(name), " ".join([*chain(*facts), *joined])


def _remove(database: sqlite3.Connection, paths: Iterable[str]) -> None:
    for path in paths:
        row = database.execute("SELECT id, words, facts FROM files WHERE path = ?", (path,)).fetchone()
        if row:
            database.execute("INSERT INTO terms(terms, rowid, words, facts) VALUES ('delete', ?, ?, ?)", row)
            database.execute("DELETE FROM files WHERE id = ?", row[:1])


def search_tables(database: sqlite3.Connection, query: str, limit: int, allowed: Collection[str] | None) -> list[str]:
    """As `KeywordIndex.search`, in the tables of an open database."""
    units = list(dict.fromkeys(map(tuple, _split_parts(query))))
    words = list(chain(*units))
    if not words:
        return []
    phrase = f'words : "{" ".join(words[:_MOST_WORDS])}"'
    letters = _letters(words)
    by_name, by_letters = partial(_by_name, letters=letters), partial(_by_letters, letters=letters)
    some = partial(_by_terms, match=" OR ".join(_rarest(database, words)))
    if len(words) > 1:
        ways = (partial(by_name, match=phrase), by_letters, partial(_by_terms, match=_all_of(database, units)), some)
    else:
        ways = (partial(by_name, match=phrase), some, partial(by_name, match=f"{phrase} *"), by_letters)
    found: dict[str, None] = {}
    for way in ways:
        paths = way(database, limit=limit if allowed is None else -1)
        found.update((path, None) for path in paths if allowed is None or path in allowed)
        if len(found) >= limit:
            break
    return list(found)[:limit]


def _by_name(database: sqlite3.Connection, match: str, letters: str, limit: int) -> list[str]:
    """Files that match an expression of FTS5, the shortest name first; names with the letters as they are typed come
    before those with another ending ("mine" also matches "mining")."""
    sql = """SELECT path FROM files JOIN (SELECT rowid AS id FROM terms WHERE terms MATCH ?) USING (id)
             ORDER BY instr(letters, ?) = 0, length(letters), path LIMIT ?"""
    return [path for (path,) in database.execute(sql, (match, letters, limit))]


def _by_letters(database: sqlite3.Connection, letters: str, limit: int) -> list[str]:
    """Files with these letters and digits in their names, the shortest name first."""
    sql = """SELECT path FROM files JOIN (SELECT id FROM files WHERE instr(letters, ?)) USING (id)
             ORDER BY length(letters), path LIMIT ?"""
    return [path for (path,) in database.execute(sql, (letters, limit))]


def _by_terms(database: sqlite3.Connection, match: str, limit: int) -> list[str]:
    """Files that match an expression of FTS5 (none for an empty one), the best by BM25 first."""
    if not match:
        return []
    sql = f"""SELECT path FROM files JOIN (SELECT rowid AS id, bm25(terms, {_NAME_WEIGHT}, {_FACTS_WEIGHT}) AS score
              FROM terms WHERE terms MATCH ? ORDER BY score LIMIT ?) USING (id) ORDER BY score, path"""
    return [path for (path,) in database.execute(sql, (match, limit))]


def _all_of(database: sqlite3.Connection, units: Sequence[tuple[str, ...]]) -> str:
    """An expression for files that have all words of a query, those left out that no file has, and function words.

    Of a joined word ("FruityLoops"), files have the whole or all parts.
    """
    whole = [f'"{"".join(parts)}"' for parts in units]
    every = [" AND ".join(f'"{word}"' for word in parts) for parts in units]
    each = [f"({one} OR ({all_parts}))" for one, all_parts in zip(whole, every, strict=True)]
    chosen = [one for one, parts in zip(each, units, strict=True) if not set(parts) <= FUNCTION_WORDS][:_MOST_WORDS]
    exists = "SELECT 1 FROM terms WHERE terms MATCH ? LIMIT 1"
    return " AND ".join(one for one in chosen if database.execute(exists, (one,)).fetchone())


def _rarest(database: sqlite3.Connection, words: Sequence[str]) -> list[str]:
    """The words of a query to rank by, quoted: without function words, unless there are no others, and the rarer ones
    first, up to _MOST_MATCHES files in all."""
    distinct = list(dict.fromkeys(words))[:_MOST_WORDS]
    quoted = [f'"{word}"' for word in distinct if word not in FUNCTION_WORDS] or [f'"{word}"' for word in distinct]
    count = f"SELECT count(*) FROM (SELECT 1 FROM terms WHERE terms MATCH ? LIMIT {_MOST_MATCHES + 1})"
    counted = sorted((database.execute(count, (word,)).fetchone()[0], word) for word in quoted)
    chosen: list[str] = []
    total = 0
    for number, word in counted:
        total += number
        if number and (not chosen or total <= _MOST_MATCHES):
            chosen.append(word)
    return chosen


@contextmanager
def _as_data_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise DataError(
            f"{path} cannot be written ({error}). Check the free space and the permissions, then run it again."
        ) from error
