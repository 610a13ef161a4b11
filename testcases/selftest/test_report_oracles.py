"""What the report says of a cell: what each oracle found, what was requested and observed, and where blocks differ."""

from __future__ import annotations

from dataclasses import replace

from reported_results import BLOCKS, SWAP_NONE, diverged, evidence

from harness.model import CacheMode, Cell, DelayProfile, FilesystemKind, NodeSettings, Observed, ReplicationProfile
from harness.report.block_map import block_map
from harness.report.oracles import Agreement, oracles
from harness.report.requested_vs_observed import Match, requested_and_observed


def test_oracles_each_agreement_sentence() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
    same = evidence(cell, [1, 2, 9], [1, 2, 9])
    assert oracles(same).agreement is Agreement.AGREE
    assert [answer.blocks for answer in oracles(same).answers] == [3, 3, 3, 3]
    assert oracles(evidence(cell, [1, 2, 9], [1])).agreement is Agreement.HEALED
    assert oracles(evidence(cell, [1, 2, 9], [1], counter_kib=4)).agreement is Agreement.DISAGREE
    assert oracles(evidence(cell, [1, 2, 9], [1, 2, 10])).agreement is Agreement.DISAGREE
    assert oracles(replace(same, counter_kib=8)).agreement is Agreement.DISAGREE
    assert oracles(replace(same, comparison=None)).agreement is Agreement.INCOMPLETE
    assert same.verify
    skipped = replace(same.verify, skipped_blocks=4)
    assert oracles(replace(same, verify=skipped)).agreement is Agreement.INCOMPLETE
    one_sided = replace(same.verify, target=replace(same.verify.target, extents=()))
    assert oracles(replace(same, verify=one_sided)).agreement is Agreement.DISAGREE
    unfinished = replace(same.verify, source=replace(same.verify.source, finished=False))
    assert oracles(replace(same, verify=unfinished)).agreement is Agreement.INCOMPLETE


def test_requested_and_observed_notes_what_each_node_has() -> None:
    plain = ReplicationProfile()
    nodes = {"nodea": NodeSettings(plain, "repl0", True, True), "nodeb": NodeSettings(plain, "repl1")}
    rows = {row.name: row.observed for row in requested_and_observed(Cell("x"), Observed(nodes=nodes))}
    assert rows["Scatter-gather of nodea's replication NIC (repl0)"] == "on"
    assert rows["stable_writes of DRBD on nodea"] == "on"
    assert not any("nodeb" in name for name in rows), "what was not read has no row"


def test_requested_and_observed_mismatch_different() -> None:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(link_delay_ms=20))
    good = evidence(cell, [], []).observed
    assert {row.match for row in requested_and_observed(cell, good)} == {Match.SAME, Match.NOTED}
    bad = replace(good, o_direct=False, qemu_cache={"direct": False, "no_flush": True}, link_delay_ms=0, qemu_aio=None)
    found = {row.name: row.match for row in requested_and_observed(cell, bad)}
    different = {name for name, match in found.items() if match is Match.DIFFERENT}
    assert different == {"O_DIRECT on the disk", "QEMU cache.direct", "QEMU cache.no-flush", "Link delay"}
    assert found["aio"] is Match.UNREAD


def test_block_map_bars_where_blocks_are() -> None:
    found = diverged().evidence
    assert found
    drawn = block_map(found)
    assert drawn and [lane.name for lane in drawn.lanes] == ["comparison", "verify"]
    first, *_, last = drawn.lanes[0].bars
    assert first.x == 2048 * drawn.bins // BLOCKS
    assert last.x + last.width == 20029 * drawn.bins // BLOCKS + 1
    assert block_map(replace(found, comparison=None, verify=None)) is None
    full = block_map(evidence(SWAP_NONE, [0, 1, 2], [0, 1, 2], device_blocks=3))
    assert full and [(bar.x, bar.width, bar.weight) for bar in full.lanes[0].bars] == [(0, 3, 1.0)]
