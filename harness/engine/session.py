"""A run in progress: many cells, one after the other, on what a lab keeper provides; everything kept.

The controls go around the cells (:mod:`harness.engine.control_rounds`).  A failed one is answered with another lab; one
that fails on that too, or that the stack refuses, ends the run.  When the lab is given up, the rest of the run is
answered with that reason, never with silence.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

from harness.config.controls import with_controls
from harness.config.repetitions import cell_seed, new_seed
from harness.drbd.resource import Resource
from harness.drbd.size import size_mib
from harness.engine import device_size
from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.engine.control_rounds import CONTROLS_EVERY, ControlRounds
from harness.engine.lab_keeper import LabFactory, LabKeeper
from harness.engine.pace import Pace
from harness.engine.run_record import RunRecord
from harness.errors import HarnessError, StoreError
from harness.guest.domain import Guest
from harness.judgement.controls import control_outcome
from harness.judgement.controls_around import judge_between
from harness.judgement.judge import REFUSED
from harness.judgement.rejudge import control_held
from harness.lab.base import FullLab
from harness.model import Cell, ClientKind, Control, Evidence, Result, Verdict, VerdictKind
from harness.store import Store
from harness.util.logs import progress
from harness.workloads import workload_of

# Failures that say nothing about the cell: what it stood on went away.
LOST = ("lost-node", "lost-guest")


class Session:
    """Plays cells one after the other; a context manager that takes down what it brought up.

    ``controls_every``: seconds after which the lab has to show again what it can see, between two cells.  ``pace`` says
    how long the rest will take, where somebody wants to know.
    """

    def __init__(
        self, store: Store, make_lab: LabFactory, controls_every: float = CONTROLS_EVERY, pace: Pace | None = None
    ) -> None:
        self.store = store
        self._pace = pace
        self._record = RunRecord(store)
        self._rounds = ControlRounds(every=controls_every)
        self._keeper = LabKeeper(make_lab, self._record, store.directory / "lab", self._rounds.forget)
        self._control_results: dict[str, Result] = {}
        self._failed_controls: set[Control] = set()
        self._closed = False
        #: Whether somebody wants it to end now: then no control closes it.
        self.interrupted = False

    def __enter__(self) -> Session:
        self._record.goes_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
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

    @property
    def clean_guest(self) -> Guest:
        """The same for a cell that begins: with no disk yet, and nothing left on in it by whoever had it before.

        A user's image, where there is one, is for cells; the controls are played in the harness's own guest.
        """
        return self._keeper.clean_guest

    # ------------------------------------------------------------------------------------------ cells

    def play(self, cell: Cell) -> Result:
        """One cell and the verdict on it, after the controls that are due.  A control is played once on a lab.

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
            self.controls(cell)
            return self._play(cell)
        while not self._rounds.was_played(cell) and self._keeper.gave_up is None:
            self._play(self._rounds.due(self._control_cells()) or cell)
        if cell.id not in self._control_results:
            self._keeper.must_not_have_given_up()
        return self._control_results[cell.id]

    def controls(self, cell: Cell) -> None:
        """Play the controls that are due before ``cell``, if any are, on a device as large as it needs; a lab that is
        rebuilt has all of them due.

        Blocks for about a minute and a half where it plays all of them on an emulated lab.
        """
        while self._keeper.gave_up is None and (
            due := self._rounds.due(self._control_cells(), self._resource_of(cell).blocks)
        ):
            self._play(due)

    def _resource_of(self, cell: Cell) -> Resource:
        """The resource, its device as large as ``cell`` needs; a control takes any that is large enough."""
        lab = self.lab
        wanted = device_size.device_mib(cell, lab.resource_spec.size_mib, lab.guest_spec.canary_blocks)
        if cell.control is not None:
            wanted = max(wanted, size_mib(self.resource))
        return self._keeper.resource_of(wanted, cell.replication)

    def close(self) -> None:
        """Play the closing controls, once, where cells were played since the last time and the lab is up.

        There are none where the session is interrupted or its lab was given up.  Nothing follows, so one that fails is
        kept and ends them; what keeps them from being played is noted in the run.
        """
        if self._closed or self.interrupted or not self._keeper.up:
            return
        self._closed = True
        try:
            for cell in self._rounds.closing(self._control_cells()):
                if not control_held(self._play(cell)):
                    break
        except StoreError:
            raise
        except HarnessError as error:
            progress(f"the closing controls were not all played: {error}")
            self._record.note(f"the closing controls were not all played: {error}")

    def _control_cells(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in with_controls(self._record.cells) if cell.control is not None)

    def _play(self, cell: Cell) -> Result:
        if cell.control is not None and self._rounds.occasion:
            progress(f"{cell.id}: the {cell.control} control ({self._rounds.occasion})")
        if cell.repetition > 1:
            progress(f"{cell.id}: repetition {cell.repetition}")
        run = self.begin(cell)
        try:
            evidence = play(run, workload_of(run.cell), lambda: self.clean_guest)
        except KeyboardInterrupt:
            self.interrupted = True
            raise
        if run.guest_disk.guest is not None:
            self._keeper.keep_guest(run.guest_disk.guest)
        return self.judged(run, evidence)

    def begin(self, cell: Cell) -> CellRun:
        """A new attempt at ``cell``, nothing done yet; each of a control has a seed of its own."""
        resource = self._resource_of(cell)
        self._keeper.harness_own = cell.control is not None
        if cell.client is ClientKind.GUEST and cell.control is None and self.lab.guest_spec.image.there:
            # It may take many minutes to come up, which the cell's deadline is not for.
            self.clean_guest  # noqa: B018 - which is started
        if self._pace is not None:
            self._pace.begins()
        attempt = self.store.begin(cell)
        if cell.control is not None:
            seed = self._record.seed
            seed = cell_seed(seed, cell.id, attempt.number) if seed else new_seed()
            attempt = replace(attempt, cell=replace(cell, seed=seed))
        return CellRun(self.lab, resource, attempt)

    def judged(self, run: CellRun, evidence: Evidence) -> Result:
        """The verdict on what an attempt found, kept beside it; brings back what the attempt broke."""
        cell = evidence.cell
        self._rounds.played(evidence)
        verdict = judge_between(evidence, self._rounds.outcomes, {})
        run.context.attempt.save_verdict(verdict)
        progress(f"{cell.id}: {verdict.kind}: {verdict.sentence}")
        result = Result(cell, verdict, evidence)
        if cell.control is not None:
            self._control_results[cell.id] = result
        elif verdict.kind is not VerdictKind.INCONCLUSIVE:
            self._keeper.answered()
        if run.unreverted is not None:
            self._keeper.rebuild(run.unreverted)
        elif evidence.failure is not None or (evidence.repair and evidence.repair.differing_after):
            self._keeper.recover()
        if cell.control is not None and not control_held(result):
            self._control_failed(evidence)
        if self._pace is not None and self._keeper.gave_up is None and not self._closed:
            progress(self._pace.played(evidence.cell, self._rounds.state))
        return result

    def _control_failed(self, evidence: Evidence) -> None:
        """Replace the lab, or end the run: no cell would be worth anything on this one."""
        outcome = control_outcome(evidence)
        again = "twice" if outcome.control in self._failed_controls else "on a lab that had just been rebuilt"
        self._failed_controls.add(outcome.control)
        if self._closed or self._keeper.gave_up is not None or not self._rounds.was_played(evidence.cell):
            # Nothing follows, or the lab is gone already.
            return
        why = f"the {outcome.control} control failed: {outcome.sentence}"
        if evidence.failure is not None and evidence.failure.kind == REFUSED:
            # What the stack refuses to a control it will refuse on the next lab too.
            self._keeper.stop(why)
        else:
            self._keeper.rebuild(why, f"not played: the {outcome.control} control failed {again}: {outcome.sentence}")


def _lost(cell: Cell, result: Result) -> bool:
    """Whether the cell has no answer because what it stood on went away by itself.

    Where something was done to the guest on purpose its loss may be the answer.
    """
    failure = result.evidence.failure if result.evidence else None
    if failure is None or failure.kind not in LOST or cell.sabotage is not None:
        return False
    if result.verdict is not None and result.verdict.kind is not VerdictKind.INCONCLUSIVE:
        # What was found outlasts the loss.
        return False
    return not cell.has_canary or (failure.kind == "lost-node" and cell.crash is None and cell.fault is None)


def inconclusive(cell: Cell, why: str) -> Result:
    """The answer for a cell that could not even begin."""
    return Result(cell, Verdict(VerdictKind.INCONCLUSIVE, why), None)
