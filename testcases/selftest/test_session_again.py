"""A run in progress: which lost cells are played once more, and why that is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_story import in_order
from session_stage import CONTROLS, OTHER, SWAP, Stage, failing, stage, verdict

from harness.errors import DeadlineError, StoreError
from harness.model import Cell, Crash, Fault, VerdictKind

__all__ = ["stage"]

MOVED = replace(SWAP, migrations=2)
CRASHED, FAULTY = replace(SWAP, crash=Crash.NODE), replace(MOVED, fault=Fault.TARGET_KILL)


@pytest.mark.parametrize(
    ("cell", "kind", "again"),
    [
        (SWAP, "lost-node", True),
        (SWAP, "lost-guest", True),
        (SWAP, "deadline", False),
        (SWAP, "infrastructure", False),
        (MOVED, "lost-node", True),
        (MOVED, "lost-guest", False),
        (CRASHED, "lost-node", False),
        (CRASHED, "lost-guest", False),
        (FAULTY, "lost-node", False),
        (FAULTY, "lost-guest", False),
        (FAULTY, "deadline", False),
    ],
    ids=lambda value: value.id if isinstance(value, Cell) else str(value),
)
def test_play_lost_cell_is_repeated_only_where_the_loss_is_no_answer(
    stage: Stage, cell: Cell, kind: str, again: bool
) -> None:
    stage.store.save_run(replace(stage.store.run(), cells=(cell,)))
    stage.finds = lambda one, turn: failing(kind) if one == cell and turn == 1 else {}
    with stage.session as session:
        result = session.play(cell)
        assert stage.played.count(cell.id) == 1 + again
        assert len(stage.store.every_attempt()) == len(CONTROLS) + 1 + again, "each attempt is kept"
    failed = result.evidence is not None and result.evidence.failure is not None
    assert failed is not again


def test_play_lost_twice_is_answered(stage: Stage) -> None:
    stage.finds = lambda cell, turn: failing("lost-guest") if cell == SWAP else {}
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.INCONCLUSIVE
        assert verdict(session.play(OTHER)) is VerdictKind.CLEAN
    assert stage.played.count(SWAP.id) == 2 and len(stage.labs) == 1


def test_play_store_error_is_not_repeated(stage: Stage) -> None:
    def full(cell: Cell, turn: int) -> dict[str, Any]:
        if cell == SWAP:
            raise StoreError("evidence.json cannot be written: No space left on device")
        return {}

    stage.finds = full
    with stage.session as session, pytest.raises(StoreError, match="No space left"):
        session.play(SWAP)
    assert stage.played.count(SWAP.id) == 1


def test_play_repeated_cell_says_why(stage: Stage) -> None:
    def once(cell: Cell, turn: int) -> dict[str, Any]:
        if cell == SWAP and turn == 1:
            raise DeadlineError("the guest did not start within 60 s")
        return {}

    stage.finds = once
    with stage.session as session:
        assert verdict(session.play(SWAP)) is VerdictKind.CLEAN
    assert in_order(stage.reported, f"{SWAP.id}: the guest did not start within 60 s", f"{SWAP.id}: once more")
