"""Evidence to verdict: what a guest lost that moved or crashed, how it read its disk, what DRBD noticed meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import (
    BLOCKS,
    CANARY,
    CRASHED,
    HELD,
    MOVED,
    NOTICED,
    SPLIT,
    SWAP,
    assert_inconclusive,
    disturbed,
    evidence,
    kind,
    moved,
    oracles,
)

from harness.judgement.judge import judge
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Crash,
    CrashRecovery,
    Evidence,
    Failure,
    Fault,
    FilesystemKind,
    MigrationOutcome,
    NodeVerify,
    Ownership,
    Readback,
    VerdictKind,
    Work,
    extents_of,
)


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
    said = ("nodeb: PingAck did not arrive in time",)
    assert judge(evidence(alarms=replace(lost, causes=said)), HELD).reasons == said
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
