"""What a run was played with, to the byte: what the images of its lab hold, and what ran on each node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LOCK_SCHEMA = 1
_DIGITS = 12


@dataclass(frozen=True)
class Software:
    """The versions on one machine, or in one image; empty: not known there.

    ``kernel`` and ``kernel_build`` are ``uname -r`` and ``uname -v``.  ``drbd_srcversion`` is what the module calls the
    digest of its sources, ``drbd_git_hash`` the commit that it names, ``drbd_sha256`` of the module's file,
    ``drbd_protocols`` the versions of the network protocol that it speaks, as ``86-101``.  ``qemu_sha256`` is of the
    program ``qemu_path``.
    """

    kernel: str = ""
    kernel_build: str = ""
    drbd: str = ""
    drbd_srcversion: str = ""
    drbd_git_hash: str = ""
    drbd_sha256: str = ""
    drbd_protocols: str = ""
    drbd_utils: str = ""
    qemu: str = ""
    qemu_path: str = ""
    qemu_sha256: str = ""
    libvirt: str = ""


@dataclass(frozen=True)
class ImageLock:
    """An image: the digest of its recipe and all that goes into it, and the SHA-256 of kernel and initrd."""

    role: str = ""
    suite: str = ""
    digest: str = ""
    built_at: str = ""
    kernel_sha256: str = ""
    initrd_sha256: str = ""
    holds: Software = field(default_factory=Software)


@dataclass(frozen=True)
class NodeLock:
    """One node: the image that it booted, and what runs on it."""

    name: str = ""
    image: ImageLock = field(default_factory=ImageLock)
    runs: Software = field(default_factory=Software)


@dataclass(frozen=True)
class StackLock:
    """What a run was played with.  ``packages_sha256`` is of ``packages.json`` beside it.

    ``machine`` is the guest's machine type, ``drbd_protocol`` the version of DRBD's network protocol that the two nodes
    agreed upon.
    """

    suite: str = ""
    a: NodeLock = field(default_factory=NodeLock)
    b: NodeLock = field(default_factory=NodeLock)
    guest: ImageLock = field(default_factory=ImageLock)
    machine: str = ""
    drbd_protocol: str = ""
    packages_sha256: str = ""
    schema: int = LOCK_SCHEMA

    @property
    def nodes(self) -> tuple[NodeLock, NodeLock]:
        """Both nodes."""
        return self.a, self.b


@dataclass(frozen=True)
class _Component:
    """One thing under test: the fields that make it, and how it is called."""

    fields: tuple[str, ...]
    text: Callable[[Software], str]


def _linux(one: Software) -> str:
    return f"Linux {one.kernel or '(unknown)'}" + (f" ({one.kernel_build})" if one.kernel_build else "")


def _drbd(one: Software) -> str:
    named = {"srcversion": one.drbd_srcversion, "GIT-hash": one.drbd_git_hash[:_DIGITS]}
    told = ", ".join(f"{name} {value}" for name, value in named.items() if value)
    return f"DRBD {one.drbd or '(unknown)'}" + (f" ({told})" if told else "")


def _qemu(one: Software) -> str:
    told = f" (SHA-256 {one.qemu_sha256[:_DIGITS]})" if one.qemu_sha256 else ""
    return f"QEMU {one.qemu or '(unknown)'}{told}"


_COMPONENTS = (
    _Component(("kernel", "kernel_build"), _linux),
    _Component(("drbd", "drbd_srcversion", "drbd_git_hash"), _drbd),
    _Component(("qemu", "qemu_sha256"), _qemu),
)


def _differing(one: Software, other: Software) -> Iterator[_Component]:
    """The components of which something is known of both, and is not the same."""
    for component in _COMPONENTS:
        pairs = ((getattr(one, name), getattr(other, name)) for name in component.fields)
        if any(left and right and left != right for left, right in pairs):
            yield component


def not_as_its_image(node: NodeLock) -> str | None:
    """What runs on ``node`` and is not what its image holds, as one sentence without a full stop; None where all is.

    What is not known of one of them is not compared.
    """
    image, runs = node.image.holds, node.runs
    found = [f"{one.text(runs)}, where its image holds {one.text(image)}" for one in _differing(image, runs)]
    return f"{node.name} runs {'; and '.join(found)}" if found else None


def not_as_before(node: NodeLock, now: Software) -> str | None:
    """What runs on ``node`` ``now`` and is not what ran there when its lab came up, as one sentence; None where all is.

    What is not known of one of the two moments is not compared.
    """
    found = [f"{one.text(now)}, where it ran {one.text(node.runs)} before" for one in _differing(node.runs, now)]
    return f"{node.name} has booted and runs {'; and '.join(found)}" if found else None


def not_as_it_began(began: StackLock, now: StackLock) -> str | None:
    """What is another in ``now`` than in the lock that a run began with, as one sentence; None where nothing is.

    Only what is under test counts: kernel, DRBD and QEMU of both nodes, the guest's kernel and its machine type.
    """
    found = [
        f"{one.text(before.runs)} on {before.name}, where {one.text(after.runs)} runs now"
        for before, after in zip(began.nodes, now.nodes, strict=True)
        for one in _differing(before.runs, after.runs)
    ]
    found += [
        f"{one.text(began.guest.holds)} in the guest, which has {one.text(now.guest.holds)} now"
        for one in _differing(began.guest.holds, now.guest.holds)
    ]
    if began.machine and now.machine and began.machine != now.machine:
        found.append(f"a guest of machine type {began.machine}, which is {now.machine} now")
    return f"the run began with {'; and with '.join(found)}" if found else None
