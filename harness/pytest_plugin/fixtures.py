"""The fixtures: the public interface for tests of one's own.  A suite asks for them by ``harness.fixtures``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from harness.drbd.resource import Resource
from harness.engine.cell_steps import CellRun
from harness.engine.context import unreadable_is_failure
from harness.engine.disturbances import migrations
from harness.engine.session import Session, inconclusive
from harness.errors import HarnessError
from harness.filesystems.base import unknown
from harness.guest.disk import AttachedDisk
from harness.guest.domain import Guest
from harness.lab.base import FullLab
from harness.model import Cell, ClientKind, Evidence, Migration, Result, Verdict, VerdictKind, Work
from harness.pytest_plugin.final_outcomes import no_answer
from harness.pytest_plugin.options import ONE_PROCESS
from harness.pytest_plugin.pytest_run import RESULT, RUN
from harness.render.fio_job import Job, Option
from harness.workloads.fio_runner import FioRun, run_fio


@pytest.fixture(scope="session")
def drbd_run(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The run in progress; brought up by the first test that needs it, taken down with the session."""
    if hasattr(pytestconfig, "workerinput"):
        # A test that asks for it by name while it runs was not seen when tests were collected.
        pytest.fail(ONE_PROCESS, pytrace=False)
    run = pytestconfig.stash[RUN]
    with _machinery_errors(), run.session() as session:
        yield session


@contextlib.contextmanager
def _machinery_errors() -> Iterator[None]:
    """Turns an error of the machinery into one sentence instead of a traceback."""
    try:
        yield
    except HarnessError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def lab(drbd_run: Session) -> FullLab:
    """Two nodes with DRBD, their versions, and the comparison of their disks."""
    with _machinery_errors():
        return drbd_run.lab


@pytest.fixture
def resource(drbd_run: Session) -> Resource:
    """The DRBD resource over both nodes: connected, UpToDate, node A Primary."""
    with _machinery_errors():
        return drbd_run.resource


@pytest.fixture
def guest(drbd_run: Session) -> Guest:
    """The warm guest on node A."""
    with _machinery_errors():
        return drbd_run.guest


@dataclass
class OwnCell:
    """A cell whose work is the test's own; concluded once, by whoever asks first."""

    session: Session
    run: CellRun
    result: Result | None = None

    def conclude(self) -> Result:
        """Detach, ask the oracles, repair, keep the evidence, judge."""
        if self.result is None:
            try:
                try:
                    with unreadable_is_failure():
                        self.run.release()
                except HarnessError as error:
                    self.run.give_up(error)
                self.run.conclude(
                    lambda _, blocks: unknown(blocks, "the test's own data"), "the test's own work", reads_replica=False
                )
            finally:
                evidence = self.run.finish()
            self.result = self.session.judged(self.run, evidence)
        return self.result


@pytest.fixture
def own_cell(request: pytest.FixtureRequest, drbd_run: Session, cell: Cell) -> Iterator[OwnCell]:
    """One attempt at the test's own cell; whatever the test does, the replicas are compared and repaired after it."""
    with _machinery_errors():
        drbd_run.controls(cell)
        own = OwnCell(drbd_run, drbd_run.begin(cell))
        try:
            with unreadable_is_failure():
                own.run.begin()
                host = cell.client is ClientKind.HOST
                target = own.run.take_host() if host else own.run.take_guest(lambda: drbd_run.clean_guest)
                if not host:
                    own.run.guest_disk.note_in_use()
                own.run.exposure.prepared(target, own.run.context.lab.a)
                own.run.delays.apply()
                # What the test does is its own; it may move the guest too.
                own.run.witness.start(on_both=True)
                own.run.exposure.begin()
                own.run.context.note(work=Work(0.0, notes=("the test's own work",)))
        except HarnessError as error:
            own.run.give_up(error)
            own.conclude()
            raise
        except BaseException as error:
            own.run.abandon(error)
            own.run.finish()
            raise
    yield own
    request.node.stash[RESULT] = own.conclude()


@pytest.fixture
def disk(own_cell: OwnCell) -> AttachedDisk:
    """The DRBD device in the guest (``disk.path``), attached with the cell's cache, aio and bus."""
    attached = own_cell.run.guest_disk.attached
    if attached is None:
        pytest.fail("a cell with client=host has no disk in a guest; use the fixture 'resource'", pytrace=False)
    return attached


@pytest.fixture
def fio(own_cell: OwnCell, guest: Guest, disk: AttachedDisk) -> Callable[..., FioRun]:
    """Run one fio job in the guest: ``fio(rw="randwrite", bs="4k", size="16m")``; the disk unless a filename is given.

    Options are fio's own names with underscores; wrong data read back makes the verdict CORRUPT.
    """

    def run(*, timeout: float = 120, **options: Option) -> FioRun:
        job = Job("test", {"filename": disk.path, **options})
        ran = run_fio(guest.agent, (job,), name="test", timeout=timeout)
        work = own_cell.run.evidence.work or Work(0.0)
        wrong = work.read_back_errors + ran.read_back_errors
        own_cell.run.context.note(work=replace(work, seconds=work.seconds + ran.seconds, read_back_errors=wrong))
        return ran

    return run


@pytest.fixture
def migrate(own_cell: OwnCell, disk: AttachedDisk) -> Callable[[], Migration]:
    """Move the guest with its disk to the other node, live; called again it moves back.  See ``migrate().outcome``.

    What the stack refuses is an outcome with its message; a guest that does not live through it is an error.
    """

    def move() -> Migration:
        return migrations.migrate_once(own_cell.run)

    return move


@pytest.fixture
def verify(own_cell: OwnCell) -> Callable[[], Evidence]:
    """Detach the disk, verify and compare; the evidence has ``verify``, ``counter_kib`` and ``comparison``."""

    def ask() -> Evidence:
        evidence = own_cell.conclude().evidence
        assert evidence is not None
        return evidence

    return ask


@pytest.fixture
def verdict(own_cell: OwnCell) -> Callable[[], Verdict]:
    """What is to be thought of it, after the oracles were asked; INCONCLUSIVE is an error of the test's set-up."""

    def judged() -> Verdict:
        found = own_cell.conclude().verdict
        assert found is not None
        if found.kind is VerdictKind.INCONCLUSIVE:
            raise HarnessError(f"INCONCLUSIVE: {found.sentence}")
        return found

    return judged


@pytest.fixture
def cell_result(request: pytest.FixtureRequest, drbd_run: Session, cell: Cell) -> Result:
    """The matrix cell, played with the harness's own workload.

    INCONCLUSIVE is an ERROR, not a finding, unless it is expected; and so is a control that did not hold.
    """
    run = request.config.stash[RUN]
    try:
        result = run.finished(cell) or drbd_run.play(cell)
    except HarnessError as error:
        result = inconclusive(cell, str(error))
    request.node.stash[RESULT] = result
    if (why := no_answer(result)) is not None:
        pytest.fail(why, pytrace=False)
    return result
