"""NTFS that Windows makes: whose a block is behind its partition table, what chkdsk says, and that Linux refuses it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_filesystems_dos import image, whole
from windows_agent import WindowsAgent, cell, target

from harness.errors import RefusedError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.view import ReplicaView
from harness.filesystems.windows_ntfs import partition
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemCheck, FilesystemKind
from harness.remote.local import LocalRunner
from harness.workloads import workload_of


def mbr(start: int, sectors: int, kind: int = 7) -> bytes:
    entry = bytes([0, 0, 0, 0, kind, 0, 0, 0]) + start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(446) + entry + bytes(48) + b"\x55\xaa"


def test_windows_ntfs_owners_are_those_of_the_partition_behind_its_table(tmp_path: Path) -> None:
    inside = bytes(image(FilesystemKind.NTFS_3G))
    expected = whole(FilesystemKind.NTFS_3G)[1]
    path, first = tmp_path / "replica", 256
    head = mbr(first * 8, len(inside) // 512).ljust(first * BLOCK_BYTES, b"\0")
    path.write_bytes(head + inside + bytes(4 * BLOCK_BYTES))
    blocks = path.stat().st_size // BLOCK_BYTES
    owners = FILESYSTEMS[FilesystemKind.NTFS].owners(ReplicaView(LocalRunner(), str(path), blocks), range(blocks))
    assert owners[0].owner is BlockOwner.METADATA and owners[1].owner is BlockOwner.FREE
    assert owners[blocks - 1].detail == "in no partition"
    assert {block: owners[first + block] for block in expected} == dict(expected)


@pytest.mark.parametrize("sector", [b"", bytes(512), mbr(2048, 100, 0x83), mbr(2049, 100)])
def test_windows_partition_that_is_another_is_a_value_error(sector: bytes) -> None:
    with pytest.raises(ValueError):
        partition(sector)


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (0, FilesystemCheck.CLEAN),
        (2, FilesystemCheck.CLEAN),
        (3, FilesystemCheck.UNCHECKED),
        (1, FilesystemCheck.UNCHECKED),
    ],
)
def test_chkdsk_exit_code_without_a_repair(status: int, found: FilesystemCheck) -> None:
    domain = WindowsAgent(lambda _: (status, "Windows has scanned the file system.\r\n\r\n", ""))
    result = FILESYSTEMS[FilesystemKind.NTFS].check(target(domain))
    assert (result.found, result.message) == (found, "Windows has scanned the file system.")


def test_linux_refuses_the_filesystem_of_windows() -> None:
    where = WorkloadTarget(LocalRunner(), "/dev/null", cast(Any, SimpleNamespace(blocks=32768)))
    with pytest.raises(RefusedError, match="made by Windows"):
        workload_of(cell("truncate")).prepare(where)
