"""May the replica's lower device be written now, past DRBD?  Every reason against it, one sentence each.

That it is the harness's own was seen before (:mod:`harness.judgement.disk_guard`,
:mod:`harness.judgement.volume_guard`); here it is about who uses it.  Above it may be the harness's
own mapping, above that the device of its resource (newer kernels say what DRBD holds, older ones do not), and nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.model.disks import BlockDevice, MachineDisks


def lower_refusals(
    machine: MachineDisks, device: BlockDevice, mapping: str, drbd: str | None, *, mapped: bool = False
) -> tuple[str, ...]:
    """Every reason not to write to ``device``, above which ``mapping`` may lie, and above that the device ``drbd``; the
    mapping has to, where it is ``mapped``.
    """
    return tuple(_reasons(machine, device, mapping, drbd, mapped))


def _reasons(machine: MachineDisks, device: BlockDevice, mapping: str, drbd: str | None, mapped: bool) -> Iterator[str]:
    above = [one for one in machine.devices.values() if one.dm_name == mapping]
    own = above[0] if len(above) == 1 and above[0].slaves == (device.name,) else None
    if above and own is None:
        yield f"the mapping {mapping} is of something else than {device.name}"
    elif mapped and own is None:
        yield f"there is no mapping {mapping} on it"
    for name in device.holders:
        if own is None or name != own.name:
            holder = machine.named(name)
            yield f"it is held by {(holder.dm_name if holder else '') or name}"
    for one in (device, own) if own is not None else (device,):
        what = "it" if one is device else f"the mapping {mapping}"
        if one is not device:
            yield from (f"{what} is held by {name}" for name in one.holders if name != drbd)
        yield from users(machine, one, what)


def users(machine: MachineDisks, device: BlockDevice, what: str = "it") -> Iterator[str]:
    """Who uses ``device``, but for devices above it; each as a sentence about ``what``."""
    yield from (f"{what} has the partition {name}" for name in device.partitions)
    paths = {f"/dev/{device.name}", *([f"/dev/mapper/{device.dm_name}"] if device.dm_name else [])}
    for mount in machine.mounts:
        if mount.number == device.number or mount.source in paths:
            yield f"{what} is mounted at {mount.where}"
    yield from (f"{what} is in use as swap" for swap in machine.swaps if swap in paths)
    yield from (f"{what} is the file of {name}" for name, number in machine.loops.items() if number == device.number)
    yield from (
        f"{what} is handed out by {path}" for path, number in machine.exported.items() if number == device.number
    )
    for use in machine.opened:
        if use.kind == "b" and use.number == device.number:
            yield f"{what} is open in process {use.process} ({use.program})"
