"""Many cells in one environment, and the versions under test in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.cell import Cell
from harness.model.evidence import SCHEMA_VERSION


@dataclass(frozen=True)
class Stack:
    """The versions under test, as the nodes and the controller report them."""

    suite: str = ""
    kernel: str = ""
    drbd: str = ""
    drbd_utils: str = ""
    qemu: str = ""
    libvirt: str = ""
    guest_kernel: str = ""
    accelerator: str = ""
    controller: str = ""


@dataclass(frozen=True)
class Run:
    """Many cells in one environment.

    ``lab_options`` are the fields of the lab's options, so that a resumed run goes on with the same kind of lab.
    """

    id: str
    matrix: str
    started_at: str
    cells: tuple[Cell, ...]
    stack: Stack = Stack()
    finished_at: str = ""
    lab_seconds: Mapping[str, float] = field(default_factory=dict)
    lab_options: Mapping[str, str | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    schema: int = SCHEMA_VERSION
