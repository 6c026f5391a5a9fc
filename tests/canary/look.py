"""Every byte below a folder, looked through for what was planted, however it is written down.

A file is looked at as it is, and as whatever reads it would show it: Parquet with its footer and
statistics, SQLite and DuckDB row by row, archives and compressed streams unpacked.
"""

from __future__ import annotations

import base64
import bz2
import functools
import gzip
import io
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Collection, Iterator
from contextlib import closing
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from canary.plant import NEEDLES


def hits(folder: Path, skip: Collection[str] = ()) -> set[tuple[str, str]]:
    """Return what was found below a folder, as pairs of a path and what was planted.

    Args:
        folder: Where to look.
        skip: Patterns of paths below it that are not looked at.
    """
    found: set[tuple[str, str]] = set()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if any(fnmatch(relative, pattern) for pattern in skip):
            continue
        found.update((relative, name) for name in planted_in(relative.encode()))
        if path.is_file() and not path.is_symlink():
            for content in readings(path):
                found.update((relative, name) for name in planted_in(content))
    return found


def planted_in(content: bytes) -> set[str]:
    """Return the names of what is in some bytes, in any of its forms."""
    return {name for name, form in _forms() if form in content}


@functools.cache
def _forms() -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (name, form) for name, texts in NEEDLES.items() for text in texts for form in forms(text)
    )


def forms(text: str) -> set[bytes]:
    """Return how a text may be written down."""
    plain = {spelled.encode() for spelled in (text, text.lower(), text.capitalize())}
    as_sent = text.encode()
    return {
        *plain,
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        text.encode("utf-32-le"),
        as_sent.hex().encode(),
        as_sent.hex().upper().encode(),
        b"\\x" + as_sent.hex("|").replace("|", "\\x").encode(),
        quote(text, safe="").encode(),
        as_sent[::-1],
        *_base64(as_sent),
    }


def _base64(content: bytes) -> Iterator[bytes]:
    """Yield it in base64, wherever it begins in what is encoded."""
    for start in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Characters at the ends depend on what stands beside it.
            encoded = encode(b"\0" * start + content).rstrip(b"=")
            first = -(-start * 8 // 6)
            yield encoded[first : len(encoded) - 1]


def readings(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, and what a reader of its kind makes of them."""
    raw = path.read_bytes()
    yield raw
    yield from _unpacked(raw)
    if raw[:4] == b"PAR1":
        yield from _parquet(raw)
    elif raw[:15] == b"SQLite format 3":
        yield from _sqlite(path)
    elif raw[8:12] == b"DUCK":
        yield from _duckdb(path)


def _unpacked(raw: bytes) -> Iterator[bytes]:
    if raw[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    readers = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
    for magic, decompress in readers.items():
        if raw.startswith(magic):
            yield decompress(raw)
    if raw.startswith(b"\x28\xb5\x2f\xfd"):
        with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
            yield stream.read()
    if raw[:1] in b"{[":
        for line in raw.splitlines():
            try:
                yield json.dumps(json.loads(line), ensure_ascii=False).encode()
            except ValueError:
                continue


def _parquet(raw: bytes) -> Iterator[bytes]:
    with pq.ParquetFile(pa.BufferReader(raw)) as file:
        yield repr(file.metadata.metadata).encode()
        yield repr(file.metadata.to_dict()).encode()
        yield str(file.schema_arrow).encode()
        for column in range(file.metadata.num_columns):
            for group in range(file.metadata.num_row_groups):
                yield repr(file.metadata.row_group(group).column(column).statistics).encode()
        for column in file.read().columns:
            yield "\n".join(map(str, column.to_pylist())).encode()


def _sqlite(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name, sql FROM sqlite_master").fetchall()
        yield repr(tables).encode()
        for name, sql in tables:
            if sql and sql.startswith("CREATE TABLE"):
                for row in database.execute(f'SELECT * FROM "{name}"'):
                    yield repr(row).encode()


def _duckdb(path: Path) -> Iterator[bytes]:
    with duckdb.connect(str(path), read_only=True) as database:
        yield repr(database.sql("FROM duckdb_views()").fetchall()).encode()
        for (name,) in database.sql("SELECT table_name FROM duckdb_tables()").fetchall():
            yield repr(database.sql(f'FROM "{name}"').fetchall()).encode()
