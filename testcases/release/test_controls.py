"""Controls that really fail, on a lab: what a run does then.  Before a release; 12 minutes on an emulated lab.

Each of these has labs of its own, so they come before the tests of one session with one lab (test_dirty_guest.py).
``drbdadm verify`` does nothing on node a and ends well, so that the planted control finds nothing of what it planted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.config.run_specs import specs_from_options
from harness.engine.control_rounds import CONTROLS_EVERY
from harness.engine.disturbances.sabotage.programs import SILENT_VERIFY
from harness.engine.disturbances.sabotage.undo import cover
from harness.engine.session import Session
from harness.errors import InfrastructureError
from harness.lab.base import FullLab
from harness.lab.nested.provider import nested_lab
from harness.model import Cell, ClientKind, Control, Run, VerdictKind
from harness.store import Store, keep_judged, new_run_id
from harness.util import logs

pytestmark = pytest.mark.lab

# On the node itself, so that no guest has to be started and no control goes through one.
FIRST = Cell("fio-verify", client=ClientKind.HOST, seconds=3)
SECOND = Cell("fio-verify", client=ClientKind.HOST, seconds=4, repetition=2)


class Labs:
    """Nested labs, one after the other; the verify is silent from the start on those whose numbers are ``deceived``."""

    def __init__(self, store: Store, deceived: Collection[int]) -> None:
        self._store = store
        self._deceived = deceived
        self.made: list[FullLab] = []

    @contextmanager
    def next(self) -> Iterator[FullLab]:
        with nested_lab(*specs_from_options({}), self._store.directory / "lab") as lab:
            self.made.append(lab)
            if len(self.made) in self._deceived:
                self.deceive()
            yield lab

    def deceive(self) -> None:
        """From now on, on the newest."""
        cover(self.made[-1].a.runner, "drbdadm", SILENT_VERIFY)


@contextmanager
def session(
    config: pytest.Config, name: str, deceived: Collection[int] = (), controls_every: float = CONTROLS_EVERY
) -> Iterator[tuple[Session, Labs]]:
    """A session with a run of its own, kept where the others are; no controls close it."""
    lab, stack = specs_from_options({})
    started = datetime.now(UTC).isoformat(timespec="seconds")
    run = Run(
        new_run_id(), name, started, (FIRST, SECOND), seed=1, lab_spec=lab.as_table(), stack_spec=stack.as_table()
    )
    store = Store.create(Path(config.getoption("--drbd-runs")), run)
    labs = Labs(store, deceived)
    with store.lock(), logs.kept(store.directory), Session(store, labs.next, controls_every) as made:
        made.interrupted = True
        yield made, labs


def test_control_that_fails_in_between_takes_back_what_it_follows_and_the_run_goes_on(
    pytestconfig: pytest.Config,
) -> None:
    with session(pytestconfig, "a control fails in between", controls_every=5) as (played, labs):
        before = played.play(FIRST)
        assert before.verdict is not None and before.verdict.kind is VerdictKind.CLEAN, before.verdict
        labs.deceive()
        after = played.play(SECOND)
    assert after.verdict is not None and after.verdict.kind is VerdictKind.CLEAN, after.verdict
    assert len(labs.made) == 2
    (note,) = played.store.run().notes
    assert note.startswith("the lab was rebuilt: the planted control failed: "), note
    rounds = [one.cell.control for one in played.store.every_attempt() if one.lab == labs.made[0].id]
    assert rounds.count(Control.PLANTED) == 2, "it opened the lab, and was played again when its time had come"
    # Two repetitions of one cell, and the first is none any more.
    judged = {one.cell.play: one.verdict for one in keep_judged(played.store) if one.cell.control is None}
    taken_back, stands = judged[FIRST.play], judged[SECOND.play]
    assert taken_back is not None and taken_back.kind is VerdictKind.INCONCLUSIVE
    assert "the planted control failed" in taken_back.sentence
    assert stands is not None and stands.kind is VerdictKind.CLEAN, stands


def test_control_that_fails_on_the_next_lab_too_ends_the_run_with_that_reason(pytestconfig: pytest.Config) -> None:
    with session(pytestconfig, "a control fails on each lab", deceived=(1, 2)) as (played, labs):
        with pytest.raises(InfrastructureError, match=r"^not played: the planted control failed twice: "):
            played.play(FIRST)
        with pytest.raises(InfrastructureError, match=r"^not played: the planted control failed twice: "):
            played.play(SECOND)
    assert len(labs.made) == 2
    assert {one.cell.control for one in played.store.every_attempt()} == {Control.PLANTED}
