"""What the doctor found on a machine: facts, no opinion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.doctor.kvm_access import KvmAccess
from harness.doctor.packages import Family, Need
from harness.lab.nested.accel import Accelerator


@dataclass(frozen=True)
class Answer:
    """The result of trying something: its version, or the error message and the command that remedies it."""

    message: str
    works: bool
    remedy: str | None = None


@dataclass(frozen=True)
class Place:
    """A directory of the harness: its free space, and the first parent that libvirt's QEMU may not enter, if any."""

    path: Path
    free_gib: float
    closed_at: Path | None = None


@dataclass(frozen=True)
class Facts:
    """Everything the rules need; GiB are 2**30 bytes.

    ``images`` and ``images_wanted`` are roles; ``keys`` are the Debian suites whose archive keys the keyring has.
    ``sessions_weigh_as_much``: each session gets as much of the processors as the whole lab, even if it is nice.
    """

    python: tuple[int, int, int]
    machine: str
    root: bool
    user: str
    family: Family
    missing: tuple[Need, ...]
    qemu: Answer
    libvirt: Answer
    accelerator: Accelerator | None
    accelerator_error: str
    kvm: KvmAccess
    kvm_vendor: str
    cache: Place
    state: Place
    memory_gib: float
    cpus: int
    namespaces: Answer
    keys: frozenset[str]
    suite: str
    images: frozenset[str]
    images_wanted: frozenset[str]
    sessions_weigh_as_much: bool = False

    @property
    def must_build(self) -> bool:
        """Whether images have to be built before a lab can come up."""
        return not self.images_wanted <= self.images
