"""How a guest arrives that was moved: its canary, what it reads back, and its console."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_guest import FakeWatch
from fake_libvirt import LibvirtSaid
from fake_stage import Stage
from judged_evidence import HELD
from moving_stage import BROKEN, FAILED, MOVED, staged

from harness.errors import LostGuestError, StoreError
from harness.judgement.judge import judge
from harness.model import BlockOwner, Canary, Cell, ClientKind, Ownership, VerdictKind, extents_of

__all__ = ["staged"]


def test_canary_dead_is_collected_all_the_same(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["canary stops"] = LostGuestError("the canary in guest is not running any more: no such pid")
    found = stage.play()
    assert found.failure is None and found.canary and not found.canary.survived
    assert any("the canary in guest is not running any more" in one for one in found.event_log)
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_canary_dead_with_its_guest_is_lost_guest(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.broken["canary stops"] = LostGuestError("the agent of guest did not do guest-exec")
    stage.lab.story.when["canary stops"] = lambda: setattr(stage.guest, "living", False)
    found = stage.play()
    assert found.failure and found.failure.kind == "lost-guest"
    assert found.canary is None and stage.raw("canary.txt") == "what it said\n", "what was heard is kept"


def test_canary_lost_records_are_corrupt(staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWatch, "found", Canary({"fsync": 9}, {"fsync": 2}))
    assert judge(staged().play(), HELD).kind is VerdictKind.CORRUPT


def reads_otherwise_on_nodeb(stage: Stage, *blocks: int) -> None:
    """The guest reads ``blocks`` as something else when it is on nodeb."""
    agent, plain = stage.guest.agent, stage.guest.agent.digest
    agent.digest = lambda block: "f" * 16 if block in blocks and stage.guest.node is stage.lab.b else plain(block)


def test_readback_differing_is_noted_with_owners(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5, 6}
    reads_otherwise_on_nodeb(stage, 5, 6)
    found = stage.play()
    assert found.readback and found.readback.differing == extents_of({5, 6})
    assert found.readback.ownership == Ownership(
        free=2,
        method="after swapoff every slot is free",
        names=("free swap slot",),
        extents={BlockOwner.FREE: extents_of({5, 6})},
    )
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "dead blocks hurt nobody"
    assert any("reads 2 blocks differently" in why for why in verdict.reasons)


def test_classify_canary_blocks_are_allocated(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.workload.leaves = {5, 32_000}
    reads_otherwise_on_nodeb(stage, 5, 32_000)
    found = stage.play()
    assert [(one.block, one.owner.value) for one in found.samples] == [(5, "free"), (32_000, "allocated")]
    assert (found.ownership.allocated, found.ownership.free) == (1, 1)
    assert judge(found, HELD).kind is VerdictKind.CORRUPT


def test_readback_differing_has_owners_where_replicas_are_equal(staged: Callable[..., Stage]) -> None:
    stage = staged()
    reads_otherwise_on_nodeb(stage, 5)
    found = stage.play()
    assert found.readback and found.readback.ownership.free == 1
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.CORRUPT and "the same in 1 of them" in verdict.sentence


def test_capture_consoles_of_both_nodes_are_one_file(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=1))

    def arrived() -> None:
        stage.lab.b.console += "said on nodeb\n"

    def stays() -> None:
        stage.lab.b.console += "Oops: said later\n"

    stage.lab.story.when |= {"moved to nodeb": arrived, "canary stops": stays}
    found = stage.play()
    assert stage.raw("guest-console.txt") == (
        "== the guest's console on nodea\nguest said\n\n"
        "== the guest's console on nodeb\nsaid on nodeb\nOops: said later\n\n"
    )
    assert found.console_errors == ("Oops: said later",)


def test_capture_console_kept_twice_stands_once(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, migrations=0))
    stage.run.begin()
    stage.run.take_guest(lambda: cast(Any, stage.guest))
    stage.run.capture.keep_console()
    stage.lab.a.console += "and then\n"
    for _ in range(2):
        stage.run.capture.keep_console()
    heading = "== the guest's console on nodea\n"
    assert stage.raw("guest-console.txt") == f"{heading}guest said\n\n{heading}and then\n\n"


def test_readback_migration_failed_leaves_none(staged: Callable[..., Stage]) -> None:
    stage = staged()
    stage.lab.story.when["canary stops"] = lambda: setattr(
        stage.guest.domain, "error", LibvirtSaid("Lost connection to destination host")
    )
    found = stage.play()
    assert found.readback is None and found.migrations[-1].outcome is FAILED
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_has_canary_host_cell_is_false() -> None:
    assert not Cell("inflight-modify", client=ClientKind.HOST, migrations=2).has_canary
    assert MOVED.has_canary and BROKEN.has_canary and not replace(MOVED, migrations=0).has_canary


def test_finish_canary_not_keepable_keeps_the_evidence(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged()

    def full() -> None:
        raise StoreError("canary.txt cannot be written: No space left on device")

    monkeypatch.setattr(stage.run, "keep_canary", full)
    stage.play()
    assert stage.kept().failure and "canary left" in stage.steps
