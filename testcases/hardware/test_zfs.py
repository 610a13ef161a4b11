"""A volume of ZFS as the lower device: made in somebody's pool, and nothing else of it is touched.

``--drbd-foreign DIR`` with an image of ``ci/foreign-machine --zfs``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import MIB, Foreign
from guarded import Listening, between, guard, keep
from pair import Pair

from harness.config.inventory import StorageEntry
from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Step
from harness.lab.hardware.storage import make, remove

STORAGE = StorageEntry(kind="zfs", dataset="tank/vms")
MATRIX = Path(__file__).with_name("node_cells.toml")
VOLUME = "tank/vms/drbd-harness-test"
SIZE = 64 * MIB
_DATA = "sha256sum /tank/vms/data /dev/zvol/tank/vms/data"
# A pool writes by itself, so the bytes of its disk are no measure; what is in it is.
_CONTENT = f"zfs list -H -p -o name,guid,volsize,written -t all -r tank; {_DATA}"


def refused(foreign: Foreign, one: Listening, step: Step, record: Path | None, name: str) -> str:
    """The sentence with which the guard refuses a step; all that is in the pool is as it was."""
    foreign.sh("zpool sync tank")
    before = foreign.sh(_CONTENT)
    with pytest.raises(ProtectedError) as caught:
        one.do(step)
    assert foreign.sh(f"zpool sync tank; {_CONTENT}") == before
    keep(record, name, one, step, str(caught.value))
    return str(caught.value)


@pytest.fixture
def pool(foreign: Foreign) -> Iterator[None]:
    """A pool with a filesystem and a volume of somebody's, with data in both; they are as they were afterwards."""
    if foreign.sh("modprobe zfs 2> /dev/null && echo yes || :").strip() != "yes":
        pytest.skip("needs a machine of ci/foreign-machine --zfs")
    if "tank" not in foreign.plugged:
        disk = foreign.plug("tank", "TANK1", mib=1024)
        foreign.sh(
            f"zpool create tank /dev/{disk}; zfs create tank/vms; zfs create -V 32m tank/vms/data; udevadm settle; "
            "head -c 8M /dev/urandom > /tank/vms/data; "
            "dd if=/dev/urandom of=/dev/zvol/tank/vms/data bs=1M count=32 conv=fsync status=none",
        )
    before = foreign.sh(_DATA)
    yield
    foreign.sh(f"zfs list {VOLUME} > /dev/null 2>&1 && zfs destroy -r {VOLUME} || :")
    assert foreign.sh(_DATA) == before


def test_volume_is_made_and_taken_back(foreign: Foreign, pool: None, record: Path | None) -> None:
    there = foreign.sh("zfs list -H -o name,guid -t all -r tank")
    one = guard(foreign, STORAGE, SIZE)
    one.do(Step.MAKE_VOLUME)
    keep(record, "free-before-make-volume-zfs", one, Step.MAKE_VOLUME, "")
    disks = one.look()
    device = one.lower_device(disks)
    assert device is not None and device.size == SIZE and one.lower(disks) == f"/dev/zvol/{VOLUME}"
    assert one.models(disks) == ("QEMU HARDDISK",)
    assert foreign.sh(f"cmp -n {SIZE} /dev/zero /dev/{device.name} && echo zeros").strip() == "zeros"
    assert remove(one) == 1
    keep(record, "free-before-remove-volume-zfs", one, Step.REMOVE_VOLUME, "")
    assert foreign.sh("zfs list -H -o name,guid -t all -r tank") == there


def test_volume_or_filesystem_of_somebody_else_is_refused(foreign: Foreign, pool: None, record: Path | None) -> None:
    one = guard(foreign, STORAGE, SIZE)
    foreign.sh(f"zfs create -V 16m {VOLUME}; udevadm settle")
    sentence = refused(foreign, one, Step.MAKE_VOLUME, record, "zfs-volume-is-there")
    assert f"the volume {VOLUME} is there and is none of the harness's" in sentence
    sentence = refused(foreign, one, Step.REMOVE_VOLUME, record, "zfs-volume-without-properties")
    assert "does not have the properties of the harness's lab 'test'" in sentence
    # What is inherited from the parent makes it nobody's.
    foreign.sh(f"zfs set drbd-harness:lab=test drbd-harness:owner={one.owner} tank/vms")
    sentence = refused(foreign, one, Step.REMOVE_VOLUME, record, "zfs-volume-with-inherited-properties")
    assert "does not have the properties" in sentence
    foreign.sh("zfs inherit drbd-harness:lab tank/vms; zfs inherit drbd-harness:owner tank/vms")
    foreign.sh(f"zfs set drbd-harness:lab=test drbd-harness:owner=somebody@else {VOLUME}")
    sentence = refused(foreign, one, Step.REMOVE_VOLUME, record, "zfs-volume-of-another-owner")
    assert "of a lab of somebody else's" in sentence


def test_volume_that_is_used_is_not_removed(foreign: Foreign, pool: None, record: Path | None) -> None:
    one = guard(foreign, STORAGE, SIZE)
    one.do(Step.MAKE_VOLUME)
    name = f"/dev/zvol/{VOLUME}"
    for use, undo, reason in (
        (f"dmsetup create above --table \"0 2048 linear {name} 0\"", "dmsetup remove above", "it is held by dm-"),
        (f"mkfs.ext4 -q {name}; mount {name} /mnt", "umount /mnt", "it is mounted at /mnt"),
        (f"sleep 1000 < {name} > /dev/null 2>&1 & echo $! > /run/other", "kill $(cat /run/other)", "it is open in"),
        (f"mkswap -q {name}; swapon {name}", f"swapoff {name}", "it is in use as swap"),
    ):  # fmt: skip
        foreign.sh(use)
        try:
            assert reason in refused(foreign, one, Step.REMOVE_VOLUME, record, f"zfs-volume-is-{reason.split()[2]}")
        finally:
            foreign.sh(f"{undo}; udevadm settle")
    assert remove(one) == 1


def test_dataset_that_is_not_fit_is_refused(foreign: Foreign, pool: None, record: Path | None) -> None:
    def said(dataset: str, size: int = SIZE) -> str:
        return refused(foreign, guard(foreign, StorageEntry(kind="zfs", dataset=dataset), size), Step.MAKE_VOLUME,
                       record, f"zfs-{dataset.replace('/', '-')}-{size // MIB}")  # fmt: skip

    assert "there is no ZFS pool pond; there is tank" in said("pond/vms")
    assert "there is no dataset tank/none" in said("tank/none")
    assert "tank/vms/data is a volume, below which there are no volumes" in said("tank/vms/data")
    assert "MiB free and" in said("tank/vms", 2048 * MIB)
    foreign.sh("zfs set readonly=on tank/vms")
    try:
        assert "tank/vms is read-only" in said("tank/vms", 32 * MIB)
    finally:
        foreign.sh("zfs inherit readonly tank/vms")


def test_volume_that_was_exchanged_behind_the_look_stays(foreign: Foreign, pool: None) -> None:
    one = guard(foreign, STORAGE, SIZE)
    one.do(Step.MAKE_VOLUME)
    foreign.sh("udevadm settle")
    between(one, lambda: foreign.sh(f"zfs destroy {VOLUME}; zfs create -V 16m {VOLUME}; udevadm settle"))
    with pytest.raises(InfrastructureError, match="another volume has its name by now"):
        one.do(Step.REMOVE_VOLUME)
    assert foreign.sh(f"zfs list -H -p -o volsize {VOLUME}").strip() == str(16 * MIB)


def test_pool_that_both_machines_have_is_refused(foreign: Foreign, pool: None) -> None:
    with pytest.raises(ProtectedError, match="the pool tank has the same GUID on both machines"):
        make([guard(foreign, STORAGE, SIZE), guard(foreign, STORAGE, SIZE)])


def test_cells_of_the_node_are_played_on_volumes_of_two_pools(pair: Pair) -> None:
    made = "lvcreate -q -y -n pool -L 300m theirs > /dev/null; zpool create -m none tank /dev/theirs/pool"
    undone = "zpool destroy tank; lvremove -q -f -y theirs/pool > /dev/null"
    if pair.alpha.sh("modinfo zfs > /dev/null 2>&1 && echo yes || :").strip() != "yes":
        pytest.skip("needs a machine of ci/foreign-machine --zfs")
    with contextlib.ExitStack() as undo:
        for one in pair.both:
            one.sh(made)
            undo.callback(one.sh, undone)
        before = [one.sh("zfs list -H -o name,guid -t all") for one in pair.both]
        printed = pair.played(pair.inventory(storage='{ kind = "zfs", dataset = "tank" }'), MATRIX)
        assert "host-planted" in printed and "host-ext4-buffered-disk5ms" in printed
        assert [one.sh("zfs list -H -o name,guid -t all") for one in pair.both] == before
