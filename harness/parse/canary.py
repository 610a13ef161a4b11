"""The messages of the guest program ``canary``, what its check finds on the disk, and what both together prove.

A line is known by the CRC-32 at its end, which covers the run too: a migration or a kill may tear a line, QEMU on
either node writes a file of its own, and an earlier run may have left lines.  Whatever is not whole or not of this run
is passed over.  Lines may come twice and in any order, as each carries its number.

Each write mode goes on to its next record only after the kernel acknowledged the one before.  So whoever
knows of record S knows that all before it were acknowledged, be it from a line or from a record found on the disk.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest

from harness.model import Canary

WRITE_MODES = ("fsync", "dsync", "direct")
# How far behind the newest record that is known of, one may have been in flight when everything ended.
IN_FLIGHT = 3
EXAMPLES = 10


@dataclass(frozen=True)
class Ack:
    """A record that the kernel acknowledged as durable.  ``at_ms``: the guest's monotonic clock, in milliseconds."""

    write_mode: str
    number: int
    at_ms: int


@dataclass(frozen=True)
class Failed:
    """A record that could not be written; its write mode stopped there."""

    write_mode: str
    number: int
    errno: int
    message: str


@dataclass(frozen=True)
class Tick:
    """A sign of life: how many records in memory were checked, and how many of them were wrong."""

    at_ms: int
    checked: int
    wrong: int


@dataclass(frozen=True)
class MemoryMismatch:
    """A record in memory that is not what was put there."""

    index: int
    expected: int
    found: int
    checksum_right: bool


@dataclass(frozen=True)
class Done:
    """The last message of a canary that was told to stop."""

    checked: int
    wrong: int


Message = Ack | Failed | Tick | MemoryMismatch | Done


@dataclass(frozen=True)
class Received:
    """A message, and when the controller got it, in seconds of the controller's monotonic clock."""

    at: float
    message: Message


@dataclass(frozen=True)
class Slot:
    """One slot of a ring that is not all zero: ``ok``, ``wrong`` or ``foreign``; ``number`` as its record says."""

    write_mode: str
    slot: int
    state: str
    number: int = 0


# --------------------------------------------------------------------------- lines


def sealed(text: str, run: int) -> str:
    """``text`` as the canary of ``run`` ends its lines; here to be compared with, and for tests."""
    return f"{text} {zlib.crc32(f'{run:016x} {text}'.encode()):08x}"


def parse_line(line: str, run: int) -> Message | None:
    """The message in one line (without its newline); None for what is no whole line of the canary of ``run``."""
    text = line.rpartition(" ")[0]
    if line != sealed(text, run):
        return None
    try:
        match text.split(" "):
            case ["ack", write_mode, number, at_ms] if write_mode in WRITE_MODES:
                return Ack(write_mode, int(number), int(at_ms))
            case ["error", write_mode, number, errno, *message] if write_mode in WRITE_MODES:
                return Failed(write_mode, int(number), int(errno), " ".join(message))
            case ["tick", at_ms, checked, wrong]:
                return Tick(int(at_ms), int(checked), int(wrong))
            case ["memory", index, expected, found, "checksum-ok" | "checksum-wrong" as checksum]:
                return MemoryMismatch(int(index), int(expected), int(found), checksum == "checksum-ok")
            case ["done", checked, wrong]:
                return Done(int(checked), int(wrong))
    except ValueError:
        return None
    return None


def received(lines: Iterable[tuple[float, str]], run: int) -> tuple[Received, ...]:
    """The messages of ``run`` in ``lines``, each of which is (when it came, the line)."""
    return tuple(Received(at, message) for at, line in lines if (message := parse_line(line, run)) is not None)


def parse_check(text: str, blocks: int) -> tuple[Slot, ...]:
    """The output of ``canary check`` over a region of ``blocks``; :class:`ValueError` if it is something else."""
    found = []
    for line in text.splitlines():
        slot = _slot(line)
        if slot is None:
            raise ValueError(f"no slot of a canary's region: '{line[:60]}'")
        if not 0 <= slot.slot < blocks // len(WRITE_MODES):
            raise ValueError(f"a canary's region of {blocks} blocks has no such slot: '{line[:60]}'")
        found.append(slot)
    return tuple(found)


def _slot(line: str) -> Slot | None:
    try:
        match line.split(" "):
            case [write_mode, slot, "ok" | "wrong" as state, number] if write_mode in WRITE_MODES:
                return Slot(write_mode, int(slot), state, int(number))
            case [write_mode, slot, "foreign"] if write_mode in WRITE_MODES:
                return Slot(write_mode, int(slot), "foreign")
    except ValueError:
        return None
    return None


# --------------------------------------------------------------------------- what it amounts to


def report(messages: Sequence[Received], slots: Iterable[Slot], blocks: int, *, survived: bool = False) -> Canary:
    """What the canary kept and lost: its ``messages``, and the ``slots`` found in its region of ``blocks`` afterwards.

    Of each slot the newest acknowledged record is looked for; what was there before was overwritten and cannot be
    asked about.  A newer record in its place is fine.  A slot that may have been written when everything ended is
    left out if it holds no whole record: then the old one was being overwritten.  ``survived`` is the caller's
    knowledge; a canary that was stopped in an orderly way survived in any case.
    """
    rings: dict[str, dict[int, Slot]] = {write_mode: {} for write_mode in WRITE_MODES}
    for slot in slots:
        rings[slot.write_mode][slot.slot] = slot
    stopped = any(isinstance(one.message, Done) for one in messages)
    judged = {
        write_mode: _ring(write_mode, messages, rings[write_mode], blocks // len(WRITE_MODES), stopped)
        for write_mode in WRITE_MODES
    }
    mismatches = {one.message: None for one in messages if isinstance(one.message, MemoryMismatch)}
    checks = [one.message for one in messages if isinstance(one.message, Tick | Done)]
    kinds = (
        [sentence for ring in judged.values() for sentence in ring.lost],
        [sentence for ring in judged.values() for sentence in ring.corrupt],
        [_memory_sentence(one) for one in mismatches],
        list(dict.fromkeys(_failure_sentence(one.message) for one in messages if isinstance(one.message, Failed))),
        [sentence for ring in judged.values() for sentence in ring.strange],
    )
    in_turn = [sentence for row in zip_longest(*kinds) for sentence in row if sentence is not None]
    return Canary(
        acknowledged={write_mode: ring.acknowledged for write_mode, ring in judged.items()},
        lost={write_mode: len(ring.lost) for write_mode, ring in judged.items()},
        corrupt=sum(len(ring.corrupt) for ring in judged.values()),
        memory_checked=max((check.checked for check in checks), default=0),
        memory_wrong=max(len(mismatches), *(check.wrong for check in checks), 0),
        longest_gap_seconds=longest_gap(messages),
        survived=survived or stopped,
        examples=tuple(in_turn[:EXAMPLES]),
    )


@dataclass(frozen=True)
class _Ring:
    acknowledged: int
    lost: list[str]
    corrupt: list[str]
    strange: list[str]


def _ring(write_mode: str, messages: Sequence[Received], found: Mapping[int, Slot], size: int, stopped: bool) -> _Ring:
    reported = max(
        (
            one.message.number
            for one in messages
            if isinstance(one.message, Ack) and one.message.write_mode == write_mode
        ),
        default=0,
    )
    newest = max((slot.number for slot in found.values() if slot.state == "ok"), default=0)
    acknowledged = max(reported, newest - 1)
    failed = any(isinstance(one.message, Failed) and one.message.write_mode == write_mode for one in messages)
    behind = max(reported, newest)
    flying = range(behind + 1, behind + 1 + IN_FLIGHT) if failed or not stopped else range(0)
    in_flight = {(number - 1) % size for number in flying}
    ring = _Ring(acknowledged, [], [], [])
    for place in range(size):
        slot = found.get(place)
        # The newest acknowledged record of this slot; 0 where there is none.
        due = acknowledged - (acknowledged - 1 - place) % size if acknowledged > place else 0
        intact = slot is None or slot.state == "ok"
        if not intact and place in in_flight:
            continue
        promise = f"{write_mode} record {due} was acknowledged"
        if slot is not None and slot.state == "wrong":
            ring.corrupt.append(
                f"{promise}; the record in its slot has a wrong checksum"
                if due
                else f"slot {place} of {write_mode} was never acknowledged and holds a record with a wrong checksum"
            )
        elif slot is not None and slot.state == "foreign" and not due:
            ring.strange.append(f"slot {place} of {write_mode} was never acknowledged and holds something else")
        elif due and slot is None:
            ring.lost.append(f"{promise}; its slot is empty")
        elif due and slot is not None and slot.state == "foreign":
            ring.lost.append(f"{promise}; its slot holds something else")
        elif due and slot is not None and slot.number < due:
            ring.lost.append(f"{promise}; its slot holds record {slot.number}")
    return ring


def _memory_sentence(one: MemoryMismatch) -> str:
    checksum = "right" if one.checksum_right else "wrong"
    return (
        f"record {one.index} in memory was of generation {one.expected}; "
        f"what is there says {one.found}, its checksum is {checksum}"
    )


def _failure_sentence(one: Failed) -> str:
    return f"{one.write_mode} record {one.number} could not be written: {one.message or f'errno {one.errno}'}"


def longest_gap(messages: Iterable[Received]) -> float:
    """The longest time in seconds in which no record became safe, or in which there was no sign of life at all.

    The guest's clock stands still while the guest is paused, as it is at the end of a migration, and the controller's
    clock also counts how long a line was under way.  So both are used: a line was sent no later than any line behind
    it came, less the time that passed between the two in the guest.  A pause makes all lines behind it late; a delay
    on the way makes only some lines late, and does not count.  A write mode that failed is at its end, not in a gap.
    """
    first: dict[Ack | Tick, float] = {}
    failed = set()
    for one in messages:
        if isinstance(one.message, Ack | Tick):
            first[one.message] = min(one.at, first.get(one.message, math.inf))
        elif isinstance(one.message, Failed):
            failed.add(one.message.write_mode)
    acks: list[float] = []
    ticks: list[float] = []
    late = math.inf
    for message in sorted(first, key=lambda message: (-message.at_ms, first[message])):
        late = min(late, first[message] - message.at_ms / 1000)
        (acks if isinstance(message, Ack) else ticks).append(message.at_ms / 1000 + late)
    # Both begin with the latest.  Work that never went on again lasts until the last sign of life.
    until = [ticks[0]] if ticks and acks and ticks[0] > acks[0] and not failed.issuperset(WRITE_MODES) else []
    gaps = (after - before for after, before in chain(pairwise(until + acks), pairwise(ticks)))
    return max(gaps, default=0.0)
