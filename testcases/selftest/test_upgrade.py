"""Old names: in the ids of cells, and in what earlier versions stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from harness.model import SCHEMA_VERSION, CacheMode, Cell, ClientKind, Control, Evidence, FilesystemKind, Run, aliases
from harness.model.aliases import former_id, present_id
from harness.store import Store
from harness.store.upgrade import upgraded

GOLDEN = Path(__file__).parent / "golden"
FULL = GOLDEN / "full-drbd-8.4"


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("none-swap", "none-swap-pressure"),
        ("none-swap-link20ms", "none-swap-pressure-link20ms"),
        ("none-swap-reclaim-link20ms", "none-swap-reclaim-link20ms"),
        ("writeback-ext4-cut-link20ms", "writeback-ext4-truncate-link20ms"),
        ("unsafe-ext4-mutator-iouring", "unsafe-ext4-inflight-modify-iouring"),
        ("host-mutator", "host-inflight-modify"),
        ("directsync-idle-migrate2", "directsync-no-writes-migrate2"),
        ("none-fio-verify-migrate2", "none-fio-verify-migrate2"),
        ("host-planted", "host-planted"),
        ("none-random-writes-of-my-own", "none-random-writes-of-my-own"),
    ],
)
def test_cell_id_former_and_present_name_each_other(former: str, present: str) -> None:
    assert present_id(former) == present and former_id(present) == former
    assert present_id(present) == present, "an id of today stays as it is"


@given(
    st.sampled_from(CacheMode),
    st.sampled_from(sorted(aliases.WORKLOADS)),
    st.sampled_from(["", "-link20ms", "-native", "-migrate2-fault.stall", "-crash.node"]),
)
def test_cell_id_every_former_workload_round_trips(cache: CacheMode, workload: str, rest: str) -> None:
    former = f"{cache}-{workload}{rest}"
    kind, name = aliases.WORKLOADS[workload]
    assert present_id(former) == Cell(name, filesystem=kind, cache=cache).id + rest
    assert former_id(present_id(former)) == former


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/cells/*/*/evidence.json")), ids=lambda path: path.parts[-3])
def test_upgrade_stored_evidence_loses_no_fact(path: Path) -> None:
    before, after = stored(path), upgraded(stored(path))
    assert after["schema"] == 2, "the newest schema whose facts it has"
    assert leaves(after) - leaves(before) <= {"swap", "ext4", "raw", "pressure", "no-writes", "inflight-modify"} | {
        "reclaim", "buffered", "mmap", "truncate", "in-flight", "allocated", "free", "readback", "2",
    }  # fmt: skip
    evidence = TypeAdapter(Evidence).validate_python(after)
    assert present_id(path.parts[-3]) == evidence.cell.id
    assert evidence.event_log == tuple(before["happened"]) and evidence.fault_injected == before["struck"]
    assert evidence.ownership.allocated == before["ownership"]["live"]
    assert evidence.ownership.free == before["ownership"]["dead"]
    assert [one.owner for one in evidence.samples] == [
        {"live": "allocated", "dead": "free"}.get(one["owner"], one["owner"]) for one in before["samples"]
    ]


def leaves(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()), set())
    if isinstance(value, list):
        return set().union(*map(leaves, value), set())
    return {str(value)}


def test_upgrade_present_schema_stays_as_it_is() -> None:
    now = {"schema": SCHEMA_VERSION, "arm": "not a field of ours", "cell": {"workload": "mutator", "client": "host"}}
    assert upgraded(now) is now


@pytest.mark.parametrize("schema", [1, 2])
def test_upgrade_mount_that_failed_is_told_apart_from_fsck(schema: int) -> None:
    names = {1: ("aftermath", "fsck_words"), 2: ("crash_recovery", "fsck_message")}[schema]
    told = "mount: mount: /mnt: wrong fs type; bad superblock; fsck: /dev/vdb1: clean"
    found = upgraded({"schema": schema, names[0]: {"fsck_status": 0, names[1]: told}})
    assert found["crash_recovery"] == {
        "fsck_status": 0, "mounted": False, "mount_message": "mount: /mnt: wrong fs type; bad superblock",
        "fsck_message": "/dev/vdb1: clean",
    }  # fmt: skip
    plain = {"schema": 2, "crash_recovery": {"fsck_status": 0, "fsck_message": "mount: /dev/vdb1: clean"}}
    assert upgraded(plain) == plain, "whether it was mounted is not known"
    known = {"schema": 2, "crash_recovery": {"mounted": True, "fsck_message": told}}
    assert upgraded(known) is known
    assert upgraded({"schema": 2, "crash_recovery": None})["crash_recovery"] is None


KEYS = ["workload", "client", "arm", "owner", "control", "schema", "crash_recovery", "fsck_message"]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@given(JSON)
def test_upgrade_damaged_json_never_raises(value: Any) -> None:
    upgraded(value)


def test_store_run_of_schema_1_is_found_by_its_present_ids() -> None:
    store = Store.open(GOLDEN, FULL.name)
    run = store.run()
    assert isinstance(run, Run) and {cell.control for cell in run.cells if cell.control} == {
        control for control in Control if control.demanded(1, ClientKind.GUEST)
    }
    found = store.newest("none-ext4-truncate-link20ms")
    assert found is not None and found[1] == FULL / "cells" / "none-ext4-cut-link20ms" / "1"
    assert found[0].cell.filesystem is FilesystemKind.EXT4 and found[0].cell.workload == "truncate"
    assert len({directory for directory, _ in store.attempts()}) == len(list(FULL.glob("cells/*/*/evidence.json")))
