"""How long a run takes: learnt from stored runs, and held against how long these took."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from harness.config.controls import with_controls
from harness.engine.control_rounds import CONTROLS_EVERY
from harness.engine.pace import Pace
from harness.errors import InfrastructureError
from harness.lab.nested import accel
from harness.model import CacheMode, Cell, ClientKind, Crash, Fault, FilesystemKind, Run, Stack
from harness.report import costs, estimate
from harness.report.costs import CellKind, KindCost, RunCosts, keep_costs, kept_runs, learnt, own_costs, read_table
from harness.report.estimate import Costs, RoundsState, Schedule, about, estimate_lines, steps
from harness.store import Store

CHECKOUT = Path(__file__).parents[2]
EVIDENCE = CHECKOUT / "docs" / "evidence"
#: How far an estimate may be from what a run took: by figures that have its own, and by those of other runs only.
KNOWN, FOREIGN = 1.25, 1.4
SWAP = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, seconds=8)
OTHER = replace(SWAP, cache=CacheMode.WRITEBACK)
MOVED = replace(SWAP, migrations=4)
GUEST, NODE = "guest", "host"
SIZES = frozenset({128.0})


def small(cell: Cell) -> float:
    return 128


def by_filesystem(cell: Cell) -> float:
    return 320 if cell.filesystem is FilesystemKind.EXT4 else 128


def kind(
    client: str, filesystem: str = "raw", workload: str = "w", disturbance: str = "", layout: str = "raw"
) -> CellKind:
    return CellKind(client, filesystem, layout, workload, disturbance)


def cost(
    of: CellKind, rest: float, work: float = 2.0, attempts: int = 1, mib: float = 128, moves: float = 0
) -> KindCost:
    return KindCost(of, attempts, {"attach": rest, "work": work}, mib, moves)


def run_of(name: str, *kinds: KindCost, accelerator: str = "tcg", schema: int = 3) -> RunCosts:
    return RunCosts(name, accelerator, schema, 30.0, 20.0, 5.0, kinds=kinds)


def kept(matrix: str) -> tuple[Run, tuple[int, float]]:
    """The newest kept run of a matrix, how many attempts it had, and its seconds by the clock."""
    path = sorted(EVIDENCE.glob(f"{matrix}-*"))[-1]
    store = Store(path)
    run = store.run()
    took = datetime.fromisoformat(run.finished_at) - datetime.fromisoformat(run.started_at)
    return run, (len(store.every_attempt()), took.total_seconds())


@pytest.fixture(scope="module")
def table() -> tuple[RunCosts, ...]:
    return read_table()


# --------------------------------------------------------------------------- against what runs took


@pytest.mark.parametrize("matrix", ["quick", "failover", "smoke"])
def test_estimate_of_kept_runs_is_near_what_they_took(matrix: str, table: tuple[RunCosts, ...]) -> None:
    run, (attempts, took) = kept(matrix)
    # Of a run that was played with -k the cells are without the controls, which were played all the same.
    schedule = Schedule.of(with_controls(run.cells), CONTROLS_EVERY, small)
    ahead = [step for step in steps(schedule, Costs(table)) if step.given]
    assert len(ahead) == attempts, "the cells, and the controls as often as they were played"
    for known, factor in ((table, KNOWN), ([one for one in table if one.run != run.id], FOREIGN)):
        made = estimate.estimate(schedule, Costs(known))
        assert made is not None and took / factor < made.total < took * factor, (matrix, made.total, took)
        assert sum(seconds for _, seconds in made.phases) == pytest.approx(made.total)


def test_table_is_what_the_command_writes(table: tuple[RunCosts, ...]) -> None:
    written = {one.run: one for one in table}
    for store in kept_runs(CHECKOUT):
        run = store.run()
        assert written[run.id] == learnt(run, store.every_attempt()), f"run ci/costs: {store.directory} is not in it"


# --------------------------------------------------------------------------- what is to come


def names(schedule: Schedule, state: RoundsState | None = None) -> list[str]:
    figures = Costs([run_of("r", cost(kind(GUEST), 1000.0, 0.0), cost(kind(NODE), 1.0, 0.0))])
    return [step.name for step in steps(schedule, figures, state)]


def test_steps_rounds_of_controls_at_both_ends_hourly_and_after_a_revival() -> None:
    crash = replace(SWAP, crash=Crash.NODE)
    cells = with_controls([SWAP, OTHER, replace(OTHER, cache=CacheMode.UNSAFE), crash, MOVED])
    schedule = Schedule.of(cells, 2500.0, small)
    opening = ["bring-up", "start of the guest", *["controls"] * 5]
    hourly = ["controls"] * 5
    assert names(schedule) == [
        *opening, "swap reclaim", "swap reclaim", "swap reclaim", *hourly, "swap reclaim (crash.node)",
        "controls", "controls", "swap reclaim (migrations)", *hourly, "end",
    ]  # fmt: skip
    on_node = Schedule.of(with_controls([Cell("inflight-modify", client=ClientKind.HOST, seconds=3)]), 2500.0, small)
    assert names(on_node) == ["bring-up", *["controls"] * 4, "end"], "the only cell is the control"


def test_steps_in_the_middle_of_a_run_goes_on_from_there() -> None:
    schedule = replace(Schedule.of(with_controls([SWAP, OTHER]), 3600.0, small), cells=(OTHER,))
    waiting = schedule.controls[3:]
    assert names(schedule, RoundsState(waiting)) == [*["controls"] * 2, "swap reclaim", *["controls"] * 5, "end"]
    assert names(schedule, RoundsState(since=10.0, cells=1, sizes=SIZES)) == ["swap reclaim", *["controls"] * 5, "end"]
    assert names(schedule, RoundsState(since=3601.0, cells=1, sizes=SIZES))[:6] == [*["controls"] * 5, "swap reclaim"]
    target = replace(SWAP, migrations=2, fault=Fault.TARGET_KILL)
    revived = replace(schedule, cells=(target, OTHER))
    assert names(revived, RoundsState(since=10.0, sizes=SIZES))[1:3] == ["controls", "controls"]


def test_steps_another_size_of_the_device_is_made_and_planted_on_once() -> None:
    large = replace(SWAP, filesystem=FilesystemKind.EXT4)
    again = replace(large, cache=CacheMode.WRITEBACK)
    schedule = Schedule.of(with_controls([SWAP, large, again, OTHER]), 9e9, by_filesystem)
    assert names(schedule)[7:] == [
        "swap reclaim", "another size of the device", "controls", "ext4 reclaim", "ext4 reclaim",
        "another size of the device", "swap reclaim", *["controls"] * 5, "end",
    ]  # fmt: skip


# --------------------------------------------------------------------------- what a cell costs


def test_costs_nearest_kind_is_taken_where_its_own_is_not_known() -> None:
    figures = Costs(
        [
            run_of(
                "r",
                cost(kind(GUEST, "swap", "reclaim"), 10),
                cost(kind(GUEST, "ext4", "truncate"), 20),
                cost(kind(GUEST, "ext4", "buffered", "crash.node"), 90),
                cost(kind(NODE), 3),
            )
        ]
    )

    def attach(cell: Cell) -> float:
        return figures.attempt(cell, 128)["attach"]

    assert attach(SWAP) == 10
    assert attach(replace(SWAP, workload="truncate")) == 20, "the workload says more than the filesystem"
    assert attach(replace(SWAP, crash=Crash.NODE)) == 90
    assert attach(replace(SWAP, crash=Crash.RESET)) == 90, "another crash is more like it than none"
    assert attach(replace(SWAP, workload="new")) == 10
    assert attach(Cell("new", client=ClientKind.HOST)) == 3
    assert figures.attempt(SWAP, 128)["work"] == 10, "8 s that were asked for, and 2 s beyond"
    assert sum(Costs([]).attempt(SWAP, 128).values()) > 8, "without any figures it is a guess"


def test_costs_larger_device_and_more_migrations_cost_more() -> None:
    verify = KindCost(kind(GUEST, "swap", "reclaim"), 1, {"verify": 10.0, "attach": 4.0}, 128)
    moved = cost(kind(GUEST, "swap", "reclaim", "migrations"), 4, work=20.0, moves=2)
    figures = Costs([run_of("r", verify, moved)])
    assert figures.attempt(SWAP, 128)["verify"] == pytest.approx(10)
    assert figures.attempt(SWAP, 256)["verify"] == pytest.approx(17), "3 s of it are the same on any device"
    assert figures.attempt(SWAP, 256)["attach"] == 4
    assert figures.attempt(MOVED, 128)["work"] == pytest.approx(8 + 40)


def test_costs_of_this_machine_come_first_and_set_the_ratio() -> None:
    table = [run_of("r", cost(kind(GUEST, "swap", "reclaim"), 10, 0), cost(kind(GUEST, "ext4", "truncate"), 20, 0))]
    own = [run_of("o", cost(kind(GUEST, "swap", "reclaim"), 5, 0))]
    figures = Costs(table, own)
    assert figures.attempt(SWAP, 128)["attach"] == 5
    other = Cell("truncate", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE)
    assert figures.attempt(other, 128)["attach"] == 10, "half of what it takes elsewhere"
    assert "1 of them here" in figures.basis
    older = run_of("old", cost(kind(GUEST, "swap", "reclaim"), 1), schema=2)
    assert Costs([older, *table]).attempt(SWAP, 128)["attach"] == 10, "evidence of an older schema cost less"


def test_estimate_other_accelerator_is_an_upper_bound_and_says_so(table: tuple[RunCosts, ...]) -> None:
    schedule = Schedule.of(with_controls([SWAP]), CONTROLS_EVERY, small)
    known, unknown = (estimate.estimate(schedule, Costs(table, accelerator=kind)) for kind in ("tcg", "kvm"))
    assert known is not None and unknown is not None
    assert unknown.total == known.total and unknown.at_most and not known.at_most
    first = estimate_lines(unknown)[0]
    assert first.startswith("estimate: at most about ") and "none of them under KVM: it takes less" in first


def test_own_costs_of_runs_here_by_accelerator(tmp_path: Path) -> None:
    store = Store(sorted(EVIDENCE.glob("quick-*"))[-1])
    run, attempts = store.run(), store.every_attempt()
    for name, stack in (("one", Stack(accelerator="kvm")), ("two", run.stack)):
        (tmp_path / name).mkdir()
        keep_costs(tmp_path / name, replace(run, id=name, stack=stack), attempts)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / costs.FILE).write_text("[{")
    assert [one.run for one in own_costs(tmp_path, "kvm")] == ["one"]
    assert own_costs(tmp_path / "nowhere", "kvm") == ()
    assert own_costs(tmp_path / ("x" * 300) / "runs", "kvm") == (), "where nobody can look is nothing either"


@pytest.mark.parametrize("number", ["1e999", "-1e308", "1e308", "0", "9223372036854775808"])
def test_costs_of_somebody_that_nothing_can_be_reckoned_with_are_none(tmp_path: Path, number: str) -> None:
    """An estimate is printed before a run begins, and no file of another run may keep it from that."""
    store = Store(sorted(EVIDENCE.glob("quick-*"))[-1])
    run, attempts = store.run(), store.every_attempt()
    schedule = Schedule.of(run.cells, CONTROLS_EVERY, small)
    for key in ("bring_up", "attempts", "mib", "work", "verify"):
        keep_costs(tmp_path, run, attempts)
        (tmp_path / "run").mkdir(exist_ok=True)
        text = (tmp_path / costs.FILE).read_text()
        (tmp_path / "run" / costs.FILE).write_text(re.sub(rf'"{key}":[^,}}]*', f'"{key}":{number}', text))
        made = estimate.estimate(schedule, estimate.costs_here(tmp_path, "tcg"))
        assert made is not None and estimate_lines(made)


def test_costs_here_damaged_table_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "costs.json").write_text("{")
    monkeypatch.setattr(estimate, "read_table", lambda: read_table(tmp_path / "costs.json"))
    with pytest.raises(InfrastructureError, match="the table of costs"):
        estimate.costs_here(tmp_path, "tcg")


@pytest.mark.parametrize(
    ("forced", "probed", "found"),
    [
        ("kvm", '{"accelerator": {"kind": "tcg"}}', "kvm"),
        ("", '{"accelerator": {"kind": "kvm"}}', "kvm"),
        ("", '{"accelerator": {"kind": "tcg"}}', "tcg"),
        ("", "{", "tcg"),
        ("", None, "tcg"),
    ],
)
def test_likely_accelerator_what_was_forced_or_found_last_or_by_the_device(
    forced: str, probed: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(accel.OVERRIDE, forced)
    monkeypatch.setattr(accel, "DEV_KVM", tmp_path / "kvm")
    if probed is not None:
        (tmp_path / "probe.json").write_text(probed)
    assert accel.likely(tmp_path) == found
    (tmp_path / "kvm").touch()
    (tmp_path / "probe.json").unlink(missing_ok=True)
    assert accel.likely(tmp_path) == "kvm"


# --------------------------------------------------------------------------- while it runs, and words


def test_pace_corrects_itself_by_what_cells_took() -> None:
    now = [0.0]
    cells = [replace(SWAP, repetition=number) for number in range(1, 21)]
    schedule = Schedule.of(cells, CONTROLS_EVERY, small)
    figures = Costs([run_of("r", cost(kind(GUEST, "swap", "reclaim"), 22, 0))])
    pace = Pace(schedule, figures, lambda: now[0])
    now[0] = 500.0
    pace.begins()
    said = []
    for number, cell in enumerate(cells):
        now[0] += 30.0 if number < 5 else 52.0
        said.append(pace.played(cell, RoundsState(since=now[0], cells=number + 1, sizes=SIZES)))
    assert said[0] == "1 of 20 played, about 10 min left", "19 cells of 30 s and the end; the bring-up is no part of it"
    assert said[4].startswith("5 of 20 played, about 8 min")
    assert said[14] == "15 of 20 played, about 4 min left", "the overhead became twice what it was: it were 3"
    assert said[-1] == "20 of 20 played, about 8 s left"


def test_pace_one_cell_that_took_an_hour_does_not_decide() -> None:
    now = [0.0]
    cells = [replace(SWAP, repetition=number) for number in range(1, 21)]
    figures = Costs([run_of("r", cost(kind(GUEST, "swap", "reclaim"), 22, 0))])
    pace = Pace(Schedule.of(cells, CONTROLS_EVERY, small), figures, lambda: now[0])
    pace.begins()
    now[0] += 3600.0
    minutes = int(pace.played(cells[0], RoundsState(since=1.0, cells=1, sizes=SIZES)).split("about ")[1].split()[0])
    assert 10 <= minutes <= 22


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (91, "2 min"),
        (716, "12 min"),
        (5940, "99 min"),
        (6000, "1 h 40 min"),
        (11100, "3 h 05 min"),
    ],
)
def test_about_lengths_as_people_say_them(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_estimate_lines_many_kinds_are_told_by_filesystem_and_the_longest_named(table: tuple[RunCosts, ...]) -> None:
    cells = [replace(SWAP, workload=f"w{number}", seconds=10 + number) for number in range(30)]
    moved = [replace(cell, crash=crash) for cell, crash in zip(cells, Crash, strict=False)]
    made = estimate.estimate(Schedule.of([*cells, *moved], CONTROLS_EVERY, small), Costs(table))
    assert made is not None
    lines = estimate_lines(made)
    assert any(re.search(r" 30 x swap$", line) for line in lines) and lines[-1].startswith("by phase: work ")
    kinds = replace(made, parts=tuple(estimate.Part(f"w{number}", 2, 100.0 + number) for number in range(30)))
    lines = estimate_lines(kinds)
    assert len(lines) == 23 and lines[-2].endswith(" 20 x 10 other kinds")
