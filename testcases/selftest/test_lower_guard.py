"""Writing past DRBD on somebody's machine: only to what is the harness's own just then, and used by its DRBD alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from recorded_disks import RECORDED, Heard
from recorded_nodes import RecordedRunner
from recorded_resource import creatable, tools

from harness.drbd.size import resize
from harness.errors import HarnessError, ProtectedError, RefusedError
from harness.lab.hardware.guard import DrbdAbove, Step
from harness.model import DelayProfile, PlantedChange
from harness.render.drbd_conf import ResourceSpec

__all__ = ["tools"]

LOWER = "drbd-harness-test-lower"


def _mapped(look: dict[str, Any]) -> dict[str, Any]:
    """The harness's mapping below DRBD, on its mapping of a labelled disk as a machine said it; its entry in /sys."""
    own = next(one for one in look["sysfs"].values() if one["dm_name"] == "drbd-harness-test")
    above = dict(own, name="dm-9", dm_name=LOWER, dm_uuid="DRBD-HARNESS-LOWER-1", slaves=[own["name"]], holders=[])
    own["holders"] = ["dm-9"]
    look["sysfs"]["252:9"] = above
    return above


def _own(look: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in look["sysfs"].values() if one["dm_name"] == "drbd-harness-test")
    return found


def lower(*changes: Callable[[dict[str, Any]], object]) -> Heard:
    recorded = copy.deepcopy(RECORDED["free-before-zero"])
    for change in changes:
        change(recorded["look"])
    guard = Heard(recorded)
    guard.above = DrbdAbove("drbd-harness-test", LOWER, "drbd100")
    return guard


# --------------------------------------------------------------------------- who may be above it


def test_lower_device_below_the_harness_s_own_mapping_may_be_written() -> None:
    guard = lower(_mapped)
    guard.require("a change")
    assert guard.against(Step.METADATA) == ()
    with pytest.raises(HarnessError, match="the test lets nothing be written"):
        guard.create_metadata()
    assert guard.commands[-1] == ("drbdadm", "create-md", "--force", "drbd-harness-test")


def test_lower_device_below_drbd_as_it_is_up_may_be_changed_and_gets_no_metadata() -> None:
    # As Linux 6.12 has it: the mapping's holder is DRBD's device.
    guard = lower(_held_by("drbd100"))
    guard.require("a change")
    assert guard.against(Step.METADATA) == (f"the mapping {LOWER} is held by drbd100",)
    with pytest.raises(ProtectedError, match="the mapping drbd-harness-test-lower is held by drbd0"):
        lower(_held_by("drbd0")).require("a change")


def test_lower_device_that_nothing_is_on_may_be_mapped_and_gets_no_metadata() -> None:
    guard = lower()
    guard.require("a mapping on it")
    assert guard.against(Step.METADATA) == (f"there is no mapping {LOWER} on it",)


def _other_mapping(look: dict[str, Any]) -> None:
    _mapped(look)["slaves"] = ["sdz"]


def _second_holder(look: dict[str, Any]) -> None:
    _mapped(look)
    _own(look)["holders"] = ["dm-9", "dm-8"]
    look["sysfs"]["252:8"] = dict(_own(look), name="dm-8", dm_name="theirs", dm_uuid="LVM-x", holders=[])


def _held_by(name: str) -> Callable[[dict[str, Any]], None]:
    def held(look: dict[str, Any]) -> None:
        _mapped(look)["holders"] = [name]

    return held


def _mounted(look: dict[str, Any]) -> None:
    _mapped(look)
    look["mounts"].append(["252:9", "/srv", "ext4", f"/dev/mapper/{LOWER}"])


def _opened(look: dict[str, Any]) -> None:
    _mapped(look)
    look["opened"].append(["b", "252:9", 41, "qemu-kvm"])


def _label_gone(look: dict[str, Any]) -> None:
    _mapped(look)
    look["disks"][0]["head"] = "data"


def _another_serial(look: dict[str, Any]) -> None:
    _mapped(look)
    disk = look["sysfs"][look["disks"][0]["number"]]
    disk["serial"] = disk["vpd_serial"] = "OTHER1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_other_mapping, "the mapping drbd-harness-test-lower is of something else than dm-0"),
        (_second_holder, "it is held by theirs"),
        (_held_by("dm-7"), "the mapping drbd-harness-test-lower is held by dm-7"),
        (_mounted, "the mapping drbd-harness-test-lower is mounted at /srv"),
        (_opened, "the mapping drbd-harness-test-lower is open in process 41 (qemu-kvm)"),
        (_label_gone, "it is not there, or it is none of the harness's"),
        (_another_serial, "its serial number is OTHER1, not TARGET1 as in the inventory"),
    ],
)
def test_lower_device_that_somebody_uses_is_not_written(change: Callable[[dict[str, Any]], None], why: str) -> None:
    guard = lower(change)
    assert why in guard.against(Step.METADATA)
    with pytest.raises(ProtectedError, match="on foreign, a change is not made"):
        guard.require("a change")
    with pytest.raises(ProtectedError, match="nothing was written"):
        guard.create_metadata()
    assert all(argv[-1].startswith("{") for argv in guard.commands), "it was looked at, and nothing else"


def test_lower_device_of_a_resource_that_nobody_named_is_not_written() -> None:
    guard = lower(_mapped)
    guard.above = None
    assert guard.against(Step.METADATA) == ("it is not there, or it is none of the harness's",)


# --------------------------------------------------------------------------- nothing is written without asking


@dataclass
class Asked:
    """A guard that keeps what it is asked for, and by when."""

    runner: RecordedRunner
    allows: bool = True
    questions: list[str] = field(default_factory=list)

    def require(self, what: str) -> None:
        self.questions.append(what)
        if not self.allows:
            raise ProtectedError("it is somebody's")

    def create_metadata(self) -> None:
        self.require("metadata")


WRITES = ("create-md", "dmsetup create", "dmsetup load", "dd ")
CHANGE = PlantedChange(0, 8, "nodea")


def guarded(*, allows: bool) -> tuple[Any, tuple[Asked, Asked], RecordedRunner]:
    resource, on_a, on_b = creatable("8.4", ResourceSpec(size_mib=128))
    guards = Asked(on_a, allows), Asked(on_b, allows)
    resource.a.guard, resource.b.guard = guards
    resource.a.own_link = resource.b.own_link = False
    return resource, guards, on_a


def test_resource_on_somebody_s_machine_asks_the_guard_before_each_write() -> None:
    resource, (guard, other), on_a = guarded(allows=True)
    resource.create(skip_initial_sync=True)
    assert guard.questions == other.questions == ["a mapping on it", "metadata"]
    assert not any("create-md" in command for command in on_a.drbd()), "the guard makes them"
    guard.questions.clear()
    resource.plant_below(resource.a, [CHANGE])
    resource.apply_delays(DelayProfile(disk_delay_ms=5))
    resource.break_disk(resource.a)
    resize(resource, 320, lambda blocks: True)
    assert guard.questions == [
        "changes below DRBD", "another table of the mapping on it", "another table of the mapping on it",
        "another size of the device on it", "a mapping on it", "metadata",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "act",
    [
        lambda resource: resource.create(skip_initial_sync=True),
        lambda resource: resource.plant_below(resource.a, [CHANGE]),
        lambda resource: resource.apply_delays(DelayProfile(disk_delay_ms=5)),
        lambda resource: resource.break_disk(resource.a),
        lambda resource: resize(resource, 320, lambda blocks: True),
        lambda resource: resource.rejoin(resource.a),
    ],
)
def test_resource_on_somebody_s_machine_writes_nothing_that_its_guard_refuses(
    act: Callable[[Any], None],
) -> None:
    resource, _, on_a = guarded(allows=False)
    resource.version = "8.4.11"
    with pytest.raises(ProtectedError, match="it is somebody's"):
        act(resource)
    assert not [argv for argv in on_a.ran if any(word in " ".join(argv) for word in WRITES)]


def test_delay_of_a_link_that_is_somebody_s_is_refused_and_its_qdisc_is_left_alone() -> None:
    resource, _, on_a = guarded(allows=True)
    with pytest.raises(RefusedError, match="is not the lab's, and is not delayed"):
        resource.apply_delays(DelayProfile(link_delay_ms=5))
    resource.apply_delays(DelayProfile())
    (argv,) = on_a.ran
    assert argv[4] == "", "without the name of a link the script leaves every qdisc as it is"


def test_mapping_on_somebody_s_machine_has_the_identity_that_it_is_known_by() -> None:
    resource, on_a, _ = creatable("8.4", ResourceSpec(mapping_uuid="DRBD-HARNESS-LOWER-1"))
    resource.create(skip_initial_sync=True)
    (prepared,) = [argv for argv in on_a.ran if "dmsetup create" in " ".join(argv)]
    assert prepared[9] == "DRBD-HARNESS-LOWER-1" and '${uuid:+--uuid "$uuid"}' in prepared[2]
