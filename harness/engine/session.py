"""A run in progress: one lab, one resource, one warm guest, many cells, everything kept.

After a failure of the machinery the lab is rebuilt once; when it fails again before any cell got an answer, the rest of
the run is answered with that failure, never with silence.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType

from harness.config.matrix import with_controls
from harness.drbd.resource import Resource
from harness.engine.cell_run import play
from harness.engine.trial import Trial
from harness.errors import DeadlineError, HarnessError, InfrastructureError, LostNodeError, StoreError
from harness.guest.domain import Guest
from harness.judgement.judge import Controls, control_outcome, judge
from harness.lab.base import Lab
from harness.model import Cell, Evidence, Result, Run, Verdict, VerdictKind
from harness.store import Store
from harness.workloads import workload_of

LabFactory = Callable[[], AbstractContextManager[Lab]]

REBUILDS = 1
# Failures that say nothing about the cell: what it stood on went away.
LOST = ("lost-node", "lost-guest")


class Session:
    """Plays cells one after the other; a context manager that takes down what it brought up."""

    def __init__(self, store: Store, make_lab: LabFactory, progress: Callable[[str], None]) -> None:
        self.store = store
        self._make_lab = make_lab
        self.progress = progress
        self._stack = contextlib.ExitStack()
        self._lab: Lab | None = None
        self._resource: Resource | None = None
        self._guest: Guest | None = None
        self._controls: Controls = {}
        self._rebuilds = 0
        self._gave_up: str | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_down()
        self._save(lambda run: replace(run, finished_at=datetime.now(UTC).isoformat(timespec="seconds")))

    # ------------------------------------------------------------------------------------------ what cells stand on

    @property
    def lab(self) -> Lab:
        """The lab, brought up at the first use."""
        if self._gave_up is not None:
            raise InfrastructureError(f"the run gave up on its lab: {self._gave_up}")
        if self._lab is None:
            began = time.monotonic()
            try:
                self._lab = self._stack.enter_context(self._make_lab())
            except (LostNodeError, DeadlineError) as error:
                self._rebuild(str(error))
                if self._gave_up is not None:
                    raise
                return self.lab
            except HarnessError as error:
                # What is missing on the controller will be missing again.
                self._gave_up = str(error)
                raise
            self._timed("lab", began)
            stack = self._lab.stack
            self._save(lambda run: replace(run, stack=stack))
        return self._lab

    @property
    def resource(self) -> Resource:
        """The resource over the lab's nodes, up and healthy."""
        if self._resource is None:
            lab = self.lab
            began = time.monotonic()
            resource = Resource.for_nodes(lab.a, lab.b)
            try:
                resource.create(skip_initial_sync=lab.fresh)
            except HarnessError as error:
                self._rebuild(str(error))
                raise
            self._resource = resource
            self._timed("resource", began)
        return self._resource

    @property
    def guest(self) -> Guest:
        """A guest that answers: the warm one, or a new one when it does not."""
        if self._guest is not None and not self._guest.alive():
            if not self._guest.ended:
                self.progress("the guest does not answer any more; starting another")
                self._guest.destroy()
            self._guest = None
        if self._guest is None:
            began = time.monotonic()
            self.progress("starting the guest")
            self._guest = Guest.start(self.lab, self.lab.a)
            kernel = self._guest.agent.run(["uname", "-r"]).stdout.strip()
            self._save(lambda run: replace(run, stack=replace(run.stack, guest_kernel=kernel)))
            self._timed("guest", began)
        return self._guest

    def _timed(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        self._save(
            lambda run: replace(run, lab_seconds={**run.lab_seconds, what: run.lab_seconds.get(what, 0.0) + seconds})
        )

    def _save(self, change: Callable[[Run], Run]) -> None:
        self.store.save_run(change(self.store.run()))

    # ------------------------------------------------------------------------------------------ cells

    def play(self, cell: Cell) -> Result:
        """One cell and what is to be thought of it; the run's controls go first if they have not gone yet.

        A cell whose node or guest was lost is played once more, on what replaced it; both attempts are kept.
        """
        try:
            result = self._after_controls(cell)
            if not _lost(cell, result) or self._gave_up is not None:
                return result
        except StoreError:
            raise
        except HarnessError as error:
            if self._gave_up is not None:
                raise
            self.progress(f"{cell.id}: {error}")
        self.progress(f"{cell.id}: once more")
        return self._after_controls(cell)

    def _after_controls(self, cell: Cell) -> Result:
        if cell.control is None:
            self.controls()
        return self._play(cell)

    def controls(self) -> Controls:
        """The outcomes of this lab's controls, played at the first use.

        A second round is for a lab that was rebuilt in the middle of the first: nothing proven then counts.
        """
        cells = [cell for cell in with_controls(self.store.run().cells) if cell.control is not None]
        for cell in [*cells, *cells]:
            if cell.control not in self._controls and self._gave_up is None:
                self._play(cell)
        return self._controls

    def _play(self, cell: Cell) -> Result:
        if cell.control is not None and (done := self._played_control(cell)):
            return done
        trial = self.trial(cell)
        evidence = play(trial, workload_of(cell), lambda: self.guest)
        if trial.guest is not None:
            # After a crash it is another one than the cell began with.
            self._guest = trial.guest
        return self.judged(trial, evidence)

    def trial(self, cell: Cell) -> Trial:
        """A new attempt at ``cell``, nothing done yet."""
        resource = self.resource
        return Trial(self.lab, resource, self.store.begin(cell), self.progress)

    def judged(self, trial: Trial, evidence: Evidence) -> Result:
        """The verdict on what a trial found, kept beside it; mends what the trial broke."""
        cell = evidence.cell
        if cell.control is not None:
            self._controls = {**self._controls, cell.control: control_outcome(evidence)}
        verdict = judge(evidence, self._controls)
        trial.attempt.save_verdict(verdict)
        self.progress(f"{cell.id}: {verdict.kind}: {verdict.sentence}")
        if cell.control is None and verdict.kind is not VerdictKind.INCONCLUSIVE:
            # A lab that gives answers is worth another: two losses in an hour are not one that never works.
            self._rebuilds = 0
        if evidence.failure is not None or (evidence.repair and evidence.repair.differing_after):
            self._recover()
        return Result(cell, verdict, evidence)

    def _played_control(self, cell: Cell) -> Result | None:
        """A control of this lab that was played already, asked for again as an item of its own."""
        assert cell.control is not None
        if cell.control not in self._controls:
            return None
        evidence = self.store.evidence(cell.id)
        verdict = self.store.verdict(cell.id)
        return Result(cell, verdict, evidence) if evidence and verdict else None

    # ------------------------------------------------------------------------------------------ after a failure

    def _recover(self) -> None:
        """Bring the lab back to where a cell can begin, or give it up."""
        try:
            for node in (self.lab.a, self.lab.b):
                node.runner.run(["true"], timeout=20)
            state, counters = self.resource.status()
            if not state.healthy or counters.out_of_sync_kib:
                self.progress("the resource is not healthy; setting it up again")
                self._drop_guest()
                self.resource.create(skip_initial_sync=False)
        except HarnessError as error:
            self._rebuild(str(error))

    def _rebuild(self, why: str) -> None:
        if self._rebuilds >= REBUILDS:
            self._take_down()
            self._gave_up = why
            self.progress(f"giving the lab up: {why}")
            return
        self._rebuilds += 1
        self.progress(f"rebuilding the lab: {why}")
        self._save(lambda run: replace(run, notes=(*run.notes, f"the lab was rebuilt: {why}")))
        self._take_down()

    def _drop_guest(self) -> None:
        if self._guest is not None:
            self._guest.destroy()
            self._guest = None

    def _take_down(self) -> None:
        if self._lab is not None:
            self.progress("taking down what was brought up")
        self._keep_guest_console()
        with contextlib.suppress(HarnessError):
            self._drop_guest()
        if self._resource is not None:
            with contextlib.suppress(HarnessError):
                self._resource.down()
        self._resource = None
        self._lab = None
        # Another lab proves nothing about this one.
        self._controls = {}
        self._stack.close()

    def _keep_guest_console(self) -> None:
        if self._guest is None:
            return
        with contextlib.suppress(HarnessError, OSError):
            directory = self.store.directory / "lab"
            directory.mkdir(exist_ok=True)
            (directory / "console-guest.log").write_text(self._guest.console())


def _lost(cell: Cell, result: Result) -> bool:
    """Whether the cell has no answer because what it stood on went away by itself.

    Where something was done to the guest on purpose its loss may be the answer.
    """
    failure = result.evidence.failure if result.evidence else None
    if failure is None or failure.kind not in LOST:
        return False
    return not cell.has_canary or (failure.kind == "lost-node" and cell.crash is None and cell.fault is None)


def inconclusive(cell: Cell, error: str) -> Result:
    """The answer for a cell that could not even begin."""
    return Result(cell, Verdict(VerdictKind.INCONCLUSIVE, error), None)
