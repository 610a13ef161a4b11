"""The report on DRBD's own alarms, and on the same cell with several replication profiles."""

from __future__ import annotations

from dataclasses import replace

from disturbed_results import alarm_cells, alarmed, migrated, misread, sample, shown
from reported_results import everything, evidence

from harness.model import Alarms, CacheMode, Cell, FilesystemKind, Protocol, ReplicationProfile, Result
from harness.report.alarms import alarm_grid, alarm_sentence, replication_grid
from harness.report.cells import anchors
from harness.report.requested_vs_observed import Match, requested_and_observed


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
