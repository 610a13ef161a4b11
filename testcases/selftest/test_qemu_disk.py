"""The disks of a QEMU that runs, read from its command line and from libvirt's live definition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.qemu_disk import MODES, cache_mode, disks_of_libvirt, disks_of_options, domain_name

RECORDED = Path(__file__).parent / "recordings" / "qemu-running"
# As Proxmox VE 8 starts one; written after its source, not recorded.
PVE_8 = [
    ("-id", "100"),
    ("-name", "web,debug-threads=on"),
    (
        "-drive",
        "file=/dev/drbd/by-res/vm-100-disk-1/0,if=none,id=drive-scsi0,cache=none,format=raw,aio=io_uring,"
        "detect-zeroes=on",
    ),
    ("-device", "scsi-hd,bus=virtioscsi0.0,scsi-id=0,drive=drive-scsi0,id=scsi0,bootindex=100"),
]
# As Proxmox VE 9 does.
PVE_9 = [
    (
        "-blockdev",
        '{"driver":"throttle","file":{"cache":{"direct":true,"no-flush":false},"detect-zeroes":"on","discard":"ignore",'
        '"driver":"raw","file":{"aio":"io_uring","cache":{"direct":true,"no-flush":false},"driver":"host_device",'
        '"filename":"/dev/drbd1001","node-name":"e1"},"node-name":"f1"},"node-name":"drive-scsi0"}',
    ),
    ("-device", '{"driver":"scsi-hd","drive":"drive-scsi0","id":"scsi0","write-cache":"off"}'),
]


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def test_disks_of_options_of_libvirts_blockdevs_name_cache_bus_and_aio() -> None:
    found = disks_of_options(recorded("blockdev-libvirt-9.0-qemu-7.2.json")["options"])
    disk = found["/var/lib/drbd-harness/labs/0ce269/backing-a.raw"]
    assert cache_mode(disk.direct, disk.writeback, disk.no_flush) == "unsafe"
    assert (disk.bus, disk.aio, disk.discard, disk.format) == ("virtio", "threads", "unmap", "raw")
    assert found["/var/lib/drbd-harness/labs/0ce269/root-a.qcow2"].format == "qcow2"


def test_disks_of_options_of_drives_name_cache_bus_and_discard() -> None:
    found = disks_of_options(recorded("drive-qemu-7.2.json")["options"])
    disk = found["/srv/beta/insp.img"]
    assert cache_mode(disk.direct, disk.writeback, disk.no_flush) == "unsafe"
    assert (disk.bus, disk.aio, disk.discard, disk.format) == ("scsi", "threads", "unmap", "raw")
    assert found["/srv/beta/root.img"].bus == "virtio"


def test_disks_of_options_of_proxmox_ve_name_its_default() -> None:
    disk = disks_of_options(PVE_8)["/dev/drbd/by-res/vm-100-disk-1/0"]
    assert cache_mode(disk.direct, disk.writeback, disk.no_flush) == "none"
    assert (disk.bus, disk.aio, disk.detect_zeroes) == ("scsi", "io_uring", "on")
    assert domain_name(PVE_8) == "web"


def test_disks_of_options_where_the_device_has_no_write_cache_is_directsync() -> None:
    disk = disks_of_options(PVE_9)["/dev/drbd1001"]
    assert cache_mode(disk.direct, disk.writeback, disk.no_flush) == "directsync"
    assert (disk.bus, disk.aio, disk.detect_zeroes, disk.format) == ("scsi", "io_uring", "on", "raw")


def test_disks_of_libvirt_are_those_of_its_live_definition_and_below() -> None:
    (domain,) = recorded("domain-libvirt-9.0.json")
    found = disks_of_libvirt(domain["disks"])
    disk = found["/var/lib/drbd-harness/labs/0ce269/root-a.qcow2"]
    assert cache_mode(disk.direct, disk.writeback, disk.no_flush) == "unsafe"
    assert (disk.bus, disk.aio, disk.discard, disk.format) == ("virtio", "threads", "unmap", "qcow2")
    assert "/var/cache/drbd-harness/images/node-trixie-73490d602111/root.img" in found


def test_disks_of_options_and_of_libvirt_agree_on_one_machine() -> None:
    by_libvirt = disks_of_libvirt(recorded("domain-libvirt-9.0.json")[0]["disks"])
    by_options = disks_of_options(recorded("blockdev-libvirt-9.0-qemu-7.2.json")["options"])
    for path in {*by_libvirt} & {*by_options}:
        one, other = by_libvirt[path], by_options[path]
        assert (one.direct, one.no_flush, one.aio) == (other.direct, other.no_flush, other.aio), path


@pytest.mark.parametrize("mode", MODES)
def test_cache_mode_of_its_own_flags_is_the_mode(mode: str) -> None:
    assert cache_mode(*MODES[mode]) == mode


def test_cache_mode_of_a_flag_that_nobody_told_names_all_that_fit() -> None:
    assert cache_mode(True, None, False) == "none or directsync"
    assert cache_mode(False, None, None) == "writeback or writethrough or unsafe"
    assert cache_mode(None, None, None) == ""


@given(st.lists(st.tuples(st.sampled_from(["-drive", "-blockdev", "-device", "-name"]), st.text(max_size=60))))
def test_disks_of_options_of_any_text_ends(options: list[tuple[str, str]]) -> None:
    disks_of_options(options)
    domain_name(options)


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda inner: st.dictionaries(
    st.sampled_from(["file", "driver", "cache", "filename", "node-name", "direct"]), inner, max_size=4)))  # fmt: skip
def test_disks_of_options_of_any_block_node_ends(node: Any) -> None:
    disks_of_options([("-blockdev", json.dumps(node)), ("-device", "scsi-hd,drive=x")])
