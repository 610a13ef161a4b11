"""Between pytest and a session: which cells, which run, what is written at the end."""

from __future__ import annotations

import contextlib
import html
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from rich.console import Console

from harness.config import matrix as matrices
from harness.config.controls import with_controls
from harness.config.lab_spec import LabSpec
from harness.config.matrix_entry import MOST_REPETITIONS, Workloads
from harness.config.repetitions import new_seed, repeated
from harness.config.run_specs import specs_from_options, specs_of
from harness.config.shards import Shard, plan_of
from harness.config.stack_spec import StackSpec
from harness.config.user_work import with_user_files
from harness.engine.control_rounds import CONTROLS_EVERY
from harness.engine.device_size import device_mib
from harness.engine.pace import Pace
from harness.engine.session import Session
from harness.errors import UsageError
from harness.judgement.baseline import assess
from harness.judgement.rejudge import conclusive, workload_failed
from harness.lab.base import FullLab
from harness.model import Cell, Result, Run
from harness.pytest_plugin.baseline import baseline_of
from harness.pytest_plugin.final_outcomes import FinalOutcomes, Play
from harness.pytest_plugin.like import planned_like
from harness.pytest_plugin.options import (
    CELL_OPTIONS,
    CHOICE_OPTIONS,
    IMAGE_OPTIONS,
    INVENTORY_OPTIONS,
    LAB_OPTIONS,
    LIKE_OPTIONS,
    STACK_OPTIONS,
    USER_FILE_OPTIONS,
    flag,
)
from harness.pytest_plugin.printing import leave_out_of_reports, lose_what_nobody_reads, past_capturing
from harness.pytest_plugin.stop_at import StopAt
from harness.pytest_plugin.two_machines import (
    inventory_options,
    lab_of,
    likely_accelerator,
    require_playable_on,
    require_stack,
)
from harness.pytest_plugin.user_files import cells_without_matrix, refuse_choices, user_files
from harness.pytest_plugin.user_guest_image import ChosenImage, chosen_image
from harness.report.baseline import baseline_lines
from harness.report.costs import keep_costs
from harness.report.estimate import Costs, Schedule, costs_here, estimate, estimate_lines
from harness.report.html import evidence_html, heat_map_html, write_html
from harness.report.summary import EXPECTED_NOTHING
from harness.report.terminal import print_report
from harness.store import Store, judged_results, keep_judged, new_run_id
from harness.util import logs
from harness.util.progress import Progress
from harness.util.signals import stop_like_ctrl_c

MOST_SECONDS = 10**9  # more than any run takes


def _asked(config: pytest.Config) -> dict[str, str | int]:
    asked = {name: config.getoption(flag(name)) for name in (*LAB_OPTIONS, *STACK_OPTIONS)}
    return {name: value for name, value in asked.items() if value is not None} | inventory_options(config)


def _number(config: pytest.Config, name: str, most: int) -> int | None:
    """The number that was given for an option, 1 to ``most``."""
    given: int | None = config.getoption(flag(name))
    if given is not None and not 1 <= given <= most:
        raise UsageError(f"{flag(name)} is {given}; it is a number from 1 to {most}")
    return given


def _shard(config: pytest.Config) -> Shard | None:
    text: str | None = config.getoption(flag("shard"))
    return None if text is None else Shard.parse(text, flag("shard"))


def _chosen(config: pytest.Config) -> dict[str, str]:
    """The options that decide which plays of the matrix there are, as the command line of ``run`` calls them."""
    asked = {"-k": config.option.keyword, "--repeat": config.getoption(flag("repeat"))}
    return {name: str(value) for name, value in asked.items() if value}


def _part(run: Run, shard: Shard) -> Run:
    """``run`` with the plays of its part only."""
    plays = sum(cell.control is None for cell in run.cells)
    cells = shard.of_cells(run.cells)
    if plays and all(cell.control is not None for cell in cells):
        raise UsageError(f"{flag('shard')} is {shard}, but there are only {plays} plays: this part has none of them")
    return replace(run, cells=cells, plan=plan_of(run.cells))


class PytestRun:
    """One pytest session's view of a run, of which ``planned`` is what is known before it is played."""

    def __init__(
        self, config: pytest.Config, planned: Run, resumed: Store | None = None, image: ChosenImage | None = None
    ) -> None:
        self.config = config
        self._image = image
        self.cells = list(planned.cells)
        self._planned = planned
        # How many plays of tests of a user's own were dealt out among the parts.
        self._dealt = 0
        self.results: dict[Play, Result] = {}
        self.outcomes = FinalOutcomes()
        self.store = resumed
        #: What is wrong with the tests' own cells, in one sentence each.
        self.wrong: list[str] = []
        self._report: Path | None = None
        self._resumed = resumed is not None
        self._finished: dict[Play, Result] = {}
        self._session: Session | None = None
        self._final: list[Result] | None = None
        self.seed = planned.seed
        # Asked of a session, not of its run: one that is resumed may be asked for something else.
        self._controls_every = _number(config, "controls_every", MOST_SECONDS) or CONTROLS_EVERY
        #: What is known to fail; None where nobody said it.
        self.baseline = baseline_of(config)
        self.stop_at = StopAt(config)
        if resumed is not None:
            self._finished = {result.cell.play: result for result in judged_results(resumed) if conclusive(result)}

    @classmethod
    def of(cls, config: pytest.Config, search: Path, workloads: Workloads) -> PytestRun:
        """From the options; whatever is wrong with them is a :class:`~harness.errors.UsageError`."""
        if which := config.getoption("--drbd-resume"):
            lab = (*LAB_OPTIONS, *STACK_OPTIONS, *IMAGE_OPTIONS, *INVENTORY_OPTIONS)
            names = ("matrix", *LIKE_OPTIONS, *USER_FILE_OPTIONS, *CHOICE_OPTIONS, *CELL_OPTIONS, *lab)
            given = [name for name in names if config.getoption(flag(name))]
            if given:
                raise UsageError(f"--drbd-resume goes on with what the run has; leave {flag(given[0])} out")
            store = Store.open(Path(config.getoption("--drbd-runs")), which)
            run = store.run()
            resumed = cls(config, run, store)
            if any(resumed.finished(cell) is None for cell in run.cells):
                # Said now, before a lab is asked for.
                require_stack(*specs_of(run))
            return resumed
        require_stack(*specs_from_options(_asked(config)))
        image = chosen_image(config, _asked(config))
        seed = _number(config, "seed", 2**63 - 1) or new_seed()
        repeat = _number(config, "repeat", MOST_REPETITIONS)
        shard = _shard(config)
        if (like := planned_like(config, repeat, seed)) is not None:
            require_stack(*specs_of(like))
            return cls(config, _part(replace(like, shard=str(shard)), shard) if shard else like)
        run = Run("", "", "", (), seed=seed, shard=str(shard) if shard else "")
        files = user_files(config)
        if name := config.getoption("--drbd-matrix"):
            refuse_choices(config, "a job or a script of yours", refused=True)
            matrix = matrices.load(name, workloads, search)
            for line in matrix.deprecated:
                config.issue_config_time_warning(pytest.PytestDeprecationWarning(line), stacklevel=2)
            cells = with_controls(repeated(with_user_files(matrix.cells, files), repeat, seed))
            run = replace(run, matrix=matrix.name, matrix_digest=matrix.digest, cells=cells)
            return cls(config, _part(run, shard) if shard else run, image=image)
        if own := cells_without_matrix(config, files, workloads):
            run = replace(run, matrix="+".join(files), cells=with_controls(repeated(own, repeat, seed)))
            return cls(config, _part(run, shard) if shard else run, image=image)
        return cls(config, run, image=image)

    def repeated(self, cells: Sequence[Cell]) -> tuple[Cell, ...]:
        """The cells of a user's own test, as often as its marker or the options ask."""
        plays = repeated(cells, self.config.getoption(flag("repeat")), self.seed)
        # Of the run, not of the options: a run that is resumed has its own.
        if not self._planned.shard:
            return plays
        shard = Shard.parse(self._planned.shard, flag("shard"))
        self._dealt += len(plays)
        return shard.of_cells(plays, self._dealt - len(plays))

    def device_mib(self, cell: Cell) -> int:
        """The size of the device that ``cell`` gets, in MiB."""
        lab, _ = self._specs() if self.store is None else specs_of(self.store.run())
        return device_mib(cell, lab.device_mib, lab.guest.canary_blocks)

    def _specs(self, image: ChosenImage | None = None) -> tuple[LabSpec, StackSpec]:
        """The specs of a run that begins: those of the run that it is like, or the options'."""
        if self._planned.lab_spec:
            return specs_of(self._planned)
        return specs_from_options(_asked(self.config), image.table() if image else None)

    def select(self, cells: Sequence[Cell]) -> None:
        """Keep the cells that pytest will really play."""
        if not self._resumed:
            self.cells = list({cell.play: cell for cell in cells}.values())
        spec = self._specs()[0] if self.store is None else specs_of(self.store.run())[0]
        require_playable_on(spec, self.cells, self.device_mib)

    def finished(self, cell: Cell) -> Result | None:
        """What an earlier part of a resumed run found out about ``cell``."""
        return self._finished.get(cell.play)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """The session of this run, its store created or opened, locked against other processes."""
        stop_like_ctrl_c()
        lose_what_nobody_reads(self.config)
        if self.store is None:
            run_id = self.config.getoption("--drbd-run-id") or new_run_id()
            now = datetime.now(UTC).isoformat(timespec="seconds")
            lab, stack = self._specs(self._image)
            run = replace(
                self._planned, id=run_id, started_at=now, cells=tuple(self.cells), lab_spec=lab.as_table(),
                stack_spec=stack.as_table(), chosen=_chosen(self.config),
            )  # fmt: skip
            self.store = Store.create(Path(self.config.getoption("--drbd-runs")), run)
        leave_out_of_reports(self.config)
        with (
            self.store.lock(),
            logs.kept(self.store.directory),
            logs.with_handler(logs.PROGRESS, _progress(self.config)),
            Session(self.store, self._lab, self._controls_every, self._pace()) as session,
        ):
            if self.seed:
                logs.progress(f"the seed of this run is {self.seed}")
            self._session = session
            try:
                yield session
            finally:
                # Also where pytest did not say that it stops: nothing but Ctrl-C ends a session in between.
                self._session = None

    def estimate_lines(self, cells: Iterable[Cell]) -> list[str]:
        """How long those of ``cells`` will take that have no answer yet, for people; empty where there are none."""
        left = [cell for cell in dict.fromkeys(cells) if self.finished(cell) is None]
        made = estimate(self._schedule(left), self._costs()) if left else None
        return estimate_lines(made) if made else []

    def _pace(self) -> Pace:
        left = [cell for cell in self.cells if self.finished(cell) is None]
        return Pace(self._schedule(left), self._costs())

    def _costs(self) -> Costs:
        accelerator = self._planned.stack.accelerator or likely_accelerator(self._specs()[0])
        return costs_here(Path(self.config.getoption("--drbd-runs")), accelerator)

    def _schedule(self, cells: Sequence[Cell]) -> Schedule:
        return Schedule.of(with_controls(cells), self._controls_every, self.device_mib)  # -k may leave them out

    def _lab(self) -> AbstractContextManager[FullLab]:
        assert self.store is not None
        return lab_of(*specs_of(self.store.run()), self.store.directory, self.cells)

    # ------------------------------------------------------------------------------------------ what is written

    def end(self, session: pytest.Session) -> None:
        """Play the closing controls if that was not done, judge all again, and change what pytest said accordingly.

        :class:`~harness.errors.HarnessError` where that could not be done or kept.
        """
        if self._session is not None:
            # The session of pytest stops before its last item: -x, --maxfail, Ctrl-C.
            self._session.interrupted |= int(session.exitstatus) == pytest.ExitCode.INTERRUPTED
            self._session.close()
        if self.store is not None:
            self._final = self._with_unplayed(keep_judged(self.store))
            self.outcomes.withdraw(self.config, {result.cell.play: result for result in self._final})

    def all_results(self) -> list[Result]:
        """Every play of the run with what is known of it, in the run's order."""
        if self._final is not None:
            return self._final
        return [] if self.store is None else self._with_unplayed(judged_results(self.store))

    def _with_unplayed(self, judged: Sequence[Result]) -> list[Result]:
        """What could not begin has no evidence, but a reason."""
        found = {result.cell.play: result for result in judged}
        found.update((play, one) for play, one in self.results.items() if play not in found or not found[play].verdict)
        return list(found.values())

    def write_report(self) -> None:
        """``report.html`` in the run's folder."""
        if self.store is not None:
            report = self.store.directory / "report.html"
            run, attempts = self.store.run(), self.store.every_attempt()
            write_html(report, run, self.all_results(), attempts=attempts)
            self._report = report
            keep_costs(self.store.directory, run, attempts)

    def heat_map(self) -> list[str]:
        """The heat map for pytest-html's page, and which of its rows did not last to the end."""
        results = self.all_results()
        changed = [f"<p>ERROR after the closing controls: {html.escape(one)}</p>" for one in self.outcomes.changed]
        return [*changed, heat_map_html(results), *self._page_link()] if results else []

    def _page_link(self) -> list[str]:
        """A link from pytest-html's page to the run's own."""
        own = self.config.getoption("htmlpath", default=None)
        if self.store is None or not own:
            return []
        page = os.path.relpath(self.store.directory / "report.html", Path(own).expanduser().resolve().parent)
        return [f'<p><a href="{html.escape(quote(page))}">The report of this run</a></p>']

    def add_extras(self, report: Any, result: Result) -> None:
        """A cell's evidence for pytest-html's page, where that plugin is there."""
        with contextlib.suppress(ImportError):
            from pytest_html import extras

            report.extras = [*getattr(report, "extras", []), extras.html(evidence_html(result))]

    def exit_status(self, session: pytest.Session) -> int:
        """pytest's own status in the words of the harness."""
        status = int(session.exitstatus)
        if status == pytest.ExitCode.NO_TESTS_COLLECTED:
            return 3
        if status == pytest.ExitCode.INTERNAL_ERROR:
            return 2
        reporter = session.config.pluginmanager.getplugin("terminalreporter")
        failed = reporter is not None and any(reporter.stats.get(name) for name in ("failed", "error"))
        status = self.stop_at.status(status, failed=failed)
        if self.outcomes.changed and status == pytest.ExitCode.OK:
            return 2
        if status == pytest.ExitCode.TESTS_FAILED and reporter is not None and not reporter.stats.get("failed"):
            return 2
        return status

    def summarize(self, terminal: Any) -> None:
        """The heat map in the terminal, and where everything is."""
        if self.store is None:
            return
        terminal.section("DRBD divergence harness")
        console = Console(file=getattr(terminal._tw, "_file", sys.stdout), highlight=False)
        print_report(self.store.run(), self.all_results(), console, self.store.every_attempt())
        if self.baseline is not None:
            outcome = assess(self.baseline, self.all_results(), date.today(), self.store.run().plan)
            for line in baseline_lines(self.baseline, outcome):
                terminal.write_line(f"baseline: {line}")
        for changed in self.outcomes.changed:
            terminal.write_line(f"ERROR after the closing controls: {changed}")
        if self._report is not None:
            terminal.write_line(f"report: {self._report.resolve()}")


#: Where a session of pytest keeps its run, and an item its result.
RUN = pytest.StashKey[PytestRun]()
RESULT = pytest.StashKey[Result]()


def _progress(config: pytest.Config) -> Progress:
    """Progress past pytest's capturing; only warnings where pytest was told to be quiet."""
    handler = Progress(past_capturing(config), clock=True)
    handler.setLevel(logging.WARNING if config.getoption("verbose") < 0 else logging.INFO)
    return handler


def result_text(result: Result) -> str:
    """The verdict and its reasons, for the section of a test report."""
    verdict = result.verdict
    if verdict is None:
        return "did not run"
    return "\n".join([f"{verdict.kind}: {verdict.sentence}", *verdict.reasons])


def expectation_missed(result: Result) -> str:
    """The sentence that says what was seen instead of what was expected."""
    expected, verdict = result.cell.expected, result.verdict
    assert verdict is not None
    if (why := workload_failed(result)) is not None:
        return f"{result.cell.id}: {why}"
    if expected is None:
        return f"{result.cell.id}: {EXPECTED_NOTHING}; seen: {verdict.kind}: {verdict.sentence}"
    wanted = " or ".join(expected.verdicts)
    says = f", with '{expected.says}' in its sentence," if expected.says else ""
    return (
        f"{result.cell.id}: {wanted} was expected{says} ({expected.reason}); seen: {verdict.kind}: {verdict.sentence}"
    )
