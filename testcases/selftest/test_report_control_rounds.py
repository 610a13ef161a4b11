"""What the report shows of the rounds of controls: from the evidence of a real run, played at other times."""

from __future__ import annotations

import io
from dataclasses import replace

from reported_results import nodes, run_of, text_of
from rich.console import Console
from test_report_worth import recorded

from harness.model import Cell, Control, Crash, Evidence, Failure, Result, extents_of
from harness.report.control_rounds import control_rounds, doubted_numbers, failures, round_grid, round_lines
from harness.report.html import render_html
from harness.report.terminal import print_report


def at(evidence: Evidence, minute: int, **facts: object) -> Evidence:
    """``evidence`` as of this version, played in that minute of a day."""
    began, ended = (f"2026-11-28T{minute // 60:02}:{minute % 60:02}:{second}+00:00" for second in ("00", "30"))
    return replace(evidence, started_at=began, finished_at=ended, schema=3, attempt=minute, **facts)  # type: ignore[arg-type]


def of_quick(name: str) -> Evidence:
    found = next(one.evidence for one in recorded("quick-drbd-8.4") if one.cell.id == name)
    assert found is not None
    return found


PLANTED, IDLE, IN_FLIGHT = of_quick("host-planted"), of_quick("host-no-writes"), of_quick("host-inflight-modify")
CELL, OTHER = of_quick("writeback-swap-reclaim-link20ms"), of_quick("writethrough-swap-reclaim-link20ms")
CRASHED = replace(CELL, cell=replace(CELL.cell, crash=Crash.NODE), fault_injected=True)


def whole(minute: int, planted: Evidence = PLANTED) -> list[Evidence]:
    return [at(one, minute + place) for place, one in enumerate((planted, IDLE, IN_FLIGHT))]


def missed() -> Evidence:
    """The planted control, of which the comparison did not find what was planted."""
    assert PLANTED.comparison is not None
    return replace(PLANTED, comparison=replace(PLANTED.comparison, differing=extents_of([1])))


def a_day() -> list[Evidence]:
    return [
        *whole(0),
        at(CELL, 10),
        *whole(65),
        at(CRASHED, 70),
        at(PLANTED, 75), at(IN_FLIGHT, 76),
        at(OTHER, 80),
        *whole(90, missed()),
    ]  # fmt: skip


def test_control_rounds_occasions_by_their_place() -> None:
    rounds = control_rounds(reversed(a_day()))
    assert [one.occasion for one in rounds] == ["opening", "hourly", "after a node came back", "closing"]
    assert [len(one.outcomes) for one in rounds] == [3, 3, 2, 3]
    assert [[cell.cell.id for cell in one.cells] for one in rounds] == [
        [CELL.cell.id],
        [CRASHED.cell.id],
        [OTHER.cell.id],
        [],
    ]
    assert [one.took for one in rounds] == [150, 150, 90, 150]


def test_control_rounds_without_a_reason_that_shows_are_in_between() -> None:
    again = control_rounds([*whole(0), *whole(10), at(CELL, 20), at(PLANTED, 30), at(IN_FLIGHT, 31), at(CELL, 40)])
    assert [one.occasion for one in again] == ["opening", "in between", "in between"]


def test_control_rounds_failed_one_doubts_the_cells_beside_it_only() -> None:
    rounds = control_rounds(a_day())
    assert [len(one.doubted) for one in rounds] == [0, 0, 1, 0]
    assert [one.control for one in rounds[-1].failed] == [Control.PLANTED]
    from_the_start = control_rounds([*whole(0, missed()), at(CELL, 10), *whole(65), at(OTHER, 70)])
    assert [len(one.doubted) for one in from_the_start] == [1, 1], "nothing later is proven by that lab"


def test_control_rounds_interrupted_control_is_none() -> None:
    stopped = replace(PLANTED, failure=Failure("interrupted", "verify", "Ctrl-C"))
    rounds = control_rounds([*whole(0), at(CELL, 10), at(stopped, 20)])
    assert [(one.occasion, one.failed, len(one.doubted)) for one in rounds] == [("opening", (), 0)]


def test_control_rounds_other_lab_counts_for_itself() -> None:
    second = [replace(one, lab="another") for one in (*whole(100), at(OTHER, 110))]
    rounds = control_rounds([*whole(0, missed()), at(CELL, 10), *second])
    assert [(one.occasion, len(one.doubted)) for one in rounds] == [("opening", 1), ("opening", 0)]
    made = round_grid(rounds)
    assert made is not None and made.columns[1] == "Lab"


def test_round_grid_time_and_outcome_of_each_control() -> None:
    made = round_grid(control_rounds(a_day()))
    assert made is not None
    assert made.columns == ("Round", "Began (UTC)", "Took", "planted", "in-flight", "idle", "Then played", "Of these")
    rows = [[slot.text for slot in row] for row in made.rows]
    assert rows[0][:6] == ["opening", "2026-11-28 00:00:00", "2 min 30 s", "held", "held", "held"]
    assert rows[2][3:] == ["held", "held", "", "1 play", "1 beside a failed control"]
    assert rows[3][3:6] == ["failed", "held", "held"]


def results_of(attempts: list[Evidence]) -> list[Result]:
    return [Result(one.cell, None, one) for one in attempts if one.cell.control is None]


def test_page_rounds_failures_and_the_cells_beside_them() -> None:
    results = results_of(a_day())
    page = render_html(run_of(results), results, attempts=a_day())
    text = text_of(page)
    for wanted in (
        "Rounds of controls",
        "after a node came back",
        "closing, 2026-11-28 01:30:00: planted failed.",
        f"Beside a control that failed: {OTHER.cell.id} .",
    ):
        assert wanted in text, wanted
    (link,) = nodes(page, "//p[starts-with(., 'Beside a control')]/a/@href")
    assert nodes(page, f"//details[@id='{link[1:]}']")
    assert doubted_numbers(control_rounds(a_day()), results) == (2,)


def test_page_recorded_run_one_round_that_held() -> None:
    results = recorded("quick-drbd-8.4")
    text = text_of(render_html(run_of(list(results)), results))
    assert "opening 2026-11-24 13:1" in text and "Beside a control that failed" not in text
    assert failures(control_rounds(one.evidence for one in results if one.evidence)) == ()


def printed(attempts: list[Evidence]) -> str:
    out = io.StringIO()
    results = results_of(attempts)
    print_report(run_of(results), results, Console(file=out, width=200), attempts)
    return out.getvalue()


def test_terminal_rounds_where_there_is_more_than_one() -> None:
    text = printed(a_day())
    assert "opening, 2026-11-28 00:00:00: 3 of 3 controls held; then 1 play\n" in text.replace(" \n", "\n").replace(
        "  ", ""
    )
    assert f"beside a failed control: {OTHER.cell.id}" in text
    assert "closing, 2026-11-28 01:30:00: 2 of 3 controls held, planted failed" in text
    assert "Rounds of controls" not in printed([*whole(0), at(CELL, 10)])
    assert "Rounds of controls" in printed([*whole(0, missed()), at(CELL, 10)])


def test_round_lines_repetition_named() -> None:
    again = at(replace(CELL, cell=replace(CELL.cell, repetition=3)), 10)
    (line,) = round_lines(control_rounds([*whole(0, missed()), again]))
    assert line.endswith(f"then 1 play, beside a failed control: {CELL.cell.id}, repetition 3")


def test_page_control_that_asks_as_a_cell_is_no_repetition_of_it() -> None:
    cell = Cell(IN_FLIGHT.cell.workload, client=IN_FLIGHT.cell.client)
    results = [Result(IN_FLIGHT.cell, None, IN_FLIGHT), Result(cell, None, replace(IN_FLIGHT, cell=cell))]
    assert IN_FLIGHT.cell.id == cell.id
    assert len(nodes(render_html(run_of(results), results), "//details[contains(@class, 'cell')]")) == 2
    assert "repetition" not in text_of(render_html(run_of(results), results)).replace("What repetitions bound", "")
