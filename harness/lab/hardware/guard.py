"""The one place that writes to a machine's storage: every step passes :meth:`Guard.do`, and nothing else of this
package names a block device in a command.

Before each step the machine is looked at anew and judged (:mod:`harness.judgement.disk_guard`,
:mod:`harness.judgement.volume_guard`); a single reason against it is a :class:`~harness.errors.ProtectedError`, and
nothing was written.  What is written to a raw disk is written under a descriptor that nobody else can claim the disk
beside, by a program that checks once more what was seen (``programs/act.py``).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.config.inventory import DISK, LOOP, THIN, VOLUME_GROUP, ZFS, StorageEntry
from harness.errors import CommandError, InfrastructureError, ProtectedError
from harness.judgement import zfs_guard
from harness.judgement.disk_guard import OwnMapping, Stage, disk_refusals, label_of, mapping_refusals, shared_disk
from harness.judgement.lower_guard import lower_refusals
from harness.judgement.volume_guard import (
    TAG,
    directory_refusals,
    growth_refusals,
    lab_tag,
    making_refusals,
    owner_tag,
    place_refusals,
    removing_refusals,
    room_refusals,
    shared_group,
    volume_of,
)
from harness.lab.hardware.own import UUID, OwnStorage
from harness.model.disks import MIB, MachineDisks
from harness.model.zfs import LAB_PROPERTY, OWNER_PROPERTY, PROPERTIES
from harness.parse.machine_disks import machine_disks
from harness.remote.base import Completed, Runner
from harness.render.disk_label import DiskLabel, disk_label

#: The file on a machine in which root allows a disk: its name below /dev/disk/by-id in a line of its own.
ALLOW_FILE = "/etc/drbd-harness/disks"
LOOK_SECONDS = 180.0
STEP_SECONDS = 120.0
_DESTROY = """
test "$(zfs get -H -p -o value guid "$1")" = "$2" || { echo "another volume has its name by now" >&2; exit 1; }
exec zfs destroy "$1"
"""
_PARTS: Mapping[str, tuple[str, ...]] = {"look": ("look_zfs",)}
_PROGRAMS = Path(__file__).parent / "programs"
# Slower than any disk that somebody would test with.
_ZEROED_MIB_PER_SECOND = 5


class Step(StrEnum):
    """What can be done to a machine's storage; there is nothing else."""

    MAKE_VOLUME = "make-volume"
    REMOVE_VOLUME = "remove-volume"
    LABEL = "label"
    UNLABEL = "unlabel"
    MAP = "map"
    UNMAP = "unmap"
    MAKE_FILE = "make-file"
    REMOVE_FILE = "remove-file"
    ATTACH = "attach"
    DETACH = "detach"
    ZERO = "zero"
    METADATA = "metadata"


#: What makes a replica's lower device of each kind of storage, and what takes it back; in their order.
MAKING: Mapping[str, tuple[Step, ...]] = {
    VOLUME_GROUP: (Step.MAKE_VOLUME, Step.ZERO),
    THIN: (Step.MAKE_VOLUME,),
    ZFS: (Step.MAKE_VOLUME,),
    DISK: (Step.LABEL, Step.MAP, Step.ZERO),
    LOOP: (Step.MAKE_FILE, Step.ATTACH),
}
REMOVING: Mapping[str, tuple[Step, ...]] = {
    VOLUME_GROUP: (Step.REMOVE_VOLUME,),
    THIN: (Step.REMOVE_VOLUME,),
    ZFS: (Step.REMOVE_VOLUME,),
    DISK: (Step.UNMAP, Step.UNLABEL),
    LOOP: (Step.DETACH, Step.REMOVE_FILE),
}


_OF_VOLUMES = (Step.MAKE_VOLUME, Step.REMOVE_VOLUME)
# All else is done by programs/act.py, which ends with 1 where it has written nothing.
_BY_COMMAND = (*_OF_VOLUMES, Step.UNMAP, Step.METADATA)


@dataclass(frozen=True)
class DrbdAbove:
    """What of DRBD's lies above the lower device: the harness's resource, the mapping below it, and its device, as the
    kernel calls that (``drbd100``).
    """

    resource: str
    mapping: str
    device: str


@dataclass(frozen=True)
class Machine:
    """A machine of an inventory: its name there, root's commands on it, and its Python."""

    name: str
    runner: Runner
    python: str = "python3"


class Guard(OwnStorage):
    """The storage of one machine; ``size`` of the replica's lower device in bytes (of a whole disk: what it has)."""

    def __init__(self, machine: Machine, storage: StorageEntry, lab: str, size: int, owner: str | None = None) -> None:
        super().__init__(storage, lab, size, owner)
        self.machine = machine
        #: The one resource whose metadata may be made; None before it is known.
        self.above: DrbdAbove | None = None

    # ------------------------------------------------------------------------------------------ looking

    def look(self) -> MachineDisks:
        """The machine's disks at this moment; nothing is written.

        :class:`ProtectedError` where they cannot be read.
        """
        storage = self.storage
        asked: dict[str, object] = {
            "disks": [storage.disk] if storage.disk else [],
            "directories": [storage.directory] if storage.directory else [],
            "allow": ALLOW_FILE if storage.disk else "",
        }
        if storage.dataset:
            asked |= {"dataset": storage.dataset, "volume": self.volume, "properties": ",".join(PROPERTIES)}
        try:
            done = self._program("look", asked, LOOK_SECONDS)
        except CommandError as error:
            raise ProtectedError(f"the disks of {self.machine.name} cannot be looked at: {error}") from None
        if done.status:
            raise ProtectedError(f"the disks of {self.machine.name} cannot be looked at: {done.message}")
        try:
            return machine_disks(done.stdout)
        except ValueError as error:
            raise ProtectedError(f"the disks of {self.machine.name} cannot be judged: {error}") from None

    def is_done(self, step: Step, disks: MachineDisks) -> bool:
        """Whether what ``step`` makes is there, or what it takes back is gone; zeros are never taken as given."""
        there = {
            Step.MAKE_VOLUME: lambda: self.own_volume(disks),
            Step.LABEL: lambda: self.label(disks) is not None,
            Step.MAP: lambda: self.mapping_device(disks) is not None,
            Step.MAKE_FILE: lambda: self.file(disks) is not None,
            Step.ATTACH: lambda: self.loop(disks) is not None,
        }
        if step is Step.UNMAP:
            # One above a disk that is gone, or has lost its label, is there: it is refused and not passed over.
            return not any(self.is_named_mapping(one) for one in disks.devices.values())
        if step is Step.DETACH:
            return self.loop(disks) is None
        if step in (Step.REMOVE_VOLUME, Step.UNLABEL, Step.REMOVE_FILE):
            return self.is_gone(disks)
        return step in there and there[step]()

    def lower(self, disks: MachineDisks) -> str | None:
        """The path of the replica's lower device; None where it is not there (yet)."""
        if self.storage.kind == DISK:
            return f"/dev/mapper/{self.name}" if self.mapping_device(disks) else None
        if self.storage.kind == LOOP:
            loop = self.loop(disks)
            return f"/dev/{loop.name}" if loop else None
        below = "/dev/zvol" if self.storage.kind == ZFS else "/dev"
        return f"{below}/{self.volume}" if self.own_volume(disks) else None

    # ------------------------------------------------------------------------------------------ judging

    def refusals(self, step: Step, disks: MachineDisks) -> tuple[str, ...]:
        """Every reason not to do ``step`` now, as ends of a sentence about :attr:`subject`."""
        # Anybody on the machine may have named what is in them, such as a process.
        return tuple("".join(one if one.isprintable() else "?" for one in why) for why in self._refusals(step, disks))

    def _refusals(self, step: Step, disks: MachineDisks) -> tuple[str, ...]:
        storage = self.storage
        if step is Step.METADATA:
            return self._lower_refusals(disks, mapped=True)
        if storage.kind == DISK:
            return self._disk_refusals(step, disks)
        if storage.kind == LOOP:
            return self._file_refusals(step, disks)
        if storage.kind == ZFS:
            return self._zfs_refusals(step, disks)
        group = str(storage.volume_group)
        if step is Step.MAKE_VOLUME:
            return making_refusals(disks, group, self.name, self.size, self.lab, self.owner, storage.thin_pool)
        # As may be removed, so may be filled with zeros.
        found = removing_refusals(disks, group, self.name, self.lab, self.owner)
        if step is Step.ZERO and not found and self.lower_device(disks) is None:
            return (f"the volume {group}/{self.name} is not active, or its number is another one's",)
        return found

    def _zfs_refusals(self, step: Step, disks: MachineDisks) -> tuple[str, ...]:
        if step is Step.MAKE_VOLUME:
            dataset = str(self.storage.dataset)
            return zfs_guard.making_refusals(disks, dataset, self.volume, self.size, self.lab, self.owner)
        return zfs_guard.removing_refusals(disks, self.volume, self.lab, self.owner)

    def lack_of_room(self, disks: MachineDisks) -> tuple[str, ...]:
        """Why what was made earlier may not be written to: it would take room that its owner has no more."""
        storage = self.storage
        if storage.kind == THIN and self.own_volume(disks):
            return growth_refusals(disks, str(storage.volume_group), self.name, str(storage.thin_pool))
        if storage.kind == LOOP and self.file(disks) is not None:
            return tuple(f"{storage.directory}: {one}" for one in room_refusals(disks.directories[0], self.size))
        return ()

    def _lower_refusals(self, disks: MachineDisks, *, mapped: bool = False) -> tuple[str, ...]:
        """Every reason not to write to the lower device past DRBD; ``mapped``: DRBD's mapping has to be on it, and DRBD
        not be up.
        """
        device = self.lower_device(disks)
        if device is None or self.above is None:
            return ("it is not there, or it is none of the harness's",)
        # Of a disk all that speaks against taking the mapping away, but for what lies above it.
        own = self._disk_refusals(Step.UNMAP, disks, below=True) if self.storage.kind == DISK else ()
        drbd = None if mapped else self.above.device
        return (*own, *lower_refusals(disks, device, self.above.mapping, drbd, mapped=mapped))

    def _disk_refusals(self, step: Step, disks: MachineDisks, *, below: bool = False) -> tuple[str, ...]:
        stages = {
            Step.LABEL: Stage.UNLABELLED, Step.MAP: Stage.LABELLED, Step.UNLABEL: Stage.LABELLED,
            Step.UNMAP: Stage.MAPPED, Step.ZERO: Stage.MAPPED,
        }  # fmt: skip
        look, own, label = self.disk(disks), self.mapping_device(disks), self.label(disks)
        mapping = OwnMapping(self.name, f"{UUID}{label.id}" if label else "")
        found = disk_refusals(disks, look, self.wanted, stages[step], mapping, self.lab, self.owner)
        if step is Step.MAP and any(one.dm_name == self.name for one in disks.devices.values()):
            found += (f"there is a mapping {self.name} already, of something else",)
        if step is Step.UNMAP and own is None and not self.is_done(step, disks):
            what = f"its mapping {self.name} is left of a disk that is gone or has lost its label"
            return (f"{what}; 'dmsetup remove {self.name}' on the machine takes it away", *found)
        if stages[step] is Stage.MAPPED and own is not None and not below:
            found += tuple(f"its mapping {self.name}: {one}" for one in mapping_refusals(disks, own))
        return found

    def _file_refusals(self, step: Step, disks: MachineDisks) -> tuple[str, ...]:
        (directory,) = disks.directories
        if step is Step.MAKE_FILE:
            return tuple(f"{directory.path}: {one}" for one in directory_refusals(directory, self.file_name, self.size))
        if unsafe := place_refusals(directory):
            return tuple(f"{directory.path}: {one}" for one in unsafe)
        if self.file(disks) is None:
            return ("it is not there, or it is no file of the harness's",)
        loop = self.loop(disks)
        if loop is None:
            return ("no loop device has it",) if step is Step.DETACH else ()
        if step is not Step.DETACH:
            return (f"{loop.name} has it already",)
        users = [*loop.holders, *(mount.where for mount in disks.mounts if mount.number == loop.number)]
        users += [f"process {use.process} ({use.program})" for use in disks.opened if use.number == loop.number]
        return tuple(f"{loop.name}, which has it, is used by {one}" for one in users)

    # ------------------------------------------------------------------------------------------ doing

    def do(self, step: Step) -> None:
        """Look, judge and do one step, and see that it is done; blocks for at most some minutes.

        :class:`ProtectedError` with the first reason against it: then nothing was written.
        :class:`InfrastructureError` where it failed on the way.
        """
        disks = self.look()
        if reasons := self.refusals(step, disks):
            more = f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else ""
            raise ProtectedError(
                f"on {self.machine.name}, {self.subject} stays as it is: {reasons[0]}{more}; nothing was written"
            )
        done = self._run(step, disks)
        if done.status == 1 and step not in _BY_COMMAND:
            raise ProtectedError(
                f"on {self.machine.name}, {self.subject} stays as it is: {done.message}; nothing was written"
            )
        if done.status:
            raise InfrastructureError(f"on {self.machine.name}, '{step}' of {self.subject} failed: {done.message}")
        if step not in (Step.ZERO, Step.METADATA) and not self.is_done(step, self.look()):
            raise InfrastructureError(
                f"on {self.machine.name}, '{step}' of {self.subject} ended well and has no effect: {done.message}"
            )

    def require(self, what: str) -> None:
        """Before ``what`` is done to the lower device, past DRBD: :class:`ProtectedError` with the first reason
        against it at this moment.
        """
        if reasons := self._lower_refusals(self.look()):
            raise ProtectedError(f"on {self.machine.name}, {what} is not made: {self.subject}: {reasons[0]}")

    def create_metadata(self) -> None:
        """Make DRBD's metadata of the harness's resource; blocks for at most some minutes."""
        self.do(Step.METADATA)

    def _run(self, step: Step, disks: MachineDisks) -> Completed:
        """The step's command; all that names a device stands here, in :meth:`lower` and in ``programs/act.py``."""
        run, volume = self.machine.runner.run, self.volume
        if self.storage.kind == ZFS and step in _OF_VOLUMES:
            return run(_zfs_command(self, step, disks), timeout=STEP_SECONDS, ok=())
        if step is Step.MAKE_VOLUME:
            tags = [word for tag in (TAG, lab_tag(self.lab), owner_tag(self.owner)) for word in ("--addtag", tag)]
            argv = ["lvcreate", "--yes", "--name", self.name, *tags]
            if self.storage.thin_pool:
                argv += ["--type", "thin", "--virtualsize", f"{self.size}b", "--thinpool", self.storage.thin_pool]
            else:
                argv += ["--type", "linear", "--wipesignatures", "y", "--zero", "y", "--size", f"{self.size}b"]
            return run([*argv, str(self.storage.volume_group)], timeout=STEP_SECONDS, ok=())
        if step is Step.REMOVE_VOLUME:
            found = volume_of(disks, str(self.storage.volume_group), self.name)
            # LVM itself looks once more, under its lock, whether it is the volume that was looked at.
            same = f"lv_uuid={found.uuid if found else ''} && lv_tags={{{TAG} && {lab_tag(self.lab)}}}"
            return run(["lvremove", "--yes", "--select", same, volume], timeout=STEP_SECONDS, ok=())
        if step is Step.UNMAP:
            label = self.label(disks)
            return run(["dmsetup", "remove", "--uuid", f"{UUID}{label.id if label else ''}"], ok=())
        if step is Step.METADATA and self.above is not None:
            return run(["drbdadm", "create-md", "--force", self.above.resource], timeout=STEP_SECONDS, ok=())
        timeout = zero_seconds(self) if step is Step.ZERO else STEP_SECONDS
        return self._program("act", {"act": str(step), **self._asked(step, disks)}, timeout)

    def _asked(self, step: Step, disks: MachineDisks) -> dict[str, object]:
        """What ``programs/act.py`` is asked for: what was seen, which it compares once more, and what it writes."""
        if step in (Step.MAKE_FILE, Step.REMOVE_FILE, Step.ATTACH, Step.DETACH):
            file, loop = self.file(disks), self.loop(disks)
            return {
                "path": self.subject, "size": self.size + MIB, "loop": loop.name if loop else "",
                "text": self._text(DiskLabel(self.lab, secrets.token_hex(8), self.size, owner=self.owner)),
                "was_sha256": file.head_sha256 if file else "",
            }  # fmt: skip
        if step is Step.ZERO:
            own = self.lower_device(disks)
            return {"number": own.number, "size": own.size, "uuid": own.dm_uuid} if own else {}
        look = self.disk(disks)
        device = disks.devices[look.number]
        asked: dict[str, object] = {
            "path": look.path, "number": look.number, "size": look.size, "serial": device.serial, "wwid": device.wwid,
            "sequence": device.sequence, "was_sha256": look.head_sha256, "tail_sha256": look.tail_sha256,
        }  # fmt: skip
        if step is Step.MAP:
            label = label_of(look)
            sectors = (look.size - 2 * MIB) // MIB * MIB // 512
            return asked | {"mapping": self.name, "uuid": f"{UUID}{label.id}", "sectors": sectors}
        wanted = self.wanted
        label = DiskLabel(self.lab, secrets.token_hex(8), wanted.size, wanted.serial, wanted.wwn, self.owner)
        # One that is taken back is written over with zeros.
        return asked | {"act": "label", "text": self._text(label) if step is Step.LABEL else ""}

    @staticmethod
    def _text(label: DiskLabel) -> str:
        return disk_label(label).rstrip(b"\0").decode()

    def _program(self, name: str, asked: Mapping[str, object], timeout: float) -> Completed:
        """Run ``programs/NAME.py`` on the machine; its text goes there by standard input."""
        argv = [self.machine.python, "-I", "-", json.dumps(asked, sort_keys=True)]
        return self.machine.runner.run(argv, stdin=program(name), timeout=timeout, ok=())


def program(name: str) -> str:
    """The text of ``programs/NAME.py``, with its parts before it."""
    parts = (*_PARTS.get(name, ()), name)
    return "\n\n".join((_PROGRAMS / f"{part}.py").read_text(encoding="utf-8") for part in parts)


def _zfs_command(guard: Guard, step: Step, disks: MachineDisks) -> list[str]:
    if step is Step.MAKE_VOLUME:
        own = {LAB_PROPERTY: guard.lab, OWNER_PROPERTY: guard.owner}
        # Without partitions, whatever a test writes there, and without snapshots, with which it could not go.
        own |= {"volmode": "dev", "com.sun:auto-snapshot": "false"}
        words = [word for name, value in own.items() for word in ("-o", f"{name}={value}")]
        return ["zfs", "create", *words, "-V", str(guard.size), guard.volume]
    found = zfs_guard.volume_of(disks, guard.volume)
    # Whether it is the volume that was looked at, once more; with snapshots of somebody's zfs leaves it.
    return ["sh", "-c", _DESTROY, "sh", guard.volume, found.guid if found else ""]


def zero_seconds(guard: Guard) -> float:
    """The longest that filling the lower device with zeros may take."""
    return STEP_SECONDS + (guard.storage.size_bytes or guard.size) / MIB / _ZEROED_MIB_PER_SECOND


def shared(a: tuple[Guard, MachineDisks], b: tuple[Guard, MachineDisks]) -> str | None:
    """Why the storage of the two machines may be one and the same; None where it is not."""
    (one, its_disks), (other, other_disks) = a, b
    if one.storage.kind == other.storage.kind == DISK:
        return shared_disk((its_disks, one.disk(its_disks)), (other_disks, other.disk(other_disks)))
    if one.storage.volume_group and other.storage.volume_group:
        return shared_group((its_disks, one.storage.volume_group), (other_disks, other.storage.volume_group))
    if one.storage.dataset and other.storage.dataset:
        return zfs_guard.shared_pool((its_disks, one.storage.dataset), (other_disks, other.storage.dataset))
    return None
