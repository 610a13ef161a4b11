"""What the doctor has seen of a machine: facts, no opinion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.doctor.kvm_access import KvmAccess
from harness.doctor.packages import Family, Need
from harness.lab.nested.accel import Accelerator


@dataclass(frozen=True)
class Answer:
    """Something that was asked: what it said, or the words with which it failed and the command that mends it."""

    words: str
    works: bool
    mend: str | None = None


@dataclass(frozen=True)
class Place:
    """A directory of ours: the room it has, and what keeps libvirt's QEMU from entering it, if anything."""

    path: Path
    free_gib: float
    closed_at: Path | None = None


@dataclass(frozen=True)
class Facts:
    """Everything the rules need.  ``images*`` are names of roles; ``keys`` are suites that the keyring knows."""

    python: tuple[int, int, int]
    machine: str
    root: bool
    user: str
    family: Family
    missing: tuple[Need, ...]
    qemu: Answer
    libvirt: Answer
    accelerator: Accelerator | None
    accelerator_trouble: str
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

    @property
    def must_build(self) -> bool:
        """Whether images have to be built before a lab can come up."""
        return not self.images_wanted <= self.images
