"""The report on migrations, durability in the guest, DRBD's alarms and replication profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_report import (
    BLOCKS,
    HEALTHY,
    HOSTILE,
    diverged,
    everything,
    evidence,
    idle,
    in_flight,
    nodes,
    planted,
    run_of,
    terminal,
    text_of,
    verdict,
)

from harness.model import (
    AioMode,
    Alarms,
    CacheMode,
    Canary,
    Cell,
    ClientKind,
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
    Ownership,
    Protocol,
    Readback,
    ReplicationProfile,
    Result,
    SplitBrain,
    Verdict,
    VerdictKind,
    Work,
    extents_of,
)
from harness.report.alarms import alarm_grid, alarm_sentence, replication_grid
from harness.report.cells import anchors
from harness.report.descriptions import describe
from harness.report.durability import durability_grid, durability_sentence, loss_grid
from harness.report.formatting import milliseconds
from harness.report.grid import Grid, Slot, grid
from harness.report.headline import Answer, headline
from harness.report.html import evidence_html, render_html
from harness.report.migrations import migration_grid, migration_sentence, timelines
from harness.report.requested_vs_observed import Match, requested_and_observed
from harness.report.table import figures

KEPT = Canary({"fsync": 1204, "dsync": 900}, {}, 0, 5300, 0, 1.3)


def moved(number: int, **changes: object) -> Migration:
    source, target = ("node-a", "node-b") if number % 2 else ("node-b", "node-a")
    made = Migration(
        number, source, target, MigrationOutcome.COMPLETED, 5.0 * number, 2.5, 100.0 * number, 3, 210 << 20, 256 << 20,
        None, 3.25,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def migrated() -> Result:
    """Three migrations during the work, one of them refused, and one between the readback."""
    cell = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, migrations=3, seconds=60)
    moves = (
        moved(1),
        moved(2, throttle_percent=20),
        moved(3, outcome=MigrationOutcome.REFUSED, downtime_ms=None, iterations=None, transferred_bytes=None,
              message=f"Unsafe migration: {HOSTILE}"),
        moved(4, during="readback"),
    )  # fmt: skip
    found = evidence(
        cell, [], [], work=Work(60.4), migrations=moves, canary=KEPT, readback=Readback(BLOCKS, "node-a", "node-b"),
        event_log=(f"somebody did {HOSTILE}",), console_errors=(f"EXT4-fs error {HOSTILE}",),
    )  # fmt: skip
    return Result(cell, verdict(VerdictKind.CLEAN, "Nothing."), found)


def misread() -> Result:
    cell = Cell(
        "pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK, migrations=2, unsafe_migration=True
    )
    readback = Readback(
        BLOCKS,
        "node-a",
        "node-b",
        extents_of([5, 6, 99]),
        Ownership(allocated=2, free=1, method="debugfs", names=("/a.db",)),
    )
    canary = replace(KEPT, lost={"fsync": 3}, memory_wrong=2, examples=(f"record 12 is gone {HOSTILE}",))
    found = evidence(cell, [], [], migrations=(moved(1), moved(2)), readback=readback, canary=canary)
    return Result(cell, verdict(VerdictKind.CORRUPT, "Three blocks were read differently."), found)


def crashed(crash: Crash, cache: CacheMode, protocol: Protocol, lost: dict[str, int], workload: str = "ext4") -> Result:
    cell = Cell(workload, cache=cache, crash=crash, replication=ReplicationProfile(protocol))
    after = CrashRecovery(crash, 5.1, 1.25 if crash is Crash.NODE else None, 23.4, 31.5, 17, 4096, 0, "clean", 0)
    found = evidence(cell, [], [], canary=replace(KEPT, lost=lost, survived=False), crash_recovery=after)
    kind = VerdictKind.CORRUPT if lost else VerdictKind.CLEAN
    return Result(cell, verdict(kind, "It crashed."), found)


def alarmed(replication: ReplicationProfile, alarms: Alarms | None, differing: int = 0) -> Result:
    cell = Cell("inflight-modify", cache=CacheMode.NONE, replication=replication)
    blocks = list(range(differing))
    kind = VerdictKind.DIVERGED if differing else VerdictKind.CLEAN
    return Result(cell, verdict(kind, "Said.", differing), evidence(cell, blocks, blocks, alarms=alarms))


NOISY = Alarms(
    "crc32c",
    (*(Extent(8 * at, 8) for at in range(30)), Extent(0, 8)),
    (Extent(0, 8), Extent(800, 8)),
    14, 12.0, 60.0, 40960,
    SplitBrain(
        12.5, {"node-a": HEALTHY, "node-b": replace(HEALTHY, connection="StandAlone")}, 5, "node-b", True
    ),
)  # fmt: skip


def alarm_cells() -> list[Result]:
    return [
        alarmed(ReplicationProfile(integrity="crc32c"), NOISY),
        alarmed(ReplicationProfile(), Alarms(watched_seconds=60), 535),
    ]


def sample() -> list[Result]:
    return [
        planted(), in_flight(), idle(), migrated(), misread(),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 12, "direct": 1}),
        crashed(Crash.NODE, CacheMode.NONE, Protocol.C, {}),
        crashed(Crash.QEMU, CacheMode.NONE, Protocol.C, {}),
        *alarm_cells(),
        Result(
            Cell("inflight-modify", cache=CacheMode.NONE, replication=ReplicationProfile(scatter_gather=False)),
            None, None,
        ),
    ]  # fmt: skip


def shown(table: Grid | None, row: int = 0) -> dict[str, str]:
    """One row of ``table``, by the names of its columns."""
    assert table is not None
    return {name: slot.text for name, slot in zip(table.columns, table.rows[row], strict=True)}


def tones(table: Grid | None, row: int = 0) -> dict[str, str]:
    assert table is not None
    return {name: slot.tone for name, slot in zip(table.columns, table.rows[row], strict=True)}


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(run_of(sample()), sample(), "A run")


# --------------------------------------------------------------------------- tables


def test_grid_empty_column_dropped() -> None:
    made = grid("x", ("a", "b", "c"), [(Slot("1"), Slot(), Slot()), (Slot("2"), Slot(tone="bad"), Slot("3"))])
    assert made and made.columns == ("a", "c")
    assert [[slot.text for slot in row] for row in made.rows] == [["1", ""], ["2", "3"]]
    assert grid("x", ("a",), []) is None


def test_milliseconds_known_values() -> None:
    text = [milliseconds(ms) for ms in (0, 0.44, 9.99, 420.4, 999.6, 1240, 185_000)]
    assert text == ["0 ms", "0.4 ms", "10 ms", "420 ms", "1.0 s", "1.2 s", "3 min 05 s"]


# --------------------------------------------------------------------------- migrations


def test_migration_grid_row_per_migration() -> None:
    results = [diverged(), migrated(), misread()]
    table = migration_grid(results, anchors(results))
    assert table and len(table.rows) == 6
    assert shown(table, 1) == {
        "Cell": "none-ext4-buffered-migrate3", "#": "2", "From, to": "node-b \u2192 node-a", "Outcome": "completed",
        "Duration": "2.50 s", "Downtime": "200 ms", "Iterations": "3", "Transferred": "210.0 MiB of 256",
        "Throttled by": "20 %", "Both Primary": "3.25 s", "During": "", "Message": "",
    }  # fmt: skip
    refused = shown(table, 2)
    assert (refused["Outcome"], refused["Downtime"], refused["Transferred"]) == ("refused", "", "")
    assert refused["Message"].startswith("Unsafe migration:")
    assert shown(table, 3)["During"] == "readback"
    assert table.rows[1][0].anchor == anchors(results)[1]
    chips = [row[3] for row in table.rows]
    assert {(chip.tone, chip.sign) for chip in chips} == {("clean", "\u2713"), ("refused", "/")}


def test_migration_sentence_counts_and_downtime() -> None:
    assert migration_sentence([migrated(), misread()]) == (
        "6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms."
    )
    slow = Result(misread().cell, None, Evidence(misread().cell, 1, "", migrations=(moved(1, downtime_ms=1240.0),)))
    assert migration_sentence([slow]) == "1 migration: 1 completed; downtime median 1.2 s, worst 1.2 s."
    failed = Evidence(slow.cell, 1, "", migrations=(moved(1, outcome=MigrationOutcome.FAILED),))
    assert migration_sentence([replace(slow, evidence=failed)]) == "1 migration: 1 failed."
    assert migration_sentence(everything()) == ""


def test_timelines_readback_migrations_listed_beside() -> None:
    results = [diverged(), migrated()]
    (one,) = timelines(results, anchors(results))
    assert one.drawing and one.anchor == anchors(results)[1]
    assert [len(lane.bars) for lane in one.drawing.lanes] == [2, 1]
    assert one.others == ("4: node-b \u2192 node-a completed, 2.50 s, downtime 400 ms (during the readback)",)


# --------------------------------------------------------------------------- durability in the guest


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


# --------------------------------------------------------------------------- alarms and replication profiles


def test_alarm_grid_counts_beside_cell_without_digest() -> None:
    results = alarm_cells()
    table = alarm_grid(results, anchors(results))
    assert table and len(table.rows) == 1
    row = shown(table)
    assert (row["Digest"], row["Protocol"]) == ("crc32c", "C")
    assert row["Writes noticed"] == "31 (sender 31, receiver 2)"
    assert (row["Drops"], row["Drops a minute"], row["Down"], row["Resynced"]) == (
        "14",
        "14.0",
        "12.0 s (20.0 %)",
        "40 MiB",
    )
    for part in (
        "after 12.5 s",
        "node-b: StandAlone",
        "5 differing blocks then",
        "changes of node-b discarded",
        "repaired",
    ):
        assert part in row["Split brain"], part
    assert row["At the end"] == "CLEAN 0"
    assert row["Same cell without digest"] == "DIVERGED 535"
    assert table.rows[0][-1].anchor == anchors(results)[1]


def test_alarm_grid_other_replication_not_compared() -> None:
    loud, plain = alarm_cells()
    other = Result(
        replace(plain.cell, replication=ReplicationProfile(protocol=Protocol.A)), plain.verdict, plain.evidence
    )
    assert "Same cell without digest" not in shown(alarm_grid([loud, other], ["x", "y"]))
    absent = Result(plain.cell, None, None)
    assert shown(alarm_grid([loud, absent], ["x", "y"]))["Same cell without digest"] == "not run"


def test_alarm_grid_drops_listed_silence_not() -> None:
    dropped = alarmed(ReplicationProfile(), Alarms(drops=3, down_seconds=2, watched_seconds=90))
    row = shown(alarm_grid([dropped], ["x"]))
    assert (row["Digest"], row["Drops a minute"], row["Writes noticed"]) == ("none", "2.0", "none")
    assert alarm_grid([alarmed(ReplicationProfile(), Alarms(watched_seconds=60)), migrated()], ["x", "y"]) is None
    blind = alarmed(ReplicationProfile(), Alarms(drops=3))
    assert shown(alarm_grid([blind], ["x"]))["Drops"] == "3"


def test_alarm_sentence_counts() -> None:
    quiet = alarmed(ReplicationProfile(integrity="sha1"), Alarms("sha1", watched_seconds=60))
    assert alarm_sentence([*alarm_cells(), quiet]) == (
        "DRBD noticed 31 writes that changed in flight in 1 of 2 cells; it lost its connection 14 times "
        "(12.0 s of 2 min 00 s); split brain in 1 cell."
    )
    assert alarm_sentence([quiet]) == "DRBD noticed no write that changed in flight."
    assert alarm_sentence(everything()) == ""


def test_replication_grid_only_with_several_profiles() -> None:
    results = sample()
    table = replication_grid(results, anchors(results))
    assert table
    rows = [[slot.text for slot in row] for row in table.rows]
    assert [row[:5] for row in rows] == [
        ["none-ext4-crash.node", "protocol C", "CLEAN", "0", "12 400"],
        ["", "protocol A", "CORRUPT", "0", "12 400"],
        ["none-inflight-modify", "protocol C", "DIVERGED", "535", "12 400"],
        ["", "protocol C, digest crc32c", "CLEAN", "0", "12 400"],
        ["", "protocol C, no scatter-gather", "not run", "", ""],
    ]
    assert table.columns[-1] == "Lost records" and [row[-1] for row in rows] == ["0", "13", "", "", ""]
    assert replication_grid([migrated(), misread()], ["x", "y"]) is None


# --------------------------------------------------------------------------- requested, described, map, headline


def test_requested_and_observed_replication_field_by_field() -> None:
    replication = ReplicationProfile(Protocol.A, "crc32c", True, False, True)
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, replication=replication)
    seen = evidence(cell, [], []).observed
    names = {"Protocol", "data-integrity-alg", "disable_sendpage of DRBD", "Scatter-gather of both NICs",
             "Two Primaries allowed"}  # fmt: skip

    def matches(got: ReplicationProfile | None) -> dict[str, Match]:
        return {
            row.name: row.match
            for row in requested_and_observed(cell, replace(seen, replication=got))
            if row.name in names
        }

    assert matches(None) == {}
    assert matches(replication) == dict.fromkeys(names, Match.SAME)
    assert matches(ReplicationProfile()) == dict.fromkeys(names, Match.DIFFERENT)
    assert matches(replace(replication, integrity="sha1"))["data-integrity-alg"] is Match.DIFFERENT


def test_describe_cell_all_parts() -> None:
    plain = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    assert describe(plain) == (
        "pressure on swap in a guest, cache=none, aio=threads, bus=virtio, 10 s of work, no delays"
    )
    moving = replace(
        plain,
        migrations=4,
        unsafe_migration=True,
        fault=Fault.STALL,
        replication=ReplicationProfile(Protocol.B, "sha1"),
    )
    assert describe(moving).endswith(
        ", protocol B, digest sha1, 4 live migrations of at most 60 s each, also where libvirt calls it unsafe, "
        "the migration gets too little bandwidth to end"
    )
    assert describe(replace(plain, crash=Crash.QEMU)).endswith(", QEMU is killed")
    host = replace(Cell("inflight-modify", ClientKind.HOST), delays=DelayProfile(20, 5))
    assert describe(host) == (
        "inflight-modify on the raw device on the node itself, 10 s of work, delays: link 20 ms and disk 5 ms"
    )


@pytest.mark.parametrize("crash", Crash)
@pytest.mark.parametrize("fault", Fault)
def test_describe_every_crash_and_fault_text(crash: Crash, fault: Fault) -> None:
    text = {describe(Cell("w", crash=what)) for what in (None, crash)} | {describe(Cell("w", fault=fault))}
    assert len(text) == 3


def test_describe_every_replication_distinct() -> None:
    profiles = [
        ReplicationProfile(),
        ReplicationProfile(Protocol.A),
        ReplicationProfile(Protocol.B),
        ReplicationProfile(integrity="x"),
        ReplicationProfile(disable_sendpage=True),
        ReplicationProfile(scatter_gather=False),
        ReplicationProfile(two_primaries=True),
    ]
    assert len({str(replication) for replication in profiles}) == len(profiles)


def test_figures_corrupt_each_loss_counted() -> None:
    assert figures(misread()) == "3 records lost, 2 records wrong in memory, 3 blocks read differently"
    lost = crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 1})
    assert figures(lost) == "1 record lost"
    bare = Result(lost.cell, verdict(VerdictKind.CORRUPT, "Wrong."), None)
    assert figures(bare) == "wrong data read back"


def test_figures_refused_migration_or_attach() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITEBACK, migrations=1)
    found = Evidence(cell, 1, "", migrations=(moved(1, outcome=MigrationOutcome.REFUSED),))
    no = Verdict(VerdictKind.REFUSED, "libvirt would not.")
    assert figures(Result(cell, no, found)) == "1 migration"
    failure = Failure("refused", "attach", "no")
    assert figures(Result(cell, no, replace(found, failure=failure))) == "during attach"
    assert figures(Result(cell, no, Evidence(cell, 1, ""))) == "no answer"


def test_headline_lost_records_no_replica_difference() -> None:
    lost = crashed(Crash.NODE, CacheMode.UNSAFE, Protocol.C, {"fsync": 4})
    text = headline([lost, migrated()])
    assert text.answer is Answer.NO and "replicas differ" not in text.sentence
    assert "With cache=unsafe data went wrong in 1 of 2 cells." in text.sentence
    both = headline([lost, diverged()]).sentence
    assert "With cache=none the replicas differ in 1 of 2 cells; 930 differing blocks: 930 free" in both
    assert "With cache=unsafe the guest lost data or read back something else than it wrote, in 1 cell." in both


# --------------------------------------------------------------------------- the page


def test_page_with_disturbances_well_formed_links_resolve(page: str) -> None:
    anchored = set(nodes(page, "//@id"))
    assert len(anchored) == len(sample())
    links = set(nodes(page, "//a[starts-with(@href, '#')]/@href"))
    assert links and links <= {f"#{anchor}" for anchor in anchored}
    assert not nodes(page, "//script | //@src") and "<script" not in page and "\x1b" not in page


def test_page_with_disturbances_has_sections(page: str) -> None:
    text = text_of(page)
    for expected in (
        "Live migrations 6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms.",
        "All migrations (6)",
        "Durability in the guest The guest lost 16 acknowledged records",
        "Acknowledged and lost in a crash",
        "13 of 2 104 (12 fsync and 1 direct)",
        "DRBD's own alarms DRBD noticed 31 writes",
        "DIVERGED 535",
        "protocol C, no scatter-gather",
        "Unsafe migration: <script>alert('x')</script>",
    ):
        assert expected in text, expected


def test_page_without_disturbances_no_sections() -> None:
    text = text_of(render_html(run_of(everything()), everything()))
    for absent in ("Live migrations", "Durability in the guest", "DRBD's own alarms", "Replication profiles"):
        assert absent not in text, absent


def test_page_timeline_has_text(page: str) -> None:
    drawings = nodes(page, "//main/section/div[@class='scroll']/svg[@class='timeline']")
    assert len(drawings) == 2
    first = drawings[0]
    assert first.get("role") == "img" and first.get("aria-label").startswith("Work of 60.4 s. Migrations 1: node-a")
    assert len(first.xpath(".//g")) == 3 and len(first.xpath(".//g[contains(@class, 'incomplete')]")) == 1
    assert len(first.xpath(".//rect[@class='down']")) == 2 and len(first.xpath("./rect[@class='work']")) == 1
    assert [title.split(":")[0] for title in first.xpath(".//g/title/text()")] == ["1", "3", "2"]
    shares = [float(value.rstrip("%")) for value in first.xpath(".//rect/@x | .//rect/@width")]
    assert shares and all(0 <= share <= 100 for share in shares)


def test_page_wide_tables_scroll(page: str) -> None:
    tables = nodes(page, "//table[contains(@class, 'figures')]")
    assert len(tables) >= 5
    assert all(table.getparent().get("class") == "scroll" and table.getparent().get("aria-label") for table in tables)


def test_page_many_migrations_folded() -> None:
    result = migrated()
    assert result.evidence
    many = tuple(moved(number) for number in range(1, 60))
    page = render_html(run_of([]), [replace(result, evidence=replace(result.evidence, migrations=many))])
    folded = "//details[starts-with(summary, 'All migrations')]"
    assert nodes(page, f"{folded}[not(@open)]")
    assert nodes(render_html(run_of([]), [result]), f"{folded}[@open]")


# --------------------------------------------------------------------------- the evidence of one cell


def test_evidence_view_migrations_and_event_log() -> None:
    fragment = evidence_html(migrated())
    text = text_of(fragment)
    for expected in (
        "Event log: what was done on purpose somebody did <script>",
        "Errors on the guest's console EXT4-fs error <script>",
        "Two read-backs Read 32 768 blocks (128 MiB) on node-a, then on node-b Result equal",
        "Lost of acknowledged, fsync 0 of 1 204",
        "Canary process ran to the end",
        "4: node-b \u2192 node-a completed",
    ):
        assert expected in text, expected
    wrapped = f"<div>{fragment}</div>"
    assert len(nodes(wrapped, "//svg[@class='timeline']")) == 1
    assert not nodes(wrapped, "//a[starts-with(@href, '#')]") and "<script" not in fragment


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


def test_evidence_view_crash_and_alarms() -> None:
    text = text_of(evidence_html(crashed(Crash.NODE, CacheMode.NONE, Protocol.A, {"fsync": 12})))
    for expected in (
        "Crash recovery Crash the Primary loses its power, 5.10 s into the work",
        "Peer promoted 1.25 s after the crash",
        "Differing blocks at the crash 17 blocks (68 KiB)",
        "fsck clean",
        "Canary process died before the end",
    ):
        assert expected in text, expected
    text = text_of(evidence_html(alarm_cells()[0]))
    for expected in (
        "Writes noticed 31 (sender 31, receiver 2)",
        "Connection lost 14 times",
        "Split brain 12.5 s after the first failure",
        "node-b reported StandAlone",
        "Writes that the sender saw changed (31), in sectors",
        "11 more",
    ):
        assert expected in text, expected


def test_evidence_view_without_disturbances_no_rows() -> None:
    text = text_of(evidence_html(diverged()))
    for absent in ("Migrations", "Two read-backs", "canary", "Crash recovery", "alarms", "on purpose", "console"):
        assert absent not in text, absent


# --------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("width", [60, 80, 200])
def test_terminal_any_width_one_line_per_disturbance(width: int) -> None:
    text = terminal(sample(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    for expected in (
        "6 migrations: 5 completed, 1 refused; downtime median 200 ms, worst 400 ms.",
        "The guest lost 16 acknowledged records",
        "DRBD noticed 31 writes that changed in flight in 1 of 1 cell",
    ):
        assert flat.index(expected) < flat.index("Controls held"), expected
    assert "Disturbances and alarms" not in terminal(everything(), width)
