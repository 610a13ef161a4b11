"""How much a CLEAN is worth: whether anything shows that this work could have diverged; pure.

It is strong where writes changed in flight in this cell, or where the same work diverged, or changed writes in flight,
in another cell or repetition of the run.  The same work is the same workload from the same client on the same
filesystem and layout; what mitigates (cache mode, aio, bus, encryption below the filesystem) may differ, for that is
what a matrix compares.

But whatever makes a difference likelier in the other cell must be in this one too, or it shows nothing about this one:
delays at least as long, and the same migrations, crash, fault and replication profile where the other has any.  That
blocks differed in a delayed cell says little about a natural one; that they differed in a natural one says enough about
a delayed one.  And where DRBD read the node's page cache (writethrough, writeback, unsafe) it was QEMU that wrote that
page again in flight: it says nothing about the guest's own memory, which DRBD reads with none and directsync.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from harness.judgement.witness_coverage import changed_in_flight
from harness.model import Cell, Evidence, Layout, Potency, Result, Verdict, VerdictKind

ENCRYPTING = frozenset({Layout.CRYPT, Layout.CRYPT_NODE, Layout.CRYPT_QEMU})


def own_potency(verdict: Verdict, evidence: Evidence) -> Verdict:
    """``verdict`` with the potency that the cell shows by itself; the rest of the run may show more."""
    if verdict.kind is not VerdictKind.CLEAN:
        return replace(verdict, potency=None, potency_reason="")
    changed = changed_in_flight(evidence)
    if changed:
        return replace(verdict, potency=Potency.STRONG, potency_reason=_changed_here(changed))
    return replace(verdict, potency=Potency.WEAK, potency_reason="no write is known to have changed in flight")


def with_potency(results: Iterable[Result]) -> list[Result]:
    """The results of one run, each CLEAN with the potency that the whole run shows; nothing else changes."""
    results = list(results)
    return [replace(one, verdict=_potency(one, one.verdict, results)) if one.verdict else one for one in results]


def _potency(result: Result, verdict: Verdict, results: list[Result]) -> Verdict:
    if verdict.kind is not VerdictKind.CLEAN:
        return replace(verdict, potency=None, potency_reason="")
    if changed := _changed(result):
        return replace(verdict, potency=Potency.STRONG, potency_reason=_changed_here(changed))
    if result.evidence is None and verdict.potency is Potency.STRONG:
        return verdict
    others = [other for other in results if other is not result and _same_work(other.cell, result.cell)]
    for other in others:
        if other.verdict is not None and other.verdict.kind.finds_harm and other.verdict.differing_blocks:
            reason = f"the same work ended as {other.verdict.kind} in {_name(other.cell, result.cell)}"
            return replace(verdict, potency=Potency.STRONG, potency_reason=reason)
    for other in others:
        if changed := _changed(other):
            reason = f"the same work changed {changed} block writes in flight in {_name(other.cell, result.cell)}"
            return replace(verdict, potency=Potency.STRONG, potency_reason=reason)
    reason = "no write is known to have changed in flight, here or in another cell with the same work"
    return replace(verdict, potency=Potency.WEAK, potency_reason=reason)


def _changed(result: Result) -> int:
    return changed_in_flight(result.evidence) if result.evidence is not None else 0


def _changed_here(changed: int) -> str:
    return f"{changed} block writes changed in flight"


def _same_work(other: Cell, this: Cell) -> bool:
    """Whether what the work did in ``other`` shows what it can do in ``this``."""
    what = [(cell.workload, cell.client, cell.filesystem, _layout(cell)) for cell in (other, this)]
    special = [
        (bool(other.migrations), bool(this.migrations)),
        (other.crash, this.crash),
        (other.fault, this.fault),
        (None if other.replication.plain else other.replication, this.replication),
    ]
    return (
        # What was done to the instrument on purpose makes differences of its own.
        other.sabotage is None
        and what[0] == what[1]
        and (not _behind_page_cache(other) or _behind_page_cache(this))
        and other.delays.link_delay_ms <= this.delays.link_delay_ms
        and other.delays.disk_delay_ms <= this.delays.disk_delay_ms
        and other.delays.flush_delay_ms <= this.delays.flush_delay_ms
        and all(not theirs or theirs == ours for theirs, ours in special)
    )


def _behind_page_cache(cell: Cell) -> bool:
    return cell.cache is not None and not cell.cache.direct


def _layout(cell: Cell) -> Layout:
    """The layout without what mitigates in it: encryption is below what the work does, and copies what it writes."""
    layout = cell.without_presets().layout if cell.mitigation else cell.layout
    return Layout.RAW if layout in ENCRYPTING else layout


def _name(other: Cell, this: Cell) -> str:
    return f"repetition {other.repetition}" if other.id == this.id else other.id
