"""What makes an answer worth less: facts that were not read, happened too late, or were lost on the way; pure.

Some of it takes the ground away from a CLEAN; the rest is only said beside the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.judgement.in_force import delays_not_as
from harness.model import DelayProfile, Evidence, FilesystemKind, Migration


def without_ground(evidence: Evidence) -> str | None:
    """Why "nothing was found" says nothing: the end of a sentence; None where it stands."""
    return next(_ground(evidence), None)


def doubts(evidence: Evidence) -> tuple[str, ...]:
    """All that makes the answer worth less, one sentence each."""
    return (*_ground(evidence), *_besides(evidence))


def _ground(evidence: Evidence) -> Iterator[str]:
    yield from _pages_held_still(evidence)
    yield from _scatter_gather_unknown(evidence)
    if evidence.events_lost:
        yield f"DRBD's events are not complete, and a lost connection may be missing: {'; '.join(evidence.events_lost)}"
    moved = _moved_during_work(evidence)
    if moved and len(late := _late(evidence)) == len(moved):
        which = "the only migration" if len(moved) == 1 else f"each of the {len(moved)} migrations"
        yield f"{which} began when the work was over already: {_how_late(evidence, late[0])}"


def _besides(evidence: Evidence) -> Iterator[str]:
    late = _late(evidence)
    if len(late) < len(_moved_during_work(evidence)):
        yield from (f"migration {one.number} began {_how_late(evidence, one)}" for one in late)
    took = evidence.work.took_seconds if evidence.work else None
    for one in _moved_during_work(evidence):
        if took is not None and one.began < took < one.began + one.seconds:
            after = one.began + one.seconds - took
            yield f"migration {one.number} ended {after:.1f} s after the work: only its beginning was under load"
    facts = evidence.work.facts if evidence.work else {}
    swaps = evidence.cell.filesystem is FilesystemKind.SWAP
    if swaps and facts.get("moves") and not facts.get("pages_moved_checked"):
        yield "no page that was swapped out before a migration was read from swap and checked after it"
    for reading in evidence.observed.delays:
        if reading.over:
            yield from delays_not_as(DelayProfile(), reading)


def _pages_held_still(evidence: Evidence) -> Iterator[str]:
    """A kernel that copies or locks what it writes keeps a buffer from changing; unless the cell asked it to."""
    if evidence.cell.guest_options.guest_stable_writes:
        return
    seen = [evidence.observed, *(one.observed for one in evidence.observed_after_moves if one.observed is not None)]
    if any(one.guest_stable_writes for one in seen):
        yield "the guest's kernel holds pages still while it writes them (stable_writes), which nobody asked for"


def _scatter_gather_unknown(evidence: Evidence) -> Iterator[str]:
    if not evidence.cell.replication.scatter_gather:
        return
    for name, node in evidence.observed.nodes.items():
        if node.scatter_gather is None:
            yield f"whether {name}'s replication NIC ({node.nic}) has scatter-gather could not be read"


def _moved_during_work(evidence: Evidence) -> list[Migration]:
    # Where nothing but the canary writes, it writes until the end.
    if evidence.cell.workload == "no-writes":
        return []
    return [one for one in evidence.migrations if one.during == "work"]


def _late(evidence: Evidence) -> list[Migration]:
    """The migrations that were to happen in the middle of the work, and began after it."""
    took = evidence.work.took_seconds if evidence.work else None
    return [] if took is None else [one for one in _moved_during_work(evidence) if one.began >= took]


def _how_late(evidence: Evidence, one: Migration) -> str:
    took = evidence.work.took_seconds if evidence.work else None
    return f"{one.began - (took or 0.0):.1f} s after the work had ended"
