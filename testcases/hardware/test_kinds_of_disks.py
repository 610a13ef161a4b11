"""Disks that are not like the others: NVMe, md, sectors of 4 KiB, more than 2 TiB, two paths, unreadable ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from foreign import Foreign, link_of, nvme_link_of
from guarded import LINK, MIB, MKFS, SERIAL, SIZE, WHOLE, WWN, guard, keep, refused

from harness.config.inventory import StorageEntry
from harness.lab.hardware.guard import ALLOW_FILE, Step
from harness.lab.hardware.storage import remove

ALL = (Step.LABEL, Step.MAP, Step.ZERO)
ALLOW = f"mkdir -p -m 755 {ALLOW_FILE.rpartition('/')[0]}; echo"


def used_and_given_back(
    foreign: Foreign, storage: StorageEntry, steps: Sequence[Step], record: Path | None, name: str
) -> None:
    """Make the lower device, see that it is what lies between both ends, and take it back."""
    foreign.sh(f"{ALLOW} {storage.disk} > {ALLOW_FILE}")
    one = guard(foreign, storage)
    for step in steps:
        one.do(step)
    keep(record, f"free-before-{steps[-1]}-{name}", one, steps[-1], "")
    size = int(foreign.sh(f"blockdev --getsize64 {one.lower(one.last)}"))
    assert size == (storage.size_bytes or 0) // MIB * MIB - 2 * MIB
    assert remove(one) == 2


def test_nvme_disk_is_used_and_its_other_ways_are_seen(foreign: Foreign, record: Path | None) -> None:
    name = foreign.plug("fast", "FAST1", driver="nvme", bus="port1")
    storage = StorageEntry(kind="disk", disk=nvme_link_of("FAST1"), serial="FAST1", size_bytes=SIZE)
    try:
        foreign.sh(
            f"{ALLOW} {storage.disk} > {ALLOW_FILE}; sleep 1000 < /dev/ng0n1 > /dev/null 2>&1 & echo $! > /run/other"
        )
        try:
            sentence = refused(foreign, guard(foreign, storage), Step.LABEL, record, "nvme-open-by-passthrough")
            assert (
                "it is open in process" in sentence
                and f"/dev/{name}" == foreign.sh(f"readlink -f {storage.disk}").strip()
            )
        finally:
            foreign.sh("kill $(cat /run/other)")
        used_and_given_back(foreign, storage, ALL, record, "nvme")
    finally:
        foreign.unplug("fast")


def test_md_array_is_used_and_its_members_are_not(foreign: Foreign, disk: str, record: Path | None) -> None:
    other = foreign.plug("second", "SECOND1", 0x5000C50000000002)
    uuid, size = foreign.sh(
        f"mdadm --create /dev/md7 --quiet --run --level=1 --raid-devices=2 --assume-clean /dev/{disk} /dev/{other} "
        "> /dev/null 2>&1; udevadm settle; mdadm --detail --export /dev/md7 | sed -n s/^MD_UUID=//p; "
        "blockdev --getsize64 /dev/md7"
    ).split()
    storage = StorageEntry(kind="disk", disk=f"/dev/disk/by-id/md-uuid-{uuid}", serial=uuid, size_bytes=int(size))
    try:
        assert "it is held by the md array md7" in refused(foreign, guard(foreign), Step.LABEL, None, "")
        used_and_given_back(foreign, storage, ALL, record, "md")
        assert foreign.sh(f"mdadm --examine --export /dev/{other} | sed -n s/^MD_UUID=//p").strip() == uuid
    finally:
        foreign.sh(f"mdadm -q --stop /dev/md7; mdadm -q --zero-superblock /dev/{disk} /dev/{other} || :")
        foreign.unplug("second")


def test_disk_with_sectors_of_4_kib_is_used_and_not_with_a_filesystem(foreign: Foreign, record: Path | None) -> None:
    name = foreign.plug("second", "SECOND4", logical_block_size=4096, physical_block_size=4096)
    storage = StorageEntry(kind="disk", disk=link_of("SECOND4"), serial="SECOND4", size_bytes=SIZE)
    try:
        foreign.sh(f"echo {storage.disk} > {ALLOW_FILE}; echo 'label: gpt' | sfdisk -q /dev/{name}")
        assert "it has a signature of gpt at byte 4096" in refused(
            foreign, guard(foreign, storage), Step.LABEL, record, "sectors-of-4-kib"
        )
        foreign.sh(f"wipefs -q -a /dev/{name}; dd if=/dev/zero of=/dev/{name} bs=1M count=64 oflag=direct status=none "
                   "conv=nocreat")  # fmt: skip
        used_and_given_back(foreign, storage, ALL, record, "sectors-of-4-kib")
    finally:
        foreign.unplug("second")


def test_disk_of_3_tib_is_measured_in_full(foreign: Foreign, record: Path | None) -> None:
    size = 3 * 2**40 + 512
    foreign.plug("second", "SECOND3", mib=1)
    path = foreign.unplug("second")
    with path.open("r+b") as file:
        file.truncate(size)
    name = foreign.plug_again("second", path, "SECOND3")
    storage = StorageEntry(kind="disk", disk=link_of("SECOND3"), serial="SECOND3", size_bytes=size)
    try:
        foreign.sh(f"echo {storage.disk} > {ALLOW_FILE}; echo 'label: gpt' | sfdisk -q /dev/{name}; "
                   f"dd if=/dev/zero of=/dev/{name} bs=1M count=1 oflag=direct status=none conv=nocreat")  # fmt: skip
        sentence = refused(foreign, guard(foreign, storage), Step.LABEL, record, "backup-partition-table-at-3-tib")
        assert f"it has a signature of gpt at byte {size - 512}" in sentence or "its last MiB holds data" in sentence
        foreign.sh(f"blkdiscard -z -o {3 * 2**40 - 4 * MIB} /dev/{name}")
        used_and_given_back(foreign, storage, ALL[:2], record, "3-tib")
    finally:
        foreign.unplug("second")


def test_disk_that_cannot_be_read_whole_is_refused(foreign: Foreign, record: Path | None) -> None:
    # In the middle of the first MiB; what comes before it is zeros.
    foreign.plug("second", "SECOND5", unreadable=1024)
    storage = StorageEntry(kind="disk", disk=link_of("SECOND5"), serial="SECOND5", size_bytes=SIZE)
    foreign.sh(f"echo {storage.disk} > {ALLOW_FILE}")
    try:
        assert "it cannot be read: Input/output error" in refused(
            foreign, guard(foreign, storage), Step.LABEL, record, "unreadable"
        )
    finally:
        foreign.unplug("second")


def test_disk_below_multipathd_is_refused(foreign: Foreign, disk: str, record: Path | None) -> None:
    foreign.plug("second", SERIAL, WWN, bus="scsi1.0")
    foreign.sh("modprobe dm_multipath; printf 'defaults {\\n user_friendly_names yes\\n find_multipaths no\\n}\\n' "
               "> /etc/multipath.conf; multipath -v1; udevadm settle; multipath -ll")  # fmt: skip
    try:
        sentence = refused(foreign, guard(foreign), Step.LABEL, record, "below-multipathd")
        assert "no disk, partition or md array" in sentence or "held by multipath" in sentence
    finally:
        # A disk that it remembers is its own again as soon as it is plugged in.
        foreign.sh(
            "systemctl stop multipathd.socket multipathd.service 2> /dev/null || :; multipath -F; "
            "rm -f /etc/multipath.conf /etc/multipath/wwids /etc/multipath/bindings; udevadm settle"
        )
        foreign.unplug("second")
        foreign.unplug("target")


@pytest.mark.parametrize("user", ["admin"])
def test_user_with_sudo_is_told_the_same(foreign: Foreign, disk: str, user: str) -> None:
    from test_root import runner_of

    runner = runner_of(foreign, user)
    runner.connect(120)
    try:
        foreign.sh(f"{MKFS} /dev/{disk}")
        one = guard(foreign)
        one.machine = type(one.machine)("foreign", runner)
        assert f"{LINK} stays as it is: it has a signature of ext4" in refused(foreign, one, Step.LABEL, None, "")
    finally:
        runner.close()
    assert one.storage == WHOLE
