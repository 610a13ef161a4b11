"""Whether a workload did what it is made for, by the figures that it counted itself; pure.

A storm that never swapped, a second job that wrote nothing, a file that was never truncated: whatever such a cell did
not find, it could not have found.  The figures are :attr:`~harness.model.Work.facts`, whose names are fixed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.model import Evidence, Work
from harness.model.acknowledgement import ACKNOWLEDGED

#: The newest schema whose workloads did not count all of these figures.
LAST_WITHOUT_PROOFS = 2


@dataclass(frozen=True)
class Proof:
    """A figure of a workload, the least that it must be, and what is wrong where it is less."""

    fact: str
    least: float
    otherwise: str


_SWAPPED = Proof("pages_swapped_out", 1, "no page was written to swap")
_WRITTEN = Proof("writer_write_bytes", 1, "its writer wrote nothing")
_SYNCED = Proof("syncer_write_bytes", 1, "nothing had the file written back meanwhile")
_COMMITTED = Proof("transactions", 1, "no transaction was committed")

#: What each of the harness's own workloads must have done; ``no-writes`` is made to do nothing, and of a
#: user's script nobody knows what it is made for.
PROOFS: Mapping[str, tuple[Proof, ...]] = {
    "no-writes": (),
    "planted": (Proof("planted_sectors", 1, "no sector was changed below DRBD"),),
    "steady": (_WRITTEN,),
    "inflight-modify": (_WRITTEN, Proof("scribbler_write_bytes", 1, "nothing modified its buffers")),
    "fio-verify": (Proof("verified_write_bytes", 1, "it wrote nothing"),),
    "buffered": (Proof("buffered_write_bytes", 1, "it wrote nothing"),),
    "pressure": (_SWAPPED,),
    "reclaim": (_SWAPPED, Proof("pages_reclaimed", 1, "no page was reclaimed")),
    "mmap": (Proof("pages_dirtied", 1, "no page of the file was changed"),),
    "truncate": (
        Proof("pages_dirtied", 1, "no page of the file was changed"),
        Proof("cuts", 1, "the file was never truncated"),
    ),
    "fio-buffered": (_WRITTEN, _SYNCED),
    "fio-mmap": (_WRITTEN, _SYNCED),
    "fio-direct": (_WRITTEN,),
    "fio-cost": (
        Proof("random_write_bytes", 1, "it wrote nothing at random places"),
        Proof("sequential_write_bytes", 1, "it wrote nothing in sequence"),
    ),
    "append-delete": (
        Proof("appended_bytes", 1, "it appended nothing"),
        Proof("truncations", 1, "no file was truncated"),
        Proof("files_deleted", 1, "no file was deleted"),
    ),
    "small-files": (
        Proof("files_made", 1, "no file was made"),
        Proof("files_rewritten", 1, "no file was rewritten"),
        Proof("files_deleted", 1, "no file was deleted"),
    ),
    "sqlite-wal": (_COMMITTED,),
    "sqlite-journal": (_COMMITTED,),
    "flush-probe": (Proof(ACKNOWLEDGED, 1, "no write was acknowledged"),),
    "flush-probe-raw-layer": (Proof(ACKNOWLEDGED, 1, "no write was acknowledged"),),
    "fio-job": (Proof("write_bytes", 1, "the job file wrote nothing"),),
    "guest-script": (),
}


def did_nothing(workload: str, work: Work, *, may_lack: bool = False) -> str | None:
    """Why ``work`` does not prove that ``workload`` did what it is made for, as the end of a sentence; None: it does.

    ``may_lack``: a figure that is not there at all raises no doubt.  Of a workload that is none of the harness's own
    nothing is demanded.
    """
    for proof in PROOFS.get(workload, ()):
        value = work.facts.get(proof.fact)
        if value is None and not may_lack:
            return f"the workload '{workload}' did not say how much it did: '{proof.fact}' is missing"
        # A figure that is no number proves nothing either.
        if value is not None and not value >= proof.least:
            return f"the workload '{workload}' did not do what it is made for: {proof.otherwise}"
    return None


def unproven_work(evidence: Evidence) -> str | None:
    """The same of a piece of evidence.

    Evidence of a schema before these figures is judged by those that it has; and a crash takes the figures with it, so
    that only DRBD's counters are left to say what was written until then.
    """
    may_lack = evidence.schema <= LAST_WITHOUT_PROOFS or evidence.cell.crash is not None
    return did_nothing(evidence.cell.workload, evidence.work or Work(0.0), may_lack=may_lack)
