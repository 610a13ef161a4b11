"""Evidence to verdict: every kind, every reason for INCONCLUSIVE, which of two comes first, and the controls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.config.controls import CONTROL_CELLS
from harness.judgement.controls import control_outcome, outcomes
from harness.judgement.judge import judge
from harness.judgement.losses import data_loss_findings
from harness.judgement.workload_proof import PROOFS
from harness.model import (
    AioMode,
    Alarms,
    BlockOwner,
    CacheMode,
    Canary,
    Cell,
    ClientKind,
    Comparison,
    Control,
    ControlOutcome,
    Controls,
    Crash,
    CrashRecovery,
    DelayProfile,
    Evidence,
    Extent,
    Failure,
    Fault,
    FilesystemKind,
    Migration,
    MigrationOutcome,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    Protocol,
    Readback,
    ReplicationProfile,
    Sample,
    SplitBrain,
    State,
    Verdict,
    VerdictKind,
    Verify,
    Work,
    extents_of,
)

BLOCKS = 32768
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
HELD: Controls = {control: ControlOutcome(control, True, "as it should be") for control in Control}
SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)


def observed(cell: Cell) -> Observed:
    """Just what the cell asks for."""
    seen = Observed(
        scatter_gather=True, link_delay_ms=cell.delays.link_delay_ms, disk_delay_ms=cell.delays.disk_delay_ms
    )
    if cell.cache is None:
        return seen
    told = cell.cache.guest_write_cache
    return replace(
        seen,
        o_direct=cell.cache.direct,
        qemu_cache={
            "direct": cell.cache.direct,
            "no-flush": cell.cache.no_flush,
            "writeback": told == "write back",
        },
        qemu_aio=cell.aio.value,
        guest_write_cache=told,
    )


def oracles(verified: set[int], compared: set[int], counter_kib: int | None = None) -> dict[str, Any]:
    """What the three oracles say, as fields of the evidence."""
    extents = extents_of(verified)
    source, target = (NodeVerify(name, True, True, extents, len(verified)) for name in ("nodea", "nodeb"))
    return {
        "verify": Verify(source, target, 9.0),
        "counter_kib": 4 * len(verified) if counter_kib is None else counter_kib,
        "comparison": Comparison(BLOCKS, extents_of(compared), 0.1, "controller"),
    }


def evidence(cell: Cell = SWAP, **changed: Any) -> Evidence:
    """Evidence that is CLEAN under controls that held, but for what is ``changed``."""
    facts: dict[str, Any] = {
        "lab": "lab",
        "device_blocks": BLOCKS,
        "before": HEALTHY,
        "after": HEALTHY,
        "equal_before": True,
        "observed": observed(cell),
        "work": Work(8.0, {proof.fact: 4000.0 for proof in PROOFS.get(cell.workload, ())}),
        "exposed_blocks": 1000,
        **oracles(set(), set()),
        **changed,
    }
    return Evidence(cell, 1, "2026-11-23T01:50:10Z", **facts)


def kind(found: Evidence, controls: Controls | None = HELD) -> VerdictKind:
    return judge(found, controls).kind


def assert_inconclusive(found: Evidence, text: str, controls: Controls | None = HELD) -> None:
    """``found`` is INCONCLUSIVE, and the sentence says why."""
    verdict = judge(found, controls)
    assert verdict.kind is VerdictKind.INCONCLUSIVE, verdict.sentence
    assert text in verdict.sentence


# --------------------------------------------------------------------------- one of each kind


def test_judge_nothing_found_controls_held_clean_with_bound() -> None:
    verdict = judge(evidence(), HELD)
    assert verdict.kind is VerdictKind.CLEAN
    assert (verdict.exposed_blocks, verdict.differing_blocks, verdict.reasons) == (1000, 0, ())
    assert verdict.rate_upper_95 == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert "1000 exposed block writes" in verdict.sentence and "0.30 % of them" in verdict.sentence


def test_judge_verify_only_blocks_need_a_cause() -> None:
    verdict = judge(evidence(**oracles({1, 2, 3}, set()), alarms=NOTICED), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.TRANSIENT, 0)
    assert "3 blocks" in verdict.sentence
    verdict = judge(evidence(**oracles({1, 2, 3}, set())), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "nothing explains it" in verdict.sentence


def test_judge_differing_blocks_diverged_with_owners_and_reported_state() -> None:
    found = evidence(**oracles({5, 6, 7, 900}, {5, 6, 900}), ownership=Ownership(allocated=1, free=2))
    verdict = judge(found, HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 3)
    assert verdict.sentence.startswith("3 blocks differ (1 allocated, 2 free) after 1000 exposed block writes")
    assert "while DRBD reported Connected, UpToDate/UpToDate" in verdict.sentence
    assert verdict.reasons == ("1 more blocks were reported and are equal again",)
    assert verdict.rate_upper_95 is not None and verdict.rate_upper_95 > 0.003


def test_judge_differing_blocks_without_controls_scatter_gather_owner_diverged() -> None:
    found = evidence(**oracles({5}, {5}), after=None, exposed_blocks=0)
    found = replace(found, observed=replace(found.observed, scatter_gather=False))
    verdict = judge(found, {})
    assert (verdict.kind, verdict.sentence) == (VerdictKind.DIVERGED, "1 blocks differ (no owner known)")
    assert verdict.rate_upper_95 is None, "no trials, no rate"


def test_judge_more_differing_than_exposed_diverged_with_rate_one() -> None:
    verdict = judge(evidence(**oracles({1, 2, 3}, {1, 2, 3}), exposed_blocks=2), HELD)
    assert (verdict.kind, verdict.rate_upper_95) == (VerdictKind.DIVERGED, 1.0)


def test_judge_read_back_errors_corrupt() -> None:
    verdict = judge(evidence(work=Work(8.0, read_back_errors=3), **oracles({4, 5}, {4})), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.CORRUPT, 1)
    assert "3 time(s)" in verdict.sentence


def test_judge_refused_failure_refused_with_message() -> None:
    text = "libvirt or QEMU refused: io=native needs cache.direct=on"
    verdict = judge(evidence(failure=Failure("refused", "attach", text), verify=None, comparison=None), None)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.REFUSED, text)


def test_judge_failure_inconclusive_with_phase() -> None:
    verdict = judge(evidence(failure=Failure("deadline", "verify", "it took too long")), HELD)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.INCONCLUSIVE, "verify: it took too long")


# --------------------------------------------------------------------------- what happens to a guest

MOVED = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, migrations=2)
CRASHED = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, crash=Crash.NODE)
CANARY = Canary({"fsync": 200, "direct": 50}, {"fsync": 0}, memory_checked=4096)
SPLIT_STATES = {
    "nodea": replace(HEALTHY, connection="StandAlone", peer_role="Unknown", peer_disk="DUnknown"),
    "nodeb": replace(HEALTHY, connection="Connecting", peer_role="Unknown", peer_disk="DUnknown"),
}
SPLIT = SplitBrain(0.4, SPLIT_STATES, 12, "nodeb", True)
NOTICED = Alarms("crc32c", (Extent(8, 8), Extent(8, 8)), (Extent(64, 8),), 3, 4.0, 60.0, 80)


def moved(
    number: int, outcome: MigrationOutcome = MigrationOutcome.COMPLETED, during: str = "work", text: str = ""
) -> Migration:
    return Migration(number, "nodea", "nodeb", outcome, 1.0, 2.0, during=during, message=text)


def disturbed(cell: Cell = MOVED, **changed: Any) -> Evidence:
    """Evidence of a cell in which something happened to the guest; CLEAN but for what is ``changed``."""
    facts: dict[str, Any] = {"canary": CANARY, "migrations": (moved(1), moved(2), moved(3, during="readback"))}
    if cell.crash is not None:
        facts = {
            "canary": replace(CANARY, survived=False),
            "crash_recovery": CrashRecovery(cell.crash, 4.0, fsck_status=0),
        }
    return evidence(cell, **{**facts, **changed})


def test_judge_disturbed_guest_without_losses_clean() -> None:
    assert kind(disturbed()) is VerdictKind.CLEAN
    for crash in Crash:
        assert kind(disturbed(replace(CRASHED, crash=crash))) is VerdictKind.CLEAN


@pytest.mark.parametrize(
    ("canary", "text"),
    [
        (replace(CANARY, lost={"fsync": 2, "direct": 0}), "2 acknowledged records are lost (2 of 200 fsync)"),
        (
            replace(CANARY, lost={"dsync": 1, "direct": 3}),
            "4 acknowledged records are lost (1 of 0 dsync, 3 of 50 dire",
        ),
        (replace(CANARY, corrupt=1), "1 records on the disk have a wrong checksum"),
        (replace(CANARY, memory_wrong=5), "5 of 4096 checks of the guest's memory found a wrong record"),
    ],
)
def test_judge_canary_losses_corrupt(canary: Canary, text: str) -> None:
    verdict = judge(disturbed(canary=canary), HELD)
    assert verdict.kind is VerdictKind.CORRUPT and text in verdict.sentence
    unheard: dict[str, Any] = {"verify": None, "failure": Failure("lost-guest", "work", "gone")}
    assert kind(disturbed(canary=canary, **unheard)) is VerdictKind.CORRUPT, "what is lost is lost, whatever came then"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"wrong_reads": 3}, "after the crash the client read back something else than it wrote, 3 time(s)"),
        ({"fsck_status": 4, "fsck_message": "errors left"}, "after the crash fsck ended with status 4: errors left"),
    ],
)
def test_judge_losses_after_crash_corrupt(found: dict[str, Any], text: str) -> None:
    verdict = judge(disturbed(CRASHED, crash_recovery=CrashRecovery(Crash.NODE, 4.0, **found)), HELD)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.CORRUPT, text)


@pytest.mark.parametrize("fsck_status", [0, 4, 8, None])
def test_judge_filesystem_not_mounted_corrupt_whatever_fsck_found(fsck_status: int | None) -> None:
    after = CrashRecovery(
        Crash.NODE, 4.0, mounted=False, mount_message="mount: wrong fs type", fsck_status=fsck_status
    )  # fmt: skip
    verdict = judge(disturbed(CRASHED, crash_recovery=after), HELD)
    assert verdict.kind is VerdictKind.CORRUPT
    assert verdict.sentence.startswith("after the crash the filesystem could not be mounted: mount: wrong fs type")
    assert ("fsck ended with status 4" in verdict.sentence) is (fsck_status == 4)


@pytest.mark.parametrize("mounted", [True, None])
@pytest.mark.parametrize("fsck_status", [1, 2, 8, 16, 32, 64, 124, 126, 127, 128, 134, 137, 139, -9])
def test_judge_fsck_without_answer_inconclusive_not_corrupt(fsck_status: int, mounted: bool | None) -> None:
    after = CrashRecovery(Crash.NODE, 4.0, mounted=mounted, fsck_status=fsck_status, fsck_message="e2fsck: why")
    assert_inconclusive(disturbed(CRASHED, crash_recovery=after), "fsck did not check the filesystem after the crash")
    healed = disturbed(CRASHED, crash_recovery=after, alarms=NOTICED, **oracles({5}, set()))
    assert_inconclusive(healed, "equal again once everything had been written; but fsck did not check")
    verdict = judge(disturbed(CRASHED, crash_recovery=after, **oracles({5}, {5})), HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "what the oracles found stays"
    assert any("fsck did not check the filesystem" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("fsck_status", [4, 5, 6, 12])
def test_judge_fsck_errors_left_corrupt(fsck_status: int) -> None:
    after = CrashRecovery(Crash.NODE, 4.0, mounted=True, fsck_status=fsck_status)
    assert kind(disturbed(CRASHED, crash_recovery=after)) is VerdictKind.CORRUPT


def test_judge_several_losses_all_in_sentence_differences_in_reasons() -> None:
    found = disturbed(
        canary=replace(CANARY, corrupt=1), work=Work(8.0, read_back_errors=2), ownership=Ownership(allocated=1),
        **oracles({5}, {5}),
    )  # fmt: skip
    verdict = judge(found, HELD)
    assert "2 time(s); 1 records on the disk" in verdict.sentence
    assert (verdict.differing_blocks, verdict.reasons) == (1, ("1 blocks differ (1 allocated)",))


def readback_differs(owned: Ownership, **changed: Any) -> Evidence:
    """The guest read three blocks differently after it moved; they belong to ``owned``."""
    return disturbed(readback=Readback(BLOCKS, "nodea", "nodeb", extents_of({5, 6, 7}), owned), **changed)


@pytest.mark.parametrize(
    "owned",
    [
        Ownership(allocated=1, free=2),
        Ownership(metadata=1, free=2),
        Ownership(journal=1, unknown=2),
        Ownership(allocated=3),
    ],
)
def test_judge_readback_differs_known_to_be_in_use_corrupt(owned: Ownership) -> None:
    verdict = judge(readback_differs(owned, **oracles({5, 6, 7}, {5, 6, 7})), HELD)
    assert verdict.kind is VerdictKind.CORRUPT
    assert "the guest reads 3 blocks differently on nodeb than on nodea" in verdict.sentence


@pytest.mark.parametrize(
    ("owned", "told"),
    [
        (Ownership(free=3), "3 free"),
        (Ownership(unknown=1, free=2), "2 free, 1 unknown"),
        (Ownership(unknown=3), "3 unknown"),
        (Ownership(), "no owner known"),
    ],
)
def test_judge_readback_differs_free_or_unknown_diverged_with_reason(owned: Ownership, told: str) -> None:
    verdict = judge(readback_differs(owned, **oracles({5, 6, 7}, {5, 6, 7})), HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "what nobody is known to read is no loss"
    assert any(f"reads 3 blocks differently on nodeb than on nodea ({told})" in why for why in verdict.reasons)


def test_judge_readback_differs_replicas_equal_corrupt_even_if_free() -> None:
    verdict = judge(readback_differs(Ownership(free=3)), HELD)
    assert verdict.kind is VerdictKind.CORRUPT
    assert "on nodea (3 free), and both replicas hold the same in 3 of them" in verdict.sentence
    verdict = judge(readback_differs(Ownership(free=3), **oracles({5, 6}, {5, 6})), HELD)
    assert verdict.kind is VerdictKind.CORRUPT and "the same in 1 of them" in verdict.sentence


def test_judge_readback_differs_free_after_drop_inconclusive() -> None:
    cut = {"cell": replace(MOVED, fault=Fault.LINK_CUT), "fault_injected": True}
    assert_inconclusive(
        readback_differs(Ownership(free=3), alarms=Alarms(drops=1), **cut),
        "the guest reads 3 blocks differently on nodeb than on",
    )


def test_judge_readback_differs_free_verify_incomplete_inconclusive() -> None:
    unfinished = replace(evidence(SWAP).verify, source=NodeVerify("nodea", True, False, ()))  # type: ignore[type-var]
    assert kind(readback_differs(Ownership(free=3), verify=unfinished)) is VerdictKind.INCONCLUSIVE


def test_judge_all_migrations_failed_after_drop_inconclusive() -> None:
    failed = tuple(moved(number, MigrationOutcome.FAILED, text="not connected") for number in (1, 2))
    verdict = judge(disturbed(migrations=failed, alarms=Alarms(drops=1)), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "migration 1 failed: not connected" in verdict.sentence
    assert kind(disturbed(alarms=Alarms(drops=1))) is VerdictKind.TRANSIENT


def test_judge_readback_equal_clean() -> None:
    assert kind(disturbed(readback=Readback(BLOCKS, "nodea", "nodeb"))) is VerdictKind.CLEAN


def test_judge_refused_migration_refused_with_message() -> None:
    refused = (moved(1, MigrationOutcome.REFUSED, text="Unsafe migration: Migration may lead to data corruption"),)
    verdict = judge(disturbed(migrations=refused), HELD)
    assert verdict.kind is VerdictKind.REFUSED
    assert "migration 1 was refused: Unsafe migration: Migration may" in verdict.sentence
    assert kind(disturbed(migrations=refused), {}) is VerdictKind.REFUSED, "no control has to vouch for it"


def test_judge_split_brain_diverged_repaired_or_not() -> None:
    for repaired in (True, False):
        verdict = judge(evidence(alarms=Alarms(split_brain=replace(SPLIT, repaired=repaired))), HELD)
        assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 12)
        assert verdict.sentence == (
            "split brain 0.4 s after the first digest failure: nodea StandAlone, nodeb Connecting; "
            "12 blocks differed, and the changes of nodeb were discarded"
        )


def test_judge_split_brain_without_differing_blocks_diverged() -> None:
    for counted in (0, None):
        split = replace(SPLIT, differing_blocks=counted, after_seconds=None)
        verdict = judge(evidence(alarms=Alarms(split_brain=split)), HELD)
        assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 0)
        assert verdict.sentence.startswith("split brain: nodea StandAlone")


def test_judge_digest_detections_replicas_equal_transient() -> None:
    verdict = judge(evidence(alarms=NOTICED), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.TRANSIENT, 0)
    assert "noticed 2 writes" in verdict.sentence and "3 time(s), 3.0 a minute" in verdict.sentence


def test_judge_connection_drop_transient_unless_injected() -> None:
    lost = Alarms(drops=2, watched_seconds=60.0)
    verdict = judge(evidence(alarms=lost), HELD)
    assert verdict.kind is VerdictKind.TRANSIENT
    assert (
        verdict.sentence
        == "the connection was lost 2 time(s), 2.0 a minute, and after the resyncs everything was equal"
    )
    cut = judge(disturbed(replace(MOVED, fault=Fault.LINK_CUT), fault_injected=True, alarms=lost), HELD)
    assert cut.kind is VerdictKind.CLEAN
    assert cut.reasons == ("DRBD noticed 0 writes whose buffer changed and lost its connection 2 time(s)",)
    noticed = disturbed(replace(MOVED, fault=Fault.LINK_CUT), fault_injected=True, alarms=NOTICED)
    assert kind(noticed) is VerdictKind.TRANSIENT, "no fault of ours changes a buffer"


def test_judge_digest_without_detections_clean() -> None:
    assert kind(evidence(alarms=Alarms("crc32c", watched_seconds=60.0))) is VerdictKind.CLEAN


def test_judge_digest_detections_replicas_differ_diverged_with_reason() -> None:
    verdict = judge(evidence(alarms=NOTICED, **oracles({5}, {5})), HELD)
    assert verdict.kind is VerdictKind.DIVERGED
    assert "DRBD noticed 2 writes whose buffer changed and lost its connection 3 time(s)" in verdict.reasons


@pytest.mark.parametrize("outcome", [MigrationOutcome.ABORTED, MigrationOutcome.FAILED])
def test_judge_migration_not_completed_never_clean(outcome: MigrationOutcome) -> None:
    for number in range(3):
        went = [moved(1), moved(2), moved(3, during="readback")]
        went[number] = replace(went[number], outcome=outcome, message="it timed out")
        assert_inconclusive(
            disturbed(migrations=tuple(went)), f"nothing was found, but migration {number + 1} {outcome}: it timed"
        )
        verdict = judge(disturbed(migrations=tuple(went), **oracles({5}, {5})), HELD)
        assert verdict.kind is VerdictKind.DIVERGED, "what is seen is seen"
        assert f"migration {number + 1} {outcome}: it timed out" in verdict.reasons


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.needs_migration])
def test_judge_migration_failed_under_injected_fault_clean_with_reason(fault: Fault) -> None:
    broken = (moved(1, MigrationOutcome.FAILED, text="connection lost"), moved(2), moved(3, during="readback"))
    verdict = judge(disturbed(replace(MOVED, fault=fault), migrations=broken, fault_injected=True), HELD)
    assert (verdict.kind, verdict.reasons) == (VerdictKind.CLEAN, ("migration 1 failed: connection lost",))


@pytest.mark.parametrize("fault", Fault)
def test_judge_fault_not_injected_never_clean(fault: Fault) -> None:
    cell = replace(MOVED, fault=fault)
    assert_inconclusive(disturbed(cell), f"nothing was found, but the fault '{fault}' was not injected")
    assert kind(disturbed(cell, fault_injected=True)) is VerdictKind.CLEAN
    for found in (oracles({5}, {5}), oracles({5}, set())):
        assert kind(disturbed(cell, **found)) is kind(disturbed(cell, fault_injected=True, **found)), (
            "what is seen is seen"
        )


def test_judge_fewer_migrations_than_requested_inconclusive() -> None:
    assert_inconclusive(disturbed(migrations=()), "only 0 of 2 migrations were tried")
    assert_inconclusive(
        disturbed(migrations=(moved(1), moved(2, during="readback"))), "only 1 of 2 migrations were tried"
    )
    faulty = replace(MOVED, fault=Fault.LINK_CUT)
    assert_inconclusive(
        disturbed(faulty, migrations=(moved(1),), fault_injected=True), "only 1 of 2 migrations were tried"
    )


def test_judge_canary_missing_or_died_inconclusive() -> None:
    for cell in (
        MOVED,
        CRASHED,
        Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, fault=Fault.STANDALONE),
    ):
        assert_inconclusive(disturbed(cell, canary=None, fault_injected=True), "the canary has no report")
    dead = replace(CANARY, survived=False)
    assert_inconclusive(disturbed(canary=dead), "nothing was found, but the canary died")
    assert_inconclusive(disturbed(canary=dead, console_errors=("Out of memory",)), "the canary died: Out of memory")
    assert kind(evidence(canary=None)) is VerdictKind.CLEAN, "an ordinary cell has none"


def test_judge_crash_missing_inconclusive() -> None:
    assert_inconclusive(disturbed(CRASHED, crash_recovery=None), "the crash did not happen")


def test_judge_console_errors_inconclusive_unless_io_error_injected() -> None:
    errors = ("EXT4-fs error (device vdb1)", "Oops")
    assert_inconclusive(
        disturbed(console_errors=errors), "the guest's console reports an error: EXT4-fs error (device vdb1)"
    )
    assert_inconclusive(evidence(console_errors=errors), "the guest's console reports an error")
    broken = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, fault=Fault.IO_ERROR)
    expected = disturbed(
        broken, migrations=(), console_errors=errors, kernel_errors=("nodea: I/O error",), fault_injected=True
    )
    verdict = judge(expected, HELD)
    assert verdict.kind is VerdictKind.CLEAN
    assert verdict.reasons == ("guest: EXT4-fs error (device vdb1)", "guest: Oops", "kernel: nodea: I/O error")
    verdict = judge(evidence(console_errors=errors, **oracles({5}, {5})), HELD)
    assert verdict.reasons == ("guest: EXT4-fs error (device vdb1)", "guest: Oops")


# --------------------------------------------------------------------------- which comes first


def layered(*layers: str) -> Evidence:
    """Evidence with several things to say at once."""
    found = evidence(**oracles({1, 2}, {1}) if "diverged" in layers else oracles({1}, set()))
    if "clean" in layers:
        found = evidence()
    if "mismatch" in layers:
        found = replace(found, observed=replace(found.observed, o_direct=not found.observed.o_direct))
    if "disagree" in layers:
        found = replace(found, counter_kib=2)
    if "corrupt" in layers:
        found = replace(found, work=Work(1.0, read_back_errors=1))
    if "failed" in layers:
        found = replace(found, failure=Failure("lost-guest", "work", "gone"))
    if "unmoved" in layers:
        found = replace(found, migrations=(moved(1, MigrationOutcome.REFUSED, text="Unsafe migration"),))
    if "lost" in layers:
        found = replace(found, canary=Canary({"fsync": 9}, {"fsync": 1}))
    if "split" in layers:
        found = replace(found, alarms=Alarms(split_brain=SPLIT))
    if "apart" in layers:
        found = replace(found, alarms=Alarms(split_brain=replace(SPLIT, confirmed=False)))
    if "noticed" in layers:
        found = replace(found, alarms=NOTICED)
    if "refused" in layers:
        found = replace(found, failure=Failure("refused", "attach", "no"))
    return found


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        (("refused", "corrupt", "diverged"), VerdictKind.CORRUPT),
        (("refused", "diverged"), VerdictKind.DIVERGED),
        (("refused", "mismatch", "disagree"), VerdictKind.INCONCLUSIVE),
        (("refused", "disagree"), VerdictKind.REFUSED),
        (("unmoved", "corrupt"), VerdictKind.CORRUPT),
        (("unmoved", "diverged"), VerdictKind.DIVERGED),
        (("unmoved", "failed"), VerdictKind.REFUSED),
        (("unmoved", "clean"), VerdictKind.REFUSED),
        (("lost", "failed", "diverged"), VerdictKind.CORRUPT),
        (("lost", "refused"), VerdictKind.CORRUPT),
        (("lost", "clean"), VerdictKind.CORRUPT),
        (("split", "failed"), VerdictKind.DIVERGED),
        (("apart", "failed"), VerdictKind.INCONCLUSIVE),
        (("apart", "clean"), VerdictKind.INCONCLUSIVE),
        (("apart", "diverged"), VerdictKind.DIVERGED),
        (("split", "mismatch"), VerdictKind.INCONCLUSIVE),
        (("split", "disagree"), VerdictKind.DIVERGED),
        (("split", "lost"), VerdictKind.CORRUPT),
        (("split", "diverged"), VerdictKind.DIVERGED),
        (("split", "clean"), VerdictKind.DIVERGED),
        (("noticed", "diverged"), VerdictKind.DIVERGED),
        (("noticed", "clean"), VerdictKind.TRANSIENT),
        (("corrupt", "failed", "diverged"), VerdictKind.CORRUPT),
        (("corrupt", "mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("corrupt", "disagree"), VerdictKind.CORRUPT),
        (("corrupt", "clean"), VerdictKind.CORRUPT),
        (("failed", "diverged"), VerdictKind.DIVERGED),
        (("failed", "mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("mismatch", "diverged"), VerdictKind.INCONCLUSIVE),
        (("disagree", "diverged"), VerdictKind.INCONCLUSIVE),
        (("mismatch", "clean"), VerdictKind.INCONCLUSIVE),
        (("diverged",), VerdictKind.DIVERGED),
        ((), VerdictKind.INCONCLUSIVE),
        (("noticed",), VerdictKind.TRANSIENT),
        (("clean",), VerdictKind.CLEAN),
    ],
    ids=lambda value: "+".join(value) or "marked only" if isinstance(value, tuple) else str(value),
)
def test_judge_several_findings_first_question_decides(layers: tuple[str, ...], wanted: VerdictKind) -> None:
    assert kind(layered(*layers)) is wanted


# --------------------------------------------------------------------------- asked and observed


@pytest.mark.parametrize("aio", AioMode)
@pytest.mark.parametrize("cache", CacheMode)
def test_judge_observed_as_requested_clean(cache: CacheMode, aio: AioMode) -> None:
    assert (
        kind(
            evidence(Cell("pressure", filesystem=FilesystemKind.SWAP, cache=cache, aio=aio, delays=DelayProfile(20, 0)))
        )
        is VerdictKind.CLEAN
    )


def test_judge_flags_of_another_cache_mode_inconclusive() -> None:
    table = {
        CacheMode.NONE: (True, False, True, "write back"),
        CacheMode.DIRECTSYNC: (True, False, False, "write through"),
        CacheMode.WRITETHROUGH: (False, False, False, "write through"),
        CacheMode.WRITEBACK: (False, False, True, "write back"),
        CacheMode.UNSAFE: (False, True, True, "write back"),
    }
    for asked in CacheMode:
        for opened, (direct, no_flush, writeback, told) in table.items():
            seen = Observed(
                o_direct=direct,
                qemu_cache={"direct": direct, "no-flush": no_flush, "writeback": writeback},
                qemu_aio="threads",
                guest_write_cache=told,
                scatter_gather=True,
            )
            found = kind(evidence(Cell("pressure", filesystem=FilesystemKind.SWAP, cache=asked), observed=seen))
            wanted = VerdictKind.CLEAN if asked is opened else VerdictKind.INCONCLUSIVE
            assert found is wanted, f"asked for {asked}, opened as {opened}"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"o_direct": False},
            "O_DIRECT of QEMU's descriptor is off, although the cell asked for cache=none, aio=threads",
        ),
        ({"o_direct": None}, "O_DIRECT of QEMU's descriptor could not be read back"),
        ({"guest_write_cache": "write through"}, "the guest's write_cache is write through, although the cell"),
        ({"guest_write_cache": None}, "the guest's write_cache could not be read back"),
        ({"qemu_aio": "io_uring"}, "the aio mode is io_uring, although the cell asked for cache=none, aio=threads"),
        ({"qemu_aio": None}, "the aio mode could not be read back"),
        ({"qemu_cache": None}, "QEMU's cache.direct could not be read back"),
        ({"qemu_cache": {"direct": True, "no-flush": False}}, "QEMU's cache.writeback could not be read back"),
        ({"qemu_cache": {"direct": False, "no-flush": False, "writeback": True}}, "QEMU's cache.direct is off"),
        ({"qemu_cache": {"direct": True, "no-flush": True, "writeback": True}}, "QEMU's cache.no-flush is on"),
        ({"qemu_cache": {"direct": True, "no-flush": False, "writeback": False}}, "QEMU's cache.writeback is off"),
        ({"link_delay_ms": 20}, "the delays of link and disk were 20/0 ms, 0/0 ms were requested"),
        ({"disk_delay_ms": 3}, "the delays of link and disk were 0/3 ms"),
    ],
)
def test_judge_observed_not_as_requested_inconclusive_naming_it(change: dict[str, Any], text: str) -> None:
    found = evidence()
    assert_inconclusive(replace(found, observed=replace(found.observed, **change)), text)


def test_judge_delay_not_in_force_inconclusive() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(20, 5))
    assert_inconclusive(
        evidence(cell, observed=observed(SWAP)), "the delays of link and disk were 0/0 ms, 20/5 ms were requested"
    )


def test_judge_host_client_needs_no_qemu_flags() -> None:
    cell = Cell("inflight-modify", client=ClientKind.HOST, delays=DelayProfile(20, 0))
    assert kind(evidence(cell)) is VerdictKind.CLEAN
    assert_inconclusive(
        evidence(cell, observed=Observed(scatter_gather=True)), "the delays of link and disk were 0/0 ms"
    )


PROFILES = [
    (ReplicationProfile(protocol=Protocol.A), "replicates with protocol C, although the cell asked for protocol A"),
    (ReplicationProfile(integrity="crc32c"), "has no digest (data-integrity-alg), although the cell asked for the"),
    (ReplicationProfile(disable_sendpage=True), "of DRBD is off, although the cell asked for it on"),
    (ReplicationProfile(scatter_gather=False), "scatter-gather is on on the replication NIC, although the cell asked"),
    (ReplicationProfile(two_primaries=True), "DRBD does not allow two Primaries, although the cell asked for two"),
]


@pytest.mark.parametrize(("replication", "text"), PROFILES)
def test_judge_replication_profile_not_in_force_inconclusive(replication: ReplicationProfile, text: str) -> None:
    requested = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, replication=replication)
    for cell, in_force, sentence in ((requested, ReplicationProfile(), text), (SWAP, replication, "the cell asked")):
        seen = replace(observed(cell), replication=in_force)
        assert_inconclusive(evidence(cell, observed=seen), sentence)
        assert_inconclusive(evidence(cell, observed=seen, **oracles({5}, {5})), sentence)
    seen = replace(observed(requested), replication=replication)
    assert kind(evidence(requested, observed=seen)) is VerdictKind.CLEAN


def test_judge_host_client_replication_not_in_force_inconclusive() -> None:
    cell = Cell("inflight-modify", client=ClientKind.HOST, replication=ReplicationProfile(integrity="crc32c"))
    assert_inconclusive(
        evidence(cell, observed=replace(observed(cell), replication=ReplicationProfile())), "DRBD has no digest"
    )


# --------------------------------------------------------------------------- preconditions and silent oracles


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"before": None}, "was not Connected and UpToDate/UpToDate before the cell: its state was not read"),
        (
            {"before": replace(HEALTHY, connection="Connecting")},
            "UpToDate before the cell: Connecting, Primary/Secondary, UpToDate/UpToDate, Established",
        ),
        ({"before": replace(HEALTHY, peer_disk="Inconsistent")}, "was not Connected and UpToDate/UpToDate before"),
        ({"before": replace(HEALTHY, replication="VerifyS")}, "was not Connected and UpToDate/UpToDate before"),
        ({"equal_before": False}, "the replicas were not equal before"),
        ({"equal_before": None}, "the replicas were not equal before"),
        ({"verify": None}, "the start and the end of the verify were not both seen"),
        ({"counter_kib": None}, "an oracle did not answer"),
        ({"comparison": None}, "an oracle did not answer"),
        ({"device_blocks": BLOCKS + 1}, f"the comparison covered {BLOCKS} of {BLOCKS + 1} blocks"),
        ({"device_blocks": 0, "comparison": Comparison(0, (), 0.0, "nowhere")}, "the comparison covered 0 of 0"),
    ],
)
def test_judge_precondition_or_oracle_missing_inconclusive(change: dict[str, Any], text: str) -> None:
    assert_inconclusive(evidence(**change), text)
    assert_inconclusive(evidence(**{**oracles({1}, {1}), **change}), text)


@pytest.mark.parametrize("seen", [{"started": False}, {"finished": False}])
def test_judge_verify_start_or_end_missing_inconclusive(seen: dict[str, bool]) -> None:
    complete = oracles(set(), set())["verify"]
    assert_inconclusive(
        evidence(verify=replace(complete, source=replace(complete.source, **seen))), "were not both seen"
    )


def test_judge_verify_skipped_blocks_or_log_holes_inconclusive() -> None:
    complete = oracles(set(), set())["verify"]
    assert_inconclusive(evidence(verify=replace(complete, skipped_blocks=7)), "the verify skipped 7 busy blocks")
    assert_inconclusive(evidence(log_holes=3), "3 kernel messages were lost")


# --------------------------------------------------------------------------- oracles that disagree


def seen_by_target(blocks: set[int], **facts: Any) -> Evidence:
    """Evidence whose target's kernel log names other blocks than the source's."""
    verify = facts["verify"]
    target = replace(verify.target, extents=extents_of(blocks))
    return evidence(**{**facts, "verify": replace(verify, target=target)})


def test_oracles_nodes_name_different_blocks_disagree() -> None:
    assert_inconclusive(
        seen_by_target({1}, **oracles({1, 2}, {1, 2})), "1 blocks of the same verify stand in the log of one node"
    )
    assert_inconclusive(seen_by_target({1, 3}, **oracles({1, 2}, {1, 2})), "name 3 blocks, DRBD counts 2 out of sync")


def test_oracles_log_names_fewer_than_marked_agree() -> None:
    verdict = judge(seen_by_target({1}, **oracles({1, 2}, {1, 2, 9}, 16)), HELD)
    assert (verdict.kind, verdict.differing_blocks) == (VerdictKind.DIVERGED, 3)
    assert verdict.reasons == (
        "1 more blocks were reported and are equal again",
        "the kernel log names 2 of the 4 blocks that verify marked",
    )
    assert kind(evidence(**oracles(set(), set(), 4), alarms=NOTICED)) is VerdictKind.TRANSIENT


def test_oracles_same_blocks_other_extents_agree() -> None:
    facts = oracles({1, 2}, {1, 2})
    target = replace(facts["verify"].target, extents=(Extent(16, 8), Extent(8, 8), Extent(16, 8)))
    assert kind(evidence(**{**facts, "verify": replace(facts["verify"], target=target)})) is VerdictKind.DIVERGED


@pytest.mark.parametrize(
    ("verified", "compared", "counter", "text"),
    [
        ({1, 2}, {1, 2}, 4, "name 2 blocks, DRBD counts 1 out of sync"),
        ({1, 2}, {1, 2}, 0, "name 2 blocks, DRBD counts 0 out of sync"),
        ({1, 2}, set(), 4, "name 2 blocks, DRBD counts 1 out of sync"),
        ({1}, {1}, 5, "DRBD counts 5 KiB out of sync, which is no whole number of blocks"),
        (set(), set(), 3, "DRBD counts 3 KiB out of sync, which is no whole number of blocks"),
        (set(), {9}, 0, "1 blocks differ that verify did not report"),
        (set(), {9, 10}, 4, "1 blocks differ that verify did not report"),
        ({1}, {1, 9, 10}, 4, "2 blocks differ that verify did not report"),
        ({1}, {9}, 4, "1 blocks differ that verify did not report"),
    ],
)
def test_oracles_contradiction_inconclusive_naming_it(
    verified: set[int], compared: set[int], counter: int, text: str
) -> None:
    found = evidence(**oracles(verified, compared, counter))
    assert_inconclusive(found, "the oracles disagree: ")
    assert_inconclusive(found, text)


# --------------------------------------------------------------------------- clean is assert_inconclusive


@pytest.mark.parametrize(
    ("facts", "schema", "text"),
    [
        (
            {"pages_swapped_out": 0.0},
            2,
            "nothing was found, but the workload 'pressure' did not do what it is made for",
        ),
        ({"pages_swapped_out": 0.0}, 3, "no page was written to swap"),
        ({}, 3, "'pages_swapped_out' is missing"),
    ],
)
def test_judge_workload_that_did_nothing_inconclusive(facts: dict[str, float], schema: int, text: str) -> None:
    found = replace(evidence(work=Work(8.0, facts)), schema=schema)
    assert_inconclusive(found, text)
    nothing_written = replace(evidence(work=Work(8.0, facts), exposed_blocks=0), schema=schema)
    assert_inconclusive(nothing_written, text)
    differing = replace(evidence(work=Work(8.0, facts), **oracles({5}, {5})), schema=schema)
    assert kind(differing) is VerdictKind.DIVERGED, "a difference stays one, whoever made it"


def test_judge_workload_without_figures_of_older_schema_clean() -> None:
    assert kind(replace(evidence(work=Work(8.0)), schema=2)) is VerdictKind.CLEAN


@pytest.mark.parametrize("control", Control)
def test_judge_control_missing_or_failed_never_clean(control: Control) -> None:
    missing = {name: outcome for name, outcome in HELD.items() if name is not control}
    without = f"nothing was found, but the {control} control of this run has no result"
    assert_inconclusive(evidence(), without, missing)
    if control in (Control.STEADY, Control.IN_FLIGHT_GUEST):
        assert kind(replace(evidence(), schema=2), missing) is VerdictKind.CLEAN, "there was none then"
    failed = {**HELD, control: ControlOutcome(control, False, "it saw nothing")}
    assert_inconclusive(evidence(), f"nothing was found, but the {control} control failed: it saw nothing", failed)


def test_judge_cell_of_the_node_itself_needs_no_control_through_a_guest() -> None:
    missing = {name: outcome for name, outcome in HELD.items() if name is not Control.IN_FLIGHT_GUEST}
    assert kind(evidence(Cell("fio-verify", client=ClientKind.HOST)), missing) is VerdictKind.CLEAN


def test_judge_no_controls_never_clean() -> None:
    assert_inconclusive(evidence(), "control of this run has no result", None)


@pytest.mark.parametrize("scatter_gather", [False, None])
def test_judge_no_scatter_gather_never_clean(scatter_gather: bool | None) -> None:
    seen = replace(observed(SWAP), scatter_gather=scatter_gather)
    assert_inconclusive(evidence(observed=seen), "no scatter-gather")


@pytest.mark.parametrize("scatter_gather", [False, None])
def test_judge_no_scatter_gather_as_requested_clean(scatter_gather: bool | None) -> None:
    cell = Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        replication=ReplicationProfile(scatter_gather=False),
    )
    seen = replace(observed(cell), scatter_gather=scatter_gather, replication=cell.replication)
    assert kind(evidence(cell, observed=seen)) is VerdictKind.CLEAN


def test_judge_nothing_exposed_clean_only_without_writes() -> None:
    assert_inconclusive(evidence(exposed_blocks=0), "the workload exposed no block write")
    idle = judge(evidence(Cell("no-writes", cache=CacheMode.NONE), exposed_blocks=0), HELD)
    assert (idle.kind, idle.rate_upper_95) == (VerdictKind.CLEAN, None)
    assert "no block write was exposed" in idle.sentence


def test_judge_kernel_errors_never_clean() -> None:
    errors = ("nodea: BUG: soft lockup", "nodeb: Oops")
    assert_inconclusive(evidence(kernel_errors=errors), "a kernel reported an error: nodea: BUG: soft lockup")
    verdict = judge(evidence(kernel_errors=errors, **oracles({1}, {1})), HELD)
    assert verdict.kind is VerdictKind.DIVERGED, "what is seen is seen"
    assert verdict.reasons == ("kernel: nodea: BUG: soft lockup", "kernel: nodeb: Oops")


# --------------------------------------------------------------------------- the controls themselves

PLANTED = Cell("planted", client=ClientKind.HOST, control=Control.PLANTED)
IN_FLIGHT = Cell("inflight-modify", client=ClientKind.HOST, control=Control.IN_FLIGHT)
IDLE = Cell("no-writes", client=ClientKind.HOST, control=Control.IDLE)
_, STEADY, _, _, IN_FLIGHT_GUEST = CONTROL_CELLS


def planted(wanted: set[int], verified: set[int], compared: set[int]) -> ControlOutcome:
    extents = extents_of(wanted)
    return control_outcome(evidence(PLANTED, planted=extents, exposed_blocks=0, **oracles(verified, compared)))


def test_control_outcome_planted_holds_only_for_exact_blocks() -> None:
    assert planted({0, 1000, 5003}, {0, 1000, 5003}, {0, 1000, 5003}).held
    assert not planted({0, 1000}, {0, 1000, 7}, {0, 1000, 7}).held, "one too many"
    assert not planted({0, 1000, 7}, {0, 1000}, {0, 1000}).held, "one too few"
    assert not planted({0, 1000}, {0, 7}, {0, 7}).held, "another"
    assert not planted(set(), {0}, {0}).held, "nothing was noted as planted"
    assert not planted({0}, set(), set()).held, "nothing was found"


def test_control_outcome_planted_missed_by_one_oracle_names_it() -> None:
    outcome = planted({0, 1000}, {0, 1000}, {0})
    assert not outcome.held
    assert outcome.sentence == "the comparison found blocks [0], planted were [0, 1000]"


def test_control_outcome_in_flight_needs_diverged_idle_needs_clean() -> None:
    assert control_outcome(evidence(IN_FLIGHT, **oracles({3}, {3}))).held
    silent = control_outcome(evidence(IN_FLIGHT))
    assert not silent.held and silent.sentence.startswith("DIVERGED was expected: ")
    assert not control_outcome(evidence(IN_FLIGHT, **oracles({3}, set()))).held, "transient is not enough"
    assert control_outcome(evidence(IDLE, exposed_blocks=0)).held
    noisy = control_outcome(evidence(IDLE, **oracles({3}, {3})))
    assert not noisy.held and noisy.sentence.startswith("CLEAN was expected: 1 blocks differ")


def test_control_outcome_steady_needs_clean_and_load() -> None:
    wrote = Work(5.0, {"writer_write_bytes": 64e6})
    assert control_outcome(evidence(STEADY, work=wrote)).held
    noisy = control_outcome(evidence(STEADY, work=wrote, **oracles({3}, {3})))
    assert not noisy.held and noisy.sentence.startswith("CLEAN was expected: 1 blocks differ")
    for idle, doubt in (
        ({"work": wrote, "exposed_blocks": 0}, "no block write was exposed"),
        ({"work": Work(5.0, {"writer_write_bytes": 0.0})}, "its writer wrote nothing"),
    ):
        outcome = control_outcome(evidence(STEADY, **idle))
        assert not outcome.held and outcome.sentence.endswith(doubt), "no load is no proof"


def test_control_outcome_planted_split_brain_without_oracles_failed() -> None:
    split = replace(NOTICED, split_brain=SPLIT)
    outcome = control_outcome(evidence(PLANTED, alarms=split, verify=None, comparison=None))
    assert not outcome.held and outcome.sentence.startswith("an oracle did not answer: split brain")


def test_control_outcome_in_flight_guest_needs_diverged_and_the_cache_it_asks_for() -> None:
    found = evidence(IN_FLIGHT_GUEST, **oracles({3}, {3}))
    assert control_outcome(found).held and not control_outcome(evidence(IN_FLIGHT_GUEST)).held
    buffered = replace(found, observed=replace(found.observed, o_direct=False))
    assert not control_outcome(buffered).held


def test_control_outcome_failure_not_held() -> None:
    broken = Failure("lost-node", "work", "gone")
    for cell in (PLANTED, IN_FLIGHT, IDLE, STEADY, IN_FLIGHT_GUEST):
        outcome = control_outcome(evidence(cell, failure=broken, **oracles({3}, {3})))
        assert not outcome.held and "work: gone" in outcome.sentence


def test_judge_control_cell_needs_no_controls() -> None:
    assert judge(evidence(IDLE), None).kind is VerdictKind.CLEAN
    assert judge(evidence(IN_FLIGHT, **oracles({3}, {3})), None).kind is VerdictKind.DIVERGED


def test_control_outcome_ordinary_cell_value_error() -> None:
    with pytest.raises(ValueError, match="none-swap-pressure is no control"):
        control_outcome(evidence())


def test_outcomes_several_attempts_of_one_control_failed_stays() -> None:
    good, bad = evidence(IN_FLIGHT, **oracles({3}, {3})), evidence(IN_FLIGHT)
    assert outcomes([good, evidence(), bad])[Control.IN_FLIGHT].held is False
    assert outcomes([good, good])[Control.IN_FLIGHT].held is True
    assert outcomes([bad, good])[Control.IN_FLIGHT].held is False
    assert set(outcomes([good, evidence()])) == {Control.IN_FLIGHT}


# --------------------------------------------------------------------------- whatever the evidence

NUMBERS = st.sets(st.integers(0, 40), max_size=6)
EXTENTS = st.lists(st.builds(Extent, st.integers(0, 400), st.integers(0, 40)), max_size=4).map(tuple)
OWNERS = st.sampled_from(BlockOwner)
CHANGES = st.lists(
    st.builds(PlantedChange, st.integers(0, 400), st.integers(1, 9), owner=st.none() | OWNERS), max_size=2
).map(tuple)
SAMPLES = st.builds(Sample, st.integers(0, 50), st.just(0), st.just(1), st.just("00"), st.just("ff"), OWNERS)
STATE_NAMES = st.sampled_from(["", "Connected", "UpToDate", "Established", "Inconsistent", "VerifyS"])
NODES = st.builds(NodeVerify, st.just("node"), st.booleans(), st.booleans(), EXTENTS, st.none() | st.integers(0, 50))
CELLS = st.builds(
    Cell,
    st.sampled_from(["pressure", "no-writes", "inflight-modify"]),
    client=st.sampled_from(ClientKind),
    cache=st.none() | st.sampled_from(CacheMode),
    aio=st.sampled_from(AioMode),
    delays=st.builds(DelayProfile, st.sampled_from([0, 20]), st.sampled_from([0, 5])),
    control=st.none() | st.sampled_from(Control),
    migrations=st.sampled_from([0, 2]),
    crash=st.sampled_from([None, *Crash]),
    fault=st.sampled_from([None, *Fault]),
)
SEEN = st.builds(
    Observed,
    o_direct=st.none() | st.booleans(),
    qemu_cache=st.none()
    | st.dictionaries(st.sampled_from(["direct", "no-flush", "writeback"]), st.booleans(), max_size=3),
    qemu_aio=st.none() | st.sampled_from(["threads", "native"]),
    guest_write_cache=st.sampled_from([None, "write back", "write through"]),
    scatter_gather=st.none() | st.booleans(),
    link_delay_ms=st.sampled_from([0, 20]),
    disk_delay_ms=st.sampled_from([0, 5]),
    replication=st.sampled_from([None, ReplicationProfile(), ReplicationProfile(integrity="crc32c")]),
)
FEW = st.integers(0, 2)
OWNED = st.builds(Ownership, *[st.integers(0, 3)] * 3)
MIGRATIONS = st.lists(
    st.builds(moved, st.integers(1, 3), st.sampled_from(MigrationOutcome), st.sampled_from(["work", "readback"])),
    max_size=3,
).map(tuple)
CANARIES = st.builds(
    Canary, lost=st.dictionaries(st.sampled_from(["fsync", "direct"]), FEW), corrupt=FEW, memory_wrong=FEW,
    survived=st.booleans(),
)  # fmt: skip
CRASH_RECOVERIES = st.builds(
    CrashRecovery,
    st.sampled_from(Crash),
    fsck_status=st.sampled_from([None, 0, 4, 8]),
    mounted=st.sampled_from([None, True, False]),
    wrong_reads=FEW,
)
COMPARISONS = st.builds(Comparison, st.sampled_from([0, BLOCKS]), EXTENTS, st.just(0.1), st.just("here"))
FAILURES = st.builds(Failure, st.sampled_from(["refused", "deadline", "bug"]), st.just("work"), st.text(max_size=5))
OUTCOMES = st.dictionaries(st.sampled_from(Control), st.booleans()).map(
    lambda held: {control: ControlOutcome(control, ok, "why") for control, ok in held.items()}
)


@st.composite
def any_evidence(draw: st.DrawFn) -> Evidence:
    """Anything: half of each piece is as it should be, so that every question is reached."""
    cell = draw(CELLS)
    found = disturbed(cell, fault_injected=True) if cell.has_canary else evidence(cell)
    verified = draw(NUMBERS)
    if draw(st.booleans()):
        compared = draw(st.sets(st.sampled_from(sorted(verified)), max_size=3)) if verified else set()
        found = replace(found, **oracles(verified, compared))
    pieces: dict[str, st.SearchStrategy[Any]] = {
        "before": st.none() | st.builds(State, *[STATE_NAMES] * 6),
        "equal_before": st.none() | st.booleans(),
        "observed": SEEN,
        "work": st.none() | st.builds(Work, st.just(1.0), read_back_errors=st.integers(0, 2)),
        "exposed_blocks": st.integers(0, 3),
        "verify": st.none() | st.builds(Verify, NODES, NODES, st.just(1.0), st.integers(0, 1)),
        "counter_kib": st.none() | st.integers(0, 200),
        "comparison": st.none() | COMPARISONS,
        "planted": CHANGES,
        "samples": st.lists(SAMPLES, max_size=3).map(tuple),
        "ownership": OWNED,
        "migrations": MIGRATIONS,
        "readback": st.none() | st.builds(Readback, st.just(BLOCKS), st.just("a"), st.just("b"), EXTENTS, OWNED),
        "canary": st.none() | CANARIES,
        "crash_recovery": st.none() | CRASH_RECOVERIES,
        "alarms": st.sampled_from([None, NOTICED, Alarms(split_brain=SPLIT), Alarms("crc32c"), Alarms(drops=1)]),
        "fault_injected": st.booleans(),
        "console_errors": st.sampled_from([(), ("Oops",)]),
        "kernel_errors": st.lists(st.text(max_size=5), max_size=2).map(tuple),
        "failure": st.none() | FAILURES,
        "log_holes": st.integers(0, 1),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(pieces)), max_size=3))
    return replace(found, **{name: draw(pieces[name]) for name in sorted(chosen)})


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES)
@example(Evidence(SWAP, 1, ""), {})
def test_judge_any_evidence_one_consistent_verdict(found: Evidence, controls: dict[Control, ControlOutcome]) -> None:
    verdict = judge(found, controls)
    assert isinstance(verdict, Verdict) and verdict.sentence is not None
    assert judge(found, controls) == verdict, "the same evidence, the same verdict"
    if verdict.kind is VerdictKind.CLEAN:
        assert found.cell.control or (len(controls) == 3 and all(one.held for one in controls.values()))
        assert found.comparison and found.verify and found.verify.complete
        assert found.counter_kib == 0 and not found.comparison.differing_blocks
        assert found.failure is None and not found.log_holes and not data_loss_findings(found)
        if not found.cell.control:
            assert not any(change.owner for change in found.planted), "what was planted differs"
            assert not (found.cell.has_canary and found.canary is None)
            assert found.fault_injected or found.cell.fault is None
            assert found.readback is None or not found.readback.differing
            assert not any(one.outcome is MigrationOutcome.REFUSED for one in found.migrations)
        assert found.alarms is None or not (found.alarms.detections or found.alarms.split_brain)
        assert verdict.rate_upper_95 is None or not (found.alarms and found.alarms.resynced_kib)
        assert found.fault_injected or found.alarms is None or not found.alarms.drops
    if verdict.kind is VerdictKind.TRANSIENT:
        assert found.failure is None
    if verdict.kind in (VerdictKind.DIVERGED, VerdictKind.TRANSIENT):
        split = found.alarms is not None and found.alarms.split_brain is not None and found.alarms.split_brain.confirmed
        assert found.equal_before is True or split
        assert (verdict.kind is VerdictKind.DIVERGED) is (split or bool(verdict.differing_blocks))
    if verdict.kind is VerdictKind.CORRUPT:
        assert data_loss_findings(found)
    elif data_loss_findings(found):
        assert verdict.kind is VerdictKind.INCONCLUSIVE, "only what was not in force as asked outweighs a loss"
    assert verdict.rate_upper_95 is None or 0 < verdict.rate_upper_95 <= 1
    if found.cell.control:
        control_outcome(found)


@given(NUMBERS, NUMBERS)
def test_judge_comparison_only_block_inconclusive(verified: set[int], compared: set[int]) -> None:
    found = kind(evidence(**oracles(verified, compared)))
    if compared - verified:
        assert found is VerdictKind.INCONCLUSIVE
    else:
        found_something = VerdictKind.DIVERGED if compared else VerdictKind.INCONCLUSIVE
        assert found is (found_something if verified else VerdictKind.CLEAN)


@given(st.integers(1, 10**9))
def test_judge_more_exposure_bound_never_looser(exposed: int) -> None:
    fewer, more = (judge(evidence(exposed_blocks=count), HELD).rate_upper_95 for count in (exposed, exposed + 1))
    assert fewer is not None and more is not None and fewer >= more > 0


FAILURE = st.builds(
    Failure, st.sampled_from(["refused", "deadline", "lost-node"]), st.just("work"), st.just("it broke")
)


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES, FAILURE)
def test_judge_adding_a_failure_never_removes_an_agreed_difference_or_a_loss(
    found: Evidence, controls: dict[Control, ControlOutcome], failure: Failure
) -> None:
    before = judge(replace(found, failure=None), controls)
    after = judge(replace(found, failure=failure), controls)
    if before.kind in (VerdictKind.CORRUPT, VerdictKind.DIVERGED):
        assert (after.kind, after.differing_blocks) == (before.kind, before.differing_blocks)
        assert any("it broke" in reason for reason in after.reasons), "and says that something failed"
    elif after.kind not in (VerdictKind.REFUSED, VerdictKind.DIVERGED):
        assert after.kind is VerdictKind.INCONCLUSIVE


def test_judge_not_in_force_names_the_failure_beside_it() -> None:
    lost = Failure("lost-node", "detach", "the ssh connection to nodeb was lost")
    seen = replace(observed(SWAP), link_delay_ms=5)
    verdict = judge(evidence(observed=seen, failure=lost), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "delay" in verdict.sentence
    assert verdict.reasons[0] == "detach failed: the ssh connection to nodeb was lost", "why it could not be read"


@settings(max_examples=150)
@given(any_evidence(), OUTCOMES)
def test_judge_not_in_force_as_asked_is_inconclusive_whatever_was_found(
    found: Evidence, controls: dict[Control, ControlOutcome]
) -> None:
    other = replace(found.observed, link_delay_ms=found.cell.delays.link_delay_ms + 1)
    verdict = judge(replace(found, observed=other, work=found.work or Work(1.0)), controls)
    assert verdict.kind is VerdictKind.INCONCLUSIVE


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_judge_resynced_replicas_have_no_rate_bound(exposed: int, kib: int) -> None:
    crashed = CrashRecovery(Crash.NODE, resynced_kib=kib)
    for changed in ({"alarms": Alarms(resynced_kib=kib)}, {"crash_recovery": crashed}):
        verdict = judge(evidence(exposed_blocks=exposed, **changed), HELD)
        assert verdict.rate_upper_95 is None and "MiB" in verdict.sentence and "%" not in verdict.sentence


FOUND = {
    "diverged": oracles({1}, {1}),
    "corrupt": {"work": Work(1.0, read_back_errors=1)},
    "transient": {"alarms": NOTICED},
    "clean": {},
}


@pytest.mark.parametrize("failed", Control)
@pytest.mark.parametrize("found", FOUND)
def test_judge_failed_control_takes_away_what_rests_on_it(failed: Control, found: str) -> None:
    controls = {**HELD, failed: ControlOutcome(failed, False, "it did not hold")}
    verdict = judge(evidence(**FOUND[found]), controls)
    stands = found in ("diverged", "corrupt") and failed not in (Control.IDLE, Control.STEADY)
    assert verdict.kind.lower() == (found if stands else "inconclusive")
    assert "it did not hold" in "; ".join((verdict.sentence, *verdict.reasons)), "and says so in any case"


def test_outcomes_failed_control_is_not_replaced_by_a_later_one() -> None:
    missed, held = evidence(PLANTED), evidence(PLANTED, **oracles({3}, {3}), planted=(Extent(24, 8),))
    assert outcomes([held])[Control.PLANTED].held
    for attempts in ([missed, held], [held, missed], [held, missed, held]):
        assert not outcomes(attempts)[Control.PLANTED].held
