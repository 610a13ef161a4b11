"""The lab over two machines: what is asked before anything is written, noted before it is changed, and put back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from played_machines import Played, lab, machines, nothing_written, stories
from test_inventory_command import OneMachine, Two
from test_taken import answer

from harness.config import inventory
from harness.config.inventory import StorageEntry
from harness.config.lab_spec import LabSpec
from harness.errors import HarnessError, InfrastructureError, ProtectedError, UsageError
from harness.lab.hardware import provider
from harness.lab.hardware.guard import Guard, Machine
from harness.lab.hardware.provider import hardware_lab
from harness.model import MachineModel, Provenance, Run
from harness.remote.scripted import ScriptedRunner
from harness.render.drbd_conf import ResourceSpec
from harness.report.summary import provenance_rows
from harness.report.without_data import without_data

__all__ = ["machines"]


def refusal(machines: Two, kind: type[HarnessError]) -> str:
    with pytest.raises(kind) as caught, lab(machines):
        pytest.fail("there is a lab")
    return str(caught.value)


def test_what_cannot_be_made_here_is_said_before_a_machine_is_asked(
    machines: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impossible() -> tuple[str, bytes]:
        raise InfrastructureError("there are no headers of xxHash")

    monkeypatch.setattr(provider, "program", impossible)
    assert refusal(machines, InfrastructureError) == "there are no headers of xxHash"
    assert stories(machines) == [[], []]


@pytest.mark.parametrize(
    ("state", "may_change", "why"),
    [
        ("off", (), "'ethtool -K eno2 sg on' there switches it on; scatter_gather = false in the cells"),
        ("off [fixed]", ("nic-features",), "it cannot be switched on; scatter_gather = false in the cells"),
        ("off", ("nic-features",), ""),
        ("on", (), ""),
        ("", (), ""),
    ],
)
def test_nic_without_scatter_gather_is_refused_before_anything_is_written(
    machines: Two, state: str, may_change: tuple[str, ...], why: str
) -> None:
    for machine in machines.machines:
        assert isinstance(machine, Played)
        machine.facts += f"sg={state}\n"
    found = inventory.load(machines.path).model_copy(update={"may_change": may_change})
    if not why:
        with hardware_lab(found, LabSpec(device_mib=32), gathers=True):
            return
    with pytest.raises(UsageError) as caught, hardware_lab(found, LabSpec(device_mib=32), gathers=True):
        pytest.fail("there is a lab")
    assert str(caught.value).startswith("scatter-gather is off on eno2 of alpha, and cells of the run ask for it: ")
    assert why in str(caught.value) and 'may_change = ["nic-features"]' in str(caught.value)
    assert not any("note" in step or "lvcreate" in step for story in stories(machines) for step in story)
    with hardware_lab(found, LabSpec(device_mib=32)):
        pass


# --------------------------------------------------------------------------- in which order


def test_hardware_lab_notes_each_change_before_it_and_puts_all_back(machines: Two) -> None:
    with lab(machines) as made:
        names = (made.a.name, made.b.name), (made.a.drbd_name, made.b.drbd_name)
        assert names == (("alpha", "beta"), ("m1", "m2"))
        assert (made.stack.drbd, made.stack.accelerator, made.fresh) == ("8.4.11", "hardware", True)
        assert not made.carries_guests and not made.a.own_link and made.a.guard is not None
        assert made.a.lower == "/dev/theirs/drbd-harness-test"
        spec = made.resource_spec
        assert (spec.name, spec.size_mib, [one.name for one in spec.nodes]) == ("drbd-harness-test", 32, ["m1", "m2"])
        (one, _) = made.provenance().machines
        assert (one.nic, one.storage) == ("virtio_net", "volume-group") and one.disks == ("QEMU HARDDISK",)
        assert one.system == "Debian GNU/Linux 13 (trixie)" and one.processor == "A Processor"
    for story in stories(machines):
        begun = story.index("write /run/udev/rules.d/12-drbd-harness-test.rules")
        order = [
            "take the lease", "note storage the volume theirs/drbd-harness-test", "lvcreate", "note module drbd",
            "note file /etc/drbd.d/drbd-harness-test.res", "note mapping drbd-harness-test-lower",
            "note resource drbd-harness-test", "note file /run/udev/rules.d/12-drbd-harness-test.rules",
        ]  # fmt: skip
        assert [one for one in story[:begun] if one in order] == order
        assert story[begun + 1 :] == ["put back", "lvremove", "put back", "give the lease"]


def test_report_of_a_run_on_real_machines_has_their_models_and_without_data_not_their_inventory() -> None:
    made = MachineModel("Debian 13", "A Processor", 2048, "X710 (i40e)", "volume-group", ("ST1000", "ST2000"))
    run = Run(
        "1", "m", "", (), lab_spec={"inventory": "/home/ada/machines.toml"}, provenance=Provenance(machines=(made,))
    )
    words = "Debian 13; A Processor; 2048 MiB; disks ST1000 and ST2000 (volume-group); replication by X710 (i40e)"
    assert ("Node 1, real hardware", words) in provenance_rows(run)
    shown, *_ = without_data(run, [])
    assert "ada" not in str(shown) and ("Node 1, real hardware", words) in provenance_rows(shown)


def test_hardware_lab_whose_run_fails_puts_all_back(machines: Two) -> None:
    with pytest.raises(KeyboardInterrupt), lab(machines):
        raise KeyboardInterrupt
    assert all(story[-1] == "give the lease" and "lvremove" in story for story in stories(machines))


def test_hardware_lab_takes_a_minor_and_a_port_that_neither_machine_has(machines: Two) -> None:
    one, other = machines.machines
    assert isinstance(one, Played) and isinstance(other, Played)
    one.taken, other.taken = answer(devices=["drbd100"]), answer(devices=["drbd101"])
    with lab(machines) as made:
        assert (made.resource_spec.minor, made.resource_spec.port) == (102, 7901)


# --------------------------------------------------------------------------- refused, and nothing written


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (("python=python3", "python=python3\nmissing=fio"), r"alpha lacks fio \(package fio\); nothing is installed"),
        (("drbd=8.4.11\n", ""), "the kernel 6.12.118.deb13-amd64 of alpha has no module drbd"),
        (("address=10.20.0.1", "address=10.20.0.9"), "10.20.0.1 is not on eno2 of alpha"),
        (("host=m1", "host=m2"), "both machines call themselves m2"),
    ],
)
def test_hardware_lab_on_a_machine_that_lacks_something_is_one_sentence(
    machines: Two, facts: tuple[str, str], words: str
) -> None:
    machines.machines[0].facts = machines.machines[0].facts.replace(*facts)
    assert re.search(words, refusal(machines, UsageError)) and nothing_written(machines)


def test_hardware_lab_after_a_run_that_was_killed_says_what_puts_it_back(machines: Two) -> None:
    (_, other) = machines.machines
    assert isinstance(other, Played)
    left = {"number": 7, "kind": "mapping", "what": "drbd-harness-test-lower", "how": "", "holder": {}, "at": 0}
    other.entries = [left | {"boot": "two"}]
    said = refusal(machines, ProtectedError)
    assert "left 1 changes on beta, the last of them mapping drbd-harness-test-lower" in said
    assert f"clean --inventory {machines.path}' puts them back" in said and nothing_written(machines)


def test_resource_of_the_lab_runs_none_of_the_handlers_that_each_machine_has_for_all(machines: Two) -> None:
    for machine, name in zip(machines.machines, ("fence-peer", "out-of-sync"), strict=True):
        assert isinstance(machine, Played)
        machine.taken = answer(files={"/etc/drbd.d/global_common.conf": f"common {{ handlers {{ {name} /x; }} }}"})
    with lab(machines) as made:
        assert made.resource_spec.silenced == ("fence-peer", "out-of-sync")


def test_hardware_lab_beside_a_resource_of_that_name_is_refused(machines: Two) -> None:
    (one, _) = machines.machines
    assert isinstance(one, Played)
    one.taken = answer(files={"/etc/drbd.d/drbd-harness-test.res": "resource drbd-harness-test { }\n"})
    assert "there is a resource drbd-harness-test already" in refusal(machines, ProtectedError)
    assert nothing_written(machines)


def test_hardware_lab_that_somebody_else_uses_is_refused(machines: Two) -> None:
    machines.machines[1].lease = {"owner": "bob on shelf", "what": "a run on two"}
    assert "beta is in use: bob on shelf" in refusal(machines, ProtectedError) and nothing_written(machines)


@pytest.mark.parametrize(
    ("storage", "match"),
    [
        ({"volume_group": "their-s"}, 'ATTR{dm/name}=="their--s-drbd--harness--test"'),
        ({"kind": "thin", "volume_group": "theirs", "thin_pool": "p"}, 'ATTR{dm/name}=="theirs-drbd--harness--test"'),
        (
            {"kind": "disk", "disk": "/dev/disk/by-id/x", "serial": "s", "size_bytes": 2**30},
            'ATTR{dm/name}=="drbd-harness-test"',
        ),
        ({"kind": "loop", "directory": "/srv"}, 'ATTR{loop/backing_file}=="/srv/drbd-harness-test.img"'),
    ],
)
def test_rules_hide_the_lower_device_of_each_kind_of_storage(storage: dict[str, Any], match: str) -> None:
    guard = Guard(Machine("alpha", ScriptedRunner(lambda argv: (0, "", ""))), StorageEntry(**storage), "test", 2**26)
    lines = provider.rules_of(guard, ResourceSpec("drbd-harness-test", minor=107, mapping="m-lower")).splitlines()
    hidden = [line.removesuffix(', GOTO="drbd_harness"') for line in lines if line.endswith(', GOTO="drbd_harness"')]
    assert hidden == ['KERNEL=="drbd107"', 'ATTR{dm/name}=="m-lower"', match]


def test_machine_that_somebody_else_has_by_the_end_is_left_to_him(
    machines: Two, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = OneMachine._answer

    def answer_of(machine: OneMachine, argv: tuple[str, ...]) -> tuple[int, str, str]:
        if machine.lease and argv[0] == "python3" and json.loads(argv[-1]).get("act") == "renew":
            return 4, json.dumps(machine.lease), ""
        return before(machine, argv)

    monkeypatch.setattr(OneMachine, "_answer", answer_of)
    with caplog.at_level("INFO", "harness.progress"), lab(machines):
        machines.machines[1].lease = {"owner": "bob on shelf", "what": "a run on test", "id": "x"}
    (alphas, betas) = stories(machines)
    assert "put back" in alphas and "put back" not in betas
    assert any(one.startswith("beta: beta is in use: bob on shelf holds its lease") for one in caplog.messages)


def test_hardware_lab_has_no_guests_and_stops_nothing(machines: Two) -> None:
    with lab(machines) as made:
        with pytest.raises(HarnessError, match="beta is a machine that nobody can stop"):
            made.stop(made.b)
        with pytest.raises(HarnessError, match="no cell of the run is in a guest"):
            made.guest_image  # noqa: B018 - which is refused
        assert not made.kill_libvirt() and not made.carries_guests
