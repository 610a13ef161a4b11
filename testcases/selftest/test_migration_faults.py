"""What happens to a guest while it works: faults in the middle of a migration, each mended whatever comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import libvirt
import pytest
from fake_drbd import HEALTHY
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD
from moving_stage import (
    ABORTED,
    COMPLETED,
    FAILED,
    MOVED,
    cuttable,
    faulty,
    guest_dies_at,
    rests,
    staged,
    traveller,
    under_way,
)

from harness.engine.disturbances import migrations
from harness.errors import HarnessError, InfrastructureError, LostNodeError, RefusedError
from harness.judgement.judge import judge
from harness.model import DelayProfile, Fault, VerdictKind

__all__ = ["staged"]


# --------------------------------------------------------------------------- faults


def test_fault_link_cut_is_reverted_first(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodeb cut")
    found = stage.play()
    assert found.failure is None, found.failure
    assert {"link of nodea cut", "link of nodea joined"} <= set(stage.steps)
    assert in_order(stage.steps, "migrate nodea to nodeb", "link of nodeb cut", "link of nodeb joined",
                    "drbdadm nodea primary", "migrate nodea to nodeb", "quiesce")  # fmt: skip
    assert [one.outcome for one in found.migrations] == [FAILED, COMPLETED, COMPLETED]
    assert "the replication link was cut in mid-migration" in found.event_log
    assert "the guest is alive on nodea" in found.event_log
    assert found.fault_injected
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_fault_refusal_on_precopy_is_no_answer(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "abort")
    stage.lab.story.broken["link of nodea cut"] = RefusedError("nodea", "tc: no")
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.phase) == ("command", "work")
    assert "abort" in stage.steps and not found.fault_injected, "it was not to go on behind our back"
    assert judge(found, HELD).kind is VerdictKind.INCONCLUSIVE


def test_fault_target_kill_brings_the_target_back(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.TARGET_KILL))
    under_way(stage, "kill nodeb")
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(
        stage.steps,
        "migrate nodea to nodeb",
        "kill nodeb",
        "drbdadm nodea net-options --allow-two-primaries=no --ping-timeout=5",
        "revive nodeb",
        "rejoin nodeb",
        "follow nodeb",
        "drbdadm nodeb secondary",
        "drbdadm nodea primary",
        "quiesce",
    )
    assert stage.raw("kmsg-nodeb-before-power-cut.txt") == "6,1,1000,-;quiet\n", "its last words"
    assert [one.outcome for one in found.migrations] == [FAILED, COMPLETED, COMPLETED]
    assert found.fault_injected and "nodeb lost its power in mid-migration" in found.event_log
    assert rests(stage) and judge(found, HELD).kind is VerdictKind.CLEAN, judge(found, HELD)


def test_fault_libvirtd_restart_finds_the_guest_again(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LIBVIRTD_RESTART))
    under_way(stage, "libvirtd restarted on nodea", "Cannot recv data: Connection reset by peer")
    found = stage.play()
    assert found.failure is None, found.failure
    assert in_order(stage.steps, "libvirtd restarted on nodea", "libvirt of nodea answers", "found again", "quiesce")
    assert found.migrations[0].outcome is FAILED and "Connection reset" in found.migrations[0].message
    assert found.fault_injected and "libvirtd on nodea was restarted in mid-migration" in found.event_log
    assert rests(stage)


def test_fault_stall_migration_is_aborted(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(faulty(Fault.STALL), migration_deadline=0, migrations=1))
    under_way(stage, "never", None)
    found = stage.play()
    assert found.failure is None, found.failure
    first = traveller(stage).here.asked[0][1]
    assert first[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] == migrations.STALL_MIB, "so little that it cannot end"
    assert stage.steps.count("abort") == 1 and found.migrations[0].outcome is ABORTED
    assert found.fault_injected and "the migration had 1 MiB/s and could not end" in found.event_log
    assert libvirt.VIR_MIGRATE_PARAM_BANDWIDTH not in traveller(stage).here.asked[1][1], (
        "only the first one has the fault"
    )
    assert rests(stage)


@pytest.mark.parametrize("fault", [Fault.LINK_CUT, Fault.TARGET_KILL, Fault.STALL])
def test_fault_not_injected_is_inconclusive(staged: Callable[..., Stage], fault: Fault) -> None:
    stage = staged(faulty(fault))
    found = stage.play()
    assert found.migrations[0].outcome is COMPLETED and not found.fault_injected
    verdict = judge(found, HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and f"the fault '{fault}' was not injected" in verdict.sentence


def test_fault_split_brain_discards_the_other_nodes_changes(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(faulty(Fault.LINK_CUT), migrations=1))
    cuttable(stage)
    under_way(stage, "link of nodeb cut", None)

    def apart() -> None:
        stage.resource.links = {"nodea": "StandAlone", "nodeb": "StandAlone"}

    stage.lab.story.when["link of nodeb joined"] = apart
    found = stage.play()
    assert found.migrations[0].outcome is COMPLETED, "it was over the moment the link was cut"
    assert "drbdadm nodeb connect --discard-my-data" not in stage.steps
    assert "drbdadm nodea connect --discard-my-data" in stage.steps
    assert any(
        one.startswith("after the fault: a node is StandAlone, without a split brain in the kernel log (")
        and one.endswith("the changes of nodea were discarded") for one in found.event_log
    )  # fmt: skip
    assert found.alarms and found.alarms.split_brain and found.alarms.split_brain.victim == "nodea"


# --------------------------------------------------------------------------- mended, whatever comes


CUT = ("link of nodea joined", "link of nodeb joined")


@pytest.mark.parametrize("error", [LostNodeError("gone"), InfrastructureError("tc: no such device")])
def test_fault_link_cut_failing_is_reverted(staged: Callable[..., Stage], error: HarnessError) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodea cut")
    stage.lab.story.broken["link of nodeb cut"] = error
    found = stage.play()
    assert found.failure and found.failure.message == str(error)
    assert set(CUT) <= set(stage.steps) and not stage.guest.attached


def test_fault_guest_dies_leaves_the_lab_whole(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.LINK_CUT))
    cuttable(stage)
    under_way(stage, "link of nodea cut")
    guest_dies_at(stage, "link of nodea cut")
    found = stage.play()
    assert found.failure and (found.failure.kind, found.failure.message) == (
        "lost-guest", "the guest did not live through the fault 'link-cut'"
    )  # fmt: skip
    assert set(CUT) <= set(stage.steps) and stage.resource.state == HEALTHY
    assert found.comparison is not None, "what it left behind is worth knowing"


@pytest.mark.parametrize(
    ("fault", "fault_injected", "back"),
    [(Fault.LINK_CUT, "link of nodeb cut", "link of nodeb joined"), (Fault.TARGET_KILL, "kill nodeb", "rejoin nodeb")],
)
def test_fault_ctrl_c_or_bug_leaves_nothing_injected(
    staged: Callable[..., Stage], fault: Fault, fault_injected: str, back: str
) -> None:
    stage = staged(faulty(fault))
    cuttable(stage)
    under_way(stage, fault_injected)
    stage.guest.domain.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        stage.play()
    assert in_order(stage.steps, fault_injected, back) and not stage.guest.attached
    failure = stage.kept().failure
    assert failure and failure.kind == "interrupted"


def test_revert_faults_newest_first_and_once(staged: Callable[..., Stage]) -> None:
    run = staged().run
    undone: list[int] = []
    for number in (1, 2):
        run.register_fault_cleanup(lambda number=number: undone.append(number))  # type: ignore[misc]
    run.revert_faults()
    run.revert_faults()
    run.rescue()
    assert undone == [2, 1]


def test_rescue_node_gone_clears_the_others_delays(staged: Callable[..., Stage]) -> None:
    stage = staged(replace(MOVED, delays=DelayProfile(20, 5)))
    stage.resource.delayed["nodeb"] = (20, 5)
    stage.lab.power_off(stage.lab.a)
    stage.run.rescue()
    assert stage.resource.delayed["nodeb"] == DelayProfile()


def test_fault_target_kill_failing_is_reverted(staged: Callable[..., Stage]) -> None:
    stage = staged(faulty(Fault.TARGET_KILL))
    under_way(stage, "kill nodeb")
    stage.lab.story.broken["kill nodeb"] = InfrastructureError("the power switch does not answer")
    found = stage.play()
    assert found.failure and "the power switch" in found.failure.message
    assert in_order(stage.steps, "kill nodeb", "revive nodeb", "rejoin nodeb"), "it may be without power all the same"
