"""The pytest front door: options, items from a matrix, fixtures, reports.

A finding FAILS; machinery that failed is an ERROR.  Everything a cell does is outside of this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from harness.config import matrix as matrices
from harness.drbd.resource import Resource
from harness.engine.cell_run import conclude
from harness.engine.disturbances import migrations
from harness.engine.session import Session, inconclusive
from harness.engine.trial import Trial
from harness.errors import HarnessError, UsageError
from harness.filesystems.base import unknown
from harness.guest.domain import AttachedDisk, Guest
from harness.lab.base import Lab
from harness.model import Cell, ClientKind, Evidence, Migration, Result, Verdict, VerdictKind, Work
from harness.pytest_plugin.pytest_run import Front, result_text
from harness.render.fio_job import Job, Option
from harness.util.resources import matrices as matrices_dir
from harness.workloads import WORKLOADS
from harness.workloads.fio_runner import FioRun, run_fio

_FRONT = pytest.StashKey[Front]()
_RESULT = pytest.StashKey[Result]()
# The fixtures that play a cell: only tests that use one of them get cells.
_OURS = frozenset({"cell_result", "own_trial"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the harness."""
    group = parser.getgroup("drbd-harness", "DRBD divergence harness")
    group.addoption(
        "--matrix",
        metavar="NAME",
        help="cells to play: smoke, quick, natural, full, migration, failover, alarms, faults, or a TOML file",
    )
    group.addoption("--runs", metavar="DIR", default="runs", help="where runs are kept (default: ./runs)")
    group.addoption("--run-id", metavar="ID", help="the id of the new run (default: made from the time)")
    group.addoption("--resume", metavar="RUN", help="go on with a run: its id, its folder, or 'latest'")
    group.addoption("--suite", metavar="SUITE", help="Debian suite of the nodes (default: trixie)")
    group.addoption("--guest-suite", metavar="SUITE", help="Debian suite of the guest (default: as nodes)")
    group.addoption("--device-mib", metavar="N", type=int, help="size of the DRBD device (default: 128)")
    group.addoption("--memory-mib", metavar="N", type=int, help="memory of a node (default: 2560)")


def pytest_configure(config: pytest.Config) -> None:
    """Read the matrix, so that what is wrong with it is said before anything starts."""
    config.addinivalue_line("markers", "cell(**keys): the cell of a test of your own, with the keys of a matrix entry")
    config.addinivalue_line("markers", "lab: needs a lab with real DRBD")
    try:
        config.stash[_FRONT] = Front.of(config, matrices_dir(), WORKLOADS)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each cell: of the test's own ``cell`` markers, else of the matrix.

    Only tests that use a fixture of ours are meant; a ``cell`` that is somebody else's is left alone.
    """
    if not _OURS & set(metafunc.fixturenames) or "cell" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("cell"))
    front = metafunc.config.stash[_FRONT]
    try:
        own = [cell for mark in reversed(marks) for cell in _own_cells(mark, metafunc.definition.originalname)]
    except UsageError as error:
        # Said when everything is collected: raised from here it would come with a traceback of pytest's own.
        front.wrong.append(f"{metafunc.definition.nodeid}: {error}")
        own = []
    cells = own if marks else front.cells
    metafunc.parametrize("cell", cells, ids=[cell.id for cell in cells])


def _own_cells(mark: pytest.Mark, test: str) -> list[Cell]:
    name = test.removeprefix("test_").replace("_", "-")
    if happening := next((key for key in ("migrations", "crash", "fault") if key in mark.kwargs), None):
        raise UsageError(
            f"the cell marker of {test}: '{happening}' happens to the harness's own workloads only; "
            "a test of your own moves its guest with the fixture 'migrate'"
        )
    entry = {"workload": "no-writes", **mark.kwargs}
    cells = matrices.cells_from(entry, WORKLOADS, f"the cell marker of {test}")
    return [replace(cell, workload=name, control=None) for cell in cells]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything with a cell needs a lab; a test that should have cells and has none is not run."""
    if wrong := config.stash[_FRONT].wrong:
        raise pytest.UsageError(wrong[0])
    without = [item for item in items if _cell_of(item) is None and _OURS & set(getattr(item, "fixturenames", ()))]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    for item in items:
        if "cell" in getattr(item, "fixturenames", ()) or "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.lab)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The cells that were selected are the run."""
    cells = [cell for item in session.items if (cell := _cell_of(item)) is not None]
    session.config.stash[_FRONT].select(cells)


def _cell_of(item: pytest.Item) -> Cell | None:
    found = getattr(item, "callspec", None)
    cell = found.params.get("cell") if found is not None else None
    return cell if isinstance(cell, Cell) else None


# --------------------------------------------------------------------------- fixtures: the public interface


@pytest.fixture(scope="session")
def drbd_run(pytestconfig: pytest.Config) -> Iterator[Session]:
    """The run in progress; brought up by the first test that needs it, taken down with the session."""
    front = pytestconfig.stash[_FRONT]
    with _machinery(), front.session() as session:
        yield session


@pytest.fixture
def lab(drbd_run: Session) -> Lab:
    """Two nodes with DRBD, their versions, and the comparison of their disks."""
    with _machinery():
        return drbd_run.lab


@pytest.fixture
def resource(drbd_run: Session) -> Resource:
    """The DRBD resource over both nodes: connected, UpToDate, node A Primary."""
    with _machinery():
        return drbd_run.resource


@pytest.fixture
def guest(drbd_run: Session) -> Guest:
    """The warm guest on node A."""
    with _machinery():
        return drbd_run.guest


@dataclass
class OwnTrial:
    """A trial whose work is the test's own; concluded once, by whoever asks first."""

    session: Session
    trial: Trial
    result: Result | None = None

    def conclude(self) -> Result:
        """Detach, ask the oracles, repair, keep the evidence, judge."""
        if self.result is None:
            try:
                try:
                    self.trial.release()
                except HarnessError as error:
                    self.trial.fail(error)
                    self.trial.rescue()
                conclude(
                    self.trial, lambda _site, blocks: unknown(blocks, "the test's own data"), "the test's own work"
                )
            finally:
                evidence = self.trial.finish()
            self.result = self.session.judged(self.trial, evidence)
        return self.result


@pytest.fixture
def own_trial(request: pytest.FixtureRequest, drbd_run: Session, cell: Cell) -> Iterator[OwnTrial]:
    """One attempt at the test's own cell; whatever the test does, the replicas are compared and repaired after it."""
    with _machinery():
        drbd_run.controls()
        own = OwnTrial(drbd_run, drbd_run.trial(cell))
        try:
            own.trial.begin()
            if cell.client is ClientKind.HOST:
                own.trial.take_host()
            else:
                own.trial.take_guest(drbd_run.guest)
            own.trial.apply_delays()
            own.trial.note(work=Work(0.0, notes=("the test's own work",)))
        except HarnessError as error:
            own.trial.fail(error)
            own.trial.rescue()
            own.conclude()
            raise
        except BaseException as error:
            own.trial.fail(error)
            own.trial.keep_logs()
            own.trial.rescue()
            own.trial.finish()
            raise
    yield own
    request.node.stash[_RESULT] = own.conclude()


@pytest.fixture
def disk(own_trial: OwnTrial) -> AttachedDisk:
    """The DRBD device in the guest (``disk.path``), attached with the cell's cache, aio and bus."""
    attached = own_trial.trial.disk
    if attached is None:
        pytest.fail("a cell with client=host has no disk in a guest; use the fixture 'resource'", pytrace=False)
    return attached


@pytest.fixture
def fio(own_trial: OwnTrial, guest: Guest, disk: AttachedDisk) -> Callable[..., FioRun]:
    """Run one fio job in the guest: ``fio(rw="randwrite", bs="4k", size="16m")``; the disk unless a filename is given.

    Options are fio's own names with underscores; wrong data read back makes the verdict CORRUPT.
    """

    def run(*, timeout: float = 120, **options: Option) -> FioRun:
        job = Job("test", {"filename": disk.path, **options})
        ran = run_fio(guest.agent, (job,), name="test", timeout=timeout)
        work = own_trial.trial.evidence.work or Work(0.0)
        wrong = work.read_back_errors + ran.read_back_errors
        own_trial.trial.note(work=replace(work, seconds=work.seconds + ran.seconds, read_back_errors=wrong))
        return ran

    return run


@pytest.fixture
def migrate(own_trial: OwnTrial, disk: AttachedDisk) -> Callable[[], Migration]:
    """Move the guest with its disk to the other node, live; called again it moves back.  See ``migrate().outcome``.

    What the stack refuses is an outcome with its words; a guest that does not live through it is an error.
    """

    def move() -> Migration:
        return migrations.move(own_trial.trial)

    return move


@pytest.fixture
def verify(own_trial: OwnTrial) -> Callable[[], Evidence]:
    """Detach the disk and ask the three oracles; the evidence has ``verify``, ``counter_kib`` and ``comparison``."""

    def ask() -> Evidence:
        evidence = own_trial.conclude().evidence
        assert evidence is not None
        return evidence

    return ask


@pytest.fixture
def verdict(own_trial: OwnTrial) -> Callable[[], Verdict]:
    """What is to be thought of it, after the oracles were asked; INCONCLUSIVE is an error of the test's set-up."""

    def judged() -> Verdict:
        found = own_trial.conclude().verdict
        assert found is not None
        if found.kind is VerdictKind.INCONCLUSIVE:
            raise HarnessError(f"INCONCLUSIVE: {found.sentence}")
        return found

    return judged


@pytest.fixture
def cell_result(request: pytest.FixtureRequest, drbd_run: Session, cell: Cell) -> Result:
    """The matrix cell, played with the harness's own workload.  INCONCLUSIVE is an ERROR, not a finding."""
    front = request.config.stash[_FRONT]
    try:
        result = front.finished(cell) or drbd_run.play(cell)
    except HarnessError as error:
        result = inconclusive(cell, str(error))
    request.node.stash[_RESULT] = result
    assert result.verdict is not None
    if result.verdict.kind is VerdictKind.INCONCLUSIVE:
        pytest.fail(f"{cell.id}: INCONCLUSIVE: {result.verdict.sentence}", pytrace=False)
    return result


class _machinery:  # noqa: N801 - it reads as a statement
    """Turns an error of the machinery into one sentence instead of a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HarnessError):
            raise pytest.fail.Exception(str(error), pytrace=False) from None


# --------------------------------------------------------------------------- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Evidence into the report; an error of the machinery inside a test is an ERROR like one in its set-up."""
    report: pytest.TestReport = yield
    if call.when == "call" and call.excinfo is not None and isinstance(call.excinfo.value, HarnessError):
        report.when = "setup"
        report.longrepr = str(call.excinfo.value)
    result = item.stash.get(_RESULT, None)
    if result is not None and call.when == "teardown":
        item.config.stash[_FRONT].results[result.cell.id] = result
    if result is not None and (call.when == "call" or report.failed):
        report.sections.append(("verdict", result_text(result)))
        item.config.stash[_FRONT].add_extras(report, result)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_summary(prefix: list[str], summary: list[str], postfix: list[str], session: Any) -> None:
    """The heat map on top of pytest-html's page."""
    prefix.extend(session.config.stash[_FRONT].heat_map())


@pytest.hookimpl(optionalhook=True)
def pytest_html_report_title(report: Any) -> None:
    """The page's title."""
    report.title = "DRBD divergence harness"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """The run's own report, and the exit code: 1 a finding, 2 inconclusive or machinery, 3 nothing ran, 4 usage."""
    front = session.config.stash.get(_FRONT, None)
    if front is not None:
        session.exitstatus = front.exit_status(session)
        try:
            front.write_report()
        except HarnessError as error:
            print(f"\n{error}", file=sys.stderr)
            session.exitstatus = session.exitstatus or 2


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The heat map in the terminal, and where everything is."""
    front = config.stash.get(_FRONT, None)
    if front is not None:
        front.summarize(terminalreporter)
