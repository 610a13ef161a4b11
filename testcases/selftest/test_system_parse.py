"""Open flags, offloads, packages, memory, QEMU's block nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.system import meminfo, o_direct, o_sync, offloads, open_flags, packages, qmp_block, vmstat

QMP = Path(__file__).parent / "recordings" / "qmp"
DISK = "/tmp/qmp-demo/d.img"

ETHTOOL = """\
Features for ens2:
rx-checksumming: off [fixed]
tx-checksumming: on
\ttx-checksum-ipv4: off [fixed]
\ttx-checksum-ip-generic: on
scatter-gather: on
\ttx-scatter-gather: on
\ttx-scatter-gather-fraglist: off [fixed]
tcp-segmentation-offload: on [requested off]
rx-vlan-offload: on [fixed]
"""


@pytest.mark.parametrize(
    ("flags", "direct", "sync"),
    [("0100002", False, False), ("02140002", True, False), ("04110002", False, True), ("010002", False, True)],
)
def test_open_flags_known_flags_direct_and_sync(flags: str, direct: bool, sync: bool) -> None:
    found = open_flags(f"pos:\t0\nflags:\t{flags}\nmnt_id:\t24\nino:\t3\n")
    assert found == int(flags, 8)
    assert (o_direct(found), o_sync(found)) == (direct, sync)


@given(st.integers(0, 2**32))
def test_open_flags_any_number_round_trip(flags: int) -> None:
    assert open_flags(f"pos:\t0\nflags:\t0{flags:o}\n") == flags


@pytest.mark.parametrize("text", ["", "pos:\t0\n", "flags:\t9\n", "flags:\n"])
def test_open_flags_missing_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="fdinfo"):
        open_flags(text)


def test_offloads_ethtool_output_by_name() -> None:
    found = offloads(ETHTOOL)
    assert (found["scatter-gather"], found["tx-scatter-gather-fraglist"], found["rx-vlan-offload"]) == (
        True,
        False,
        True,
    )
    assert found["tcp-segmentation-offload"] and not found["rx-checksumming"]
    assert not offloads(ETHTOOL.replace("scatter-gather: on", "scatter-gather: off [fixed]"))["scatter-gather"]
    assert offloads("netlink error: No such device\n") == {}


def test_packages_dpkg_output_by_name() -> None:
    text = "drbd-utils\t9.22.0-1.1\nqemu-system-x86:amd64\t1:7.2+dfsg-7+deb12u13\nremoved\t\n\n"
    assert packages(text) == {"drbd-utils": "9.22.0-1.1", "qemu-system-x86:amd64": "1:7.2+dfsg-7+deb12u13"}


def test_vmstat_text_counters() -> None:
    found = vmstat("nr_free_pages 81234\npswpin 12\npswpout 34567\nsomething else 5\npswpx\n")
    assert found == {"nr_free_pages": 81234, "pswpin": 12, "pswpout": 34567}


def test_meminfo_text_bytes() -> None:
    found = meminfo("MemTotal:       24684084 kB\nActive(anon):  12 kB\nHugePages_Total:       7\n")
    assert found == {"MemTotal": 24684084 * 1024, "Active(anon)": 12 * 1024, "HugePages_Total": 7}


@pytest.mark.parametrize(
    ("mode", "direct", "writeback", "no_flush"),
    [("none", True, True, False), ("directsync", True, False, False), ("unsafe", False, True, True)],
)
def test_qmp_block_recorded_reply_cache_flags(mode: str, direct: bool, writeback: bool, no_flush: bool) -> None:
    cache, aio = qmp_block((QMP / f"query-block-{mode}.json").read_text(), DISK)
    assert cache == {"direct": direct, "writeback": writeback, "no-flush": no_flush}
    assert aio is None, "QEMU does not tell"


@pytest.mark.parametrize("image", ["raw", "qcow2"])
def test_qmp_block_of_an_image_file_is_found_by_its_path(image: str) -> None:
    reply = (QMP / f"query-block-file-{image}-none-10.0.json").read_text()
    cache, _ = qmp_block(reply, f"/tmp/fs/disk.{image}")
    assert cache == {"direct": True, "writeback": True, "no-flush": False}


def test_qmp_block_named_nodes_writeback_always_true() -> None:
    cache, _ = qmp_block((QMP / "query-named-block-nodes-directsync.json").read_text(), DISK)
    assert cache == {"direct": True, "writeback": True, "no-flush": False}


def test_qmp_block_json_filename_path_and_aio() -> None:
    reply = json.loads((QMP / "query-block-none.json").read_text())
    options = {"driver": "raw", "file": {"driver": "host_device", "filename": "/dev/drbd0", "aio": "native"}}
    reply["return"][0]["inserted"]["file"] = "json:" + json.dumps(options)
    reply["return"].insert(0, {"device": "empty", "qdev": "cdrom"})
    cache, aio = qmp_block(json.dumps(reply), "/dev/drbd0")
    assert (cache["direct"], aio) == (True, "native")


@pytest.mark.parametrize("reply", ["{}", "[]", '{"error": {"class": "GenericError"}}', '{"return": [{}]}', "nonsense"])
def test_qmp_block_no_such_disk_value_error(reply: str) -> None:
    with pytest.raises(ValueError):
        qmp_block(reply, "/dev/drbd0")


def test_qmp_block_other_disk_not_taken() -> None:
    with pytest.raises(ValueError, match="/dev/drbd0"):
        qmp_block((QMP / "query-block-none.json").read_text(), "/dev/drbd0")


@given(st.text())
def test_system_tables_any_text_no_error(text: str) -> None:
    offloads(text), packages(text), meminfo(text), vmstat(text)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9-]*", fullmatch=True), st.booleans()))
def test_offloads_any_features_round_trip(features: dict[str, bool]) -> None:
    lines = [f"{name}: {'on' if on else 'off'} [fixed]" for name, on in features.items()]
    assert offloads("Features for eth0:\n" + "\n".join(lines)) == features
