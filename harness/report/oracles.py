"""The oracles of one cell side by side: verify with the counter that is its sum, and the comparison; pure.

They are two independent looks, not three: DRBD's counter is the weight of the bitmap that verify marks, so it can tell
that a line of the log is missing, and is no witness of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.judgement.oracles import KIB_PER_BLOCK, combine
from harness.model import Evidence, Extent, NodeVerify, blocks_of
from harness.report.formatting import blocks_size, count, plural, seconds

_COUNTER = "verify, DRBD's counter"


class Agreement(StrEnum):
    """Whether verify with its counter and the comparison agree."""

    AGREE = "agree"
    HEALED = "explained"
    DISAGREE = "disagree"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class Oracle:
    """The answer of one oracle.  ``blocks`` is None where it has none; ``extents`` are there where it names places."""

    name: str
    blocks: int | None
    extents: tuple[Extent, ...] = ()
    note: str = ""

    @property
    def amount(self) -> str:
        """The blocks, and as a size."""
        return "not read" if self.blocks is None else blocks_size(self.blocks)


@dataclass(frozen=True)
class Oracles:
    """The answers of all oracles of one cell, and whether they agree."""

    answers: tuple[Oracle, ...]
    agreement: Agreement
    sentence: str


def oracles(evidence: Evidence) -> Oracles:
    """The answers in ``evidence``: verify and comparison must name the same blocks, the counter their number."""
    agreement, sentence = agreement_of(evidence)
    return Oracles((*_verify(evidence), _counter(evidence), _comparison(evidence)), agreement, sentence)


def agreement_of(evidence: Evidence) -> tuple[Agreement, str]:
    """Whether the answers in ``evidence`` agree, and the sentence that says it."""
    verify, comparison, kib = evidence.verify, evidence.comparison, evidence.counter_kib
    complete = verify is not None and verify.complete
    missing = [
        name
        for name, answered in (
            ("verify", complete),
            ("DRBD's counter", kib is not None),
            ("the comparison", comparison is not None),
        )
        if not answered
    ]
    if verify is None or comparison is None or kib is None or not complete:
        return Agreement.INCOMPLETE, f"No complete answer: {', '.join(missing)}."
    if verify.skipped_blocks:
        return Agreement.INCOMPLETE, f"Verify skipped {plural(verify.skipped_blocks, 'busy block')}."
    agreed = combine(evidence)
    if agreed.dispute is not None:
        return Agreement.DISAGREE, f"{agreed.dispute[:1].upper()}{agreed.dispute[1:]}."
    short = f" The kernel log names {count(len(agreed.named))} of them." if agreed.unnamed else ""
    if agreed.healed:
        healed = plural(agreed.healed, "block")
        return Agreement.HEALED, f"{healed} that verify marked were equal again when the devices were compared.{short}"
    return Agreement.AGREE, f"Both looks find {plural(len(agreed.differing), 'block')}.{short}"


def _verify(evidence: Evidence) -> tuple[Oracle, Oracle]:
    verify = evidence.verify
    if verify is None:
        return Oracle("verify, source", None), Oracle("verify, target", None)
    lasted = f"{seconds(verify.seconds)}"
    skipped = f", {plural(verify.skipped_blocks, 'busy block')} skipped" if verify.skipped_blocks else ""
    source = _side("verify, source", verify.source, f"{lasted}{skipped}")
    return source, _side("verify, target", verify.target, "")


def _side(name: str, side: NodeVerify, more: str) -> Oracle:
    notes = [side.node, "ran to its end" if side.finished else "no end seen"]
    if not side.started:
        notes[1:] = ["no start seen"]
    if side.found_blocks is not None:
        notes.append(f"its own count {count(side.found_blocks)}")
    if more:
        notes.append(more)
    return Oracle(name, len(blocks_of(side.extents)), side.extents, ", ".join(notes))


def _counter(evidence: Evidence) -> Oracle:
    kib = evidence.counter_kib
    if kib is None:
        return Oracle(_COUNTER, None)
    remainder = "" if kib % KIB_PER_BLOCK == 0 else ", not a whole number of blocks"
    return Oracle(_COUNTER, kib // KIB_PER_BLOCK, (), f"out-of-sync {count(kib)} KiB{remainder}")


def _comparison(evidence: Evidence) -> Oracle:
    comparison = evidence.comparison
    if comparison is None:
        return Oracle("comparison", None)
    note = f"{plural(comparison.blocks, 'block')} read {comparison.where}, {seconds(comparison.seconds)}"
    return Oracle("comparison", comparison.differing_blocks, comparison.differing, note)
