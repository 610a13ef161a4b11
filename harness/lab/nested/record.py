"""What is written down of a nested lab, so that another process can find it: ``labs/<id>/lab.json``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.config.lab_spec import LabSpec
from harness.config.spec import differences
from harness.config.stack_spec import StackSpec
from harness.model import ImageLock, LabProvenance
from harness.util.paths import state_dir


@dataclass(frozen=True)
class NodeRecord:
    """One node of a recorded lab; ``side`` is ``a`` or ``b``, ``ssh_port`` is on loopback."""

    side: str
    name: str
    domain: str
    ssh_port: int
    address: str


@dataclass(frozen=True)
class LabRecord:
    """A nested lab: whose libvirt, what it was made to, which domains.

    ``keep``: it outlives the process ``pid`` that made it.  ``images``: what its images hold, by the side of the node,
    and ``guest``.
    """

    id: str
    uri: str
    spec: LabSpec
    stack: StackSpec
    provenance: LabProvenance
    accelerator: str
    guest_kernel_args: str
    keep: bool
    pid: int
    created_at: str
    nodes: tuple[NodeRecord, NodeRecord]
    images: Mapping[str, ImageLock] = field(default_factory=dict)

    def differences(self, spec: LabSpec, stack: StackSpec) -> list[str]:
        """What is another here than in ``spec`` and ``stack``: ``suite is bookworm instead of trixie``.

        Two stacks that give the nodes and the guest the same are the same, whatever they are called.
        """
        other = [] if _gives(self.stack) == _gives(stack) else differences(self.stack, stack)
        return [*other, *differences(self.spec, spec)]


def _gives(stack: StackSpec) -> tuple[object, ...]:
    return stack.of_node("a"), stack.of_node("b"), stack.guest_base, stack.guest_kernel, stack.machine


_ADAPTER = TypeAdapter(LabRecord)


def labs_dir() -> Path:
    """The folder of all labs of this user on this machine."""
    return state_dir() / "labs"


def write(record: LabRecord) -> None:
    """Record a lab in its folder."""
    (labs_dir() / record.id / "lab.json").write_bytes(_ADAPTER.dump_json(record, indent=2))


def read(directory: Path) -> LabRecord | None:
    """The record in a lab's folder; None when it was never finished or cannot be read by this version."""
    try:
        return _ADAPTER.validate_json((directory / "lab.json").read_bytes())
    except (OSError, ValidationError):
        return None


def directories() -> list[Path]:
    """Every lab folder there is, whether its lab is up or not."""
    return sorted(path for path in labs_dir().glob("*") if path.is_dir()) if labs_dir().is_dir() else []


def forget(directory: Path) -> None:
    """Remove a lab's folder with its keys and disks."""
    shutil.rmtree(directory, ignore_errors=True)
