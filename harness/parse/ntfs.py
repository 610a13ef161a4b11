"""NTFS records of the master file table: which attributes a file has, and how much of each was ever written.

A record is ``FILE``, the place of its update sequence, and attributes one behind the other; the last two bytes of each
sector stand in the update sequence while the record is on the disk (ntfs.h of the kernel's fs/ntfs3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: The kind of attribute that holds a file's data.
DATA = 128
_SECTOR = 512
_END = 0xFFFFFFFF
_IN_USE, _COMPRESSED = 0x01, 0x00FF
_RECORD_NUMBER = (1 << 48) - 1


@dataclass(frozen=True)
class NtfsAttribute:
    """One attribute of a file, or a part of one that does not fit into one record.

    ``initialized`` is how many bytes from its beginning were ever written: what is behind them reads as zeros, whatever
    is in its clusters.  It is known of the part with ``first_cluster`` 0, and None of a resident attribute, of which
    ``size`` is known instead.
    """

    kind: int
    name: str
    first_cluster: int = 0
    initialized: int | None = None
    resident: bool = False
    size: int = 0
    compressed: bool = False


@dataclass(frozen=True)
class MftRecord:
    """One record.  ``base``: the number of the record that it continues; None where it stands for itself."""

    in_use: bool
    base: int | None
    attributes: tuple[NtfsAttribute, ...]


def record_bytes(boot: bytes) -> int:
    """The size of a record by the ``boot`` sector; :class:`ValueError` where that is not NTFS's."""
    if boot[3:11] != b"NTFS    ":
        raise ValueError("its first sector is not that of an NTFS")
    (size,) = struct.unpack_from("<b", boot, 0x40)
    sector, per_cluster = struct.unpack_from("<HB", boot, 11)
    found = int(size * sector * per_cluster if size > 0 else 1 << -size)
    if not _SECTOR <= found <= 65536:
        raise ValueError(f"records of {found} bytes")
    return found


def mft_record(data: bytes) -> MftRecord | None:
    """The record in ``data``; None where none was ever written there, :class:`ValueError` where it is torn."""
    if data[:4] != b"FILE":
        if data[:4] == b"BAAD" or data.strip(b"\0"):
            raise ValueError("no record of the master file table")
        return None
    record = _restored(data)
    flags, base = struct.unpack_from("<H8xQ", record, 0x16)
    try:
        return MftRecord(bool(flags & _IN_USE), base & _RECORD_NUMBER if base else None, tuple(_attributes(record)))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"a malformed record of the master file table: {error}") from error


def _restored(data: bytes) -> bytes:
    """The record with the ends of its sectors put back."""
    at, count = struct.unpack_from("<HH", data, 4)
    if (count - 1) * _SECTOR != len(data) or at + 2 * count > len(data):
        raise ValueError("a record of the master file table whose update sequence is malformed")
    record, mark = bytearray(data), data[at : at + 2]
    for sector in range(1, count):
        end = sector * _SECTOR
        if data[end - 2 : end] != mark:
            raise ValueError("a torn record of the master file table")
        record[end - 2 : end] = data[at + 2 * sector : at + 2 * sector + 2]
    return bytes(record)


def _attributes(record: bytes) -> list[NtfsAttribute]:
    found = []
    (at,) = struct.unpack_from("<H", record, 0x14)
    while (kind := struct.unpack_from("<I", record, at)[0]) != _END:
        length, outside, letters, name_at, flags = struct.unpack_from("<IBBHH", record, at + 4)
        if length < 24 or at + length > len(record):
            raise ValueError("a record of the master file table with an attribute that does not fit into it")
        name = record[at + name_at : at + name_at + 2 * letters].decode("utf-16-le")
        if outside:
            (first,) = struct.unpack_from("<Q", record, at + 0x10)
            written = None if first else struct.unpack_from("<Q", record, at + 0x38)[0]
            found.append(NtfsAttribute(kind, name, first, written, compressed=bool(flags & _COMPRESSED)))
        else:
            (size,) = struct.unpack_from("<I", record, at + 0x10)
            found.append(NtfsAttribute(kind, name, resident=True, size=size))
        at += length
    return found
