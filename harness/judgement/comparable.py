"""Whether two runs asked the same of a cell, and on the same kind of lab; what is not the same, in words; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from harness.judgement.standing import Standing
from harness.model import BLOCK_BYTES, Cell, Run
from harness.util.tables import flat

# What may be another without another question: how long is waited at most, by which chance, what somebody expects.
_FREE = frozenset({"expected", "repetition", "seed", "control", "deadline", "migration_deadline", "user_file"})
_WORDS = {"seconds": "duration in seconds"}
# Of a lab: how large it is.  Its names, addresses and serial numbers make no difference, the device is each cell's.
_OF_THE_LAB = {
    "memory_mib": "memory of a node in MiB",
    "vcpus": "processors of a node",
    "guest.memory_mib": "memory of the guest in MiB",
    "guest.vcpus": "processors of the guest",
    "guest.canary_blocks": "blocks of the canary",
    "guest.image.digest": "the guest's own image",
    "guest.image.memory_mib": "memory of the own guest in MiB",
    "guest.image.vcpus": "processors of the own guest",
    "guest.image.bus": "bus of the own guest's disk",
    "guest.image.firmware": "firmware of the own guest",
}


def other_lab(old: Run, new: Run) -> tuple[str, ...]:
    """What is another in the lab of ``new``, in words; what one of them did not keep is not held against it."""
    found = []
    if old.stack.accelerator and new.stack.accelerator and old.stack.accelerator != new.stack.accelerator:
        found.append(f"nodes under {old.stack.accelerator} \u2192 {new.stack.accelerator}")
    before, after = (dict(flat(run.lab_spec)) for run in (old, new))
    vcpus = old.provenance.node_vcpus, new.provenance.node_vcpus
    if all(vcpus):
        before["vcpus"], after["vcpus"] = vcpus
    for name, words in _OF_THE_LAB.items():
        if name in before and name in after and before[name] != after[name]:
            found.append(f"{words} {_shown(before[name])} \u2192 {_shown(after[name])}")
    return tuple(found)


def other_question(old: Standing, new: Standing) -> tuple[str, ...]:
    """What ``new`` asks otherwise of the cell: its duration, its delays, its device."""
    before, after = (dict(_asked(one.cell)) for one in (old, new))
    found = [
        f"{_WORDS.get(name, name.replace('_', ' '))} {_shown(before.get(name))} \u2192 {_shown(value)}"
        for name, value in after.items()
        if before.get(name) != value
    ]
    sizes = [_devices(one) for one in (old, new)]
    if all(sizes) and sizes[0] != sizes[1]:
        found.append(f"device {' and '.join(sizes[0])} \u2192 {' and '.join(sizes[1])}")
    return tuple(found)


def _asked(cell: Cell) -> Iterator[tuple[str, Any]]:
    for item in fields(cell):
        value = getattr(cell, item.name)
        if item.name in _FREE:
            continue
        if is_dataclass(value):
            yield from ((one.name, getattr(value, one.name)) for one in fields(value))
        else:
            yield item.name, value


def _devices(standing: Standing) -> list[str]:
    blocks = {play.evidence.device_blocks for play in standing.plays if play.evidence is not None}
    return [f"{size * BLOCK_BYTES / 2**20:g} MiB" for size in sorted(blocks) if size]


def _shown(value: object) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
