"""A claim that is put to the test: what it says, and what decides it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from harness.model.cell import Cell
from harness.model.cell_pattern import Pattern, matches


class Says(StrEnum):
    """What a claim says of an event."""

    HAPPENS = "happens"
    NEVER = "never"
    OFTEN = "often"  # in at least half of the plays without any delay
    RARELY = "rarely"  # in at most one of ten plays without any delay


class ClaimEvent(StrEnum):
    """What one play of a cell may show."""

    DIFFERS = "differs"  # blocks differ at the end
    LOST = "lost"  # the guest lost an acknowledged write
    REREAD = "reread"  # after a migration it read a block differently, with no write in between
    REREAD_ALLOCATED = "reread-allocated"  # the same of a block that somebody has
    DIED = "died"  # it did not live through a migration
    MISREAD = "misread"  # after a migration it read its files or its memory wrongly
    SPLIT_AT_ONCE = "split-at-once"  # the digest failed, and the brain was split with the loss of the connection
    SILENT = "silent"  # of a play whose blocks differ: DRBD reports Connected and UpToDate/UpToDate
    ONLY_VERIFY = "only-verify"  # of a play whose blocks differ: nothing but the verify reported it
    DIGEST_NOTICED = "digest-noticed"  # the sender found a buffer modified by upper layers
    REPAIRED_BY_RECONNECT = "repaired-by-reconnect"  # after a verify, disconnect + connect made all equal
    REPAIRED_BY_INVALIDATE = "repaired-by-invalidate"  # after a verify, invalidate-remote --reset-bitmap=no did
    SLOW = "slow"  # a tenth of the IOPS of cache=none, or less


class Component(StrEnum):
    """What may be another one in another run."""

    DRBD = "drbd"
    KERNEL = "kernel"
    QEMU = "qemu"
    HARDWARE = "hardware"


@dataclass(frozen=True)
class Ask:
    """One question behind a claim.

    ``of`` is the event in words; ``cells`` are patterns, and a cell that matches one of them decides.  ``drbd`` begins
    the version that it is about, empty for any.  With ``across`` the question is whether what happened with one such
    component happened with another too.  ``play`` is a command that plays such cells, empty where there is none.
    """

    of: str
    event: ClaimEvent
    says: Says
    cells: tuple[Pattern, ...]
    drbd: str = ""
    across: Component | None = None
    play: str = ""

    def decided_by(self, cell: Cell) -> bool:
        """Whether a play of ``cell`` says something about it: never one of a control or of a sabotaged instrument."""
        if cell.control is not None or cell.sabotage is not None:
            return False
        return any(matches(pattern, cell) for pattern in self.cells)


@dataclass(frozen=True)
class ClaimSpec:
    """A claim: ``id``, its ``sentence``, and the questions of which one (or with ``needs_all`` each) decides it.

    ``note``: what no cell can say.
    """

    id: str
    sentence: str
    asks: tuple[Ask, ...]
    needs_all: bool = False
    note: str = ""
