"""What is believed of a stored file that is whole: a run may come from anywhere, and what it says is used as it is.

Names become those of files.  Blocks are held against the device that the evidence itself names, which may be of any
size that DRBD makes.  What they take of memory is bounded by the file (``MOST_STORED_BYTES``), whatever it says: a set
of more than a million blocks takes some hundred bytes for each extent that is spelled out in it, and nothing for each
block (:mod:`harness.model.block_runs`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from harness.errors import UsageError
from harness.model import SECTORS_PER_BLOCK, Evidence, Extent, Run, Witness
from harness.model.cell import BITMAP_BLOCK_SIZES

T = TypeVar("T")

#: The most blocks of 4 KiB that a list of extents has, with those that it names again, where the device is smaller or
#: is not said: 64 GiB, a hundred times what any run had.
MOST_BLOCKS = 2**24
#: The largest device that DRBD makes, 1 PiB, in blocks of 4 KiB.
MOST_OF_A_DEVICE = 2**38
#: Up to here a float holds every whole number; counts and bytes of a run are far below.
MOST_COUNT = 2**53
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}", re.ASCII)


class ImplausibleError(ValueError):
    """A file says something that cannot be; the message is the end of a sentence about it."""


def plausible(found: T) -> T:
    """``found``, if nothing that it says stands in the way of its use; else :class:`ImplausibleError`."""
    _must_be_names(found)
    if isinstance(found, Run):
        _must_be_flat((found.lab_spec, found.stack_spec))
    if isinstance(found, Evidence):
        _must_be_counts(found)
        _must_be_on_the_device(found)
    return found


def is_safe_name(name: str) -> bool:
    """Whether ``name`` can only name something inside the directory it is put in."""
    return bool(_SAFE.fullmatch(name))


def safe_name(name: str) -> str:
    """``name``, if :func:`is_safe_name`; else UsageError."""
    if not is_safe_name(name):
        raise UsageError(f"'{name}' cannot be the name of a file: letters, digits, '.', '_', '+' and '-' can")
    return name


def _must_be_names(found: object) -> None:
    if isinstance(found, Run):
        names, cells = [found.id], found.cells
    else:
        names, cells = [], (found.cell,) if isinstance(found, Evidence) else ()
    for cell in cells:
        try:
            names.append(cell.id)
        except (ValueError, KeyError, IndexError):
            raise ImplausibleError(f"nothing can be called as its cell of '{cell.workload}' says") from None
    for name in names:
        if not is_safe_name(name):
            raise ImplausibleError(f"'{name}' cannot be the name of a file")


def _must_be_flat(value: Any, room: int = 16) -> None:
    """The fields of a spec, which may be anything: what is nested deeply nobody can write again."""
    if not room:
        raise ImplausibleError("its values are nested too deeply")
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in items:
        _must_be_flat(item, room - 1)


def _must_be_counts(evidence: Evidence) -> None:
    """What rates are made of, and what is held against the size of the device; nothing is more than can be divided."""
    parts: list[Any] = [evidence, evidence.witness, evidence.comparison, evidence.written, evidence.readback]
    for part in filter(None, [*parts, evidence.alarms]):
        for name in _whole_numbers(part.__class__):
            if (count := getattr(part, name)) is not None and count < 0:
                raise ImplausibleError(f"{name}: {count} is no count")
    for part in filter(None, [*parts, evidence.alarms, *evidence.migrations]):
        numbers = {name: getattr(part, name) for name in _whole_numbers(part.__class__)}
        if isinstance(part, Witness):
            numbers |= part.not_watched
        for name, number in numbers.items():
            if number is not None and abs(number) >= MOST_COUNT:
                raise ImplausibleError(f"{name}: a number of {len(str(abs(number)))} digits is no count")


def _must_be_on_the_device(evidence: Evidence) -> None:
    """No extent is beyond its end, and no list of them has more blocks than it.

    An evidence of before there was a device says no size of it; then only their number is bounded.
    """
    bit, device = evidence.cell.replication.bitmap_block_size, evidence.device_blocks
    if bit not in BITMAP_BLOCK_SIZES:
        raise ImplausibleError(f"cell.replication.bitmap_block_size: DRBD has no bits of its bitmap for '{bit}'")
    if device > MOST_OF_A_DEVICE:
        raise ImplausibleError(f"device_blocks: {device} blocks are more than a device of DRBD has")
    end = device * SECTORS_PER_BLOCK or math.inf
    most = max(device, MOST_BLOCKS)
    for where, extents in _lists_of_extents(evidence, ""):
        blocks = 0
        for one in extents:
            if one.start < 0 or one.size < 0 or one.start + one.size > end:
                of = f"a device of {device} blocks" if device else "any device"
                raise ImplausibleError(f"{where}: {one.size} sectors from sector {one.start} on are not on {of}")
            # Not by its methods: there are a million extents in a hundred files.
            blocks += (one.size + SECTORS_PER_BLOCK - 1) // SECTORS_PER_BLOCK
        if blocks > most:
            raise ImplausibleError(f"{where}: with these, all extents have more than {most} blocks")


def _lists_of_extents(value: Any, where: str) -> Iterator[tuple[str, tuple[Extent, ...]]]:
    """All extents that are anywhere in ``value``, and the names that lead to them."""
    if isinstance(value, Extent):
        yield where, (value,)
    elif is_dataclass(value):
        for name in _with_extents(value.__class__):
            yield from _lists_of_extents(getattr(value, name), f"{where}.{name}" if where else name)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _lists_of_extents(item, f"{where}.{key}")
    elif isinstance(value, tuple):
        if value and isinstance(value[0], Extent):
            yield where, value
        else:
            for item in value:
                yield from _lists_of_extents(item, where)


@cache
def _whole_numbers(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a dataclass that are whole numbers, known or not."""
    return tuple(name for name, hint in get_type_hints(kind).items() if hint in (int, int | None))


@cache
def _with_extents(kind: type[Any]) -> tuple[str, ...]:
    """The fields of a dataclass in which extents can be; most have none, and evidence is read by the thousand."""
    return tuple(name for name, hint in get_type_hints(kind).items() if _holds_extents(hint))


def _holds_extents(hint: Any) -> bool:
    if isinstance(hint, type) and is_dataclass(hint):
        return issubclass(hint, Extent) or bool(_with_extents(hint))
    return any(_holds_extents(part) for part in get_args(hint))
