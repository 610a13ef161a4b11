"""May this disk be written?  What real machines said of disks that are in use, and what no machine here has."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config.inventory import StorageEntry
from harness.errors import HarnessError, ProtectedError
from harness.judgement.volume_guard import (
    directory_refusals,
    is_own,
    lab_tag,
    making_refusals,
    owner_tag,
    place_refusals,
    removing_refusals,
)  # fmt: skip
from harness.lab import hardware
from harness.lab.hardware.guard import MAKING, REMOVING, Guard, Machine, Step, shared
from harness.lab.hardware.storage import make, plan
from harness.model.disks import MIB, DirectoryLook, LogicalVolume, Signature
from harness.parse.machine_disks import machine_disks, signatures, swap_devices
from harness.remote.scripted import ScriptedRunner
from harness.render.disk_label import DiskLabel, disk_label, read_label

FOREIGN = Path(__file__).parent / "recordings" / "foreign-trixie"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(FOREIGN.glob("*.json"))}
PACKAGE = Path(hardware.__file__).parent


class Heard(Guard):
    """A guard to whom the machine says what was recorded; of any other command it is told that it did not work."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.commands: list[tuple[str, ...]] = []
        self._said = json.dumps(recorded["look"])
        machine = Machine("foreign", ScriptedRunner(self._answer, host="foreign"))
        super().__init__(machine, StorageEntry(**recorded["storage"]), recorded["lab"], recorded["size"],
                         recorded.get("owner"))  # fmt: skip

    def _answer(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        self.commands.append(argv)
        is_look = argv[-1].startswith("{") and "act" not in json.loads(argv[-1])
        return (0, self._said, "") if is_look else (1, "", "the test lets nothing be written")

    def against(self, step: Step) -> tuple[str, ...]:
        return self.refusals(step, self.look())


def heard(name: str, change: Callable[[dict[str, Any]], object] | None = None) -> Heard:
    recorded = copy.deepcopy(RECORDED[name])
    if change is not None:
        change(recorded["look"])
    return Heard(recorded)


def of_a_disk(look: dict[str, Any]) -> dict[str, Any]:
    """What /sys says of the disk that was asked about."""
    found: dict[str, Any] = look["sysfs"][look["disks"][0]["number"]]
    return found


# --------------------------------------------------------------------------- as it was on a machine


@pytest.mark.parametrize("name", [name for name, one in RECORDED.items() if one["sentence"]])
def test_guard_of_a_recorded_disk_of_somebody_s_says_the_sentence_of_that_day(name: str) -> None:
    one = heard(name)
    with pytest.raises(ProtectedError) as caught:
        one.do(Step(RECORDED[name]["step"]))
    assert str(caught.value) == RECORDED[name]["sentence"]
    assert len(one.commands) == 1  # the look, and nothing else


@pytest.mark.parametrize("name", [name for name, one in RECORDED.items() if not one["sentence"]])
def test_guard_of_a_recorded_disk_that_is_free_writes_with_one_command(name: str) -> None:
    one, step = heard(name), Step(RECORDED[name]["step"])
    assert one.against(step) == ()
    with pytest.raises(HarnessError, match="the test lets nothing be written"):
        one.do(step)
    assert len(one.commands) == 3


# --------------------------------------------------------------------------- what no machine here has


def _whole_disk(look: dict[str, Any]) -> dict[str, Any]:
    """Make the recorded disk a partition of another one, which this is."""
    whole = dict(of_a_disk(look), name="sdz", partitions=[of_a_disk(look)["name"]])
    look["sysfs"]["259:9"] = whole
    of_a_disk(look)["parent"] = "259:9"
    return whole


def _partition_of_an_open_disk(look: dict[str, Any]) -> None:
    _whole_disk(look)
    look["opened"].append(["b", "259:9", 77, "qemu-kvm"])


def _partition_of_a_held_disk(look: dict[str, Any]) -> None:
    _whole_disk(look)["holders"] = ["md0"]


def _second_path(look: dict[str, Any]) -> None:
    look["sysfs"]["8:240"] = dict(of_a_disk(look), name="sdp")


def _partition_of_a_disk_with_two_paths(look: dict[str, Any]) -> None:
    look["sysfs"]["8:240"] = dict(_whole_disk(look), name="sdp")


def _zpool(status: int, out: str, err: str = "") -> Callable[[dict[str, Any]], None]:
    def change(look: dict[str, Any]) -> None:
        name = of_a_disk(look)["name"]
        look["commands"]["zpool"] = {"status": status, "out": out.replace("DISK", f"/dev/{name}"), "err": err}

    return change


def _disk(**facts: object) -> Callable[[dict[str, Any]], None]:
    return lambda look: look["disks"][0].update(facts)


def _sysfs(**facts: object) -> Callable[[dict[str, Any]], None]:
    return lambda look: of_a_disk(look).update(facts)


def _udev(line: str) -> Callable[[dict[str, Any]], None]:
    return lambda look: look["disks"][0].update(udev=f"{look['disks'][0]['udev']}\n{line}")


def _add(key: str, value: Callable[[str, str], object]) -> Callable[[dict[str, Any]], None]:
    """Add to a list or a table of the look what ``value`` makes of the disk's number and name."""

    def change(look: dict[str, Any]) -> None:
        added = value(look["disks"][0]["number"], of_a_disk(look)["name"])
        if isinstance(look[key], dict):
            look[key].update(added)
        elif isinstance(look[key], list):
            look[key].append(added)
        else:
            look[key] += added

    return change


def _lsblk(**facts: object) -> Callable[[dict[str, Any]], None]:
    def change(look: dict[str, Any]) -> None:
        listed = json.loads(look["commands"]["lsblk"]["out"])
        for one in listed["blockdevices"]:
            if one["name"] == of_a_disk(look)["name"]:
                one.update(facts)
        look["commands"]["lsblk"]["out"] = json.dumps(listed)

    return change


def _pvs(**facts: object) -> Callable[[dict[str, Any]], None]:
    return lambda look: look["commands"]["pvs"].update(facts)


def _physical_by_another_name(look: dict[str, Any]) -> None:
    """As LVM prints it where 'preferred_names' of lvm.conf says so."""
    row = {"pv_name": "/dev/disk/by-id/x", "vg_name": "theirs", "pv_missing": "", "pv_duplicate": ""}
    look["commands"]["pvs"].update(out=json.dumps({"report": [{"pv": [row]}]}))
    look["physical"] = {"/dev/disk/by-id/x": look["disks"][0]["number"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_partition_of_an_open_disk, "sdz, of which it is a part, is open in process 77 (qemu-kvm)"),
        (_partition_of_a_held_disk, "sdz, of which it is a part, is held by the md array md0"),
        (_second_path, "sdp is the same disk by another path"),
        (_partition_of_a_disk_with_two_paths, "sdp is the same disk by another path"),
        (_zpool(0, "\tDISK1  ONLINE"), "it belongs to a ZFS pool"),
        (_zpool(0, "\tDISK  ONLINE"), "it belongs to a ZFS pool"),
        (_disk(exclusive="EBUSY"), "it could not be opened for the harness alone (EBUSY): somebody has a claim on it"),
        (_disk(head="nothing"), "its first MiB holds data, though no signature says whose"),
        (_disk(tail="data"), "its last MiB holds data, though no signature says whose"),
        (_disk(wipefs={"status": 1, "out": "", "err": "no"}), "wipefs does not say which signatures are on it"),
        (_disk(wipefs={"status": 0, "out": "{", "err": ""}), "wipefs does not say which signatures are on it"),
        (_disk(number="7:99"), "the kernel has no such block device in /sys"),
        (_disk(head="label", label="DRBD-HARNESS-DISK 9: later"),
         "it has a label of the harness's that is not whole: it is of another version of the harness"),
        (_udev("DM_MULTIPATH_DEVICE_PATH=1"), "it is a path of a multipath device"),
        (_sysfs(name="nbd0"), "nbd0 is no disk, partition or md array of its own"),
        (_sysfs(dm_name="vg-x", dm_uuid="LVM-x"), "is no disk, partition or md array of its own"),
        (_sysfs(vpd_serial="OTHER"), "its serial number is OTHER, not TARGET1 as in the inventory"),
        (_sysfs(wwid="naa.5000c5000000ff"), "its WWN is 5000c5000000ff, not 0x5000c50000000001 as in the inventory"),
        (_sysfs(bytes=512), "its size is 67108864 and 512 bytes, not 67108864 as in the inventory"),
        (_sysfs(holders=["bcache0"]), "it is held by bcache0"),
        (_sysfs(holders=["drbd3"]), "it is held by drbd3"),
        (_add("exported", lambda number, name: ["/sys/kernel/config/nvmet/x", number]),
         "it is handed to other machines by /sys/kernel/config/nvmet/x"),
        (_add("loops", lambda number, name: {"loop9": "unknown"}), "what is behind loop9 could not be read"),
        (_add("mdstat", lambda number, name: f"\nmd127 : inactive {name}[0](S)\n"), "it belongs to an md array"),
        (_add("swaps", lambda number, name: f"\n/dev/{name} partition 1 0 -2\n"), "it is in use as swap"),
        (_add("mounts", lambda number, name: ["0:52", "/data", "btrfs", f"/dev/{name}"]), "it is mounted at /data"),
        (_physical_by_another_name, "it is a physical volume of the group theirs"),
        (lambda look: of_a_disk(look).update(name="cciss!c0d0") or look.update(
            swaps="Filename\tType\n/dev/cciss/c0d0 partition 1 0 -2\n"), "it is in use as swap"),
        (_lsblk(fstype="ceph_bluestore"), "udev knows ceph_bluestore on it"),
        (_lsblk(mountpoints=["/x"]), "lsblk says that it is mounted at /x"),
        (_lsblk(**{"maj:min": "99:9"}), "lsblk does not list it"),
        (_pvs(status=5, out="", err="Failed to start"), "LVM does not say which disks it has (pvs: Failed to start)"),
        (lambda look: look["links"].clear(), "udev knows no link /dev/disk/by-id/wwn-0x5000c50000000001 to sda"),
        (lambda look: look["allow"].update(uid=1000), "can be written by others than root"),
        (lambda look: look["allow"].update(above_mode=0o777), "can be written by others than root"),
        (lambda look: look["allow"].update(regular=False), "is no plain file in a plain directory"),
        (lambda look: look["allow"].update(text="# /dev/disk/by-id/wwn-0x5000c50000000001"), "has no line"),
        (lambda look: look.pop("allow"), "nobody asked the machine whether root allows it"),
    ],
)  # fmt: skip
def test_one_reason_against_a_disk_that_is_free_otherwise_is_enough(
    change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    (found, *_) = heard("free-before-label", change).against(Step.LABEL) or ("nothing",)
    assert reason in found


@pytest.mark.parametrize(
    "change",
    [
        lambda look: look["commands"].update(lsblk={"status": 1, "out": "", "err": "no"}),
        _zpool(1, "", "cannot open"),
        lambda look: look.pop("opened"),
        lambda look: look["disks"][0].pop("tail"),
        lambda look: look["sysfs"]["8:0"].pop("holders"),
        lambda look: look["commands"]["vgs"].update(out="{}"),
    ],
)
def test_machine_that_cannot_be_understood_is_not_written_to(change: Callable[[dict[str, Any]], object]) -> None:
    one = heard("free-before-label", change)
    with pytest.raises(ProtectedError, match="the disks of foreign cannot be judged: ") as caught:
        one.do(Step.LABEL)
    assert "\n" not in str(caught.value) and len(one.commands) == 1


def test_zfs_that_is_there_without_pools_is_no_reason() -> None:
    for out, err, status in (("no pools available\n", "", 0), ("", "The ZFS modules cannot be loaded", 1)):
        change = _zpool(status, out, err.replace("cannot be", "could not be"))
        assert heard("free-before-label", change).against(Step.LABEL) == ()


@pytest.mark.parametrize("which", ["are not loaded", "cannot be auto-loaded"])
def test_zfs_whose_modules_are_not_loaded_is_no_reason(which: str) -> None:
    said = f"The ZFS modules {which}.\nTry running 'modprobe zfs' as root to load them.\n"
    assert heard("free-before-label", _zpool(1, "", said)).against(Step.LABEL) == ()


def test_what_a_test_wrote_behind_the_label_is_no_foreign_signature_and_elsewhere_is() -> None:
    def signed(offset: int) -> tuple[str, ...]:
        found = json.dumps({"signatures": [{"type": "ext4", "offset": hex(offset)}]})
        return heard("free-before-map", _disk(wipefs={"status": 0, "out": found, "err": ""})).against(Step.MAP)

    assert signed(MIB) == signed(2 * MIB) == ()
    for offset in (0, MIB - 1, 63 * MIB, 64 * MIB - 4096):
        assert signed(offset) == (f"it has a signature of ext4 at byte {offset}",)


def test_disk_whose_mapping_is_another_or_in_use_is_refused() -> None:
    def dm(look: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return next((number, one) for number, one in look["sysfs"].items() if one["dm_name"])

    assert heard("free-before-zero").against(Step.ZERO) == ()
    foreign_uuid = heard("free-before-zero", lambda look: dm(look)[1].update(dm_uuid="CRYPT-LUKS2-x"))
    assert "its one holder is not the harness's mapping drbd-harness-test" in foreign_uuid.against(Step.ZERO)[0]
    held = heard("free-before-zero", lambda look: dm(look)[1].update(holders=["drbd0"]))
    assert held.against(Step.UNMAP) == ("its mapping drbd-harness-test: it is held by drbd0",)
    opened = heard("free-before-zero", lambda look: look["opened"].append(["b", dm(look)[0], 9, "qemu"]))
    assert opened.against(Step.UNMAP) == ("its mapping drbd-harness-test: it is open in process 9 (qemu)",)
    second = heard("free-before-zero", lambda look: of_a_disk(look)["holders"].append("dm-7"))
    assert second.against(Step.UNMAP)
    looped = heard("free-before-zero", lambda look: look["loops"].update(loop5=dm(look)[0]))
    assert looped.against(Step.ZERO) == ("its mapping drbd-harness-test: it is the file of loop5",)
    swapped = heard("free-before-zero", _add("swaps", lambda *_: "\n/dev/mapper/drbd-harness-test partition 1 0 -2\n"))
    assert swapped.against(Step.ZERO) == ("its mapping drbd-harness-test: it is in use as swap",)


def test_mapping_above_a_disk_that_is_gone_or_lost_its_label_is_not_passed_over() -> None:
    for change in (_disk(error="No such file or directory"), _disk(head="data", label="")):
        one = heard("free-before-zero", change)
        assert not one.is_done(Step.UNMAP, one.look()) and [planned.step for planned in plan(
            one, one.look(), making=False)] == [Step.UNMAP]  # fmt: skip
        assert one.against(Step.UNMAP)[0] == (
            "its mapping drbd-harness-test is left of a disk that is gone or has lost its label; "
            "'dmsetup remove drbd-harness-test' on the machine takes it away"
        )
    assert heard("free-before-map").is_done(Step.UNMAP, heard("free-before-map").look())


def test_disk_with_a_serial_number_that_another_has_too_needs_its_wwn() -> None:
    def second_namespace(look: dict[str, Any]) -> None:
        look["sysfs"]["259:7"] = dict(of_a_disk(look), name="nvme0n2", wwid="eui.0000000000000002")

    one = heard("free-before-label", second_namespace)
    assert one.against(Step.LABEL) == ()
    one.storage = one.storage.model_copy(update={"wwn": None})
    assert one.against(Step.LABEL) == (
        "nvme0n2 has the same serial number: its WWN has to be in the inventory too",
    )  # fmt: skip


def test_reason_has_no_signs_that_a_terminal_would_obey() -> None:
    def opened(look: dict[str, Any]) -> None:
        look["opened"].append(["b", look["disks"][0]["number"], 9, "a\n\x1b[2J"])

    assert heard("free-before-label", opened).against(Step.LABEL) == ("it is open in process 9 (a??[2J)",)


@pytest.mark.parametrize(
    ("storage", "lab", "reason"),
    [
        ({}, "other", "it has the label of another lab, 'test'"),
        ({"size_bytes": 2**26 + 1}, "test", "its label was written for another disk (TARGET1, 67108864 bytes)"),
        ({"serial": "CLONE"}, "test", "its label was written for another disk (TARGET1, 67108864 bytes)"),
        ({"size_bytes": 7 * MIB}, "test", "it is too small for a label and a replica"),
    ],
)
def test_label_of_another_lab_or_disk_is_refused(storage: dict[str, Any], lab: str, reason: str) -> None:
    recorded = copy.deepcopy(RECORDED["free-before-map"])
    recorded["storage"].update(storage)
    recorded["lab"] = lab
    assert reason in Heard(recorded).against(Step.MAP)


def test_label_of_somebody_else_s_lab_of_the_same_name_is_refused() -> None:
    label = DiskLabel("test", "ab", 64 * MIB, "TARGET1", "0x5000c50000000001", "bob@shelf")
    data = disk_label(label)
    change = _disk(label=data[:4096].rstrip(b"\0").decode(), label_sha256=hashlib.sha256(data).hexdigest())
    one = heard("free-before-map", change)
    one.owner = "alice@desk"
    for step in (Step.MAP, Step.UNLABEL):
        assert one.against(step) == (
            "it has the label of a lab of bob@shelf's that has the same name 'test'; this one is alice@desk's",
        )  # fmt: skip
    one.owner = "bob@shelf"
    assert one.against(Step.MAP) == ()


def test_volume_of_somebody_else_s_lab_of_the_same_name_is_refused() -> None:
    tags = ("drbd-harness", lab_tag("test"))
    volume = LogicalVolume("theirs", "x", "u", "-wi-a-----", MIB, (*tags, owner_tag("bob@shelf")))
    assert is_own(volume, "test", "bob@shelf") and not is_own(volume, "test", "bob@desk")
    assert is_own(replace(volume, tags=tags), "test", "alice") and not is_own(volume, "tes", "bob@shelf")
    look = heard("free-before-make-volume").look()
    for refusals in (making_refusals(replace(look, volumes=(volume,)), "theirs", "x", MIB, "test", "alice"),
                     removing_refusals(replace(look, volumes=(volume,)), "theirs", "x", "test", "alice")):  # fmt: skip
        assert refusals == (
            "the volume theirs/x is of a lab of somebody else's that has the same name 'test'; this one is alice's",
        )  # fmt: skip


def test_file_is_only_touched_where_nobody_else_can_exchange_it() -> None:
    look = DirectoryLook(
        "/srv/a", real="/srv/a", owner=0, mode=0o755, is_directory=True, kind="ext2/ext3", free=2**40,
        above=(("/srv", 0, 0o755), ("/", 0, 0o755)),
    )  # fmt: skip
    assert directory_refusals(look, "x", MIB) == place_refusals(look) == ()
    for above in ((("/srv", 1000, 0o755), ("/", 0, 0o755)), (("/srv", 0, 0o775), ("/", 0, 0o755))):
        found = ("others than root can write to /srv, and so exchange what is below it",)
        assert directory_refusals(replace(look, above=above), "x", MIB) == found
    assert place_refusals(replace(look, above=())) == ("who can write to the directories above it is not known",)
    assert place_refusals(replace(look, mode=0o777)) == ("others than root can write to it",)
    assert place_refusals(replace(look, real="/srv/b")) == (
        "it is no plain directory: a symbolic link is on the way",
    )  # fmt: skip


def test_disk_without_its_label_is_not_mapped_and_one_without_names_is_not_labelled() -> None:
    blank = _disk(head="zero", label="")
    assert "the harness's label is not on it any more" in heard("free-before-map", blank).against(Step.MAP)
    one = heard("free-before-label")
    one.storage = one.storage.model_copy(update={"serial": None, "wwn": None})
    assert "the inventory names neither its serial number nor its WWN" in one.against(Step.LABEL)


def test_mapping_of_the_same_name_above_something_else_is_refused() -> None:
    taken = {"name": "dm-9", "dm_name": "drbd-harness-test", "dm_uuid": "theirs"}
    one = heard("free-before-map", lambda look: look["sysfs"].update({"252:9": {**of_a_disk(look), **taken}}))
    assert "there is a mapping drbd-harness-test already, of something else" in one.against(Step.MAP)


def test_label_is_whole_only_with_all_of_its_mib() -> None:
    label = DiskLabel("lab", "ab12", 2**30, "S1", "0x5000c50000000001")
    data = disk_label(label)
    assert (
        len(data) == MIB and read_label(data[:4096].rstrip(b"\0").decode(), hashlib.sha256(data).hexdigest()) == label
    )
    for wrong in (data[:-1] + b"x", data.replace(b"ab12", b"ab13", 1)):
        header = data[:4096].rstrip(b"\0").decode()
        with pytest.raises(ValueError, match="the first MiB holds something else beside it"):
            read_label(header, hashlib.sha256(wrong).hexdigest())
    with pytest.raises(ValueError, match="cannot be read"):
        read_label(data[:200].decode(), "")


# --------------------------------------------------------------------------- both machines, and the plan


def test_disk_that_both_machines_have_is_refused_before_anything_is_written() -> None:
    a, b = heard("free-before-label"), heard("free-before-label")
    with pytest.raises(
        ProtectedError, match="both machines' disks have the WWN 5000c50000000001: they may be one disk"
    ):
        make([a, b])
    assert len(a.commands) == len(b.commands) == 1
    other = heard("free-before-label", _sysfs(wwid="naa.5000c50000000002", vpd_serial="OTHER"))
    assert shared((a, a.look()), (other, other.look())) is None
    same_serial = heard("free-before-label", _sysfs(wwid="naa.5000c50000000002"))
    assert shared((a, a.look()), (same_serial, same_serial.look())) is None
    nameless = _sysfs(wwid="")
    one, two = heard("free-before-label", nameless), heard("free-before-label", nameless)
    assert "may be one disk" in str(shared((one, one.look()), (two, two.look())))


def test_volume_group_that_both_machines_have_is_refused_unless_its_disks_are_others() -> None:
    def disks(wwid: str) -> Callable[[dict[str, Any]], None]:
        def change(look: dict[str, Any]) -> None:
            for one in look["sysfs"].values():
                if one["name"].startswith("sd"):
                    one.update(wwid=wwid)

        return change

    a, b = heard("free-before-make-volume"), heard("free-before-make-volume")
    with pytest.raises(ProtectedError, match="the group theirs has the same UUID on both machines"):
        make([a, b])
    copied = heard("free-before-make-volume", disks("naa.5000c500000000ff"))
    assert shared((a, a.look()), (copied, copied.look())) is None

    def without_names(look: dict[str, Any]) -> None:
        for one in look["sysfs"].values():
            one.update(wwid="", serial="", vpd_serial="")

    nameless = heard("free-before-make-volume", without_names)
    assert shared((a, a.look()), (nameless, nameless.look())) is not None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("wz--n-", "rz--n-", "is read-only"), ("wz--n-", "wzx-n-", "is exported"), ("wz--n-", "wz-pn-", "is partial"),
        ("wz--n-", "wz--nc", "is clustered"), ("wz--n-", "wz--ns", "is shared"),
        ("wz--n-", "w---n-", "cannot be resized"),
        ('"vg_missing_pv_count":"0"', '"vg_missing_pv_count":"1"', "a physical volume of theirs is missing"),
    ],
)  # fmt: skip
def test_volume_group_that_is_not_sound_is_refused(old: str, new: str, reason: str) -> None:
    def change(look: dict[str, Any]) -> None:
        vgs = look["commands"]["vgs"]
        assert old in vgs["out"]
        vgs["out"] = vgs["out"].replace(old, new)

    assert reason in heard("free-before-make-volume", change).against(Step.MAKE_VOLUME)[0]


def test_plan_says_each_step_in_words_and_judges_the_first() -> None:
    one = heard("free-before-label")
    words = [planned.words for planned in plan(one, one.look())]
    assert words[0] == "writes the harness's label to the first MiB of /dev/disk/by-id/wwn-0x5000c50000000001"
    assert len(words) == 3 and not plan(one, one.look(), making=False)
    volume = heard("free-before-make-volume")
    assert [planned.step for planned in plan(volume, volume.look())] == [Step.MAKE_VOLUME, Step.ZERO]


def test_every_kind_of_storage_takes_back_what_it_makes() -> None:
    assert set(MAKING) == set(REMOVING)
    used = {step for steps in (*MAKING.values(), *REMOVING.values()) for step in steps}
    # Metadata go with the device that they are on.
    assert used | {Step.METADATA} == set(Step)


# --------------------------------------------------------------------------- nothing else names a device

WRITERS = (
    "dd", "lvcreate", "lvremove", "lvresize", "lvconvert", "vgcreate", "vgremove", "pvcreate", "pvremove", "wipefs",
    "mkswap", "mkfs", "blkdiscard", "dmsetup", "losetup", "mdadm", "cryptsetup", "sfdisk", "parted", "sgdisk", "shred",
    "zfs", "zpool", "drbdadm", "drbdsetup", "drbdmeta", "tee", "cp", "truncate", "fallocate", "hdparm", "nvme",
)  # fmt: skip


def test_only_the_guard_and_its_programs_name_a_block_device_or_a_program_that_writes_to_one() -> None:
    seen = {}
    for path in PACKAGE.rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        documentation = _docstrings(path)
        seen[path.relative_to(PACKAGE).as_posix()] = [
            text
            for text in texts
            if isinstance(text, str) and text not in documentation and (text.startswith("/dev/") or text in WRITERS)
        ]
    assert seen["guard.py"] and seen["programs/act.py"]
    assert {name for name, found in seen.items() if found} == {
        "guard.py", "own.py", "programs/act.py", "programs/look.py", "programs/journal_made.py",
        "programs/resource.py", "programs/taken.py",
    }  # fmt: skip
    # What LVM calls a device is cut down to its name.
    assert seen["own.py"] == ["/dev/"]
    # Of a resource in use it is said how it is set up and used.
    assert [text for text in seen["programs/resource.py"] if not text.startswith("/dev/")] == ["drbdsetup"] * 2
    own = (PACKAGE / "programs" / "resource.py").read_text()
    assert '["drbdsetup", "show", ' in own and '["drbdsetup", "status", ' in own and '"wb' not in own
    assert seen["programs/taken.py"] == ["drbdsetup"]
    assert '["drbdsetup", "show"]' in (PACKAGE / "programs" / "taken.py").read_text()
    # What is put back is taken down by its own name or UUID, and no loop device is let go of but that of our own file.
    assert set(seen["programs/journal_made.py"]) == {"drbdsetup", "dmsetup", "losetup", "/dev/"}
    made = ast.parse((PACKAGE / "programs" / "journal_made.py").read_text())
    commands = [ast.unparse(one.elts[1]) for one in ast.walk(made) if isinstance(one, ast.List) and len(one.elts) > 1]
    assert {one for one in commands if one.startswith("'")} == {
        "'show'", "'down'", "'info'", "'resume'", "'remove'", "'--detach'", "'-a'", "'delete'", "'-q'", "'-w'",
        "'--zone=' + first",
    }  # fmt: skip
    # What looks names programs that can write too, none of them with what makes them write.
    assert set(seen["programs/look.py"]) <= {"/dev/disk/by-id/*", "/dev/", "wipefs", "zpool"}
    look = (PACKAGE / "programs" / "look.py").read_text()
    assert '["wipefs", "--no-act", "-J", path]' in look and '["zpool", "status", "-L", "-P"]' in look
    assert not {"O_RDWR", "O_WRONLY", "O_CREAT", '"w"', '"wb"'} & set(look.replace("|", " ").replace("(", " ").split())


def _docstrings(path: Path) -> set[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (
        ast.get_docstring(node, clean=False)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
    )
    return {text for text in found if text}


def test_only_the_guard_starts_the_program_that_writes_to_disks() -> None:
    texts = {path.name: path.read_text() for path in PACKAGE.glob("*.py")}
    # The script of machines.py only looks; lease.py starts its own program; that of compare.py opens what it reads
    # with O_RDONLY (test_digest_comparison.py); lab_power.py asks for the boot and waits for its services; that of
    # guest_image.py writes below the harness's own folder, as guests.py does.
    assert {name for name, text in texts.items() if ".run" in text} == {
        "compare.py", "guard.py", "guest_image.py", "guests.py", "journal.py", "lab_power.py", "lease.py",
        "machines.py", "provider.py", "taken.py",
    }  # fmt: skip
    assert {name for name, text in texts.items() if '"programs"' in text} == {
        "guard.py", "guest_image.py", "journal.py", "lease.py", "taken.py"
    }  # fmt: skip
    assert '/ "programs" / "images.py"' in texts["guest_image.py"] and "{name}.py" not in texts["guest_image.py"]
    assert '/ "programs" / "lease.py"' in texts["lease.py"] and "{name}.py" not in texts["lease.py"]


def test_signatures_and_swaps_as_they_are_printed() -> None:
    assert signatures("") == () and signatures('{"signatures": [{"offset": "0x438", "type": "ext4"}]}') == (
        Signature("ext4", 0x438),
    )
    assert swap_devices("Filename\tType\n/dev/sda2 partition 1 2 3\n/swap.img file 1 2 3\n") == (
        "/dev/sda2",
        "/swap.img",
    )


def test_machine_disks_of_an_older_lsblk_have_one_mount_point() -> None:
    recorded = copy.deepcopy(RECORDED["free-before-label"]["look"])
    listed = json.loads(recorded["commands"]["lsblk"]["out"])
    for one in listed["blockdevices"]:
        one["mountpoint"] = (one.pop("mountpoints") or [None])[0]
    recorded["commands"]["lsblk"]["out"] = json.dumps(listed)
    assert any(one.mount_points == ("/",) for one in machine_disks(json.dumps(recorded)).tree)
