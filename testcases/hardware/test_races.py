"""What changes between the guard's look and what it does then, and in the middle of it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from foreign import Foreign
from guarded import MIB, SERIAL, WWN, between, guard, refused, refuses_what_is_taken

from harness.config.inventory import StorageEntry
from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Step
from harness.lab.hardware.storage import remove

# Adds (1) and takes away (2) a partition that the kernel knows and no table on the disk has, by BLKPG.
PARTITION = (
    'perl -e \'open F, "<", $ARGV[0]; $p = pack "q q i Z64 Z64 x4", 1048576, 4194304, 1, "", ""; '
    '$a = pack "i i i x4 P", $ARGV[1], 0, length $p, $p; ioctl F, 0x1269, $a or die $!\' $d'
)


@pytest.mark.parametrize(
    ("script", "undo", "part"),
    [
        ("dd if=/dev/urandom of=$d bs=4k count=1 seek=$(($(blockdev --getsize64 $d) / 4096 - 1)) conv=fsync "
         "status=none", "", "its last MiB is another one by now"),
        ("sleep 1000 < $d > /dev/null 2>&1 & echo $! > /run/other; sleep 1", "kill $(cat /run/other)",
         r"it is open in process \d+ \(sleep\) by now"),
        (f"{PARTITION} 1", f"{PARTITION} 2", "it has holders or partitions by now"),
    ],
    ids=["data-at-the-end", "open", "partition"],
)  # fmt: skip
def test_disk_that_is_taken_without_a_claim_between_look_and_write_stays_as_it_is(
    foreign: Foreign, disk: str, script: str, undo: str, part: str
) -> None:
    refuses_what_is_taken(foreign, disk, script, undo, part)


def test_disk_of_the_same_names_and_number_that_was_exchanged_stays_as_it_is(foreign: Foreign, disk: str) -> None:
    one = guard(foreign)
    digests = {}

    def exchanged() -> None:
        number = foreign.sh(f"cat /sys/block/{disk}/dev")
        name = foreign.plug_again("target", foreign.unplug("target"), SERIAL, WWN)
        assert foreign.sh(f"cat /sys/block/{name}/dev") == number
        digests.update(foreign.digests())

    between(one, exchanged)
    with pytest.raises(ProtectedError, match="its sequence is another one by now"):
        one.do(Step.LABEL)
    assert foreign.digests() == digests


def test_partition_that_was_made_after_the_label_is_a_reason(foreign: Foreign, disk: str, record: Path | None) -> None:
    one = guard(foreign)
    one.do(Step.LABEL)
    foreign.sh(f"d=/dev/{disk}; {PARTITION} 1; udevadm settle")
    try:
        assert "it has partitions: sd" in refused(foreign, one, Step.MAP, record, "partition-after-the-label")
    finally:
        foreign.sh(f"d=/dev/{disk}; {PARTITION} 2")


def test_disk_that_is_unplugged_while_it_is_filled_with_zeros_says_so(foreign: Foreign, disk: str) -> None:
    one = guard(foreign)
    # Written one by one, and slowly, so that the disk can go away in the middle: one WRITE SAME would zero it all.
    foreign.sh(f"for most in /sys/block/{disk}/device/scsi_disk/*/max_write_same_blocks; do echo 0 > $most; done")
    one.do(Step.LABEL)
    one.do(Step.MAP)
    foreign.slow_down("target", MIB)
    before = foreign.written("target")
    try:
        with ThreadPoolExecutor(1) as pool:
            zeros = pool.submit(one.do, Step.ZERO)
            while foreign.written("target") < before + 4 * MIB and not zeros.done():
                time.sleep(0.2)
            foreign.sh(f"echo 1 > /sys/block/{disk}/device/delete")
            with pytest.raises(
                InfrastructureError, match=r"it was filled with zeros up to byte \d+: Input/output error"
            ):
                zeros.result()
        with pytest.raises(ProtectedError, match="its mapping drbd-harness-test is left of a disk that is gone"):
            remove(one)
    finally:
        foreign.sh("dmsetup remove --retry drbd-harness-test || :")
        foreign.unplug("target")


def test_volume_that_was_exchanged_between_look_and_zeros_stays(foreign: Foreign, group: StorageEntry) -> None:
    one = guard(foreign, group)
    one.do(Step.MAKE_VOLUME)
    sums = {}

    def exchanged() -> None:
        foreign.sh(
            "lvremove -q -y theirs/drbd-harness-test; lvcreate -q -y -n drbd-harness-test -L 64m theirs; "
            "yes | dd of=/dev/theirs/drbd-harness-test bs=1M count=64 iflag=fullblock status=none conv=fsync"
        )
        sums.update(foreign.digests())

    between(one, exchanged)
    with pytest.raises(ProtectedError, match=r"its number is another mapping's by now|its name leads to another"):
        one.do(Step.ZERO)
    assert foreign.digests() == sums


def test_file_and_loop_device_that_were_exchanged_stay(foreign: Foreign) -> None:
    foreign.sh("rm -rf /srv/lab; mkdir -p -m 755 /srv/lab /srv/theirs; truncate -s 8M /srv/theirs/theirs.img; "
               "mkdir -p -m 755 /home/plain/lab; chown root: /home/plain/lab")  # fmt: skip
    storage = StorageEntry(kind="loop", directory="/srv/lab")
    one = guard(foreign, storage)
    below = guard(foreign, StorageEntry(kind="loop", directory="/home/plain/lab"))
    assert "others than root can write to /home/plain, and so exchange what is below it" in refused(
        foreign, below, Step.MAKE_FILE, None, ""
    )
    one.do(Step.MAKE_FILE)
    between(one, lambda: foreign.sh("mv /srv/lab /srv/moved; ln -s /srv/moved /srv/lab"))
    with pytest.raises(ProtectedError, match=r"Not a directory|Too many levels"):
        one.do(Step.ATTACH)
    foreign.sh("rm /srv/lab; mv /srv/moved /srv/lab")
    one.do(Step.ATTACH)
    loop = str(one.lower(one.last))
    between(one, lambda: foreign.sh(f"losetup -d {loop}; losetup {loop} /srv/theirs/theirs.img"))
    with pytest.raises(ProtectedError, match="has another file by now"):
        one.do(Step.DETACH)
    assert "theirs.img" in foreign.sh(f"losetup {loop}")
    foreign.sh(f"losetup -d {loop}; sleep 1")
    assert remove(one) == 1
