"""When a session plays its controls, and what a failed one does: another lab once, then the end of the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from judged_evidence import evidence, oracles
from session_stage import CONTROLS, OTHER, REVIVAL, SWAP, Stage, failing, stage, verdict

from harness.config.controls import with_controls
from harness.config.repetitions import cell_seed
from harness.engine import control_rounds
from harness.engine.control_rounds import CONTROLS_EVERY, ControlRounds
from harness.errors import HarnessError, InfrastructureError
from harness.model import Cell, ClientKind, Control, Crash, Fault, VerdictKind
from harness.store import judged_results, keep_judged

__all__ = ["stage"]

CELLS = tuple(cell for cell in with_controls((SWAP,)) if cell.control is not None)
CRASHED = replace(SWAP, crash=Crash.NODE)
KILLED = replace(SWAP, migrations=2, fault=Fault.TARGET_KILL)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stage.session._rounds, "_clock", made)
    return made


def wrong(control: Control) -> dict[str, Any]:
    """What makes a control fail."""
    return oracles({7}, {7}) if control.clean else {"planted": (), **oracles(set(), set())}


# --------------------------------------------------------------------------- when


def played(rounds: ControlRounds, *, until: int = 99) -> list[str]:
    """The controls that are due, each played."""
    found: list[str] = []
    while len(found) < until and (due := rounds.due(CELLS)) is not None:
        rounds.played(evidence(due))
        found.append(due.id)
    return found


def test_rounds_open_a_lab_and_follow_an_hour_after_the_last() -> None:
    clock = Clock()
    rounds = ControlRounds(clock)
    assert played(rounds) == CONTROLS and rounds.occasion == "opening" and played(rounds) == []
    clock.now += CONTROLS_EVERY - 1
    rounds.played(evidence(SWAP))
    assert played(rounds) == []
    clock.now += 1
    assert played(rounds, until=2) == CONTROLS[:2] and rounds.occasion == "hourly"
    clock.now += CONTROLS_EVERY
    assert played(rounds) == CONTROLS[2:], "a round that was begun is ended, not begun again"
    clock.now += CONTROLS_EVERY - 1
    assert played(rounds) == [], "an hour counts from when they were played"


def test_rounds_sooner_where_that_is_asked_for() -> None:
    clock = Clock()
    rounds = ControlRounds(clock, every=90.0)
    played(rounds)
    rounds.played(evidence(SWAP))
    clock.now += 89
    assert played(rounds) == []
    clock.now += 1
    assert played(rounds) == CONTROLS and rounds.occasion == "every 90 s"


@pytest.mark.parametrize("cell", [CRASHED, KILLED])
def test_rounds_revived_node_has_planted_and_in_flight(cell: Cell) -> None:
    rounds = ControlRounds(Clock())
    played(rounds)
    rounds.played(evidence(cell))
    assert played(rounds) == [], "it did not happen"
    rounds.played(evidence(cell, fault_injected=True))
    assert played(rounds) == REVIVAL and rounds.occasion == "after a node came back" and played(rounds) == []
    assert [one.id for one in rounds.closing(CELLS)] == CONTROLS, "these two close no lab"


def test_rounds_another_lab_begins_again() -> None:
    rounds = ControlRounds(Clock())
    played(rounds, until=3)
    rounds.forget()
    assert rounds.outcomes == () and not rounds.was_played(CELLS[0])
    # One that began on the lab before it was known to be gone opens nothing.
    rounds.played(evidence(CELLS[0]))
    assert played(rounds) == CONTROLS


def test_rounds_no_cell_since_nothing_to_close() -> None:
    rounds = ControlRounds(Clock())
    played(rounds)
    assert rounds.closing(CELLS) == ()
    rounds.played(evidence(SWAP))
    assert [one.id for one in rounds.closing(CELLS)] == CONTROLS


def test_controls_are_a_matter_of_an_hour() -> None:
    assert control_rounds.CONTROLS_EVERY == 3600


# --------------------------------------------------------------------------- in a session


def test_session_hourly_controls_between_cells(stage: Stage, clock: Clock) -> None:
    with stage.session as session:
        session.play(SWAP)
        clock.now += CONTROLS_EVERY
        session.play(OTHER)
        assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS, OTHER.id]
    assert stage.played[-5:] == CONTROLS and stage.reported.count("host-steady: the steady control (hourly)") == 1
    assert stage.reported.count("host-steady: the steady control (closing)") == 1


def test_session_revived_node_shows_what_it_sees_before_the_next_cell(stage: Stage) -> None:
    stage.store.save_run(replace(stage.store.run(), cells=(CRASHED, OTHER)))
    stage.finds = lambda cell, turn: {"fault_injected": True} if cell == CRASHED else {}
    with stage.session as session:
        session.play(CRASHED)
        session.play(OTHER)
    assert stage.played == [*CONTROLS, CRASHED.id, *REVIVAL, OTHER.id, *CONTROLS]


def test_session_run_of_host_cells_starts_no_guest(stage: Stage) -> None:
    host = Cell("fio-verify", client=ClientKind.HOST)
    stage.store.save_run(replace(stage.store.run(), cells=(host,)))
    with stage.session as session:
        assert verdict(session.play(host)) is VerdictKind.CLEAN
    assert stage.played == [*CONTROLS[:4], host.id, *CONTROLS[:4]] and not stage.guests


def test_session_each_play_of_a_control_has_a_seed_that_follows_from_the_run(stage: Stage) -> None:
    stage.store.save_run(replace(stage.store.run(), seed=7))
    with stage.session as session:
        session.play(SWAP)
    seeds = [one.cell.seed for one in stage.store.every_attempt() if one.cell.control is Control.PLANTED]
    assert len(set(seeds)) == 2 and 0 not in seeds
    assert seeds == [cell_seed(7, "host-planted", number) for number in (1, 2)]


# --------------------------------------------------------------------------- a failed one


@pytest.mark.parametrize("control", list(Control))
def test_control_failed_in_the_opening_has_the_lab_rebuilt_once(stage: Stage, control: Control) -> None:
    stage.finds = lambda cell, turn: wrong(control) if cell.control is control and turn == 1 else {}
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
    place = [cell.control for cell in CELLS].index(control)
    assert stage.played == [*CONTROLS[: place + 1], *CONTROLS, SWAP.id, *CONTROLS]
    assert len(stage.labs) == 2
    assert stage.store.run().notes[0].startswith(f"the lab was rebuilt: the {control} control failed: ")
    stored = {one.cell.id: one.verdict for one in judged_results(stage.store)}
    assert stored[SWAP.id] and stored[SWAP.id].kind is VerdictKind.CLEAN


@pytest.mark.parametrize("control", list(Control))
def test_control_failed_twice_ends_the_run_with_that_reason(stage: Stage, control: Control) -> None:
    stage.finds = lambda cell, turn: wrong(control) if cell.control is control else {}
    with stage.session as session:
        for cell in (SWAP, OTHER):
            with pytest.raises(InfrastructureError, match=f"^not played: the {control} control failed twice: "):
                session.play(cell)
    place = [cell.control for cell in CELLS].index(control)
    assert stage.played == [*CONTROLS[: place + 1]] * 2 and len(stage.labs) == 2
    assert stage.closed == ["lab1", "lab2"], "nothing stays up, and no third one comes"


def test_control_refused_ends_the_run_at_once(stage: Stage) -> None:
    stage.finds = lambda cell, turn: failing("refused", "replication") if cell.control is Control.PLANTED else {}
    with (
        stage.session as session,
        pytest.raises(InfrastructureError, match="not played: the planted control failed"),
    ):
        session.play(SWAP)
    assert stage.played == CONTROLS[:1] and len(stage.labs) == 1


def test_control_failed_item_of_its_own_has_the_failure(stage: Stage) -> None:
    stage.finds = lambda cell, turn: wrong(Control.STEADY) if cell.control is Control.STEADY else {}
    with stage.session as session:
        assert verdict(session.play(CELLS[0])) is VerdictKind.DIVERGED
        assert verdict(session.play(CELLS[1])) is VerdictKind.DIVERGED, "of the second time: it is what it found"
        with pytest.raises(HarnessError, match="the steady control failed twice"):
            session.play(CELLS[2])


def test_hourly_control_failed_takes_the_cells_before_it_and_the_lab(stage: Stage, clock: Clock) -> None:
    stage.finds = lambda cell, turn: wrong(Control.STEADY) if cell.control is Control.STEADY and turn == 2 else {}
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN, "as far as anybody knows then"
        clock.now += CONTROLS_EVERY
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS[:2], *CONTROLS, OTHER.id, *CONTROLS]
    stored = {one.cell.id: one.verdict for one in keep_judged(stage.store)}
    assert stored[SWAP.id] and stored[SWAP.id].kind is VerdictKind.INCONCLUSIVE
    assert stored[OTHER.id] and stored[OTHER.id].kind is VerdictKind.CLEAN and stored[OTHER.id].reasons == ()
    assert stage.store.verdict(SWAP.id) == stored[SWAP.id], "what is kept beside it says so too"


def test_closing_control_failed_takes_clean_away_and_ends_them(stage: Stage) -> None:
    stage.finds = lambda cell, turn: wrong(Control.STEADY) if cell.control is Control.STEADY and turn == 2 else {}
    with stage.session as session:
        session.play(SWAP)
    assert stage.played == [*CONTROLS, SWAP.id, *CONTROLS[:2]] and len(stage.labs) == 1
    stored = {one.cell.id: one.verdict for one in judged_results(stage.store)}
    assert stored[SWAP.id] and "the steady control failed" in stored[SWAP.id].sentence


def test_closing_controls_are_played_once_and_not_when_interrupted(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
        session.close()
        session.close()
    assert stage.played.count("host-planted") == 2


def test_closing_controls_interrupted_session_has_none(stage: Stage) -> None:
    with stage.session as session:
        session.play(SWAP)
        session.interrupted = True
    assert stage.played.count("host-planted") == 1
    (clean,) = [one.verdict for one in judged_results(stage.store) if one.cell.id == SWAP.id]
    assert clean and clean.kind is VerdictKind.CLEAN and "no control was played after it" in clean.reasons


def test_closing_controls_that_cannot_be_played_are_noted(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(cell: Cell) -> None:
        raise InfrastructureError("the disk of the lab is full")

    with stage.session as session:
        session.play(SWAP)
        monkeypatch.setattr(session, "begin", broken)
    assert "the closing controls were not all played: the disk of the lab is full" in stage.store.run().notes
    assert stage.closed == ["lab1"]


def test_lab_given_up_takes_clean_away_from_what_had_no_closing_controls(stage: Stage) -> None:
    def dies(cell: Cell, turn: int) -> dict[str, Any]:
        if cell != OTHER:
            return {}
        cast(Any, stage.labs[-1].a).alive = False
        return failing()

    stage.finds = dies
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
        assert verdict(session.play(OTHER)) is VerdictKind.INCONCLUSIVE
    assert stage.store.run().given_up == dict.fromkeys(("lab1", "lab2"), "nodea does not answer")
    stored = {one.cell.id: one.verdict for one in judged_results(stage.store)}
    assert stored[SWAP.id] and stored[SWAP.id].kind is VerdictKind.INCONCLUSIVE
    assert "the run gave up on its lab: nodea does not answer" in stored[SWAP.id].sentence
