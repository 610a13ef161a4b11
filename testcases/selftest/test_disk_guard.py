"""May this disk be written?  What real machines said of disks that are in use, and what no machine here has."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from recorded_disks import RECORDED, disk, heard, of_a_disk, sysfs

from harness.errors import HarnessError, ProtectedError
from harness.lab.hardware.guard import Step
from harness.lab.hardware.storage import plan
from harness.model.disks import MIB, Signature
from harness.parse.machine_disks import machine_disks, signatures, swap_devices

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
        (disk(exclusive="EBUSY"), "it could not be opened for the harness alone (EBUSY): somebody has a claim on it"),
        (disk(head="nothing"), "its first MiB holds data, though no signature says whose"),
        (disk(tail="data"), "its last MiB holds data, though no signature says whose"),
        (disk(wipefs={"status": 1, "out": "", "err": "no"}), "wipefs does not say which signatures are on it"),
        (disk(wipefs={"status": 0, "out": "{", "err": ""}), "wipefs does not say which signatures are on it"),
        (disk(number="7:99"), "the kernel has no such block device in /sys"),
        (disk(head="label", label="DRBD-HARNESS-DISK 9: later"),
         "it has a label of the harness's that is not whole: it is of another version of the harness"),
        (_udev("DM_MULTIPATH_DEVICE_PATH=1"), "it is a path of a multipath device"),
        (sysfs(name="nbd0"), "nbd0 is no disk, partition or md array of its own"),
        (sysfs(dm_name="vg-x", dm_uuid="LVM-x"), "is no disk, partition or md array of its own"),
        (sysfs(vpd_serial="OTHER"), "its serial number is OTHER, not TARGET1 as in the inventory"),
        (sysfs(wwid="naa.5000c5000000ff"), "its WWN is 5000c5000000ff, not 0x5000c50000000001 as in the inventory"),
        (sysfs(bytes=512), "its size is 67108864 and 512 bytes, not 67108864 as in the inventory"),
        (sysfs(holders=["bcache0"]), "it is held by bcache0"),
        (sysfs(holders=["drbd3"]), "it is held by drbd3"),
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
        return heard("free-before-map", disk(wipefs={"status": 0, "out": found, "err": ""})).against(Step.MAP)

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
    for change in (disk(error="No such file or directory"), disk(head="data", label="")):
        one = heard("free-before-zero", change)
        assert not one.is_done(Step.UNMAP, one.look())
        assert plan(one, one.look(), making=False)[0].step is Step.UNMAP
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


def test_machine_disks_of_an_older_lsblk_have_one_mount_point() -> None:
    recorded = copy.deepcopy(RECORDED["free-before-label"]["look"])
    listed = json.loads(recorded["commands"]["lsblk"]["out"])
    for one in listed["blockdevices"]:
        one["mountpoint"] = (one.pop("mountpoints") or [None])[0]
    recorded["commands"]["lsblk"]["out"] = json.dumps(listed)
    assert any(one.mount_points == ("/",) for one in machine_disks(json.dumps(recorded)).tree)


def test_signatures_and_swaps_as_they_are_printed() -> None:
    assert signatures("") == () and signatures('{"signatures": [{"offset": "0x438", "type": "ext4"}]}') == (
        Signature("ext4", 0x438),
    )
    assert swap_devices("Filename\tType\n/dev/sda2 partition 1 2 3\n/swap.img file 1 2 3\n") == (
        "/dev/sda2",
        "/swap.img",
    )
