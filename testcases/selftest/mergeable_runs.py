"""Runs of one matrix, made up, each played on a lab of its own, in parts or whole.  Nothing here is a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stored_run import found

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.config.shards import Shard, plan_of
from harness.model import CacheMode, Cell, FilesystemKind, Run, Stack
from harness.store.merge_plan import Part

STACK = Stack("trixie", "6.12-fake", "8.4.11", qemu="10.0.13", libvirt="11.3", accelerator="tcg")
SWAPS = tuple(
    Cell("pressure", filesystem=FilesystemKind.SWAP, cache=mode)
    for mode in (CacheMode.NONE, CacheMode.WRITEBACK, CacheMode.UNSAFE)
)
WHOLE = with_controls(repeated(SWAPS, 3, 7))


def part(cells: Sequence[Cell], number: int, **changed: Any) -> Part:
    """A run of ``cells``, all played on a lab of its own between two rounds of controls."""
    run = Run(
        f"run{number}", "quick", f"2026-11-23T0{number}:00:00Z", tuple(cells), STACK, f"2026-11-23T0{number}:59:00Z",
        seed=7, matrix_digest="d1",
    )  # fmt: skip
    controls = [cell for cell in cells if cell.control is not None]
    order = [*cells, *(controls if len(controls) < len(cells) else [])]
    played = [
        replace(found(cell), lab=f"lab{number}", started_at=f"2026-11-23T0{number}:{minute:02}:00Z")
        for minute, cell in enumerate(order)
    ]
    return Part(replace(run, **changed), tuple(sorted(played, key=lambda one: plan_of(cells).index(one.cell.id))))


def shards(of: int) -> list[Part]:
    cells = [Shard(number, of).of_cells(WHOLE) for number in range(1, of + 1)]
    return [
        part(mine, number, shard=f"{number}/{of}", plan=plan_of(WHOLE)) for number, mine in enumerate(cells, 1)
    ]  # fmt: skip
