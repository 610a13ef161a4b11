"""When a session plays which controls on the lab that it has.  It plays nothing itself.

All of them open a lab, follow an hour after the last time (or sooner, where that is asked for), and close it; where a
node lost its power and came back, what a boot may have taken away is asked for before the next cell.  They are played
on the device as large as it is just then.  Where it is as large as it never was on this lab, changes are planted all
over it first: whether an oracle looks at all of a device is the one thing that its size may change.  A repair and a
change of the replication profile need none: the cell reads back what is in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from harness.config.controls import REVIVAL_CONTROLS
from harness.judgement.controls_around import PlayedControl, played_controls
from harness.model import BLOCK_BYTES, Cell, Control, Evidence
from harness.report.estimate import RoundsState

# Seconds after which a lab has to show again what it can see, between two cells.
CONTROLS_EVERY = 3600.0


class ControlRounds:
    """The rounds of controls on one lab after the other; :meth:`forget` says that it is another one now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, every: float = CONTROLS_EVERY) -> None:
        self._clock = clock
        self._every = every
        self.forget()

    def forget(self) -> None:
        """Another lab: what the last one showed proves nothing about it."""
        self._attempts: list[Evidence] = []
        self._waiting: list[Cell] = []
        self._whole = True
        self._last_whole: float | None = None
        self._cells_since = 0
        self._revived = False
        #: What the round under way is for.
        self.occasion = ""

    @property
    def outcomes(self) -> tuple[PlayedControl, ...]:
        """What the controls of this lab showed, in the order in which they were played."""
        return played_controls(self._attempts)

    @property
    def state(self) -> RoundsState:
        """Where they stand on this lab."""
        since = None if self._last_whole is None else self._clock() - self._last_whole
        sizes = {-(-blocks * BLOCK_BYTES // 2**20) for blocks in self._planted_on()}
        return RoundsState(tuple(self._waiting), since, self._cells_since, self._revived, frozenset(sizes))

    def was_played(self, cell: Cell) -> bool:
        """Whether the control ``cell`` was played on this lab."""
        return any(one.cell.id == cell.id for one in self._attempts)

    def due(self, controls: Sequence[Cell], blocks: int = 0) -> Cell | None:
        """Which of the run's ``controls`` has to be played before the next cell; None where none has.

        ``blocks``: the size of the device that the cell gets, in 4 KiB blocks; 0 where it is the same as ever.
        """
        if not self._waiting:
            if self._last_whole is None:
                self._begin("opening", controls)
            elif self._clock() - self._last_whole >= self._every:
                self._begin("hourly" if self._every == CONTROLS_EVERY else f"every {self._every:g} s", controls)
            elif self._revived:
                self._begin("after a node came back", controls, REVIVAL_CONTROLS)
            elif blocks and blocks not in self._planted_on():
                self._begin("on a device of another size", controls, (Control.PLANTED,))
        return self._waiting[0] if self._waiting else None

    def closing(self, controls: Sequence[Cell]) -> tuple[Cell, ...]:
        """The controls that close the lab: none where no cell was played since all of them were."""
        self._waiting = []
        if self._cells_since:
            self._begin("closing", controls)
        return tuple(self._waiting)

    def _begin(self, occasion: str, controls: Sequence[Cell], only: Collection[Control] = ()) -> None:
        self.occasion, self._whole = occasion, not only
        self._waiting = [cell for cell in controls if not only or cell.control in only]

    def _planted_on(self) -> set[int]:
        """The sizes of the device on which changes were planted, in blocks."""
        return {one.device_blocks for one in self._attempts if one.cell.control is Control.PLANTED}

    def played(self, evidence: Evidence) -> None:
        """An attempt at a cell or a control ended on this lab."""
        cell = evidence.cell
        if cell.control is None:
            self._cells_since += 1
            self._revived = self._revived or (cell.cuts_power and evidence.fault_injected)
            return
        self._attempts.append(evidence)
        waiting = [one for one in self._waiting if one.id != cell.id]
        # A lab that was rebuilt while the control began has forgotten its round, and all of it is due again.
        ended = bool(self._waiting) and not waiting
        self._waiting = waiting
        if not ended:
            return
        self._revived = False
        if self._whole:
            self._last_whole = self._clock()
            self._cells_since = 0
