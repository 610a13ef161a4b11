"""What tc and dmsetup print of the delays that are on."""

from __future__ import annotations

import json


def netem_delay_ms(qdiscs: str) -> int:
    """The delay of the netem queue in the output of ``tc -j qdisc show dev X``, in ms; 0 without one.

    Of several the longest counts.  tc prints it in seconds.  :class:`ValueError` for any other text: what was not
    printed is no delay of 0.
    """
    try:
        found = json.loads(qdiscs)
    except json.JSONDecodeError:
        raise ValueError(f"tc printed no JSON but '{qdiscs.strip()[:80]}'") from None
    if not isinstance(found, list):
        raise ValueError("tc printed no list of queues")
    queues = [queue for queue in found if isinstance(queue, dict) and queue.get("kind") == "netem"]
    return max((_delay_ms(queue.get("options")) for queue in queues), default=0)


def _delay_ms(options: object) -> int:
    delay = options.get("delay", {"delay": 0}) if isinstance(options, dict) else None
    seconds = delay.get("delay") if isinstance(delay, dict) else None
    if not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
        raise ValueError("tc printed a netem queue whose delay is no number of seconds")
    # Less than half a millisecond is a delay too.
    return max(1, round(seconds * 1000)) if seconds else 0


# Of the delays of a target: those of reads and writes, and that of flushes.
_PARTS = (slice(0, 2), slice(2, None))


def dm_delays_ms(table: str) -> tuple[int, int]:
    """The delays in the output of ``dmsetup table X``, in ms: of reads and writes, and of flushes where they have one
    of their own; 0 for any target but delay.

    A delay target is ``start length delay dev offset read_ms [dev offset write_ms [dev offset flush_ms]]``: the longest
    counts, so that none is overlooked.  Flushes without a delay of their own have that of writes.
    :class:`ValueError` without any table, and where a delay is no number: what was not printed is no delay of 0.
    """
    lines = [line.split() for line in table.splitlines() if line.strip()]
    if not lines:
        raise ValueError("dmsetup printed no table")
    targets = [fields[5::3] or [""] for fields in lines if fields[2:3] == ["delay"]]
    if not all(delay.isascii() and delay.isdigit() for delays in targets for delay in delays):
        raise ValueError("dmsetup printed a delay target whose delay is no number of milliseconds")
    disk, flush = ([int(delay) for delays in targets for delay in delays[part]] for part in _PARTS)
    return max(disk, default=0), max(flush, default=0)


def dm_origin(table: str) -> str | None:
    """The device, as ``major:minor``, that a mapped one is block for block, from the output of ``dmsetup table X``.

    None where it is not that: several targets, one that is neither linear nor delay, or one that begins elsewhere.
    """
    lines = [line.split() for line in table.splitlines() if line.strip()]
    if len(lines) != 1 or len(lines[0]) < 5:
        return None
    start, _, target, device, offset, *_ = lines[0]
    return device if (start, offset) == ("0", "0") and target in ("linear", "delay") else None


def dm_sectors(table: str) -> int:
    """The size of a mapped device in 512-byte sectors, from the output of ``dmsetup table X``; 0 without a table."""
    lines = [line.split() for line in table.splitlines() if line.strip()]
    sizes = [int(fields[1]) for fields in lines if len(fields) > 2 and fields[1].isascii() and fields[1].isdigit()]
    return sum(sizes) if len(sizes) == len(lines) else 0
