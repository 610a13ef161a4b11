"""A run on the machines of an inventory: what is refused before they are asked, and what its lab is asked for."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugin_world import Runs, World, matrix, run, suite, world

from harness.config.controls import CONTROL_CELLS
from harness.config.hardware_rules import unplayable
from harness.config.inventory import Inventory
from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.model import (
    CacheMode,
    Cell,
    ClientKind,
    Crash,
    DelayProfile,
    Fault,
    FilesystemKind,
    GuestOptions,
    Layout,
    ReplicationProfile,
    Sabotage,
    SwapOn,
)
from harness.pytest_plugin import two_machines

pytest_plugins = ("pytester",)
__all__ = ["matrix", "run", "suite", "world"]

HOST = Cell("inflight-modify", client=ClientKind.HOST)
GUEST = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
INVENTORY = """
schema = 1
name = "two"
size_mib = {size}
[hosts.alpha]
ansible_host = "192.0.2.11"
replication_address = "10.20.0.1"
replication_nic = "eno2"
storage = {{ volume_group = "vg0" }}
[hosts.beta]
ansible_host = "192.0.2.12"
replication_address = "10.20.0.2"
replication_nic = "eno2"
storage = {{ volume_group = "vg0" }}
"""
NODES = """
schema = 1
[[cells]]
client = "host"
workload = "inflight-modify"
[[cells]]
client = "host"
workload = "fio-verify"
"""

CUT = """
schema = 1
[[cells]]
workload = "buffered"
filesystem = "ext4"
cache = "none"
crash = "node"
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "machines.toml"
    path.write_text(INVENTORY.format(size=256))
    return path


@pytest.fixture
def nodes(matrix: Path) -> Path:
    path = matrix.with_name("nodes.toml")
    path.write_text(NODES)
    return path


# --------------------------------------------------------------------------- which cells


@pytest.mark.parametrize("cell", [HOST, *(one for one in CONTROL_CELLS if one.client is ClientKind.HOST)])
def test_unplayable_of_what_a_node_plays_by_itself_is_nothing(cell: Cell) -> None:
    assert unplayable(cell) is None


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (replace(HOST, crash=Crash.NODE), "'node' happens to a guest"),
        (replace(HOST, fault=Fault.IO_ERROR), "'io-error' happens to a guest"),
        (replace(GUEST, guest_options=GuestOptions(swap_on=SwapOn.GUEST_DISK)), "a disk of the guest's own"),
        (replace(GUEST, layout=Layout.LVM), "volume groups or mappings"),
        (replace(GUEST, fault=Fault.LIBVIRTD_RESTART), "their libvirt is not started anew"),
        (replace(GUEST, fault=Fault.LINK_CUT), "link is not cut, for it may be somebody's"),
        (replace(HOST, sabotage=Sabotage.DELAY_LEFT_A), "sabotages"),
        (replace(HOST, delays=DelayProfile(link_delay_ms=20)), "link is not delayed"),
        (replace(HOST, replication=ReplicationProfile(disable_sendpage=True)), "every resource on them"),
        (replace(HOST, replication=ReplicationProfile(scatter_gather=False)), "every resource on them"),
        (replace(HOST, filesystem=FilesystemKind.SWAP), "swap of theirs"),
        (replace(HOST, layout=Layout.LVM), "volume groups or mappings"),
        (replace(HOST, workload="mmap"), "in the harness's own images only"),
        (replace(HOST, workload="guest-script"), "not for a node"),
        (replace(HOST, workload="flush-probe", cache=CacheMode.NONE), "not for a node"),
    ],
)
def test_unplayable_says_what_the_machines_are_not_for(cell: Cell, words: str) -> None:
    assert words in (unplayable(cell) or "")


@pytest.mark.parametrize("cell", [replace(HOST, client=ClientKind.GUEST, crash=Crash.NODE), *CONTROL_CELLS])
def test_unplayable_of_what_a_guest_plays_is_nothing(cell: Cell) -> None:
    assert unplayable(cell) is None


@pytest.mark.parametrize("happens", [{"crash": Crash.NODE}, {"fault": Fault.TARGET_KILL}])
def test_unplayable_without_power_names_the_machines_that_have_none(happens: dict[str, Any]) -> None:
    cell = replace(GUEST, **happens)
    assert unplayable(cell) is None
    assert "the inventory has no 'power' for beta" in (unplayable(cell, without_power=["beta"]) or "")


CELLS = st.builds(
    Cell,
    st.sampled_from(["inflight-modify", "fio-verify", "buffered", "mmap"]),
    client=st.sampled_from(ClientKind),
    filesystem=st.sampled_from(FilesystemKind),
    layout=st.sampled_from(Layout),
    delays=st.builds(DelayProfile, st.sampled_from([0, 20]), st.sampled_from([0, 5])),
    replication=st.builds(ReplicationProfile, scatter_gather=st.booleans(), disable_sendpage=st.booleans()),
    crash=st.sampled_from([None, *Crash]),
    fault=st.sampled_from([None, *Fault]),
)


@given(CELLS)
def test_playable_cell_changes_nothing_that_resources_of_the_machines_owner_feel(cell: Cell) -> None:
    if unplayable(cell) is None:
        assert not cell.delays.link_delay_ms and cell.layout is Layout.RAW
        assert cell.replication.scatter_gather and not cell.replication.disable_sendpage
        assert cell.fault not in (Fault.LINK_CUT, Fault.LIBVIRTD_RESTART)
        assert cell.client is ClientKind.GUEST or (cell.crash is None and cell.fault in (None, Fault.STANDALONE))


# --------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drbd-suite", "bookworm"), "--drbd-suite is for virtual machines.*what is installed is what is tested"),
        (("--drbd-stack", "trixie-backports"), "--drbd-stack is for virtual machines"),
        (("--drbd-modules", "."), "--drbd-modules is for virtual machines"),
        (("--drbd-memory-mib", "2048"), "--drbd-memory-mib is for virtual machines"),
        (("--drbd-device-mib", "512"), "needs a device of 512 MiB, and .*machines.toml has size_mib = 256"),
    ],
)
def test_inventory_beside_what_it_does_not_go_with_is_one_sentence(
    run: Runs, nodes: Path, world: World, inventory: Path, arguments: tuple[str, ...], words: str
) -> None:
    ran = run("--drbd-matrix", str(nodes), "--drbd-inventory", str(inventory), *arguments)
    assert ran.status == 4 and re.search(words, ran.out + ran.err)
    assert "Traceback" not in ran.out + ran.err and world.labs == []


def test_inventory_with_a_cell_that_cuts_power_is_refused_before_the_machines_are_asked(
    run: Runs, matrix: Path, world: World, inventory: Path
) -> None:
    matrix.write_text(CUT)
    ran = run("--drbd-matrix", str(matrix), "--drbd-inventory", str(inventory))
    said = ran.out + ran.err
    assert ran.status == 4 and "has no 'power' for alpha and beta" in said and "leave it out with -k" in said
    assert "Traceback" not in said and world.labs == [] and not (ran.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drbd-inventory", "nowhere.toml"), "the inventory nowhere.toml cannot be read"),
        (("--drbd-inventory-group", "lab"), "--drbd-inventory-group is a group in an inventory"),
    ],
)
def test_inventory_that_is_none_is_one_sentence(
    run: Runs, nodes: Path, world: World, arguments: tuple[str, ...], words: str
) -> None:
    ran = run("--drbd-matrix", str(nodes), *arguments)
    assert ran.status == 4 and words in (ran.out + ran.err).replace(f"{Path.cwd()}/", "")
    assert world.labs == []


def test_inventory_is_the_lab_of_the_run_and_is_kept_with_it(
    run: Runs, nodes: Path, world: World, inventory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Inventory, LabSpec]] = []

    @contextlib.contextmanager
    def lab(of: Inventory, spec: LabSpec, *, guests: bool, cuts: bool, gathers: bool) -> Iterator[Any]:
        assert not guests and not cuts, "no cell is in one"
        assert gathers, "nothing in the cells is without it"
        asked.append((of, spec))
        with world.lab(spec, StackSpec(), Path(spec.name)) as made:
            yield made

    monkeypatch.setattr(two_machines, "hardware_lab", lab)
    ran = run("--drbd-matrix", str(nodes), "--drbd-inventory", str(inventory))
    assert ran.status in (0, 1) and [of.name for of, _ in asked] == ["two"]
    assert ran.store.run().lab_spec["inventory"] == str(inventory)
    again = run("--drbd-resume", "latest", "--drbd-inventory", str(inventory))
    assert again.status == 4 and "leave --drbd-inventory out" in again.out + again.err
