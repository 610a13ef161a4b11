"""A run in progress: many cells, one after the other, on what a lab keeper provides; everything kept.

When the lab is given up, the rest of the run is answered with that reason, never with silence.
"""

from __future__ import annotations

from types import TracebackType

from harness.config.controls import with_controls
from harness.drbd.resource import Resource
from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.engine.lab_keeper import LabFactory, LabKeeper
from harness.engine.run_record import RunRecord
from harness.errors import HarnessError, StoreError
from harness.guest.domain import Guest
from harness.judgement.controls import control_outcome, with_outcome
from harness.judgement.judge import judge
from harness.lab.base import FullLab
from harness.model import Cell, Controls, Evidence, Result, Verdict, VerdictKind
from harness.store import Store
from harness.util.logs import progress
from harness.workloads import workload_of

# Failures that say nothing about the cell: what it stood on went away.
LOST = ("lost-node", "lost-guest")


class Session:
    """Plays cells one after the other; a context manager that takes down what it brought up."""

    def __init__(self, store: Store, make_lab: LabFactory) -> None:
        self.store = store
        self._record = RunRecord(store)
        self._keeper = LabKeeper(make_lab, self._record, store.directory / "lab", self._forget_controls)
        self._controls: Controls = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.take_down()
        self._record.finished()

    # ------------------------------------------------------------------------------------------ what cells stand on

    @property
    def lab(self) -> FullLab:
        """The lab, brought up at the first use."""
        return self._keeper.lab

    @property
    def resource(self) -> Resource:
        """The resource over the lab's nodes, up and healthy."""
        return self._keeper.resource

    @property
    def guest(self) -> Guest:
        """A guest that answers: the warm one, or a new one when it does not."""
        return self._keeper.guest

    # ------------------------------------------------------------------------------------------ cells

    def play(self, cell: Cell) -> Result:
        """One cell and the verdict on it; the run's controls go first if they have not gone yet.

        A cell whose node or guest was lost is played once more, on what replaced it; both attempts are kept.
        """
        try:
            result = self._after_controls(cell)
            if not _lost(cell, result) or self._keeper.gave_up is not None:
                return result
        except StoreError:
            raise
        except HarnessError as error:
            if self._keeper.gave_up is not None:
                raise
            progress(f"{cell.id}: {error}")
        progress(f"{cell.id}: once more")
        return self._after_controls(cell)

    def _after_controls(self, cell: Cell) -> Result:
        if cell.control is None:
            self.controls()
        return self._play(cell)

    def controls(self) -> Controls:
        """The outcomes of this lab's controls, played at the first use.

        A second round is for a lab that was rebuilt in the middle of the first: nothing proven then counts.
        """
        cells = [cell for cell in with_controls(self._record.cells) if cell.control is not None]
        for cell in [*cells, *cells]:
            if cell.control not in self._controls and self._keeper.gave_up is None:
                self._play(cell)
        return self._controls

    def _play(self, cell: Cell) -> Result:
        if cell.control is not None and (done := self._played_control(cell)):
            return done
        run = self.begin(cell)
        evidence = play(run, workload_of(cell), lambda: self.guest)
        if run.guest_disk.guest is not None:
            self._keeper.keep_guest(run.guest_disk.guest)
        return self.judged(run, evidence)

    def begin(self, cell: Cell) -> CellRun:
        """A new attempt at ``cell``, nothing done yet."""
        resource = self.resource
        return CellRun(self.lab, resource, self.store.begin(cell))

    def judged(self, run: CellRun, evidence: Evidence) -> Result:
        """The verdict on what an attempt found, kept beside it; brings back what the attempt broke."""
        cell = evidence.cell
        if cell.control is not None:
            self._controls = with_outcome(self._controls, control_outcome(evidence))
        verdict = judge(evidence, self._controls)
        run.context.attempt.save_verdict(verdict)
        progress(f"{cell.id}: {verdict.kind}: {verdict.sentence}")
        if cell.control is None and verdict.kind is not VerdictKind.INCONCLUSIVE:
            self._keeper.answered()
        if evidence.failure is not None or (evidence.repair and evidence.repair.differing_after):
            self._keeper.recover()
        return Result(cell, verdict, evidence)

    def _played_control(self, cell: Cell) -> Result | None:
        """A control of this lab that was played already, asked for again as an item of its own."""
        assert cell.control is not None
        if cell.control not in self._controls:
            return None
        evidence = self.store.evidence(cell.id)
        verdict = self.store.verdict(cell.id)
        return Result(cell, verdict, evidence) if evidence and verdict else None

    def _forget_controls(self) -> None:
        """Another lab proves nothing about this one."""
        self._controls = {}


def _lost(cell: Cell, result: Result) -> bool:
    """Whether the cell has no answer because what it stood on went away by itself.

    Where something was done to the guest on purpose its loss may be the answer.
    """
    failure = result.evidence.failure if result.evidence else None
    if failure is None or failure.kind not in LOST:
        return False
    if result.verdict is not None and result.verdict.kind is not VerdictKind.INCONCLUSIVE:
        # What was found outlasts the loss.
        return False
    return not cell.has_canary or (failure.kind == "lost-node" and cell.crash is None and cell.fault is None)


def inconclusive(cell: Cell, why: str) -> Result:
    """The answer for a cell that could not even begin."""
    return Result(cell, Verdict(VerdictKind.INCONCLUSIVE, why), None)
