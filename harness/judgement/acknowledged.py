"""What a probe of QEMU found out: writes of a write-through disk that it acknowledged before they were flushed; pure.

Nothing is lost by that alone: it is no CORRUPT.  It is a finding of its own beside what became of the replicas, and the
sentence begins with it.
"""

from __future__ import annotations

from dataclasses import replace

from harness.model import Evidence, Verdict, VerdictKind
from harness.model.acknowledgement import ACKNOWLEDGED, EARLY, EARLY_OF_EACH, WRITES

#: What a sentence begins with where every write waited for its flush; what an expectation can ask for.
NONE_EARLY = "no write was acknowledged before it was flushed"


def with_acknowledgements(verdict: Verdict, evidence: Evidence) -> Verdict:
    """``verdict`` with what the probe found, where one has an answer; any other as it is."""
    facts = evidence.work.facts if evidence.work is not None else {}
    writes, early = facts.get(ACKNOWLEDGED), facts.get(EARLY)
    if writes is None or early is None or verdict.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.REFUSED):
        return verdict
    if early:
        each = int(writes) // len(WRITES)
        counts = ((what, int(facts.get(name, 0))) for what, name in zip(WRITES, EARLY_OF_EACH, strict=True))
        which = ", ".join(f"{what}: {count} of {each}" for what, count in counts if count)
        found = f"{int(early)} of {int(writes)} writes were acknowledged before they were flushed ({which})"
    else:
        found = f"{NONE_EARLY} (0 of {int(writes)})"
    return replace(verdict, sentence=f"{found}; {verdict.sentence}", acknowledged_early=int(early))
