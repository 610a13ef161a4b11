"""What is done in the middle of a live migration, while the guest's memory is on its way."""

from __future__ import annotations

import threading

import pytest
from fake_libvirt import LibvirtSaid
from fake_story import in_order
from moving_guest import Stage, stage, under_way

from harness.errors import CommandError, LostNodeError, RefusedError
from harness.model import MigrationOutcome

__all__ = ["stage"]


def test_migrate_on_precopy_called_once(stage: Stage) -> None:
    ends = under_way(stage)
    calls: list[bool] = []

    def on_precopy() -> None:
        calls.append(stage.guest.agent.holding > 0)
        threading.Timer(0.05, ends.set).start()

    stage.go(on_precopy=on_precopy)
    assert calls == [True]


def test_migrate_on_precopy_not_called_before_memory_moves(stage: Stage) -> None:
    stage.domain.ends = threading.Event()
    stage.domain.sample = {"type": 2, "memory_iteration": 0}
    calls: list[int] = []
    threading.Timer(0.05, stage.domain.ends.set).start()
    assert stage.go(on_precopy=lambda: calls.append(1)).outcome is MigrationOutcome.COMPLETED
    assert calls == []


def test_migrate_target_lost_in_precopy_source_stays_primary(stage: Stage) -> None:
    ends = under_way(stage)
    stage.domain.error = LibvirtSaid("Lost connection to destination host")

    def lose() -> None:
        stage.lab.power_off(stage.lab.b)
        ends.set()

    went = stage.go(on_precopy=lose)
    assert went.outcome is MigrationOutcome.FAILED, "and no error of its own: nodeb cannot be told to be Secondary"
    assert stage.guest.node is stage.lab.a and stage.resource.roles["nodea"] == "Primary"


@pytest.mark.parametrize(
    "error", [LostNodeError("gone"), CommandError("nodea", ["tc"], 1, "", "no"), KeyboardInterrupt()]
)
def test_migrate_on_precopy_error_raised_single_primary(stage: Stage, error: BaseException) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise error

    with pytest.raises(type(error)):
        stage.go(on_precopy=break_it)
    assert stage.rests_on("nodea") and stage.guest.agent.holding == 0
    ends.set()


def test_migrate_on_precopy_error_migration_aborted(stage: Stage) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise CommandError("nodea", ["tc"], 1, "", "no")

    try:
        with pytest.raises(CommandError):
            stage.go(on_precopy=break_it)
        assert in_order(stage.steps, "abort", "drbdadm nodeb secondary"), (
            "or it may finish_in_guest on a node that is Secondary"
        )
        assert stage.rests_on("nodea")
    finally:
        ends.set()


def test_migrate_on_precopy_refusal_not_taken_for_migrations(stage: Stage) -> None:
    ends = under_way(stage)

    def break_it() -> None:
        raise RefusedError("DRBD on nodea", "something else")

    try:
        with pytest.raises(RefusedError):
            stage.go(on_precopy=break_it)
        assert "abort" in stage.steps and stage.rests_on("nodea")
    finally:
        ends.set()
