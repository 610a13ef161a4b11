"""The front door, through pytest itself: ids, selections, outcomes, exit codes, reports, resuming."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import libvirt
import pytest
from fakes import FakeGuest, FakeLab, FakeResource, LibvirtSaid, Story, Traveller, in_order
from judged_evidence import evidence as judged_evidence
from judged_evidence import observed, oracles
from lxml import etree

from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.drbd.resource import Resource
from harness.engine import session
from harness.errors import InfrastructureError, StoreError
from harness.guest.domain import Guest
from harness.model import Cell, Control, Failure, Observed, Stack, VerdictKind, Work
from harness.pytest_plugin import pytest_run, two_machines
from harness.report.html import evidence_html, write_html
from harness.store import Store, judged_results, run_ids
from harness.util import resources
from harness.workloads.controls import Planted

pytest_plugins = ("pytester",)

MATRIX = """
schema = 1
description = "three cells"
[[cells]]
cache = ["none", "writeback", "unsafe"]
filesystem = "swap"
workload = "pressure"
[[expect]]
cache = "none"
filesystem = "swap"
workload = "pressure"
verdicts = ["DIVERGED"]
reason = "buffers change in flight"
[[expect]]
cache = "writeback"
verdicts = ["CLEAN"]
reason = "pages are copied"
"""
GOLDEN = Path(__file__).parent / "golden"
# What a suite says that wants the harness.
ASKS = 'pytest_plugins = ["harness.fixtures"]'
# Pages cost more than everything else here; the tests that look at one ask for the real ones.
PAGES = {"evidence_html": evidence_html, "write_html": write_html}
CONTROLS = ["host-planted", "host-steady", "host-no-writes", "host-inflight-modify", "directsync-inflight-modify"]
IDS = [
    *CONTROLS,
    "none-swap-pressure",
    "writeback-swap-pressure",
    "unsafe-swap-pressure",
]


@dataclass
class World:
    """What the session stands on: labs that only remember; ``finds`` says what a cell finds, by its id."""

    finds: dict[str, dict[str, Any]] = field(default_factory=dict)
    finds_later: dict[str, dict[str, Any]] = field(default_factory=dict)
    labs: list[str] = field(default_factory=list)
    lab_now: FakeLab = field(default_factory=FakeLab)
    story: Story = field(default_factory=Story)
    specs: list[tuple[LabSpec, StackSpec]] = field(default_factory=list)
    played: list[str] = field(default_factory=list)
    error: BaseException | None = None
    moves: bool = False
    guests: list[FakeGuest] = field(default_factory=list)

    @contextlib.contextmanager
    def lab(self, spec: LabSpec, stack: StackSpec, evidence: Path) -> Iterator[FakeLab]:
        assert evidence.name == spec.name
        self.specs.append((spec, stack))
        if self.error is not None:
            raise self.error
        self.labs.append(f"lab{len(self.labs) + 1}")
        self.lab_now = FakeLab(self.story, id=self.labs[-1], stack=Stack(kernel="6.12-fake", drbd="8.4.11"))
        yield self.lab_now

    def guest(self, lab: Any, node: Any, *, harness_own: bool = False) -> FakeGuest:
        self.guests.append(Traveller(lab) if self.moves else FakeGuest(self.story, node))
        return self.guests[-1]

    def play(self, run: Any, workload: Any, guest: Callable[[], Any]) -> Any:
        cell: Cell = run.cell
        self.played.append(cell.id)
        good: dict[str, Any] = {}
        if cell.control is Control.PLANTED:
            blocks = {block for extent in Planted.changes(32768, 5, "nodea", "nodeb") for block in extent.blocks()}
            good = {"planted": Planted.changes(32768, 5, "nodea", "nodeb"), **oracles(blocks, blocks)}
        elif cell.control in (Control.IN_FLIGHT, Control.IN_FLIGHT_GUEST) or cell.id == "none-swap-pressure":
            good = oracles({1, 2}, {1, 2})
        wrong = self.finds.get(cell.id, {})
        later = self.finds_later.get(cell.id)
        if later is not None and self.played.count(cell.id) > 1:
            wrong = later
        if isinstance(wrong.get("raises"), BaseException):
            raise wrong["raises"]
        stopped = wrong.get("stops")
        if isinstance(stopped, BaseException):
            wrong = {"failure": Failure("interrupted", "work", "KeyboardInterrupt")}
        found = {"lab": run.context.lab.id, "observed": observed(cell), **good, **wrong}
        whole = replace(judged_evidence(cell, **found), started_at=datetime.now(UTC).isoformat())
        run.context.attempt.save(whole)
        if isinstance(stopped, BaseException):
            raise stopped
        return whole


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(two_machines, "nested_lab", made.lab)
    monkeypatch.setattr(pytest_run, "evidence_html", lambda result: "")
    monkeypatch.setattr(pytest_run, "write_html", lambda path, run, results, **_: path.write_text(run.id))
    monkeypatch.setattr(session, "play", made.play)
    monkeypatch.setattr(Resource, "for_nodes", lambda a, b, spec: FakeResource(made.lab_now, sent_kib=0))
    monkeypatch.setattr(Guest, "start", made.guest)
    return made


@pytest.fixture
def pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, real in PAGES.items():
        monkeypatch.setattr(pytest_run, name, real)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> None:
    """A folder whose conftest asks for the harness."""
    pytester.makeconftest(ASKS)


@pytest.fixture
def matrix(suite: None, pytester: pytest.Pytester) -> Path:
    """A folder as a checkout has it: the lab's testcase and a matrix."""
    pytester.makepyfile(test_cells=(resources.testcases() / "lab" / "test_cells.py").read_text())
    path = pytester.path / "three.toml"
    path.write_text(MATRIX)
    return path


@dataclass
class Ran:
    """How a pytest session ended: its exit code, its outcomes by item, what it said."""

    status: int
    outcomes: dict[str, int]
    out: str
    err: str
    folder: Path

    @property
    def store(self) -> Store:
        # Two that began in one second have ids in any order.
        written = (self.folder / "runs").glob("*/run.json")
        return Store(max(written, key=lambda path: path.stat().st_mtime_ns).parent)


Runs = Callable[..., Ran]


@pytest.fixture
def run(suite: None, pytester: pytest.Pytester) -> Runs:
    def run(*arguments: str) -> Ran:
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:hypothesispytest", *arguments)
        outcomes: dict[str, int] = {}
        with contextlib.suppress(ValueError):
            outcomes = result.parseoutcomes()
        return Ran(int(result.ret), outcomes, result.stdout.str(), result.stderr.str(), pytester.path)

    return run


def diverged() -> dict[str, Any]:
    return oracles({5, 6}, {5, 6})


def corrupt() -> dict[str, Any]:
    return {"work": Work(10.0, {}, 3)}


def broken() -> dict[str, Any]:
    return {"failure": Failure("deadline", "work", "it took too long")}


# --------------------------------------------------------------------------- what is collected


def test_items_matrix_cells_have_the_controls_in_front(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix))
    assert re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out) == IDS
    assert ran.status == 0 and world.labs == [] and not (ran.folder / "runs").exists()


def test_items_stand_together_by_the_size_of_their_device(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = "none-swap-pressure"
    monkeypatch.setattr(pytest_run, "device_mib", lambda cell, least, canary: 320 if cell.id == large else least)
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "--drbd-repeat", "3")
    others = ["writeback-swap-pressure", "unsafe-swap-pressure"]
    order = [*others, large], [large, *others], [*others, large]
    wanted = [f"{cell}-rep{number}" for number, cells in enumerate(order, 1) for cell in cells]
    assert re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out) == [*CONTROLS, *wanted]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("none-swap-pressure", ["none-swap-pressure"]),
        ("swap and not none", ["writeback-swap-pressure", "unsafe-swap-pressure"]),
        ("host", CONTROLS[:4]),
    ],
)
def test_items_k_and_m_select_cells(run: Runs, matrix: Path, words: str, ids: list[str]) -> None:
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-k", words)
    assert re.findall(r"\[(.+)\]", ran.out) == ids


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("host-mutator", ["host-inflight-modify"]),
        ("none-swap-reclaim", ["none-swap-reclaim"]),
        ("none-ext4-cut-link20ms", ["none-ext4-truncate-link20ms"]),
        ("ext4-cut", ["none-ext4-truncate", "none-ext4-truncate-link20ms"]),
        ("idle or cut", ["host-no-writes", "none-ext4-truncate", "none-ext4-truncate-link20ms"]),
        ("truncate and not link20ms", ["none-ext4-truncate"]),
    ],
)
def test_select_former_id_or_workload_the_cell_of_today(run: Runs, matrix: Path, words: str, ids: list[str]) -> None:
    matrix.write_text(
        'schema = 1\ndefaults = { cache = "none" }\n[[cells]]\nfilesystem = "swap"\nworkload = "reclaim"\n'
        '[[cells]]\nfilesystem = "ext4"\nworkload = "truncate"\nlink_delay_ms = [0, 20]\n'
    )
    ran = run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-k", words)
    assert re.findall(r"\[(.+)\]", ran.out) == ids


def test_marker_old_names_one_warning_each(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache=["none", "writeback"], workload="ext4-cut")
        def test_writes(verdict):
            pass
        """
    )
    ran = run("--collect-only")
    advice = (
        'the cell marker of test_writes: workload = "ext4-cut" is an old name; '
        'write filesystem = "ext4", workload = "truncate"'
    )
    assert ran.status == 0 and ran.out.count(advice) == 1 and "PytestDeprecationWarning" in ran.out


def test_all_cells_are_marked_as_needing_a_lab(run: Runs, matrix: Path) -> None:
    assert run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-m", "not lab").status == 3
    assert run("--collect-only", "-q", "--drbd-matrix", str(matrix), "-m", "lab", "--strict-markers").status == 0


def test_run_selected_cells_are_its_plan(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert [cell.id for cell in ran.store.run().cells] == ["none-swap-pressure"]
    assert world.played == [*CONTROLS, "none-swap-pressure", *CONTROLS], "never without its controls"
    assert ran.status == 0 and ran.outcomes == {"passed": 1, "deselected": 7}


@pytest.mark.parametrize(("cells", "status"), [("writeback-swap-pressure", 2), ("none-swap-pressure", 1)])
def test_report_not_writable_is_no_success(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch, cells: str, status: int
) -> None:
    def full(path: Path, run: object, results: object, **_: object) -> None:
        raise StoreError(f"{path.name} cannot be written: No space left on device")

    monkeypatch.setattr(pytest_run, "write_html", full)
    matrix.write_text(MATRIX.replace("DIVERGED", "CLEAN"))
    ran = run("--drbd-matrix", str(matrix), "-k", cells)
    assert "report.html cannot be written: No space left on device" in ran.err and "Traceback" not in ran.err
    assert "report: " not in ran.out, "there is none"
    assert ran.status == status, "a finding stays a finding"


# --------------------------------------------------------------------------- what is wrong before it starts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--drbd-matrix", "quikc"), "there is no matrix 'quikc'.*did you mean 'quick'"),
        (("--drbd-matrix", "missing.toml"), "there is no matrix file missing.toml"),
        (("--drbd-resume", "20260101"), "there is no run '20260101' in runs"),
        (("--drbd-device-mib", "much"), "--drbd-device-mib"),
    ],
)
def test_options_wrong_value_is_one_sentence(
    run: Runs, matrix: Path, world: World, arguments: tuple[str, ...], words: str
) -> None:
    ran = run(*arguments)
    assert ran.status == 4
    assert re.search(words, ran.out + ran.err)
    assert "Traceback" not in ran.out + ran.err and world.labs == []


def test_matrix_unknown_key_is_one_sentence(run: Runs, matrix: Path) -> None:
    matrix.write_text(MATRIX.replace("[[cells]]", '[[cells]]\ncahce = "none"'))
    ran = run("--drbd-matrix", str(matrix))
    assert ran.status == 4 and "did you mean 'cache'?" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err


OWN = """
import pytest
@pytest.mark.cell({keys})
def test_my_own(own_cell):
    pass
"""


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('cahce="none"', "did you mean 'cache'?"),
        ('cache="nnoe"', "did you mean 'none'?"),
        ("", "'cache' is missing"),
        ('cache="none", migrations=2', "a test of your own moves its guest with the fixture 'migrate'"),
        ('cache="none", crash="node"', "'crash' happens to the harness's own workloads only"),
        ('cache="none", fault="standalone"', "'fault' happens to the harness's own workloads only"),
        ('cache="none", filesystem="ext4"', "'filesystem' is made for the harness's own workloads only"),
        ('cache="none", layout="lvm"', "'layout' is made for the harness's own workloads only"),
        ('cache="none", mitigation="crypt-guest"', "the layout 'crypt' is made for the harness's own workloads only"),
        ('cache="none", sabotage="flip-free"', "'sabotage' is made for the harness's own workloads only"),
    ],
)
def test_marker_unknown_key_is_one_sentence(
    run: Runs, pytester: pytest.Pytester, world: World, keys: str, words: str
) -> None:
    pytester.makepyfile(test_own=OWN.format(keys=keys))
    ran = run()
    assert words in ran.out + ran.err and "test_my_own" in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert ran.status == 4 and world.labs == []


def test_marker_own_test_names_its_cell(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache=["none", "writeback"], link_delay_ms=20'))
    ran = run("--collect-only", "-q", "--strict-markers")
    assert re.findall(r"\[(.+)\]", ran.out) == ["none-my-own-link20ms", "writeback-my-own-link20ms"]


def test_run_nothing_selected_exit_code_3(run: Runs, matrix: Path, world: World) -> None:
    assert run("--drbd-matrix", str(matrix), "-k", "nosuchcell").status == 3
    assert world.labs == []


def test_run_without_matrix_exit_code_3(run: Runs, matrix: Path, world: World) -> None:
    ran = run()
    assert "INTERNALERROR" not in ran.out + ran.err
    assert ran.status == 3, "a success that did nothing is none"
    assert world.labs == []


# --------------------------------------------------------------------------- what a run keeps of what it did


RUNS_A_COMMAND = """
from harness.remote.local import LocalRunner
def test_my_own(drbd_run):
    LocalRunner("lab1").run(["true", "a b"])
    {then}
"""


@pytest.mark.parametrize("then", ["pass", "assert False", "raise KeyboardInterrupt"])
def test_session_that_ends_in_any_way_keeps_the_log_of_its_commands(
    run: Runs, pytester: pytest.Pytester, world: World, then: str
) -> None:
    pytester.makepyfile(test_own=RUNS_A_COMMAND.format(then=then))
    with contextlib.suppress(KeyboardInterrupt):
        run()
    (log,) = (pytester.path / "runs").glob("*/commands.log")
    assert [line.split("\t")[1:5] + line.split("\t")[6:] for line in log.read_text().splitlines()] == [
        ["command", "lab1", "controller", "0", "true 'a b'"]
    ]


def test_session_that_fails_does_not_repeat_the_log_in_its_report(
    run: Runs, pytester: pytest.Pytester, world: World
) -> None:
    pytester.makepyfile(test_own=RUNS_A_COMMAND.format(then="assert False"))
    ran = run()
    assert ran.status == 1 and "Captured log" not in ran.out


def test_session_shows_progress_and_keeps_it_and_a_resumed_one_appends(run: Runs, matrix: Path, world: World) -> None:
    line = "none-swap-pressure: DIVERGED: 2 blocks differ"
    ran = run("--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    log = ran.store.directory / "harness.log"
    kept = log.read_text()
    assert re.search(rf"^  \[ *\d+\.\d s\] {line}", ran.out, re.MULTILINE)
    assert len(re.findall(rf"^\S+Z\tINFO\tharness\.progress\t{line}", kept, re.MULTILINE)) == 1
    world.finds["unsafe-swap-pressure"] = broken()
    run("--drbd-matrix", str(matrix), "-k", "unsafe-swap-pressure", "--drbd-run-id", "29991231T000000Z-0000")
    run("--drbd-resume", "latest")
    again = (ran.folder / "runs" / "29991231T000000Z-0000" / "harness.log").read_text()
    assert again.count("unsafe-swap-pressure: INCONCLUSIVE") == 2 and log.read_text() == kept


def test_session_told_to_be_quiet_shows_no_progress_and_keeps_it(run: Runs, matrix: Path, world: World) -> None:
    ran = run("-q", "--drbd-matrix", str(matrix), "-k", "none-swap-pressure")
    assert " s] none-swap-pressure" not in ran.out
    assert "none-swap-pressure: DIVERGED" in (ran.store.directory / "harness.log").read_text()


# --------------------------------------------------------------------------- how a session ends


def test_run_says_how_long_it_will_take_before_it_begins_and_what_is_left(
    run: Runs, matrix: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_ACCEL", "tcg")
    only = run("--collect-only", "--drbd-matrix", str(matrix))
    assert re.search(r"estimate: about \d+ min for 3 plays, by the phases of", only.out)
    assert re.search(r" 10 x controls\n", only.out) and world.labs == []
    ran = run("--drbd-matrix", str(matrix), "-s")
    estimated, lab = ran.out.index("estimate: about"), ran.out.index("the seed of this run is")
    assert estimated < lab
    left = re.findall(r"(\d) of 3 played, about \d+ (?:s|min) left", ran.out)
    assert left[-3:] == ["1", "2", "3"] and {*left[:-3]} == {"0"}, "not after the closing controls"
    (kept,) = (ran.folder / "runs").glob("*/costs.json")
    assert kept.stat().st_size > 0


def test_run_as_expected_exit_code_0(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (0, {"passed": 8})
    assert world.played == [*IDS, *CONTROLS] and len(world.labs) == 1
    assert (ran.store.directory / "report.html").exists() and "report: " in ran.out
    assert "DIVERGED" in ran.out and ran.store.run().stack.kernel == "6.12-fake"


def test_run_finding_fails_with_a_sentence(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1})
    said = "writeback-swap-pressure: CLEAN was expected (pages are copied); seen: DIVERGED: 2 blocks differ"
    assert said in ran.out
    assert "Traceback" not in ran.out and "def test_cell" not in ran.out, "the sentence, not our source"


def test_run_without_expectation_conclusive_passes(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = diverged()
    assert run("--drbd-matrix", str(matrix)).status == 0


def test_run_without_expectation_corrupt_is_a_finding(run: Runs, matrix: Path, world: World, tmp_path: Path) -> None:
    world.finds["unsafe-swap-pressure"] = corrupt()
    junit = tmp_path / "junit.xml"
    ran = run("--drbd-matrix", str(matrix), f"--junitxml={junit}")
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1})
    said = (
        "unsafe-swap-pressure: nothing is expected of this cell, and lost or wrong data is a finding all the same; seen"
    )
    assert said in ran.out and "Traceback" not in ran.out
    assert f'<failure message="Failed: {said}: CORRUPT: ' in junit.read_text()


def test_run_inconclusive_is_an_error(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = broken()
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (2, {"passed": 7, "errors": 1})
    assert "writeback-swap-pressure: INCONCLUSIVE: work: it took too long" in ran.out and "Traceback" not in ran.out


@pytest.mark.parametrize(("says", "status"), [("it took", 0), ("nodeb", 2)])
def test_run_inconclusive_that_is_expected_passes_by_its_sentence(
    run: Runs, matrix: Path, world: World, says: str, status: int
) -> None:
    expected = f'verdicts = ["INCONCLUSIVE"]\nreason = "it is sabotaged"\nsays = "{says}"\n'
    text = MATRIX.replace('verdicts = ["CLEAN"]\nreason = "pages are copied"\n', expected)
    matrix.write_text(text)
    world.finds["writeback-swap-pressure"] = broken()
    ran = run("--drbd-matrix", str(matrix))
    assert ran.status == status
    assert ("error" in ran.outcomes or "errors" in ran.outcomes) is bool(status)


def test_run_finding_and_error_exit_code_1(run: Runs, matrix: Path, world: World) -> None:
    world.finds |= {"unsafe-swap-pressure": broken(), "writeback-swap-pressure": diverged()}
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (1, {"passed": 6, "failed": 1, "errors": 1})


def test_run_control_that_fails_on_two_labs_stops_the_run(run: Runs, matrix: Path, world: World) -> None:
    world.finds["host-no-writes"] = diverged()
    ran = run("--drbd-matrix", str(matrix))
    assert ran.outcomes == {"passed": 2, "errors": 6}, "planted and steady held"
    assert world.played == CONTROLS[:3] * 2 and len(world.labs) == 2
    assert ran.status == 2 and ran.out.count("not played: the idle control failed twice: CLEAN was expected") >= 5


def test_run_lab_not_up_is_an_error_for_every_cell(run: Runs, matrix: Path, world: World) -> None:
    world.error = InfrastructureError("node a did not boot")
    ran = run("--drbd-matrix", str(matrix))
    assert (ran.status, ran.outcomes) == (2, {"errors": 8})
    assert "node a did not boot" in ran.out and "Traceback" not in ran.out
    assert len(world.specs) == 1, "asked once, not once a cell"


def test_options_lab_reach_the_lab(run: Runs, matrix: Path, world: World) -> None:
    suites = ("--drbd-suite", "bookworm", "--drbd-guest-suite", "trixie")
    chosen = (*suites, "--drbd-device-mib", "64", "--drbd-memory-mib", "900")
    kept = ("--drbd-runs", "elsewhere", "--drbd-run-id", "mine")
    run("--drbd-matrix", str(matrix), *chosen, *kept, "-k", "none-swap-pressure")
    ((spec, stack),) = world.specs
    assert (stack.suite, stack.guest_base, spec.device_mib, spec.memory_mib) == ("bookworm", "trixie", 64, 900)
    assert run_ids(Path("elsewhere")) == ("mine",)


def test_run_ctrl_c_keeps_everything(pytester: pytest.Pytester, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = {"raises": KeyboardInterrupt()}
    ended = pytester.inline_run("-p", "no:cacheprovider", "--drbd-matrix", str(matrix), no_reraise_ctrlc=True)
    assert ended.ret == 2
    store = Store.open(pytester.path / "runs", "latest")
    assert store.evidence("none-swap-pressure") is not None and store.run().finished_at
    assert (store.directory / "report.html").exists()


def test_run_own_bug_exit_code_2(run: Runs, matrix: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(f"{ASKS}\ndef pytest_collection_finish(session):\n    raise ZeroDivisionError('ours')\n")
    ran = run("--drbd-matrix", str(matrix))
    assert "INTERNALERROR" in ran.out + ran.err
    assert ran.status == 2, "3 means that nothing was chosen"


# --------------------------------------------------------------------------- reports of others


def test_junit_findings_and_errors_differ(run: Runs, matrix: Path, world: World) -> None:
    world.finds |= {"unsafe-swap-pressure": broken(), "writeback-swap-pressure": diverged()}
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    root = etree.fromstring((ran.folder / "junit.xml").read_bytes())
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert (
        "failure" in cases["test_cell[writeback-swap-pressure]"]
        and "error" not in cases["test_cell[writeback-swap-pressure]"]
    )
    assert (
        "error" in cases["test_cell[unsafe-swap-pressure]"]
        and "failure" not in cases["test_cell[unsafe-swap-pressure]"]
    )
    assert not {"failure", "error"} & set(cases["test_cell[none-swap-pressure]"])
    assert "CLEAN was expected" in str(next(root.iter("failure")).get("message"))
    assert "INCONCLUSIVE: work: it took too long" in etree.tostring(next(root.iter("error")), encoding="unicode")
    suite = next(root.iter("testsuite"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "1", "1")


@pytest.mark.usefixtures("pages")
def test_pages_both_have_heat_map_and_evidence(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--html", "page.html", "--self-contained-html")
    page = (ran.folder / "page.html").read_text()
    assert "DRBD divergence harness" in page and "writeback" in page and "none-swap-pressure" in page
    own = (ran.store.directory / "report.html").read_text()
    assert "none-swap-pressure" in own and "2 blocks differ" in own


# --------------------------------------------------------------------------- what did not last to the end


def junit(ran: Ran) -> tuple[dict[str | None, list[Any]], Any]:
    """What junit's file has inside each test, and its suite."""
    root = etree.fromstring((ran.folder / "junit.xml").read_bytes())
    return {case.get("name"): list(case) for case in root.iter("testcase")}, next(root.iter("testsuite"))


def test_closing_control_fails_what_had_passed_is_an_error(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["host-steady"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml", "--html", "page.html", "--self-contained-html")
    assert world.played == [*IDS, *CONTROLS[:2]]
    # Four controls stay; the one that failed and the three cells of a lab that differs by itself do not.
    assert (ran.status, ran.outcomes) == (2, {"passed": 4, "errors": 4}), ran.out
    cases, suite = junit(ran)
    for cell in IDS[5:]:
        (error,) = cases[f"test_cell[{cell}]"]
        assert error.tag == "error" and "the steady control failed: CLEAN was expected" in error.get("message")
    assert cases["test_cell[host-steady]"][0].tag == "error" and cases["test_cell[host-planted]"] == []
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "0", "4")
    assert "ERROR after the closing controls: test_cells.py::test_cell[writeback-swap-pressure]" in ran.out
    assert "ERROR after the closing controls" in (ran.folder / "page.html").read_text()
    kept = ran.store.verdict("writeback-swap-pressure")
    assert kept is not None and kept.kind is VerdictKind.INCONCLUSIVE


def test_closing_control_fails_difference_stays_and_its_item(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["host-planted"] = {"planted": (), **oracles(set(), set())}
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, _ = junit(ran)
    assert cases["test_cell[none-swap-pressure]"] == [], "it is DIVERGED as expected, whatever the lab missed since"
    assert [child.tag for child in cases["test_cell[writeback-swap-pressure]"]] == ["error"]
    assert ran.status == 2
    kept = ran.store.verdict("none-swap-pressure")
    assert kept is not None and any("the planted control failed" in reason for reason in kept.reasons)


def test_closing_control_fails_finding_that_is_none_any_more_is_no_failure(
    run: Runs, matrix: Path, world: World
) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    world.finds_later["host-no-writes"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, suite = junit(ran)
    assert [child.tag for child in cases["test_cell[writeback-swap-pressure]"]] == ["error"]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "4")
    assert (ran.status, ran.outcomes) == (2, {"passed": 4, "errors": 4}), "a lab that differs by itself finds nothing"


def test_closing_controls_hold_nothing_changes(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    cases, suite = junit(ran)
    assert not any(cases.values()) and (suite.get("failures"), suite.get("errors")) == ("0", "0")
    assert "after the closing controls" not in ran.out
    kept = ran.store.verdict("writeback-swap-pressure")
    assert kept is not None and kept.reasons == (), "there was a control after it"


def test_closing_controls_are_played_where_pytest_stops_at_a_finding(run: Runs, matrix: Path, world: World) -> None:
    world.finds["none-swap-pressure"] = oracles(set(), set())
    world.finds_later["host-steady"] = diverged()
    ran = run("--drbd-matrix", str(matrix), "-x")
    assert world.played == [*IDS[:6], *CONTROLS[:2]]
    kept = ran.store.verdict("none-swap-pressure")
    assert kept is not None and kept.kind is VerdictKind.INCONCLUSIVE and ran.status == 2
    assert ran.outcomes == {"passed": 4, "errors": 2}


def test_stop_at_nothing_is_played_behind_it_but_the_closing_controls(run: Runs, matrix: Path, world: World) -> None:
    repeated = ("--drbd-matrix", str(matrix), "--drbd-repeat", "3", "-k", "none-swap")
    ran = run(*repeated, "--drbd-stop-at", "CORRUPT", "--drbd-stop-at", "DIVERGED")
    assert world.played.count("none-swap-pressure") == 1 and world.played[-1] in CONTROLS
    assert ran.status == 0, "it was expected"
    assert "none-swap-pressure ended as DIVERGED, which --stop-at waited for" in ran.out
    world.finds["none-swap-pressure"] = oracles(set(), set())
    assert run(*repeated, "--drbd-stop-at", "CLEAN").status == 1, "a finding against the expectation stays one"
    assert run(*repeated, "--drbd-stop-at", "DIVERGED").status == 1 and world.played.count("none-swap-pressure") == 5
    world.finds_later["host-steady"] = diverged()
    assert run(*repeated, "--drbd-stop-at", "CLEAN").status == 2, "the closing controls take it back"


def test_stop_at_no_verdict_one_sentence(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-stop-at", "DIVERGD")
    assert ran.status == 4 and "--drbd-stop-at is 'DIVERGD'; did you mean 'DIVERGED'?" in ran.err and not world.labs


def test_closing_control_interrupted_takes_nothing_back(pytester: pytest.Pytester, matrix: Path, world: World) -> None:
    world.finds_later["host-steady"] = {"stops": KeyboardInterrupt()}
    asked = ("--drbd-matrix", str(matrix), "--junitxml", "junit.xml")
    ended = pytester.inline_run("-p", "no:cacheprovider", *asked, no_reraise_ctrlc=True)
    assert ended.ret == 2, "interrupted"
    assert world.played == [*IDS, *CONTROLS[:2]], "and not all controls once more"
    results = {one.cell.id: one for one in judged_results(Store.open(pytester.path / "runs", "latest"))}
    clean = results["writeback-swap-pressure"].verdict
    assert clean is not None and clean.kind is VerdictKind.CLEAN
    assert any("no steady and no in-flight-guest control was played after it" in reason for reason in clean.reasons)
    cases = etree.fromstring((pytester.path / "junit.xml").read_bytes()).iter("testcase")
    # What pytest itself says of the teardown that was stopped is its own.
    assert all(not len(case) for case in cases if case.get("name") == "test_cell[writeback-swap-pressure]")


def test_closing_control_fails_own_test_that_passed_is_an_error(
    run: Runs, pytester: pytest.Pytester, world: World
) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_passes(own_cell):
            own_cell.run.context.resource.sent_kib += 400
        @pytest.mark.cell(cache="writeback")
        def test_fails(own_cell):
            raise ZeroDivisionError("the test's own")
        """
    )
    world.finds_later["host-no-writes"] = diverged()
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"failed": 1, "errors": 1}), "what failed by itself stays a failure"


# --------------------------------------------------------------------------- repetitions


SWAPS = ["none-swap-pressure", "writeback-swap-pressure", "unsafe-swap-pressure"]


def test_repeat_items_are_interleaved_and_selected_by_cell(run: Runs, matrix: Path, world: World) -> None:
    asked = ("--drbd-matrix", str(matrix), "--drbd-repeat", "2")
    ran = run("--collect-only", "-q", *asked)
    items = re.findall(r"test_cells\.py::test_cell\[(.+)\]", ran.out)
    assert items == [*CONTROLS, *(f"{cell}-rep1" for cell in SWAPS), *(f"{cell}-rep2" for cell in SWAPS)]
    some = run("--collect-only", "-q", *asked, "-k", "none-swap-pressure")
    assert re.findall(r"\[(.+)\]", some.out) == ["none-swap-pressure-rep1", "none-swap-pressure-rep2"]
    one = run("--collect-only", "-q", *asked, "-k", "none-swap-pressure and rep2")
    assert re.findall(r"\[(.+)\]", one.out) == ["none-swap-pressure-rep2"]


def test_repeat_every_play_has_a_seed_a_result_and_an_attempt(run: Runs, matrix: Path, world: World) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-repeat", "2", "--drbd-seed", "7", "--junitxml", "junit.xml")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, *SWAPS, *SWAPS, *CONTROLS]
    stored = ran.store.run()
    assert stored.seed == 7 and [cell.play for cell in stored.cells[5:]] == [
        (cell, number) for number in (1, 2) for cell in SWAPS
    ]
    seeds = [cell.seed for cell in stored.cells[5:]]
    assert len(set(seeds)) == len(seeds) and all(seeds)
    plays = [one.cell for one in ran.store.every_attempt() if one.cell.control is None]
    assert {cell.play: cell.seed for cell in plays} == {cell.play: cell.seed for cell in stored.cells[5:]}
    cases, _ = junit(ran)
    assert len(cases) == 11, "every name once"
    assert {cell.play for cell in (one.cell for one in judged_results(ran.store))} == {
        cell.play for cell in stored.cells
    }
    assert "the seed of this run is 7" in ran.out


def test_seed_of_a_run_brings_the_same_seeds_back(run: Runs, matrix: Path, world: World) -> None:
    def seeds(*arguments: str) -> list[int]:
        return [cell.seed for cell in run("--drbd-matrix", str(matrix), *arguments).store.run().cells]

    first, again = (seeds("--drbd-seed", "7", "--drbd-run-id", name) for name in ("r1", "r2"))
    assert first == again != seeds("--drbd-run-id", "r3")


def test_resume_plays_only_the_repetitions_that_are_missing(run: Runs, matrix: Path, world: World) -> None:
    world.finds_later["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix), "--drbd-repeat", "2").status == 2
    before = Store.open(Path("runs"), "latest").run()
    world.finds_later.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS]
    after = ran.store.run()
    assert after.cells == before.cells and after.seed == before.seed
    last = ran.store.evidence("unsafe-swap-pressure")
    assert last is not None and (last.cell.repetition, last.attempt) == (2, 3)
    assert last.cell.seed == next(cell.seed for cell in after.cells if cell.play == last.cell.play)
    refused = run("--drbd-resume", "latest", "--drbd-repeat", "3")
    assert refused.status == 4 and "leave --drbd-repeat out" in refused.err


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--drbd-repeat", "0"), "--drbd-repeat is 0; it is a number from 1 to 10000"),
     (("--drbd-seed", "-1"), "--drbd-seed is -1; it is a number from 1 to 9223372036854775807")],
)  # fmt: skip
def test_repeat_and_seed_out_of_range_one_sentence(
    run: Runs, matrix: Path, world: World, option: tuple[str, str], words: str
) -> None:
    ran = run("--drbd-matrix", str(matrix), *option)
    assert ran.status == 4 and words in ran.err and world.labs == []


def test_controls_every_is_for_the_session_and_a_number_of_seconds(run: Runs, matrix: Path, world: World) -> None:
    refused = run("--drbd-matrix", str(matrix), "--drbd-controls-every", "0")
    assert refused.status == 4 and "--drbd-controls-every is 0; it is a number from 1 to" in refused.err
    assert world.labs == []
    assert run("--drbd-matrix", str(matrix), "--drbd-controls-every", "7200").status == 0


def test_repeat_own_test_is_repeated_too(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache="none", repeat=2'))
    assert re.findall(r"\[(.+)\]", run("--collect-only", "-q").out) == ["none-my-own-rep1", "none-my-own-rep2"]
    ran = run("--collect-only", "-q", "--drbd-repeat", "3")
    assert re.findall(r"\[(.+)\]", ran.out)[-1] == "none-my-own-rep3"


def test_resume_own_test_has_the_seeds_of_its_run(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache="none", repeat=2'))
    run("--drbd-seed", "7")
    ran = run("--drbd-resume", "latest")
    planned = {cell.play: cell.seed for cell in ran.store.run().cells}
    plays = [one.cell for one in ran.store.every_attempt() if one.cell.control is None]
    assert len(plays) == 4 and all(cell.seed == planned[cell.play] for cell in plays)


# --------------------------------------------------------------------------- parts of a matrix


def test_shard_parts_play_every_play_once_with_its_seed(run: Runs, matrix: Path, world: World) -> None:
    asked = ("--drbd-matrix", str(matrix), "--drbd-repeat", "2", "--drbd-seed", "7")
    whole = run(*asked, "--drbd-run-id", "r0").store.run()
    found = []
    for number in ("1", "2"):
        world.played.clear()
        ran = run(*asked, "--drbd-run-id", f"r{number}", "--drbd-shard", f"{number}/2")
        stored = ran.store.run()
        assert (ran.status, stored.shard, stored.plan) == (0, f"{number}/2", (*CONTROLS, *SWAPS))
        assert stored.matrix_digest == whole.matrix_digest != ""
        assert world.played == [*CONTROLS, *(cell.id for cell in stored.cells[5:]), *CONTROLS]
        found += [cell for cell in stored.cells if cell.control is None]
    assert sorted(found, key=str) == sorted((cell for cell in whole.cells if cell.control is None), key=str)
    assert (whole.shard, whole.plan, whole.chosen) == ("", (), {"--repeat": "2"})
    assert run(*asked, "--drbd-run-id", "r3", "-k", "unsafe").store.run().chosen == {"-k": "unsafe", "--repeat": "2"}


def test_shard_resume_keeps_the_part(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix), "--drbd-shard", "1/2").status == 2
    before = Store.open(Path("runs"), "latest").run()
    world.finds.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert ran.status == 0 and world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS]
    after = ran.store.run()
    assert (after.cells, after.shard, after.plan) == (before.cells, "1/2", before.plan)
    refused = run("--drbd-resume", "latest", "--drbd-shard", "1/2")
    assert refused.status == 4 and "leave --drbd-shard out" in refused.err


def test_shard_own_tests_are_dealt_out_also_when_resumed(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_own=OWN.format(keys='cache=["none", "writeback"], repeat=2'))
    run("--drbd-shard", "2/4", "--drbd-run-id", "part")
    planned = [cell.play for cell in Store.open(Path("runs"), "part").run().cells]
    assert planned == [("none-my-own", 2)]
    ran = run("--drbd-resume", "part")
    assert [cell.play for cell in ran.store.run().cells] == planned
    assert {one.cell.play for one in ran.store.every_attempt() if one.cell.control is None} == set(planned)


@pytest.mark.parametrize(
    ("shard", "words"),
    [("0/3", "--drbd-shard is '0/3'; it is one part of several, written as i/n"),
     ("4/4", "--drbd-shard is 4/4, but there are only 3 plays: this part has none of them")],
)  # fmt: skip
def test_shard_that_cannot_be_one_sentence(run: Runs, matrix: Path, world: World, shard: str, words: str) -> None:
    ran = run("--drbd-matrix", str(matrix), "--drbd-shard", shard)
    assert ran.status == 4 and words in ran.err and world.labs == []


# --------------------------------------------------------------------------- going on with a run


def test_resume_plays_only_unanswered_cells(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    assert run("--drbd-matrix", str(matrix)).status == 2
    world.finds.clear()
    world.played.clear()
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (0, {"passed": 8})
    assert world.played == [*CONTROLS, "unsafe-swap-pressure", *CONTROLS], "another lab, its controls"
    assert len(run_ids(ran.folder / "runs")) == 1
    assert [cell.id for cell in ran.store.run().cells] == IDS


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--drbd-suite", "warty"), "there is no node image of 'warty'"),
        (("--drbd-guest-suite", "warty"), "there is no guest image of 'warty'"),
        (("--drbd-device-mib", "1"), "device_mib is 1"),
    ],
)
def test_options_impossible_lab_is_refused_at_once(
    run: Runs, matrix: Path, world: World, option: tuple[str, str], words: str
) -> None:
    ran = run("--drbd-matrix", str(matrix), *option)
    assert ran.status == 4 and words in ran.err
    assert not world.labs and not (ran.folder / "runs").exists()


def test_resume_keeps_the_lab_spec(run: Runs, matrix: Path, world: World) -> None:
    world.finds["unsafe-swap-pressure"] = broken()
    run("--drbd-matrix", str(matrix), "--drbd-suite", "bookworm", "--drbd-device-mib", "64")
    run("--drbd-resume", "latest")
    assert [(stack.suite, spec.device_mib) for spec, stack in world.specs] == [("bookworm", 64)] * 2
    refused = run("--drbd-resume", "latest", "--drbd-suite", "trixie")
    assert refused.status == 4 and "leave --drbd-suite out" in refused.err


def test_resume_finished_run_needs_no_lab(run: Runs, matrix: Path, world: World) -> None:
    world.finds["writeback-swap-pressure"] = diverged()
    assert run("--drbd-matrix", str(matrix)).status == 1
    world.error = InfrastructureError("there is no lab any more")
    ran = run("--drbd-resume", "latest")
    assert (ran.status, ran.outcomes) == (1, {"passed": 7, "failed": 1}), "a finding stays one"
    assert len(world.specs) == 1


def test_resume_run_of_schema_1_nothing_is_played_again(run: Runs, matrix: Path, world: World) -> None:
    kept = Path("runs/quick-drbd-8.4")
    shutil.copytree(GOLDEN / kept.name, kept)
    world.error = InfrastructureError("there is no lab any more")
    ran = run("--drbd-resume", "quick-drbd-8.4")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert (world.specs, world.played) == ([], [])


def test_resume_run_of_schema_1_a_missing_cell_is_played_in_its_former_folder(
    run: Runs, matrix: Path, world: World
) -> None:
    kept = Path("runs/quick-drbd-8.4")
    shutil.copytree(GOLDEN / kept.name, kept)
    folder = kept / "cells" / "writeback-ext4-cut-link20ms"
    (folder / "1" / "evidence.json").unlink()
    ran = run("--drbd-resume", "quick-drbd-8.4")
    assert (ran.status, ran.outcomes) == (0, {"passed": 11})
    assert world.played == [*CONTROLS, "writeback-ext4-truncate-link20ms", *CONTROLS], "another lab, its controls"
    assert (folder / "2" / "evidence.json").is_file() and not folder.with_name(world.played[5]).exists()


# --------------------------------------------------------------------------- tests of one's own


def test_own_cell_failing_test_is_concluded(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_breaks(own_cell, disk):
            assert disk.path == "/dev/vdb"
            raise ZeroDivisionError("the test's own")
        """
    )
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"failed": 1})
    assert in_order(world.story.steps, "attach", "detach", "verify")
    found = ran.store.evidence("none-breaks")
    assert found is not None and found.verify is not None and found.failure is None


def test_verdict_inconclusive_is_an_error_of_the_test(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.story.broken["verify"] = InfrastructureError("the verify did not end")
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_asks(verdict):
            verdict()
        """
    )
    ran = run("--junitxml", "junit.xml")
    assert (ran.status, ran.outcomes) == (2, {"errors": 1})
    assert "INCONCLUSIVE: verify: the verify did not end" in ran.out and "Traceback" not in ran.out
    (suite,) = etree.fromstring((ran.folder / "junit.xml").read_bytes()).iter("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")


def test_migrate_own_test_moves_its_guest(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.moves = True
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_moves(migrate, verify):
            assert [migrate().target, migrate().target] == ["nodeb", "nodea"]
            assert len(verify().migrations) == 2
        """
    )
    ran = run()
    assert ran.outcomes == {"passed": 1}, ran.out
    assert in_order(world.story.steps, "attach", "moved to nodeb", "moved to nodea", "detach", "verify")
    found = ran.store.evidence("none-moves")
    assert found is not None and [one.number for one in found.migrations] == [1, 2] and found.failure is None
    assert [(one.source, one.target, one.during) for one in found.migrations] == [
        ("nodea", "nodeb", "work"), ("nodeb", "nodea", "work")
    ]  # fmt: skip
    assert len(found.event_log) == 2 and found.event_log[0].startswith("migration 1 from nodea to nodeb completed")


def test_migrate_refused_is_an_outcome(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.moves = True
    refusal = LibvirtSaid("Unsafe migration: Migration may lead to data corruption", libvirt.VIR_ERR_MIGRATE_UNSAFE)
    world.story.when["attach"] = lambda: setattr(world.guests[-1].domain, "error", refusal)
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_stays(migrate, verdict):
            assert migrate().outcome == "refused"
            assert "Unsafe migration" in verdict().sentence
        """
    )
    ran = run()
    assert ran.outcomes == {"passed": 1}, ran.out
    found = ran.store.evidence("none-stays")
    assert found is not None and "Unsafe migration" in found.migrations[0].message and found.failure is None


def test_migrate_host_cell_has_no_guest(
    run: Runs, pytester: pytest.Pytester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.cell_steps.observe_node", lambda node, device: Observed(scatter_gather=True))
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(client="host")
        def test_stays(migrate):
            migrate()
        """
    )
    ran = run()
    assert "a cell with client=host has no disk in a guest" in ran.out and ran.status != 0


def test_own_cell_host_has_evidence(
    run: Runs, pytester: pytest.Pytester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.cell_steps.observe_node", lambda node, device: Observed(scatter_gather=True))
    pytester.makepyfile(test_own=OWN.format(keys='client="host"'))
    ran = run()
    assert "Traceback" not in ran.out and "AssertionError" not in ran.out
    assert ran.store.evidence("host-my-own") is not None


# --------------------------------------------------------------------------- beside other people's tests


def test_other_tests_are_left_alone(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_other="def test_one():\n    pass\ndef test_two():\n    assert False\n")
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"passed": 1, "failed": 1})
    assert world.labs == [] and not (ran.folder / "runs").exists()


def test_cell_parameter_of_a_foreign_test_is_left_alone(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_other="""
        import pytest
        @pytest.fixture
        def cell():
            return "A1"
        def test_of_a_spreadsheet(cell):
            assert cell == "A1"
        """
    )
    assert run().outcomes == {"passed": 1}
    pytester.makepyfile(
        test_other="""
        import pytest
        @pytest.mark.parametrize("cell", ["A1", "B2"])
        def test_of_a_spreadsheet(cell):
            assert cell in ("A1", "B2")
        """
    )
    assert run().outcomes == {"passed": 2}
