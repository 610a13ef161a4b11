"""Somebody's disks on a foreign machine: the guard writes to none of them, and says in one sentence why.

In each case the content of every disk of the machine, read from its file here, is the same before and after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from foreign import Foreign, link_of

from harness.config.inventory import StorageEntry
from harness.errors import ProtectedError
from harness.lab.hardware.guard import ALLOW_FILE, Guard, Step
from harness.lab.hardware.storage import make, remove
from harness.model.disks import MachineDisks
from harness.remote.base import Completed

MIB = 2**20
SIZE = 64 * MIB
SERIAL, WWN = "TARGET1", 0x5000C50000000001
LINK = link_of(SERIAL, WWN)
# Without it the kernel goes on writing to a filesystem that is mounted.
MKFS = "mkfs.ext4 -q -E lazy_itable_init=0"
WHOLE = StorageEntry(kind="disk", disk=LINK, serial=SERIAL, wwn=f"0x{WWN:016x}", size_bytes=SIZE)


@dataclass(frozen=True)
class Case:
    """What somebody did with the disk ``$d`` (and ``$e``, another one), how it is undone, how the sentence begins."""

    name: str
    setup: str
    sentence: str
    undo: str = ""
    second: bool = False


CASES = (
    Case("ext4", "mkfs.ext4 -q -E lazy_itable_init=0 $d", "it has a signature of ext4 at byte 1080"),
    Case("ext4-mounted", "mkfs.ext4 -q -E lazy_itable_init=0 $d; mount $d /mnt", "it is mounted at /mnt",
         "umount /mnt"),
    Case("mounted-in-another-namespace",
         "mkfs.ext4 -q -E lazy_itable_init=0 $d; "
         "unshare -m sh -c 'mount $1 /mnt; exec sleep 1000' sh $d > /dev/null 2>&1 & echo $! > /run/other; "
         "until grep -q /mnt /proc/$(cat /run/other)/mountinfo; do sleep 1; done",
         "it is mounted at /mnt", "kill $(cat /run/other); sleep 1"),
    Case("swap-in-use", "mkswap -q $d > /dev/null; swapon $d", "it is in use as swap", "swapoff $d"),
    Case("lvm-in-use", "vgcreate -q theirs $d > /dev/null; lvcreate -q -y -n data -L 16m theirs > /dev/null",
         "it is held by LVM (theirs-data)", "vgremove -f -q theirs > /dev/null"),
    Case("lvm-of-no-group", "pvcreate -q $d > /dev/null", "it is a physical volume of no group"),
    Case("lvm-inactive", "vgcreate -q theirs $d > /dev/null; lvcreate -q -y -n data -L 16m theirs > /dev/null; "
         "vgchange -q -a n theirs > /dev/null", "it is a physical volume of the group theirs",
         "vgremove -f -q theirs > /dev/null"),
    Case("md-member", "mdadm --create /dev/md7 --quiet --run --level=1 --raid-devices=2 $d missing > /dev/null 2>&1; "
         "mdadm --wait-clean /dev/md7 || :", "it is held by the md array md7", "mdadm -q --stop /dev/md7"),
    Case("md-stopped", "mdadm --create /dev/md7 --quiet --run --level=1 --raid-devices=2 $d missing > /dev/null 2>&1; "
         "mdadm --stop /dev/md7 > /dev/null 2>&1", "it has a signature of linux_raid_member at byte 4096"),
    Case("crypt-holder", "echo -n word | cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $d -; "
         "echo -n word | cryptsetup open --key-file - $d theirs", "it is held by dm-crypt (theirs)",
         "cryptsetup close theirs"),
    Case("plain-crypt-closed", "echo -n word | cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 "
         "--hash sha256 --key-file - $d theirs; dd if=/dev/zero of=/dev/mapper/theirs bs=1M status=none conv=fsync "
         "2> /dev/null || :; cryptsetup close theirs",
         "its first MiB holds data, though no signature says whose; zero it yourself if it may be lost"),
    Case("data-at-the-end", "dd if=/dev/urandom of=$d bs=4k count=1 seek=$(($(blockdev --getsize64 $d) / 4096 - 1)) "
         "conv=fsync status=none", "its last MiB holds data, though no signature says whose"),
    Case("partitions", "echo ',16M' | sfdisk -q $d", "it has partitions: sd"),
    Case("empty-partition-table", "echo 'label: gpt' | sfdisk -q $d", "it has a signature of gpt at byte 512"),
    Case("btrfs-on-two-disks", "mkfs.btrfs -q -f -m single -d single $e $d; mount $e /mnt; sync; sleep 1",
         "it has a signature of btrfs at byte 65600", "umount /mnt", second=True),
    Case("open-in-a-process", "sleep 1000 < $d > /dev/null 2>&1 & echo $! > /run/other; sleep 1",
         "it is open in process", "kill $(cat /run/other); sleep 1"),
    Case("open-by-passthrough",
         "sg=$(ls /sys/block/${d#/dev/}/device/scsi_generic); sleep 1000 < /dev/$sg > /dev/null 2>&1 & "
         "echo $! > /run/other; sleep 1", "it is open in process", "kill $(cat /run/other); sleep 1"),
    Case("file-of-a-loop-device", "losetup /dev/loop7 $d", "it is the file of loop7", "losetup -d /dev/loop7; sleep 1"),
    Case("multipath-holder", "dmsetup create mpathz --uuid mpath-0QEMU --table \"0 1024 linear $d 0\"",
         "it is held by multipath (mpathz)", "dmsetup remove --retry mpathz"),
    Case("drbd-metadata", "modprobe drbd; yes yes | drbdmeta 40 v08 $d internal create-md --force > /dev/null 2>&1",
         "it has a signature of drbd at byte"),
    Case("not-allowed-by-root", f": > {ALLOW_FILE}", f"{ALLOW_FILE} on the machine does not allow it: it has no"),
    Case("allowed-by-anybody", f"chmod 666 {ALLOW_FILE}", f"{ALLOW_FILE} on the machine, or its directory, can be",
         f"chmod 644 {ALLOW_FILE}"),
    Case("no-allow-file", f"rm {ALLOW_FILE}", f"{ALLOW_FILE} on the machine, in which root allows a disk, cannot be"),
    Case("read-only", "blockdev --setro $d", "it is read-only"),
)  # fmt: skip


# What the test before left on the disk; plugging it out and in takes longer than all else.
BLANK = (
    "blockdev --setrw $d; dd if=/dev/zero of=$d bs=1M count=64 oflag=direct conv=nocreat,fsync status=none; "
    "blockdev --rereadpt $d; udevadm settle"
)


@pytest.fixture
def disk(foreign: Foreign) -> Iterator[str]:
    """An empty disk that the inventory and the machine's root name; its name in the kernel."""
    folder = ALLOW_FILE.rpartition("/")[0]
    allow = f"mkdir -p -m 755 {folder}; echo {LINK} > {ALLOW_FILE}; chmod 644 {ALLOW_FILE}"
    if "target" in foreign.plugged:
        foreign.sh(f"{allow}; d=$(readlink -f {LINK}); {BLANK}")
        name = foreign.sh(f"readlink -f {LINK}").strip().removeprefix("/dev/")
    else:
        name = foreign.plug("target", SERIAL, WWN)
        foreign.sh(allow)
    assert not any(foreign.plugged["target"].read_bytes())
    yield name


def guard(foreign: Foreign, storage: StorageEntry = WHOLE, size: int = SIZE) -> Guard:
    return Listening(foreign.machine, storage, "test", size)


def refused(foreign: Foreign, one: Guard, step: Step, record: Path | None, name: str) -> str:
    """The sentence with which the guard refuses a step; every byte of every disk is what it was."""
    before = foreign.digests()
    with pytest.raises(ProtectedError) as caught:
        one.do(step)
    assert foreign.digests() == before
    sentence = str(caught.value)
    assert "\n" not in sentence
    keep(record, name, one, step, sentence)
    return sentence


def keep(record: Path | None, name: str, one: Guard, step: Step, sentence: str) -> None:
    """Keep what the machine said last, with the answer to it ("" for none), as a recording of the selftests."""
    if record is not None and name and isinstance(one, Listening):
        kept = {"step": step, "storage": one.storage.model_dump(), "size": one.size, "lab": one.lab}
        kept |= {"sentence": sentence, "look": json.loads(one.heard)}
        (record / f"{name}.json").write_text(json.dumps(kept) + "\n")


class Listening(Guard):
    """A guard that keeps what the machine said when it was last looked at."""

    heard = ""

    def _program(self, name: str, asked: Mapping[str, object], timeout: float) -> Completed:
        done = super()._program(name, asked, timeout)
        self.heard = done.stdout if name == "look" else self.heard
        return done


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_disk_that_somebody_uses_stays_as_it_is(foreign: Foreign, disk: str, record: Path | None, case: Case) -> None:
    other = foreign.plug("second", "SECOND1", 0x5000C50000000002, mib=160) if case.second else ""
    names = f"d=/dev/{disk}; e=/dev/{other}; "
    foreign.sh(names + case.setup)
    try:
        sentence = refused(foreign, guard(foreign), Step.LABEL, record, case.name)
        assert sentence.startswith(f"on foreign, {LINK} stays as it is: {case.sentence}"), sentence
        assert sentence.endswith("nothing was written")
    finally:
        foreign.sh(names + case.undo, ok=())
        if other:
            foreign.unplug("second")


def test_disk_of_the_inventory_is_labelled_mapped_and_given_back(
    foreign: Foreign, disk: str, record: Path | None
) -> None:
    name = foreign.plug("bystander", "BYSTANDER")
    foreign.sh(f"dd if=/dev/urandom of=/dev/{name} bs=1M count=8 status=none")
    one, before = guard(foreign), foreign.digests()
    try:
        assert one.lower(one.look()) is None
        for step in (Step.LABEL, Step.MAP, Step.ZERO):
            look = one.look()
            keep(record, f"free-before-{step}", one, step, "")
            assert one.refusals(step, look) == ()
            one.do(step)
        lower = one.lower(one.look())
        assert lower == "/dev/mapper/drbd-harness-test"
        # What a test writes is no foreign signature, and nothing of it is at the disk's ends.
        foreign.sh(f"{MKFS} {lower}; dd if=/dev/urandom of={lower} bs=1M seek=61 count=1 status=none; sync")
        assert "its mapping drbd-harness-test is used by /mnt" in refused_while_mounted(foreign, one, str(lower))
        one.do(Step.UNMAP)
        one.do(Step.MAP)
        assert remove(one) == 2
        after = foreign.digests()
        assert after["bystander"] == before["bystander"]
        content = foreign.plugged["target"].read_bytes()
        assert not any(content[:MIB]) and not any(content[-MIB:]) and any(content[MIB : 2 * MIB])
    finally:
        foreign.sh("umount /mnt || :; dmsetup remove --retry drbd-harness-test || :")
        foreign.unplug("bystander")


def refused_while_mounted(foreign: Foreign, one: Guard, lower: str) -> str:
    foreign.sh(f"mount {lower} /mnt")
    try:
        return refused(foreign, one, Step.UNMAP, None, "")
    finally:
        foreign.sh("umount /mnt")


def between(one: Guard, act: Callable[[], object]) -> None:
    """Do ``act`` behind the guard's next look, before it does what it looked for."""
    look = one.look

    def looked() -> MachineDisks:
        found = look()
        one.look = look  # type: ignore[method-assign]
        act()
        return found

    one.look = looked  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("script", "undo", "part"),
    [
        ("mkfs.ext4 -q -E lazy_itable_init=0 $d", "", "its first MiB is another one by now"),
        ("dmsetup create theirs --table \"0 1024 linear $d 0\"", "dmsetup remove --retry theirs",
         "somebody has a claim on it by now"),
        ("vgcreate -q theirs $d > /dev/null", "vgremove -q theirs > /dev/null", "its first MiB is another one by now"),
    ],
    ids=["filesystem", "holder", "lvm"],
)  # fmt: skip
def test_disk_that_somebody_took_between_look_and_write_stays_as_it_is(
    foreign: Foreign, disk: str, script: str, undo: str, part: str
) -> None:
    one = guard(foreign)
    digests = {}

    def taken() -> None:
        foreign.sh(f"d=/dev/{disk}; {script}")
        digests.update(foreign.digests())

    between(one, taken)
    try:
        with pytest.raises(ProtectedError, match=part):
            one.do(Step.LABEL)
        assert foreign.digests() == digests
    finally:
        foreign.sh(f"d=/dev/{disk}; {undo}", ok=())


def test_disk_that_got_a_signature_between_two_steps_stays_as_it_is(
    foreign: Foreign, disk: str, record: Path | None
) -> None:
    one = guard(foreign)
    one.do(Step.LABEL)
    foreign.sh(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/{disk}")
    assert "the first MiB holds something else beside it" in refused(
        foreign, one, Step.MAP, record, "signature-after-the-label"
    )
    assert "the first MiB holds something else beside it" in refused(
        foreign, one, Step.UNLABEL, record, "signature-before-the-label-goes"
    )


def test_name_that_leads_to_another_disk_after_a_change_of_disks_is_refused(
    foreign: Foreign, disk: str, record: Path | None
) -> None:
    other = foreign.plug("second", "SECOND1", 0x5000C50000000002)
    foreign.sh(f"mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/{other}")
    first, second = foreign.unplug("target"), foreign.unplug("second")
    # As two disks whose bays were swapped while the machine was off, where a name is that of the bay.
    foreign.plug_again("target", first, SERIAL, 0x5000C50000000002)
    foreign.plug_again("second", second, "SECOND1", WWN)
    try:
        sentence = refused(foreign, guard(foreign), Step.LABEL, record, "name-of-another-disk")
        assert f"its serial number is SECOND1, not {SERIAL} as in the inventory" in sentence
    finally:
        foreign.unplug("second")
        foreign.unplug("target")


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ({"serial": "TARGET2"}, f"its serial number is {SERIAL}, not TARGET2 as in the inventory"),
        ({"size_bytes": SIZE - 512}, f"its size is {SIZE} bytes, not {SIZE - 512} as in the inventory"),
        ({"disk": link_of("GONE")}, "it cannot be looked at: No such file or directory"),
    ],
    ids=["serial", "size", "gone"],
)  # fmt: skip
def test_disk_that_is_not_the_one_of_the_inventory_is_refused(
    foreign: Foreign, disk: str, record: Path | None, entry: dict[str, object], part: str
) -> None:
    storage = WHOLE.model_copy(update=entry)
    assert part in refused(foreign, guard(foreign, storage), Step.LABEL, record, f"not-the-{next(iter(entry))}")


def test_disk_that_is_seen_by_two_paths_is_refused(foreign: Foreign, disk: str, record: Path | None) -> None:
    foreign.plug("second", SERIAL, WWN)
    try:
        assert "is the same disk by another path" in refused(foreign, guard(foreign), Step.LABEL, record, "two-paths")
    finally:
        foreign.unplug("second")


def test_label_of_a_disk_that_was_copied_is_none(foreign: Foreign, disk: str, record: Path | None) -> None:
    one = guard(foreign)
    one.do(Step.LABEL)
    name = foreign.plug("second", "SECOND1")
    link = link_of("SECOND1")
    foreign.sh(f"dd if={LINK} of=/dev/{name} bs=1M status=none conv=fsync; echo {link} > {ALLOW_FILE}")
    storage = StorageEntry(kind="disk", disk=link, serial="SECOND1", size_bytes=SIZE)
    try:
        sentence = refused(foreign, guard(foreign, storage), Step.UNLABEL, record, "copied-label")
        assert "its label was written for another disk (TARGET1" in sentence
        another_lab = Guard(foreign.machine, WHOLE, "other", SIZE)
        foreign.sh(f"echo {LINK} > {ALLOW_FILE}")
        assert "it has the label of another lab, 'test'" in refused(foreign, another_lab, Step.UNLABEL, None, "")
    finally:
        foreign.unplug("second")


# --------------------------------------------------------------------------- volumes and files


@pytest.fixture
def group(foreign: Foreign) -> Iterator[StorageEntry]:
    """A volume group of somebody's with a volume that has data in it."""
    name = foreign.plug("pv", "PV1", 0x5000C50000000011, mib=192)
    foreign.sh(
        f"vgcreate -q theirs /dev/{name} > /dev/null; lvcreate -q -y -n data -L 32m theirs > /dev/null; "
        "dd if=/dev/urandom of=/dev/theirs/data bs=1M count=32 status=none conv=fsync"
    )
    try:
        yield StorageEntry(kind="volume-group", volume_group="theirs")
    finally:
        foreign.sh("umount /media || :; vgremove -f -q theirs || :")
        foreign.unplug("pv")


def test_volume_is_made_of_free_room_and_only_that_is_removed(
    foreign: Foreign, group: StorageEntry, record: Path | None
) -> None:
    digest = "sha256sum < /dev/theirs/data; lvs --noheadings -o lv_name,lv_uuid,seg_pe_ranges theirs/data"
    one, before = guard(foreign, group), foreign.sh(digest)
    one.look()
    keep(record, "free-before-make-volume", one, Step.MAKE_VOLUME, "")
    foreign.sh("lvcreate -q -y -n old -L 64m theirs; yes old | dd of=/dev/theirs/old bs=1M count=64 iflag=fullblock "
               "status=none conv=fsync; lvremove -q -y theirs/old")  # fmt: skip
    one.do(Step.MAKE_VOLUME)
    one.do(Step.ZERO)
    assert one.lower(one.look()) == "/dev/theirs/drbd-harness-test"
    foreign.sh("cmp -n 67108864 /dev/zero /dev/theirs/drbd-harness-test; "
               f"{MKFS} /dev/theirs/drbd-harness-test; "
               "mount /dev/theirs/drbd-harness-test /media")  # fmt: skip
    assert "the volume theirs/drbd-harness-test is in use" in refused(foreign, one, Step.REMOVE_VOLUME, None, "")
    assert "is in use" in refused(foreign, one, Step.ZERO, None, "")
    foreign.sh("umount /media")
    one.look()
    keep(record, "free-before-remove-volume", one, Step.REMOVE_VOLUME, "")
    assert remove(one) == 1 and remove(one) == 0
    assert foreign.sh(digest) == before


@pytest.mark.parametrize(
    ("setup", "step", "mib", "part"),
    [
        ("lvcreate -q -y -n drbd-harness-test -L 8m theirs", Step.MAKE_VOLUME, 64,
         "the volume theirs/drbd-harness-test is there and is none of the harness's"),
        ("lvcreate -q -y -n drbd-harness-test -L 8m theirs", Step.REMOVE_VOLUME, 64,
         "does not carry the tags of the harness's lab 'test'"),
        ("lvcreate -q -y -n drbd-harness-test --addtag drbd-harness --addtag drbd-harness.lab=other -L 8m theirs",
         Step.ZERO, 64, "does not carry the tags of the harness's lab 'test'"),
        ("", Step.REMOVE_VOLUME, 64, "there is no volume theirs/drbd-harness-test"),
        ("", Step.MAKE_VOLUME, 1024, "MiB free and 1024 MiB are needed"),
        ("vgchange -q -a n theirs; vgexport -q theirs", Step.MAKE_VOLUME, 64, "the volume group theirs is exported"),
        ("vgrename -q theirs others", Step.MAKE_VOLUME, 64, "there is no volume group theirs; there is others"),
    ],
    ids=["taken", "untagged", "other-lab", "none", "full", "exported", "no-group"],
)  # fmt: skip
def test_volume_that_is_not_the_harness_s_stays_as_it_is(
    foreign: Foreign, group: StorageEntry, record: Path | None, request: pytest.FixtureRequest, setup: str, step: Step,
    mib: int, part: str,
) -> None:  # fmt: skip
    foreign.sh(setup)
    try:
        name = f"volume-{request.node.callspec.id}"
        assert part in refused(foreign, guard(foreign, group, mib * MIB), step, record, name)
    finally:
        foreign.sh("vgrename -q others theirs || :; vgimport -q theirs || :; vgchange -q -a y theirs || :")


def test_volume_that_changed_between_look_and_removal_stays(foreign: Foreign, group: StorageEntry) -> None:
    one = guard(foreign, group)
    one.do(Step.MAKE_VOLUME)
    between(one, lambda: foreign.sh("lvremove -q -y theirs/drbd-harness-test; "
                                    "lvcreate -q -y -n drbd-harness-test -L 8m theirs"))  # fmt: skip
    with pytest.raises(Exception, match="drbd-harness-test"):
        one.do(Step.REMOVE_VOLUME)
    foreign.sh("lvs theirs/drbd-harness-test")


def test_thin_volume_is_made_and_removed_and_a_full_pool_is_refused(foreign: Foreign, group: StorageEntry) -> None:
    foreign.sh("lvcreate -q -y -T -L 96m theirs/pool")
    storage = StorageEntry(kind="thin", volume_group="theirs", thin_pool="pool")
    one = guard(foreign, storage)
    one.do(Step.MAKE_VOLUME)
    assert one.lower(one.look()) == "/dev/theirs/drbd-harness-test"
    foreign.sh("dd if=/dev/urandom of=/dev/theirs/drbd-harness-test bs=1M count=40 status=none conv=fsync")
    two = Guard(foreign.machine, storage, "second", SIZE)
    assert "MiB free and 73 MiB are needed, with a tenth to spare" in refused(foreign, two, Step.MAKE_VOLUME, None, "")
    assert remove(one) == 1
    foreign.sh("lvs theirs/pool")


def test_file_is_made_attached_and_removed(foreign: Foreign) -> None:
    foreign.sh("mkdir -p -m 755 /srv/lab")
    storage = StorageEntry(kind="loop", directory="/srv/lab")
    one = guard(foreign, storage)
    one.do(Step.MAKE_FILE)
    one.do(Step.ATTACH)
    lower = one.lower(one.look())
    assert lower and foreign.sh(f"blockdev --getsize64 {lower}").strip() == str(SIZE)
    foreign.sh(f"{MKFS} {lower}; mount {lower} /media")
    assert "which has it, is used by /media" in refused(foreign, one, Step.DETACH, None, "")
    foreign.sh("umount /media; sleep 1")
    assert remove(one) == 2
    assert foreign.sh("ls -A /srv/lab") == ""
    foreign.sh("echo theirs > /srv/lab/drbd-harness-test.img")
    assert "the file drbd-harness-test.img is there already" in refused(foreign, one, Step.MAKE_FILE, None, "")
    assert "it is no file of the harness's" in refused(foreign, one, Step.REMOVE_FILE, None, "")
    foreign.sh("rm /srv/lab/*; chmod 777 /srv/lab")
    assert "others than root can write to it" in refused(foreign, one, Step.MAKE_FILE, None, "")


def test_make_refuses_both_machines_before_the_first_step(foreign: Foreign, disk: str, group: StorageEntry) -> None:
    foreign.sh(f"mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/{disk}")
    before = foreign.digests()
    with pytest.raises(ProtectedError, match="signature of ext4"):
        make([guard(foreign, group), guard(foreign)])
    assert foreign.digests() == before
