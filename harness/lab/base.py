"""What the rest of the harness knows of a lab: two nodes, the versions on them, and how to compare their replicas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from harness.lab.node import Node
from harness.model import Comparison, Sample, Stack


class Lab(Protocol):
    """Two nodes; nothing above this package knows where they come from.

    ``fresh``: nothing has written to the lower devices yet, so they are equal.  The ``guest_*`` paths are on the nodes.
    """

    id: str
    a: Node
    b: Node
    stack: Stack
    fresh: bool
    guest_kernel: str
    guest_initrd: str
    guest_kernel_args: str
    guest_root_device: str

    def compare(self, blocks: int) -> Comparison:
        """Compare the first ``blocks`` 4 KiB blocks of the two lower devices, outside DRBD."""
        ...

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks``."""
        ...

    def kill(self, node: Node) -> None:
        """Take the node's power away without a warning."""
        ...

    def revive(self, node: Node) -> None:
        """Give the power back and wait until the node answers; what was set up on it by hand is gone."""
        ...
