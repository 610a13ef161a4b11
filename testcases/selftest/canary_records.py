"""Records of a canary's ring as they were acknowledged and as they stand on a disk.  Nothing here is a test."""

from __future__ import annotations

from harness.parse.canary import Ack, Received, Slot

RUN = 0x1234_5678_9ABC_DEF0
SIZE = 8
BLOCKS = 3 * SIZE


def acks(write_mode: str, last: int) -> list[Received]:
    return [Received(number / 50, Ack(write_mode, number, number * 20)) for number in range(1, last + 1)]


def ring(write_mode: str, newest: int, size: int = SIZE) -> dict[int, Slot]:
    """The slots of a ring in which every record up to ``newest`` arrived."""
    return {(n - 1) % size: Slot(write_mode, (n - 1) % size, "ok", n) for n in range(1, newest + 1)}
