"""The opinion about a piece of evidence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.model.axes import Control, Hazard, Potency, VerdictKind
from harness.model.cell import Cell, Expectation
from harness.model.evidence import Evidence


@dataclass(frozen=True)
class Opportunities:
    """How many chances to diverge there were: ``what`` one of them is, in the plural, and ``source`` who counted."""

    count: int
    what: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """The opinion about one piece of evidence: a kind, the sentence that says what was seen, and the reasons.

    ``hazard``: what became of the writes that changed in flight; None where nobody can tell, or where there is no
    answer.  ``potency`` and ``potency_reason``: how much a CLEAN is worth, None for the other kinds.
    ``rate_upper_95`` is the bound on the rate of differing blocks among ``opportunities``, or among the exposed blocks
    where nobody counted them.  ``acknowledged_early``: how many writes QEMU acknowledged before it had flushed them,
    where a probe asked; None elsewhere.
    """

    kind: VerdictKind
    sentence: str
    reasons: tuple[str, ...] = ()
    differing_blocks: int = 0
    exposed_blocks: int = 0
    rate_upper_95: float | None = None
    hazard: Hazard | None = None
    potency: Potency | None = None
    potency_reason: str = ""
    opportunities: Opportunities | None = None
    acknowledged_early: int | None = None

    def among(self, kinds: Collection[VerdictKind]) -> bool:
        """Whether it is one of ``kinds``; with DIVERGED go writes that were acknowledged before they were flushed."""
        return self.kind in kinds or (bool(self.acknowledged_early) and VerdictKind.DIVERGED in kinds)

    def answers(self, expected: Expectation | None) -> bool:
        """Whether it is an answer; INCONCLUSIVE is one only where that is expected, with what its sentence says."""
        return self.kind is not VerdictKind.INCONCLUSIVE or (expected is not None and self.meets(expected))

    def meets(self, expected: Expectation | None) -> bool:
        """Whether this is what was expected.

        Without an expectation every answer is, but for CORRUPT: data that was lost or read wrong is a finding.  So is
        a write that was acknowledged before it was flushed.
        """
        if expected is None:
            return self.kind not in (VerdictKind.INCONCLUSIVE, VerdictKind.CORRUPT) and not self.acknowledged_early
        return self.kind in expected.verdicts and expected.says in self.sentence


@dataclass(frozen=True)
class Result:
    """One cell and what came of it.  No verdict: it did not run."""

    cell: Cell
    verdict: Verdict | None
    evidence: Evidence | None


@dataclass(frozen=True)
class ControlOutcome:
    """Whether one control held, and the sentence that says what was seen.

    ``witnessed``: its witness watched and saw writes change in flight, so that it is known to see them on this lab.
    """

    control: Control
    held: bool
    sentence: str
    witnessed: bool = False


Controls = Mapping[Control, ControlOutcome]
"""The outcomes of the controls of one lab; a control that did not run is not in it."""
