"""Cells become pytest's items, and what they found its reports: active where a suite asks for the fixtures.

A finding FAILS; machinery that failed is an ERROR.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.config.matrix import cells_from
from harness.engine.device_size import play_order
from harness.errors import HarnessError, UsageError
from harness.model import Cell, Layout
from harness.model.aliases import former_id
from harness.pytest_plugin.baseline import mark_known
from harness.pytest_plugin.final_outcomes import ReportedItem
from harness.pytest_plugin.options import ONE_PROCESS, usage_error
from harness.pytest_plugin.pytest_run import RESULT, RUN, PytestRun, result_text
from harness.util.resources import matrices as matrices_dir
from harness.util.standard_streams import Lossy
from harness.workloads import WORKLOADS

# The fixtures that play a cell: only tests that use one of them get cells.
_CELL_FIXTURES = frozenset({"cell_result", "own_cell"})
# Of what a test's own cell would name and not have.
_NOT_MADE = "is made for the harness's own workloads only; a test of your own makes what it needs on its disk"


def pytest_configure(config: pytest.Config) -> None:
    """Read the matrix, so that what is wrong with it is said before anything starts."""
    config.addinivalue_line("markers", "lab: needs a lab with real DRBD")
    try:
        config.stash[RUN] = PytestRun.of(config, matrices_dir(), WORKLOADS)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each cell: of the test's own ``cell`` markers, else of the matrix.

    Only tests that use a fixture of ours are meant; a ``cell`` that is somebody else's is left alone.
    """
    if not _CELL_FIXTURES & set(metafunc.fixturenames) or "cell" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("cell"))
    run = metafunc.config.stash[RUN]
    try:
        own = [cell for mark in reversed(marks) for cell in _own_cells(mark, metafunc.definition)]
    except UsageError as error:
        # Said when everything is collected: raised from here it would come with a traceback of pytest's own.
        run.wrong.append(f"{metafunc.definition.nodeid}: {error}")
        own = []
    cells = run.repeated(own) if marks else run.cells
    metafunc.parametrize("cell", cells, ids=_item_ids(cells))


def _item_ids(cells: Sequence[Cell]) -> list[str]:
    """Each cell's id; the repetition behind it where the cell is played more than once, or not for the first time."""
    count = Counter(cell.id for cell in cells)
    return [
        f"{cell.id}-rep{cell.repetition}" if count[cell.id] > 1 or cell.repetition > 1 else cell.id for cell in cells
    ]


def _own_cells(mark: pytest.Mark, function: pytest.Function) -> list[Cell]:
    test = function.originalname
    name = test.removeprefix("test_").replace("_", "-")
    if disturbance := next((key for key in ("migrations", "crash", "fault") if key in mark.kwargs), None):
        raise UsageError(
            f"the cell marker of {test}: '{disturbance}' happens to the harness's own workloads only; "
            "a test of your own moves its guest with the fixture 'migrate'"
        )
    if made := next((key for key in ("filesystem", "layout", "sabotage") if key in mark.kwargs), None):
        raise UsageError(f"the cell marker of {test}: '{made}' {_NOT_MADE}")
    entry = {"workload": "no-writes", **mark.kwargs}
    found = cells_from(entry, WORKLOADS, f"the cell marker of {test}")
    if layered := next((cell for cell in found.cells if cell.layout is not Layout.RAW), None):
        raise UsageError(f"the cell marker of {test}: the layout '{layered.layout}' {_NOT_MADE}")
    for line in found.deprecated:
        function.warn(pytest.PytestDeprecationWarning(line))
    return [replace(cell, workload=name, control=None) for cell in found.cells]


def pytest_itemcollected(item: pytest.Item) -> None:
    """``-k`` finds a cell by the id that it had in earlier versions, too."""
    cell = _cell_of(item)
    if cell is not None and former_id(cell.id) != cell.id:
        item.extra_keyword_matches.add(former_id(cell.id))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever uses the run needs a lab; a test that should have cells and has none is not run."""
    if wrong := [*config.stash[RUN].wrong, *filter(None, map(_unused_marker, items))]:
        raise usage_error(config, wrong[0])
    wanting = [item for item in items if _CELL_FIXTURES & set(getattr(item, "fixturenames", ()))]
    without = [item for item in wanting if _cell_of(item) is None]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]
    _by_device_size(config.stash[RUN], items)
    for item in items:
        if "drbd_run" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.lab)


def _unused_marker(item: pytest.Item) -> str:
    """Why nothing would be compared after ``item``, which asks for a lab and says of which cell; else empty."""
    names = set(getattr(item, "fixturenames", ()))
    if "drbd_run" not in names or _CELL_FIXTURES & names or item.get_closest_marker("cell") is None:
        return ""
    return (
        f"{item.nodeid}: it has the marker 'cell' and names none of the fixtures that play a cell, so nothing would be "
        "compared; name 'verdict' or 'verify', or leave the marker out"
    )


def _by_device_size(run: PytestRun, items: list[pytest.Item]) -> None:
    """Within each repetition cells whose device has one size stand together, for each change of it costs seconds.

    The smallest come first and last by turns, so that two repetitions meet at one size.  Controls stay in front, and
    what has no cell stays in its place.
    """
    places = [(number, cell) for number, item in enumerate(items) if (cell := _cell_of(item)) is not None]
    moved = [
        items[number] for number, _ in sorted(places, key=lambda place: play_order(place[1], run.device_mib(place[1])))
    ]
    for (number, _), item in zip(places, moved, strict=True):
        items[number] = item


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """The cells that were selected are the run."""
    _require_one_process(session)
    cells = [cell for item in session.items if (cell := _cell_of(item)) is not None]
    try:
        session.config.stash[RUN].select(cells)
    except HarnessError as error:
        raise usage_error(session.config, str(error)) from None


def _require_one_process(session: pytest.Session) -> None:
    """No worker of pytest-xdist's has a test of a lab among those that were selected."""
    if not hasattr(session.config, "workerinput"):
        return
    for item in session.items:
        if item.get_closest_marker("lab") is not None:
            raise usage_error(session.config, f"{item.nodeid}: {ONE_PROCESS}")


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """How long the run will take, before it begins."""
    if config.getoption("verbose") < 0:
        return []
    return config.stash[RUN].estimate_lines(cell for item in items if (cell := _cell_of(item)) is not None)


def _cell_of(item: pytest.Item) -> Cell | None:
    found = getattr(item, "callspec", None)
    cell = found.params.get("cell") if found is not None else None
    return cell if isinstance(cell, Cell) else None


# --------------------------------------------------------------------------- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Evidence into the report; an error of the machinery inside a test is an ERROR like one in its set-up."""
    report: pytest.TestReport = yield
    if call.when == "call" and call.excinfo is not None and isinstance(call.excinfo.value, HarnessError):
        report.when = "setup"
        report.longrepr = str(call.excinfo.value)
    result = item.stash.get(RESULT, None)
    if result is not None and "cell_result" in getattr(item, "fixturenames", ()):
        mark_known(report, item.config.stash[RUN].baseline, result)
    if result is not None and call.when == "teardown":
        run = item.config.stash[RUN]
        run.results[result.cell.play] = result
        run.stop_at.after(item.session, result)
        alone = "cell_result" in getattr(item, "fixturenames", ())
        run.outcomes.add(item.config, report, ReportedItem(item.nodeid, result, alone))
    if result is not None and (call.when == "call" or report.failed):
        report.sections.append(("verdict", result_text(result)))
        item.config.stash[RUN].add_extras(report, result)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_html_results_summary(prefix: list[str], summary: list[str], postfix: list[str], session: Any) -> None:
    """The heat map on top of pytest-html's page."""
    prefix.extend(session.config.stash[RUN].heat_map())


@pytest.hookimpl(optionalhook=True)
def pytest_html_report_title(report: Any) -> None:
    """The page's title."""
    report.title = "DRBD divergence harness"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """All is judged again; the exit code: 1 a finding, 2 inconclusive or machinery, 3 nothing ran, 4 usage."""
    run = session.config.stash.get(RUN, None)
    if run is not None:
        try:
            run.end(session)
            session.exitstatus = run.exit_status(session)
            run.write_report()
        except (HarnessError, OSError) as error:
            # Whatever it is, pytest has to go on: what it tears down behind this is the lab.
            print(f"\n{error}", file=Lossy(sys.stderr))
            session.exitstatus = run.exit_status(session) or 2


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """The heat map in the terminal, and where everything is; what to do where ``-k`` left nothing to play."""
    run = config.stash.get(RUN, None)
    if run is not None:
        run.summarize(terminalreporter)
    nothing_ran = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and terminalreporter.stats.get("deselected")
    if nothing_ran and (matrix := config.getoption("--drbd-matrix")) and (keyword := config.option.keyword):
        terminalreporter.write_line(
            f"-k '{keyword}' matches no cell, so nothing ran; "
            f"'drbd-harness list --matrix {shlex.quote(matrix)}' prints the ids of the cells"
        )
