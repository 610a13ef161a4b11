"""Tests of a user's own that fail in the middle and leave their guest dirty; the next one has its answer.

Before a release; on a lab, in this order.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.engine.session import Session
from harness.guest.disk import AttachedDisk
from harness.guest.domain import Guest
from harness.model import Verdict, VerdictKind
from harness.workloads.fio_runner import FioRun


@pytest.mark.cell(cache="writeback")
@pytest.mark.xfail(raises=AssertionError, strict=True, reason="it fails with swap on")
def test_fails_with_swap_on(disk: AttachedDisk, guest: Guest) -> None:
    guest.agent.run(["sh", "-ec", 'mkswap "$1"; swapon "$1"', "sh", disk.path])
    raise AssertionError("in the middle")


@pytest.mark.cell(cache="none")
@pytest.mark.xfail(raises=AssertionError, strict=True, reason="it fails with its disk mounted")
def test_fails_with_a_mount(disk: AttachedDisk, guest: Guest) -> None:
    guest.agent.run(["sh", "-ec", 'mkfs.ext4 -q -F "$1"; mount "$1" /mnt; echo dirty > /mnt/file', "sh", disk.path])
    raise AssertionError("in the middle")


@pytest.mark.cell(cache="directsync")
def test_after_them_has_its_answer(
    drbd_run: Session, fio: Callable[..., FioRun], verdict: Callable[[], Verdict]
) -> None:
    fio(rw="randwrite", bs="16k", size="16m", direct=1, verify="crc32c")
    assert verdict().kind is VerdictKind.CLEAN, verdict().sentence
    swap, mount = (note for note in drbd_run.store.run().notes if note.startswith("the guest was replaced: "))
    assert "it has swap on /dev/" in swap and "it has a mount at /mnt of /dev/" in mount
