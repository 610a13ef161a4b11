"""What a block looks like: text, zeros, the beginning of a file of a known format; pure."""

from __future__ import annotations

from collections.abc import Mapping

import filetype

# Less than this is printable by chance.
_SHORTEST_TEXT = 16
# Signatures of SQLite's other files (www.sqlite.org/fileformat2.html, walformat.html), which the library lacks.
_SQLITE = {
    bytes.fromhex("d9d505f920a163d7"): "the header of an SQLite rollback journal",
    bytes.fromhex("377f0682"): "the header of an SQLite write-ahead log",
    bytes.fromhex("377f0683"): "the header of an SQLite write-ahead log",
}
_NAMES: Mapping[str, str] = {
    "application/x-sqlite3": "an SQLite database",
    "application/x-executable": "an ELF file",
    "application/gzip": "a gzip archive",
    "application/x-bzip2": "a bzip2 archive",
    "application/x-xz": "an xz archive",
    "application/zstd": "a zstd archive",
    "application/zip": "a zip archive",
    "application/x-tar": "a tar archive",
    "application/pdf": "a PDF",
    "image/png": "a PNG image",
    "image/jpeg": "a JPEG image",
}


def looks_like(block: bytes) -> str:
    """What ``block`` looks like, as a noun with its article; empty where nothing about it is known.

    It says what the bytes are like, not what they are: a signature may stand in a block by chance.
    """
    if not block:
        return ""
    if block.count(block[:1]) == len(block):
        return "zeros" if block[0] == 0 else f"one byte repeated, {block[:1].hex()}"
    for signature, name in _SQLITE.items():
        if block.startswith(signature):
            return name
    if (kind := filetype.guess(block)) is not None:
        return f"the beginning of {_NAMES.get(kind.mime, f'a file of the type {kind.mime}')}"
    return "text" if _is_text(block) else ""


def _is_text(block: bytes) -> bool:
    """Whether all of it is printable UTF-8, but for zeros behind its end and a character cut at either end."""
    text = block.rstrip(b"\0")
    if len(text) < _SHORTEST_TEXT:
        return False
    for skipped in range(4):
        try:
            decoded = text[skipped:].decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                continue
            decoded = text[skipped : skipped + error.start].decode()
        if all(char in "\t\n\r" or char.isprintable() for char in decoded):
            return True
    return False
