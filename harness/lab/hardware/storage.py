"""Making and taking back the lower devices of both machines, step by step through the guard; and the plan of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.config.inventory import DISK, LOOP, VOLUME_GROUP, ZFS
from harness.errors import ProtectedError
from harness.judgement.volume_guard import TAG, lab_tag
from harness.lab.hardware.guard import (
    ALLOW_FILE,
    MAKING,
    REMOVING,
    STEP_SECONDS,
    Guard,
    Step,
    shared,
    zero_seconds,
)
from harness.model.disks import MIB, MachineDisks
from harness.model.zfs import LAB_PROPERTY, OWNER_PROPERTY
from harness.util.logs import progress


@dataclass(frozen=True)
class Planned:
    """A step that is to be done, in words; ``refusals`` against it as the machine is now.

    Those of a later step may come true by the earlier ones, so only the first step's are asked for.
    """

    step: Step
    words: str
    refusals: tuple[str, ...] = ()


def plan(guard: Guard, disks: MachineDisks, *, making: bool = True) -> tuple[Planned, ...]:
    """What would be done to a machine as it is now; nothing is changed."""
    steps = _due(guard, disks, making=making)
    first = steps[0] if steps else None
    return tuple(
        Planned(step, _words(guard, step), guard.refusals(step, disks) if step is first else ()) for step in steps
    )


def against(guard: Guard, disks: MachineDisks, *, making: bool = True) -> tuple[str, ...]:
    """Every reason not to make a machine's lower device as planned, or not to use the one that is there; without
    ``making``, not to take it back.
    """
    steps = plan(guard, disks, making=making)
    return (*(steps[0].refusals if steps else ()), *(guard.lack_of_room(disks) if making else ()))


def make(guards: Sequence[Guard], about_to_make: Callable[[Guard], None] = lambda guard: None) -> tuple[str, ...]:
    """Make what is missing of the lower devices of both machines and fill them with zeros; their paths.

    ``about_to_make`` is called for each whose lower device is not there, before the first step on any.
    :class:`~harness.errors.ProtectedError` before that where anything speaks against one of them; what was made before
    a later step failed stays, and another call goes on there.
    """
    looks = [guard.look() for guard in guards]
    for guard, disks in zip(guards, looks, strict=True):
        if reasons := against(guard, disks):
            _refuse(guard, reasons)
    if why := shared((guards[0], looks[0]), (guards[1], looks[1])):
        raise ProtectedError(f"{why}; nothing was written")
    for guard, disks in zip(guards, looks, strict=True):
        if guard.lower(disks) is None:
            about_to_make(guard)
    paths = []
    for guard, disks in zip(guards, looks, strict=True):
        for step in _due(guard, disks, making=True):
            progress(f"{guard.machine.name}: {_words(guard, step)}")
            guard.do(step)
        path = guard.lower(guard.look())
        if path is None:
            raise ProtectedError(f"on {guard.machine.name}, what was made of {guard.subject} is not there any more")
        paths.append(path)
    return tuple(paths)


def remove(guard: Guard) -> int:
    """Take back what the harness made on one machine; how many steps that took, 0 where nothing was there.

    :class:`~harness.errors.ProtectedError` where it is somebody else's by now, and where the machine does not say
    whether it is there.
    """
    steps = _due(guard, guard.look(), making=False)
    for step in steps:
        progress(f"{guard.machine.name}: {_words(guard, step)}")
        guard.do(step)
    return len(steps)


def open_again(guard: Guard) -> str:
    """Make anew what a boot has taken away of a lower device that was made: its mapping, its loop device; its path.

    Nothing is written to it.  :class:`~harness.errors.ProtectedError` where something speaks against it, also where it
    is not there any more.
    """
    step = {DISK: Step.MAP, LOOP: Step.ATTACH}.get(guard.storage.kind)
    if step is not None and not guard.is_done(step, guard.look()):
        guard.do(step)
    disks = guard.look()
    path = guard.lower(disks)
    if path is None or guard.lower_device(disks) is None:
        raise ProtectedError(
            f"on {guard.machine.name}, {guard.subject} is not there since it has booted, or is not active; nothing was "
            "written"
        )
    return path


def _due(guard: Guard, disks: MachineDisks, *, making: bool) -> tuple[Step, ...]:
    steps = (MAKING if making else REMOVING)[guard.storage.kind]
    return tuple(step for step in steps if not guard.is_done(step, disks))


def _refuse(guard: Guard, refusals: Sequence[str]) -> None:
    more = f" (and {len(refusals) - 1} more reasons)" if len(refusals) > 1 else ""
    raise ProtectedError(
        f"on {guard.machine.name}, {guard.subject} stays as it is: {refusals[0]}{more}; nothing was written"
    )


def _words(guard: Guard, step: Step) -> str:
    storage, mib = guard.storage, guard.size // MIB
    pool = f" in its thin pool {storage.thin_pool}" if storage.thin_pool else ""
    tags = f"the tags {TAG} and {lab_tag(guard.lab)}"
    if storage.kind == ZFS:
        tags = f"the properties {LAB_PROPERTY} and {OWNER_PROPERTY}"
    return {
        Step.MAKE_VOLUME: f"makes {guard.subject} of {mib} MiB{pool} of free room, with {tags}",
        Step.REMOVE_VOLUME: f"removes {guard.subject}, which has {tags}",
        Step.ZERO: "fills it with zeros"
        if storage.kind == VOLUME_GROUP
        else f"fills the mapping {guard.name} with zeros",
        Step.LABEL: f"writes the harness's label to the first MiB of {guard.subject}",
        Step.MAP: f"makes the mapping {guard.name} of all of it but its first and its last MiB",
        Step.UNMAP: f"removes the mapping {guard.name}",
        Step.UNLABEL: f"fills the first MiB of {guard.subject} with zeros; what a test wrote behind it stays",
        Step.MAKE_FILE: f"makes the file {guard.subject} of {mib + 1} MiB",
        Step.ATTACH: f"gives {guard.subject} to a loop device",
        Step.DETACH: f"takes {guard.subject} from its loop device",
        Step.REMOVE_FILE: f"removes the file {guard.subject}",
    }[step]


def lease_seconds(guards: Sequence[Guard]) -> int:
    """The longest that making or taking back the storage of the machines may take, one after the other."""
    return int(sum(30 * STEP_SECONDS + zero_seconds(guard) for guard in guards))


def caution(guard: Guard) -> str | None:
    """What the user has to know of this kind of storage before it is used."""
    if guard.storage.kind == LOOP:
        return "a file is for a first try: what is found on it says nothing about the disks below"
    if guard.storage.kind == DISK:
        return f"a disk is written to only if {ALLOW_FILE} on the machine, which only root may write, has its name too"
    return None
