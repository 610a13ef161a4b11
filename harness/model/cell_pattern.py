"""Patterns over the axes: the keys of a matrix, each with the values that a cell may have in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.model import aliases
from harness.model.cell import Cell

Pattern = Mapping[str, tuple[Any, ...]]


def value_of(cell: Cell, key: str) -> Any:
    """What ``cell`` has for a key of a matrix."""
    return cell.value(key)


def matches(pattern: Pattern, cell: Cell) -> bool:
    """Whether ``cell`` has one of the values in each key of ``pattern``; a workload may have its former name there."""
    return all(any(name in allowed for name in _names(cell, key)) for key, allowed in pattern.items())


def _names(cell: Cell, key: str) -> tuple[Any, ...]:
    if key == "workload":
        asked = (cell.filesystem, cell.workload)
        return (cell.workload, *(old for old, new in aliases.WORKLOADS.items() if new == asked))
    return (value_of(cell, key),)
