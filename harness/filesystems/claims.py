"""Free space and files as a map of a device: where the two, or two files, contradict each other, nobody is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.filesystems.owned import ByteMap
from harness.model import BlockOwner


@dataclass(frozen=True)
class Claim:
    """Bytes ``start`` to before ``stop`` of a device that a file or the filesystem itself says are its own.

    ``path`` and ``offset`` are as of :class:`~harness.filesystems.owned.OwnedBlock`.
    """

    start: int
    stop: int
    owner: BlockOwner
    detail: str
    path: str = ""
    offset: int | None = None


def paint_claims(painted: ByteMap, area: range, free: Iterable[range], claims: Sequence[Claim]) -> None:
    """Paint the ``area`` of clusters: what is ``free`` by the filesystem's own bitmap, and what is claimed.

    What is in use and claimed by nobody is unknown, and so is what is free and claimed, or claimed twice: a crash may
    leave it like that, and a broken filesystem.
    """
    painted.paint(area.start, area.stop, BlockOwner.UNKNOWN, "marked in use, but no file that was read has it")
    free = sorted(free, key=lambda run: run.start)
    for run in free:
        painted.paint(run.start, run.stop, BlockOwner.FREE, "free space")
    ordered = sorted(claims, key=lambda claim: (claim.start, claim.stop))
    for claim in ordered:
        painted.paint(
            claim.start, claim.stop, claim.owner, claim.detail, path=claim.path, offset=claim.offset
        )  # fmt: skip
    for start, stop, detail in (*_claimed_twice(ordered), *_free_and_claimed(free, ordered)):
        painted.paint(start, stop, BlockOwner.UNKNOWN, detail)


def _claimed_twice(ordered: Sequence[Claim]) -> Iterator[tuple[int, int, str]]:
    furthest: Claim | None = None
    for claim in ordered:
        if furthest is not None and claim.start < furthest.stop:
            yield claim.start, min(claim.stop, furthest.stop), f"claimed by {furthest.detail} and by {claim.detail}"
        if furthest is None or claim.stop > furthest.stop:
            furthest = claim


def _free_and_claimed(free: Sequence[range], ordered: Sequence[Claim]) -> Iterator[tuple[int, int, str]]:
    at = 0
    for claim in ordered:
        while at < len(free) and free[at].stop <= claim.start:
            at += 1
        for run in free[at:]:
            if run.start >= claim.stop:
                break
            detail = f"free by the bitmap, but claimed by {claim.detail}"
            yield max(run.start, claim.start), min(run.stop, claim.stop), detail
