"""Versions that are known to have faults of their own, which may look like what a run found, or hide it; pure.

Each entry names where that is known from.  A distribution may mend a version without a new number, and a version that
is not here may have faults that nobody has found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.model import Stack

BOTH = "both nodes"
NODES = ("node a", "node b")

_RELEASED = 0
_PRERELEASE = -1
_NUMBERS = re.compile(r"\s*v?(\d+(?:\.\d+)*)", re.ASCII)
_BEFORE_RELEASE = re.compile(r"[-~.]?(?:rc|a|alpha|b|beta|pre)\.?\d*(?![a-z])|~", re.ASCII)
# Debian names a kernel by its ABI (6.1.0-37-amd64); the version is in the words of its build.
_DEBIAN_BUILD = re.compile(r"\bDebian (\d+(?:\.\d+)+)[-~]", re.ASCII)


@dataclass(frozen=True)
class KnownFault:
    """A fault of a version of a component: on which nodes that is, what the fault does, and from where it is known."""

    component: str
    version: str
    where: str
    fault: str
    source: str

    def __str__(self) -> str:
        return f"{self.component} {self.version} ({self.where}): {self.fault} [{self.source}]"


@dataclass(frozen=True)
class _Node:
    """The versions of one node; empty where they are not known."""

    drbd: str
    linux: str
    qemu: str


@dataclass(frozen=True)
class _Entry:
    """``ranges``: from a version on, up to but without another; empty for no bound.

    ``also``: what else must be so of the node, and of the other one.
    """

    component: str
    ranges: tuple[tuple[str, str], ...]
    fault: str
    source: str
    also: Callable[[_Node, _Node], bool] = lambda node, other: True


def _in_tree(node: _Node, other: _Node) -> bool:
    return node.drbd.startswith("8.4.")


def _other_checks_queue_sizes(node: _Node, other: _Node) -> bool:
    """The QEMU of the other node refuses a virtqueue with more entries than it has itself."""
    return within(other.qemu, "11.1", "")


def _limits_have_the_flag(node: _Node, other: _Node) -> bool:
    """The kernel keeps the wish for stable pages in the limits of a queue, which it does since 6.11."""
    return not node.linux or within(node.linux, "6.11", "")


_LOST = (
    "the flag that asks for stable pages is lost when DRBD attaches its disk, so that pages of a filesystem that the"
    " node mounts on it may change while they are written"
)
_LATE = (
    "the flag that asks for stable pages is set when DRBD attaches its disk, too late for the page cache of the device"
    " itself: behind cache=writethrough, writeback and unsafe a page may change while it is written, and is written"
    " once more (seen with Linux 6.12.118 and DRBD 8.4.11)"
)
FAULTS = (
    _Entry(
        "DRBD",
        (("9", "9.2.17"), ("9.3", "9.3.1")),
        "data corruption over the transport lb-tcp with several paths, and over no other",
        "DRBD's ChangeLog, 9.2.17 and 9.3.1",
    ),
    _Entry(
        "DRBD",
        (("9", "9.2.19"), ("9.3", "9.3.3")),
        "replicas diverge silently where a Primary has no disk of its own, and nowhere else",
        "DRBD's ChangeLog, 9.2.19 and 9.3.3",
    ),
    _Entry(
        "DRBD",
        (("9.2", "9.2.17"), ("9.3", "9.3.1")),
        _LOST,
        "commit 76b034c99 of LINBIT/drbd",
        also=_limits_have_the_flag,
    ),
    _Entry(
        "DRBD",
        (("9.2.17", "9.3"), ("9.3.1", "10")),
        _LATE,
        "docs/findings.md; commit 76b034c99 of LINBIT/drbd",
        also=_limits_have_the_flag,
    ),
    _Entry(
        "DRBD",
        (("9.3.3", "9.3.4"),),
        "where the disks of both nodes fail within a tenth of a second and are attached again, no resync may follow"
        " though blocks differ (seen in one of nine plays with 9.3.3; others were not asked)",
        "docs/failover-and-migration.md",
    ),
    _Entry(
        "DRBD",
        (("8", "9.0.14"),),
        "the kernel log of a verify may leave out blocks that the verify marked and counted (seen with 8.4.11)",
        "docs/drbd-verify-log.md; commit 3d15a6def of LINBIT/drbd",
    ),
    _Entry(
        "DRBD",
        (("8", "9.1.4"),),
        "where both Primaries write the same block at once, the peer drops one of the writes without a line in the log"
        " and never ends its epoch, and the connection is lost some writes or a minute later, with 9.1 at once (seen"
        " with 8.4.11)",
        "docs/drbd-write-conflict.md; commit e01200e0d of LINBIT/drbd",
    ),
    _Entry(
        "Linux",
        (("6.11", "6.12.75"), ("6.13", "6.18.14"), ("6.19", "6.19.4")),
        f"with its own DRBD 8.4 {_LOST}",
        "commit 2ebc8d600fb9 of Linux",
        also=_in_tree,
    ),
    _Entry(
        "Linux",
        (("6.12.75", "6.13"), ("6.18.14", "6.19"), ("6.19.4", "")),
        f"with its own DRBD 8.4 {_LATE}",
        "docs/findings.md; commit 2ebc8d600fb9 of Linux",
        also=_in_tree,
    ),
    _Entry(
        "QEMU",
        (("", "10.0"),),
        "with cache=writethrough or directsync a write may be acknowledged before a flush that covers it, where no raw"
        " layer is above the file or device (measured with 7.2.22)",
        "docs/qemu-missed-flush.md",
    ),
    _Entry(
        "QEMU",
        (("10.0.3", ""),),
        "with cache=writethrough or directsync and aio=threads a write may be acknowledged before a flush that covers"
        " it (measured with 10.0.13 and 11.1.3)",
        "docs/qemu-missed-flush.md; d402da1360c2 of QEMU",
    ),
    _Entry(
        "QEMU",
        (("10.0.13", "10.1"),),
        "each virtqueue has 1024 entries, whatever is configured, and QEMU 11.1 refuses the state of such a guest: no"
        " live migration to it is completed (seen from 10.0.13 to 11.1.3)",
        "docs/stacks.md; virtio_add_queue() of QEMU 10.0.13",
        also=_other_checks_queue_sizes,
    ),
)  # fmt: skip


def known_faults(stack: Stack) -> tuple[KnownFault, ...]:
    """The known faults of the versions in ``stack``, in the order of the table; of each node where they differ.

    A component whose version was not recorded has none.
    """
    return tuple(fault for entry in FAULTS for fault in _of_entry(entry, _nodes(stack)))


def within(version: str, start: str, end: str) -> bool:
    """Whether ``version`` is ``start`` or later, and before ``end``; an empty bound bounds nothing.

    A release candidate is before its release; what a distribution adds behind the numbers counts nothing.  False for
    what has no number.
    """
    if _NUMBERS.match(version) is None:
        return False
    key = _key(version)
    return (not start or key >= _key(start)) and (not end or key < _key(end))


def linux_version(kernel: str, build: str) -> str:
    """The version of a kernel by ``uname -r`` and ``uname -v``: of Debian's the one that its build names."""
    found = _DEBIAN_BUILD.search(build)
    return found[1] if found else kernel


def _of_entry(entry: _Entry, nodes: tuple[_Node, _Node]) -> tuple[KnownFault, ...]:
    versions = {
        "DRBD": [one.drbd for one in nodes],
        "Linux": [one.linux for one in nodes],
        "QEMU": [one.qemu for one in nodes],
    }
    hit = [
        version if entry.also(node, other) and any(within(version, *bounds) for bounds in entry.ranges) else ""
        for node, other, version in zip(nodes, reversed(nodes), versions[entry.component], strict=True)
    ]
    found = [(BOTH, hit[0])] if hit[0] == hit[1] else zip(NODES, hit, strict=True)
    return tuple(KnownFault(entry.component, one, where, entry.fault, entry.source) for where, one in found if one)


def _nodes(stack: Stack) -> tuple[_Node, _Node]:
    drbd, kernel, build, qemu = (
        _sides(value) for value in (stack.drbd, stack.kernel, stack.kernel_build, stack.qemu)
    )  # fmt: skip
    a, b = (_Node(drbd[at], linux_version(kernel[at], build[at]), qemu[at]) for at in (0, 1))
    return a, b


def _sides(value: str) -> tuple[str, str]:
    """The value on each node: ``x / y`` where they differ."""
    one, slash, other = value.partition(" / ")
    return one.strip(), (other if slash else one).strip()


def _key(version: str) -> tuple[tuple[int, ...], int]:
    """Something to compare versions by: 6.12 is 6.12.0, and what is called rc, alpha or beta comes before it."""
    found = _NUMBERS.match(version)
    assert found is not None
    numbers = [int(number) for number in found[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    early = _BEFORE_RELEASE.match(version, found.end()) is not None
    return tuple(numbers), _PRERELEASE if early else _RELEASED
