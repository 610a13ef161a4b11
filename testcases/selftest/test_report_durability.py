"""The report on what the guest kept: acknowledged records, two read-backs, and what a crash lost, by cache mode."""

from __future__ import annotations

from dataclasses import replace

from disturbed_results import KEPT, crashed, migrated, misread, sample, shown
from reported_results import diverged, everything, text_of, verdict

from harness.model import (
    AioMode,
    CacheMode,
    Canary,
    Cell,
    Crash,
    DelayProfile,
    Evidence,
    Fault,
    FilesystemKind,
    Protocol,
    Result,
    VerdictKind,
)
from harness.report.cells import anchors
from harness.report.durability import durability_grid, durability_sentence, loss_grid
from harness.report.grid import Grid
from harness.report.headline import Answer, headline
from harness.report.html import evidence_html
from harness.report.table import figures


def tones(table: Grid | None, row: int = 0) -> dict[str, str]:
    assert table is not None
    return {name: slot.tone for name, slot in zip(table.columns, table.rows[row], strict=True)}


def test_durability_grid_losses_beside_disturbance() -> None:
    results = [diverged(), migrated(), misread(), *sample()[5:8]]
    table = durability_grid(results, anchors(results))
    good, bad, crash = shown(table, 0), shown(table, 1), shown(table, 2)
    assert table and len(table.rows) == 5
    assert good["Disturbance"] == "3 of 4 migrations" and bad["Disturbance"] == "2 migrations"
    assert (good["Two read-backs"], bad["Two read-backs"]) == ("equal", "3 blocks differ: 2 allocated, 1 free")
    assert (good["Lost, fsync"], bad["Lost, fsync"], crash["Lost, fsync"]) == (
        "0 of 1 204",
        "3 of 1 204",
        "12 of 1 204",
    )
    assert (bad["Lost, dsync"], bad["Lost, direct"], crash["Lost, direct"]) == ("0 of 900", "", "1 of 0")
    assert bad["Records in memory"] == "2 wrong in 5 300 checks" and good["Longest gap"] == "1.30 s"
    assert good["Corrupt records"] == "0"
    assert tones(table, 0)["Lost, fsync"] == "" and tones(table, 1)["Lost, fsync"] == "bad"
    assert tones(table, 1)["Records in memory"] == tones(table, 1)["Two read-backs"] == "bad"
    assert crash["Disturbance"] == "the Primary loses its power" and crash["fsck"] == "clean"
    assert (crash["Promoted after"], crash["Guest answers after"], crash["Rejoined after"]) == (
        "1.25 s", "23.4 s", "31.5 s")  # fmt: skip
    assert crash["Differing blocks at the crash"] == "17" and crash["Wrong reads"] == "0"
    assert shown(table, 4)["Promoted after"] == ""


def test_durability_grid_mount_failed_or_fsck_unable_marked() -> None:
    result = crashed(Crash.QEMU, CacheMode.UNSAFE, Protocol.C, {})
    assert result.evidence and result.evidence.crash_recovery
    after = result.evidence.crash_recovery
    lost = replace(after, mounted=False, mount_message="wrong fs type", fsck_status=0)
    for found, text in ((lost, "not mounted"), (replace(after, fsck_status=8), "could not be checked (status 8)")):
        shown_in = replace(result, evidence=replace(result.evidence, crash_recovery=found))
        table = durability_grid([shown_in], ["x"])
        assert (shown(table)["fsck"], tones(table)["fsck"]) == (text, "bad")
    said = text_of(evidence_html(replace(result, evidence=replace(result.evidence, crash_recovery=lost))))
    assert "Mount it could not be mounted: wrong fs type" in said


def test_durability_grid_fsck_errors_marked() -> None:
    result = crashed(Crash.QEMU, CacheMode.UNSAFE, Protocol.C, {})
    assert result.evidence and result.evidence.crash_recovery
    after = replace(result.evidence.crash_recovery, fsck_status=4, wrong_reads=2)
    table = durability_grid([replace(result, evidence=replace(result.evidence, crash_recovery=after))], ["x"])
    assert shown(table)["fsck"] == "damaged (status 4)" and shown(table)["Wrong reads"] == "2"
    assert tones(table)["fsck"] == tones(table)["Wrong reads"] == "bad"


def test_disturbance_text_fault_ended_all_migrations() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, migrations=2, fault=Fault.LINK_CUT)
    result = Result(cell, None, Evidence(cell, 1, "", canary=KEPT))
    text = shown(durability_grid([result], ["x"]))["Disturbance"]
    assert text == "none of 2 migrations, the replication link is cut in mid-migration"


def test_loss_grid_rows_by_cache_mode_and_protocol() -> None:
    results = [
        crashed(Crash.RESET, CacheMode.WRITEBACK, Protocol.C, {}),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"direct": 1, "fsync": 12}),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.C, {}),
        crashed(Crash.QEMU, CacheMode.NONE, Protocol.C, {}),
        migrated(),
    ]
    table = loss_grid(results, anchors(results))
    assert table and table.columns == ("", "The Primary loses its power", "QEMU is killed", "The guest is reset")
    assert [[slot.text for slot in row] for row in table.rows] == [
        ["cache=none, aio=threads, protocol C", "0 of 2 104", "0 of 2 104", ""],
        ["cache=none, aio=threads, protocol A", "13 of 2 104 (12 fsync and 1 direct)", "", ""],
        ["cache=writeback, aio=threads, protocol C", "", "", "0 of 2 104"],
    ]
    assert (table.rows[0][1].tone, table.rows[1][1].tone) == ("good", "bad")
    assert table.rows[1][1].anchor == anchors(results)[1]
    assert loss_grid([migrated()], ["x"]) is None


def test_loss_grid_two_workloads_two_rows() -> None:
    results = [crashed(Crash.NODE, CacheMode.NONE, Protocol.C, {}, name) for name in ("swap", "ext4")]
    table = loss_grid(results, anchors(results))
    assert table and {row[0].text for row in table.rows} == {
        "cache=none, aio=threads, protocol C, swap on the raw device",
        "cache=none, aio=threads, protocol C, ext4 on the raw device",
    }


def test_loss_grid_aio_modes_and_delays_are_rows_of_their_own() -> None:
    threads = crashed(Crash.NODE, CacheMode.WRITETHROUGH, Protocol.C, {"fsync": 2})
    ring = replace(threads, cell=replace(threads.cell, aio=AioMode.IO_URING))
    slow = replace(ring, cell=replace(ring.cell, delays=DelayProfile(link_delay_ms=200)))
    results = [threads, ring, slow]
    table = loss_grid(results, anchors(results))
    assert table and {row[0].text for row in table.rows} == {
        "cache=writethrough, aio=threads, protocol C",
        "cache=writethrough, aio=io_uring, protocol C, no delays",
        "cache=writethrough, aio=io_uring, protocol C, delays: link 200 ms",
    }


def test_durability_sentence_records_and_readbacks() -> None:
    fine = [migrated(), crashed(Crash.NODE, CacheMode.NONE, Protocol.C, {})]
    assert durability_sentence(fine) == (
        "The guest kept every acknowledged record (4 208 of them). "
        "Its two read-backs of the device were equal in 1 cell."
    )
    assert durability_sentence([*fine, misread()]) == (
        "The guest lost 3 acknowledged records of 6 312 in 1 cell; 2 wrong in its memory. "
        "Its two read-backs of the device differ in 1 of 2 cells: 3 blocks."
    )
    silent = Evidence(misread().cell, 1, "", canary=Canary())
    assert durability_sentence([Result(misread().cell, None, silent)]) == "No record of the guest was acknowledged."
    assert durability_sentence(everything()) == ""


def test_figures_corrupt_each_loss_counted() -> None:
    assert figures(misread()) == "3 records lost, 2 records wrong in memory, 3 blocks read differently"
    lost = crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 1})
    assert figures(lost) == "1 record lost"
    bare = Result(lost.cell, verdict(VerdictKind.CORRUPT, "Wrong."), None)
    assert figures(bare) == "wrong data read back"


def test_headline_lost_records_no_replica_difference() -> None:
    lost = crashed(Crash.NODE, CacheMode.UNSAFE, Protocol.C, {"fsync": 4})
    text = headline([lost, migrated()])
    assert text.answer is Answer.NO and "replicas differ" not in text.sentence
    assert "With cache=unsafe data went wrong in 1 of 2 cells." in text.sentence
    both = headline([lost, diverged()]).sentence
    assert "With cache=none the replicas differ in 1 of 2 cells; 930 differing blocks: 930 free" in both
    assert "With cache=unsafe the guest lost data or read back something else than it wrote, in 1 cell." in both


def test_evidence_view_readback_and_canary() -> None:
    text = text_of(evidence_html(misread()))
    for expected in (
        "Result 3 blocks differ Owners 2 allocated, 1 free Found by debugfs Names /a.db",
        "Extents that the guest read differently (2)",
        "40+16 blocks 5 to 6",
        "Lost of acknowledged, fsync 3 of 1 204",
        "2 wrong in 5 300 checks",
        "Examples of the canary record 12 is gone",
    ):
        assert expected in text, expected
