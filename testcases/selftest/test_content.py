"""What a block looks like: what is known is named, what is not stays unnamed."""

from __future__ import annotations

import gzip
import random
import sqlite3
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import BLOCK_BYTES
from harness.parse.content import looks_like

NOISE = random.Random(1).randbytes(2 * BLOCK_BYTES)


def block(content: bytes) -> bytes:
    return content[:BLOCK_BYTES].ljust(BLOCK_BYTES, b"\0")


def test_content_real_sqlite_database_and_its_other_files(tmp_path: Path) -> None:
    path = tmp_path / "witness.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE told (number INTEGER)")
        database.executemany("INSERT INTO told VALUES (?)", [(number,) for number in range(5000)])
        database.commit()
        assert looks_like(block(path.with_name("witness.db-wal").read_bytes())) == (
            "the header of an SQLite write-ahead log"
        )
    database.close()
    written = path.read_bytes()
    assert looks_like(block(written)) == "the beginning of an SQLite database"
    assert looks_like(block(written[BLOCK_BYTES:])) == "", "a page of its middle has no signature"
    journal = bytes.fromhex("d9d505f920a163d7") + NOISE
    assert looks_like(block(journal)) == "the header of an SQLite rollback journal"


def test_content_files_of_other_formats_by_their_beginning(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(__file__, "test.py")
    assert looks_like(block((tmp_path / "one.tar").read_bytes())) == "the beginning of a tar archive"
    packed = gzip.compress(NOISE)
    assert looks_like(block(packed)) == "the beginning of a gzip archive"
    assert looks_like(block(packed[1:])) == ""
    assert looks_like(block(Path("/bin/sh").resolve().read_bytes())) == "the beginning of an ELF file"


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (bytes(BLOCK_BYTES), "zeros"),
        (b"\xff" * BLOCK_BYTES, "one byte repeated, ff"),
        (b"Nov 29 01:00:00 host kernel: a line\n" * 200, "text"),
        ("ünïcödé, ".encode() * 600, "text"),
        ("ünïcödé, ".encode()[1:] * 1 + "ünïcödé, ".encode() * 600, "text"),
        (b"a short text, then the end of its file\n", "text"),
        (b"too short\n", ""),
        (b"text, and then \x01 a control character" * 200, ""),
        (zlib.compress(NOISE)[2:], ""),
        (b"", ""),
    ],
)
def test_content_text_zeros_and_what_is_unknown(content: bytes, seen: str) -> None:
    assert looks_like(block(content) if content else b"") == seen


@given(st.binary(max_size=200))
def test_content_any_block_has_an_answer(content: bytes) -> None:
    assert isinstance(looks_like(content), str) and isinstance(looks_like(block(content)), str)
