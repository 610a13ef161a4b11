"""Somebody's disks on a foreign machine: the guard writes to none of them, and says in one sentence why.

In each case the content of every disk of the machine, read from its file here, is the same before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from foreign import Foreign, link_of
from guarded import LINK, MIB, MKFS, SERIAL, SIZE, WHOLE, WWN, between, guard, keep, refused, refuses_what_is_taken

from harness.config.inventory import StorageEntry
from harness.errors import ProtectedError
from harness.lab.hardware.guard import ALLOW_FILE, Guard, Step
from harness.lab.hardware.storage import against, make, remove


@dataclass(frozen=True)
class Case:
    """What somebody did with the disk ``$d`` (and ``$e``, another one), how it is undone, how the sentence begins.

    ``newer``: how it begins instead with the tools of a newer system.
    """

    name: str
    setup: str
    sentence: str
    undo: str = ""
    second: bool = False
    newer: str = ""


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
    Case("drbd-in-use-with-metadata-elsewhere",
         "modprobe drbd; printf 'resource theirs { device minor 7; on %s { disk %s; flexible-meta-disk %s; "
         "address 127.0.0.1:7799; } on other { disk %s; flexible-meta-disk %s; address 127.0.0.2:7799; } }' "
         "$(uname -n) $d $e $d $e > /run/theirs.conf; drbdadm -c /run/theirs.conf create-md --force theirs > /dev/null "
         "2>&1; drbdadm -c /run/theirs.conf up theirs",
         "it is held by drbd7", "drbdadm -c /run/theirs.conf down theirs", second=True),
    Case("zfs-labels-by-hand", "perl -e 'open D, \"+<\", $ARGV[0]; for $l (0, 262144) { for (0 .. 15) { "
         "seek D, $l + 131072 + 1024 * $_, 0; print D pack \"Q<5\", 0x00bab10c, 5000, $_ + 9, 77, 1700000000 } } "
         "close D' $d; sync", "it has a signature of zfs_member at byte", newer="its first MiB holds data, though"),
    Case("lvm-does-not-list-it", "pvcreate -q $d > /dev/null; mkdir -p /etc/lvm/devices; "
         "echo 'devices { use_devicesfile=1 }' > /etc/lvm/lvmlocal.conf; : > /etc/lvm/devices/system.devices; "
         "test -z \"$(pvs --noheadings)\"", "it has a signature of LVM2_member at byte 536",
         "rm -f /etc/lvm/devices/system.devices /etc/lvm/lvmlocal.conf"),
    Case("mapped-into-memory", "perl -e 'open F, \"<\", $ARGV[0]; $a = syscall(9, 0, 4096, 1, 1, fileno(F), 0); "
         "die $! if $a == -1; close F; sleep 1000' $d > /dev/null 2>&1 & echo $! > /run/other; sleep 3",
         "it is open in process", "kill $(cat /run/other); sleep 1"),
    Case("registered-with-io-uring", "perl -e 'open F, \"+<\", $ARGV[0]; $p = \"\\0\" x 120; $r = syscall(425, 4, $p); "
         "die $! if $r < 0; $f = pack \"l\", fileno(F); syscall(427, $r, 2, $f, 1) == 0 or die $!; close F; "
         "sleep 1000' $d > /dev/null 2>&1 & echo $! > /run/other; sleep 3", "it is open in process",
         "kill $(cat /run/other); sleep 1"),
    # Debian mounts /run so that nothing is executed from it.
    Case("open-in-a-process-of-an-odd-name", "p=$(printf '/root/o\\033[2J\\nx'); cp /bin/sleep \"$p\"; "
         "\"$p\" 1000 < $d > /dev/null 2>&1 & echo $! > /run/other; sleep 1; kill -0 $(cat /run/other)",
         "it is open in process", "kill $(cat /run/other); rm -f /root/o*; sleep 1"),
    Case("file-of-a-target",
         "modprobe target_core_file; c=/sys/kernel/config/target/core/fileio_0; mkdir -p $c/theirs; "
         "echo fd_dev_name=$d,fd_dev_size=67108864 > $c/theirs/control; echo 1 > $c/theirs/enable",
         "it is handed to other machines by /sys/kernel/config/target/core/fileio_0/theirs/info",
         "c=/sys/kernel/config/target/core/fileio_0; rmdir $c/theirs $c"),
    Case("not-allowed-by-root", f": > {ALLOW_FILE}", f"{ALLOW_FILE} on the machine does not allow it: it has no"),
    Case("allowed-by-anybody", f"chmod 666 {ALLOW_FILE}", f"{ALLOW_FILE} on the machine, or its directory, can be",
         f"chmod 644 {ALLOW_FILE}"),
    Case("no-allow-file", f"rm {ALLOW_FILE}", f"{ALLOW_FILE} on the machine, in which root allows a disk, cannot be"),
    Case("read-only", "blockdev --setro $d", "it is read-only"),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_disk_that_somebody_uses_stays_as_it_is(foreign: Foreign, disk: str, record: Path | None, case: Case) -> None:
    other = foreign.plug("second", "SECOND1", 0x5000C50000000002, mib=160) if case.second else ""
    names = f"d=/dev/{disk}; e=/dev/{other}; "
    foreign.sh(names + case.setup)
    try:
        sentence = refused(foreign, guard(foreign), Step.LABEL, record, case.name)
        begins = tuple(f"on foreign, {LINK} stays as it is: {one}" for one in (case.sentence, case.newer) if one)
        assert sentence.startswith(begins), sentence
        assert sentence.endswith("nothing was written")
    finally:
        foreign.sh(names + case.undo, ok=())
        if other:
            foreign.unplug("second")


def refused_while_mounted(foreign: Foreign, one: Guard, lower: str) -> str:
    foreign.sh(f"mount {lower} /mnt")
    try:
        return refused(foreign, one, Step.UNMAP, None, "")
    finally:
        foreign.sh("umount /mnt")


def test_disk_of_the_inventory_is_labelled_mapped_and_given_back(
    foreign: Foreign, disk: str, record: Path | None
) -> None:
    name = foreign.plug("bystander", "BYSTANDER")
    foreign.sh(f"dd if=/dev/urandom of=/dev/{name} bs=1M count=8 status=none")
    one, before = guard(foreign), foreign.digests()
    try:
        for step in (Step.LABEL, Step.MAP, Step.ZERO):
            one.do(step)
            keep(record, f"free-before-{step}", one, step, "")
        lower = one.lower(one.last)
        assert lower == "/dev/mapper/drbd-harness-test"
        # What a test writes is no foreign signature, and nothing of it is at the disk's ends.
        foreign.sh(f"{MKFS} {lower}; dd if=/dev/urandom of={lower} bs=1M seek=61 count=1 status=none; sync")
        assert "its mapping drbd-harness-test: it is mounted at /mnt" in refused_while_mounted(foreign, one, str(lower))
        assert remove(one) == 2
        after = foreign.digests()
        assert after["bystander"] == before["bystander"]
        content = foreign.plugged["target"].read_bytes()
        assert not any(content[:MIB]) and not any(content[-MIB:]) and any(content[MIB : 2 * MIB])
    finally:
        foreign.sh("umount /mnt || :; dmsetup remove --retry drbd-harness-test || :")
        foreign.unplug("bystander")


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
    refuses_what_is_taken(foreign, disk, script, undo, part)


def test_disk_that_got_a_signature_between_two_steps_stays_as_it_is(
    foreign: Foreign, disk: str, record: Path | None
) -> None:
    one = guard(foreign)
    one.do(Step.LABEL)
    foreign.sh(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/{disk}")
    assert "the harness's label is not on it any more" in refused(
        foreign, one, Step.MAP, record, "signature-after-the-label"
    )
    assert "the harness's label is not on it any more" in refused(
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


def test_volume_is_made_of_free_room_and_only_that_is_removed(
    foreign: Foreign, group: StorageEntry, record: Path | None
) -> None:
    digest = "sha256sum < /dev/theirs/data; lvs --noheadings -o lv_name,lv_uuid,seg_pe_ranges theirs/data"
    one, before = guard(foreign, group), foreign.sh(digest)
    foreign.sh("lvcreate -q -y -n old -L 64m theirs; yes old | dd of=/dev/theirs/old bs=1M count=64 iflag=fullblock "
               "status=none conv=fsync; lvremove -q -y theirs/old")  # fmt: skip
    one.do(Step.MAKE_VOLUME)
    keep(record, "free-before-make-volume", one, Step.MAKE_VOLUME, "")
    one.do(Step.ZERO)
    keep(record, "free-before-zero-volume", one, Step.ZERO, "")
    assert one.lower(one.last) == "/dev/theirs/drbd-harness-test"
    foreign.sh("cmp -n 67108864 /dev/zero /dev/theirs/drbd-harness-test; "
               f"{MKFS} /dev/theirs/drbd-harness-test; "
               "mount /dev/theirs/drbd-harness-test /media")  # fmt: skip
    assert "the volume theirs/drbd-harness-test is in use" in refused(foreign, one, Step.REMOVE_VOLUME, None, "")
    assert "is in use" in refused(foreign, one, Step.ZERO, None, "")
    foreign.sh("umount /media")
    assert remove(one) == 1
    keep(record, "free-before-remove-volume", one, Step.REMOVE_VOLUME, "")
    assert one.is_done(Step.REMOVE_VOLUME, one.last)
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
    uuid = "lvs --noheadings -o lv_uuid theirs/drbd-harness-test"
    theirs: list[str] = []

    def exchanged() -> None:
        foreign.sh("lvremove -q -y theirs/drbd-harness-test; lvcreate -q -y -n drbd-harness-test -L 8m theirs")
        theirs.append(foreign.sh(uuid))

    between(one, exchanged)
    # LVM finds none of that UUID and is content, as the harness's is gone indeed.
    one.do(Step.REMOVE_VOLUME)
    assert foreign.sh(uuid) == theirs[0]


def test_thin_volume_is_made_and_removed_and_a_full_pool_is_refused(foreign: Foreign, group: StorageEntry) -> None:
    foreign.sh("lvcreate -q -y -T -L 96m theirs/pool")
    storage = StorageEntry(kind="thin", volume_group="theirs", thin_pool="pool")
    one = guard(foreign, storage)
    one.do(Step.MAKE_VOLUME)
    assert one.lower(one.last) == "/dev/theirs/drbd-harness-test"
    foreign.sh("dd if=/dev/urandom of=/dev/theirs/drbd-harness-test bs=1M count=40 status=none conv=fsync")
    two = Guard(foreign.machine, storage, "second", SIZE)
    assert "MiB free and 73 MiB are needed, with a tenth to spare" in refused(foreign, two, Step.MAKE_VOLUME, None, "")
    # Made with room for it, and now there is none: what a run would write to it would fill the pool.
    assert against(one, one.look()) == ()
    foreign.sh("lvcreate -q -y -n others -V 64m --thinpool pool theirs; "
               "dd if=/dev/urandom of=/dev/theirs/others bs=1M count=45 status=none conv=fsync")  # fmt: skip
    assert "MiB are needed, with a tenth to spare" in against(one, one.look())[0]
    assert remove(one) == 1
    foreign.sh("lvs theirs/pool")


def test_file_is_made_attached_and_removed(foreign: Foreign) -> None:
    foreign.sh("mkdir -p -m 755 /srv/lab")
    storage = StorageEntry(kind="loop", directory="/srv/lab")
    one = guard(foreign, storage)
    one.do(Step.MAKE_FILE)
    one.do(Step.ATTACH)
    lower = one.lower(one.last)
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
