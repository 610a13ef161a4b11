"""Reading the whole device in the guest, block by block, before and after something that must not change it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import InfrastructureError
from harness.model import Readback, extents_of
from harness.parse.blockdigest import changed, digests
from harness.remote.base import Runner

PROGRAM = "/usr/lib/drbd-harness/blockdigest"
# A guest agent holds all that a command printed in one answer: this many lines of 17 bytes are far below its limit.
PIECE_BLOCKS = 8192
PIECE_SECONDS = 120.0


def read_device(runner: Runner, device: str, blocks: int, timeout: float = PIECE_SECONDS) -> tuple[str, ...]:
    """A digest of each of the first ``blocks`` 4 KiB blocks of ``device``, read around the page cache.

    ``timeout`` is in seconds, for each piece of at most 8192 blocks.  :class:`~harness.errors.CommandError` when a
    block cannot be read, :class:`InfrastructureError` when the answer is not one digest for each block.
    """
    found: list[str] = []
    for first in range(0, blocks, PIECE_BLOCKS):
        count = min(PIECE_BLOCKS, blocks - first)
        done = runner.run([PROGRAM, device, str(first), str(count)], timeout=timeout)
        try:
            found.extend(digests(done.stdout, count))
        except ValueError as unreadable:
            raise InfrastructureError(
                f"{device} in {runner.host} could not be read from block {first} on: {unreadable}"
            ) from unreadable
    return tuple(found)


def compare_readbacks(
    before: Sequence[str], after: Sequence[str], before_node: str, after_node: str, seconds: float
) -> Readback:
    """Two read-backs by :func:`read_device` compared; ``seconds`` is how long both took, the owners are not looked for.

    :class:`ValueError` when they are not of as many blocks.
    """
    return Readback(
        blocks=len(before),
        before=before_node,
        after=after_node,
        differing=extents_of(changed(before, after)),
        seconds=seconds,
    )
