"""The witness: what its program prints, the program itself through a runner, and how it is compiled."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from fake_lab import FakeNode
from fake_story import Story
from hypothesis import given
from hypothesis import strategies as st

from harness.config import recipe
from harness.drbd import witness
from harness.drbd.witness import WitnessProgram
from harness.errors import DeadlineError, InfrastructureError
from harness.images import programs
from harness.lab.node import Node
from harness.model import Cell, Comparison, Evidence, Extent, Result, Witness, blocks_of, extents_of
from harness.parse.witness import Start, parse_report, parse_start, total
from harness.report.summary import summarize
from harness.report.witness import REASONS, witness_rows
from harness.util.deadline import Deadline

RECORDINGS = Path(__file__).parent / "recordings"
READY = "ready drbd_request_prepare complete_master_bio 1.25"
NOTHING = {"too_long": 0, "unreadable": 0, "no_room": 0, "begin_unseen": 0, "end_unseen": 0, "in_flight": 0}


def report(changed: list[list[int]] | None = None, **counts: Any) -> str:
    """A report with ``changed`` blocks, as it is printed."""
    extents = changed or []
    found = {
        "begin": "drbd_request_prepare", "end": "complete_master_bio", "writes": 0, "bytes": 0, "block_writes": 0,
        "changed_writes": 0, "changed_block_writes": 0, "changed": extents,
        "changed_blocks": sum(one[-1] for one in extents), "not_watched": NOTHING,
    }  # fmt: skip
    return json.dumps({**found, **counts})


def listed(blocks: set[int]) -> list[list[int]]:
    """``blocks`` as a report lists them."""
    return [[one.start // 8, one.size // 8] for one in extents_of(blocks)]


# --------------------------------------------------------------------------- what is printed


def test_parse_start_ready_hooks_and_seconds() -> None:
    assert parse_start(READY) == Start(("drbd_request_prepare", "complete_master_bio"), 1.25)


def test_parse_start_unwatched_reason() -> None:
    assert parse_start("unwatched this kernel has no BTF (x): so") == Start(reason="this kernel has no BTF (x): so")


@pytest.mark.parametrize(
    "line", ["", "pid 12", "ready", "ready one 1.0", "ready a b soon", "unwatched ", " " + READY, "{}"]
)
def test_parse_start_other_lines_none(line: str) -> None:
    assert parse_start(line) is None


def test_parse_report_counts_and_extents() -> None:
    line = report([[3, 2], [90, 1]], writes=7, bytes=36864, block_writes=9, changed_writes=2, changed_block_writes=4)
    assert parse_report(line, "nodea") == Witness(
        watched=True, nodes=("nodea",), hooks=("drbd_request_prepare", "complete_master_bio"), writes=7, bytes=36864,
        block_writes=9, changed_writes=2, changed_block_writes=4, changed_blocks=3,
        changed=(Extent(24, 16), Extent(720, 8)), not_watched=NOTHING,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no report of the witness"),
        ("[]", "no report of the witness"),
        ("12", "no report of the witness"),
        ('{"writes": 1', "no report of the witness"),
        (report(writes=-1), "-1 is no count"),
        (report(writes=True), "True is no count"),
        (report(bytes="4096"), "'4096' is no count"),
        (report([[1, 0]]), "an extent of no blocks"),
        (report([[1]]), "no report of the witness"),
        (report([[5, 1], [1, 1]]), "out of order"),
        (report([[1, 2], [3, 1]]), "out of order"),
        (report([[1, 2]], changed_blocks=1), "more changed blocks than it counts"),
        (report(not_watched=[]), "no report of the witness"),
        (report(not_watched={"too_long": None}), "None is no count"),
    ],
)
def test_parse_report_damaged_value_error(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_report(line, "nodea")


@given(st.sets(st.integers(0, 400)), st.dictionaries(st.sampled_from(sorted(NOTHING)), st.integers(0, 9)))
def test_parse_report_any_blocks_come_back(blocks: set[int], missed: dict[str, int]) -> None:
    found = parse_report(report(listed(blocks), not_watched=missed), "nodea")
    assert blocks_of(found.changed) == blocks and found.changed_blocks == len(blocks)
    assert found.total_not_watched == sum(missed.values())


@given(st.text())
def test_parse_report_any_text_value_error_or_witness(text: str) -> None:
    try:
        parse_report(text, "nodea")
    except ValueError:
        return
    raise AssertionError("text that no program printed was taken for a report")


@pytest.mark.parametrize(
    ("recording", "block_writes", "changed", "distinct"),
    [
        ("drbd-8.4.11-linux-6.12/witness-none-swap-reclaim-link20ms", 14113, 44, 44),
        ("drbd-8.4.11-linux-6.12/witness-none-ext4-truncate-link20ms", 15006, 7572, 4089),
        ("drbd-8.4.11-linux-6.12/witness-none-ext4-buffered-link20ms", 1589, 0, 0),
        ("drbd-8.4.11-linux-6.12/witness-writeback-swap-reclaim-link20ms", 11, 0, 0),
        ("drbd-8.4.11-linux-6.12/witness-host-inflight-modify", 11792, 10007, 7427),
        ("drbd-9.3.3-linux-6.12/witness-none-swap-reclaim-link20ms", 183, 152, 152),
        ("drbd-9.3.3-linux-6.12/witness-host-inflight-modify", 8640, 7939, 6194),
        ("drbd-9.3.3-linux-6.12/witness-host-steady", 24080, 0, 0),
    ],
)
def test_parse_recorded_runs_counts(recording: str, block_writes: int, changed: int, distinct: int) -> None:
    pid, start, line = (RECORDINGS / f"{recording}.txt").read_text().splitlines()
    began, found = parse_start(start), parse_report(line, "nodea")
    assert pid.startswith("pid ") and began is not None and began.hooks == found.hooks and began.seconds > 0
    assert (found.block_writes, found.changed_block_writes, found.changed_blocks) == (block_writes, changed, distinct)
    # What it lists is what it counts, and all of it is on the device of 128 MiB.
    assert len(blocks_of(found.changed)) == distinct and max(blocks_of(found.changed), default=0) < 32768
    assert found.total_not_watched == 0 and found.bytes >= found.writes * 512


# --------------------------------------------------------------------------- several nodes


def test_total_two_nodes_added_and_distinct_blocks_counted_once() -> None:
    a = parse_report(report([[1, 3]], writes=5, block_writes=6, not_watched={"no_room": 1}), "nodea")
    b = parse_report(report([[3, 2]], writes=2, block_writes=2, not_watched={"no_room": 2, "in_flight": 1}), "nodeb")
    found = total([a, b])
    assert found.watched and found.reason == "" and found.nodes == ("nodea", "nodeb")
    assert (found.writes, found.block_writes, found.changed_blocks) == (7, 8, 4)
    assert blocks_of(found.changed) == {1, 2, 3, 4}
    assert found.not_watched == {"no_room": 3, "in_flight": 1}
    assert found.hooks == ("drbd_request_prepare", "complete_master_bio")


def test_total_list_cut_off_longest_count_is_kept() -> None:
    cut = parse_report(report([[1, 1]], changed_blocks=900), "nodea")
    assert total([cut]).changed_blocks == 900


def test_total_missing_node_is_not_watched_and_counts_stay() -> None:
    found = total([parse_report(report(writes=5), "nodeb")], ["nodea lost its power"])
    assert not found.watched and found.writes == 5 and found.reason == "nodea lost its power"


def test_total_nobody_watched_no_counts() -> None:
    assert total([], ["nodea: no BTF"]) == Witness(watched=False, reason="nodea: no BTF")
    assert not total([]).watched


@given(st.lists(st.tuples(st.sets(st.integers(0, 60)), st.integers(0, 9)), min_size=1, max_size=3))
def test_total_any_reports_never_less_than_one_of_them(parts: list[tuple[set[int], int]]) -> None:
    reports = [parse_report(report(listed(blocks), writes=writes), "nodea") for blocks, writes in parts]
    found = total(reports)
    assert found.writes == sum(writes for _, writes in parts)
    assert blocks_of(found.changed) == set().union(*(blocks for blocks, _ in parts))
    assert all(found.changed_blocks >= one.changed_blocks for one in reports)


# --------------------------------------------------------------------------- the program on a node


def started(start: str = READY, ends_with: str = "") -> tuple[FakeNode, WitnessProgram]:
    node = FakeNode(Story(), "nodea")
    node.runner.witness, node.runner.report = start, ends_with
    return node, WitnessProgram(cast(Node, node), 3)


def test_witness_program_start_names_minor_and_waits() -> None:
    node, program = started()
    program.wait_ready(Deadline.after(5, "the witness"))
    (argv,) = node.runner.ran
    assert argv[3:] == (witness.PROGRAM, "--minor", "3")


def test_witness_program_read_stops_it_and_counts() -> None:
    node, program = started(ends_with=report([[4, 1]], writes=9))
    program.wait_ready(Deadline.after(5, "the witness"))
    found = program.read(Deadline.after(5, "the report"))
    assert (found.writes, found.changed, found.attach_seconds) == (9, (Extent(32, 8),), 1.25)
    assert node.runner.ran[-1] == ("kill", "-TERM", "77")
    assert program.printed() == f"pid 77\n{READY}\n{report([[4, 1]], writes=9)}\n"


def test_witness_program_cannot_watch_its_reason() -> None:
    _, program = started("unwatched this kernel has no bpf_loop, which came with Linux 5.17")
    with pytest.raises(InfrastructureError, match=r"^not watched: this kernel has no bpf_loop, which"):
        program.wait_ready(Deadline.after(5, "the witness"))


def test_witness_program_late_is_stopped() -> None:
    node, program = started("loading")
    with pytest.raises(DeadlineError):
        program.wait_ready(Deadline.after(0.1, "the witness"))
    assert node.runner.ran[-1] == ("kill", "-TERM", "77")


def test_witness_program_unreadable_report_infrastructure_error() -> None:
    _, program = started(ends_with='{"writes": "many"}')
    program.wait_ready(Deadline.after(5, "the witness"))
    with pytest.raises(InfrastructureError, match="no report of the witness"):
        program.read(Deadline.after(5, "the report"))


def test_witness_program_silent_deadline_error() -> None:
    _, program = started()
    program.wait_ready(Deadline.after(5, "the witness"))
    with pytest.raises(DeadlineError):
        program.read(Deadline.after(0.1, "the report"))


# --------------------------------------------------------------------------- its sources


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := [tool for tool in ("gcc", "clang", "pkg-config") if not shutil.which(tool)]:
        pytest.skip(f"there is no {missing[0]}")
    if not Path("/usr/include/bpf/bpf_helpers.h").is_file():
        pytest.skip("there is no libbpf to build with")
    source = recipe.recipes_directory() / "src"
    folder = tmp_path_factory.mktemp("witness")
    return programs.compile_program(source / "witness.c", folder, source / "witness.bpf.c")


def test_witness_source_wrong_arguments_usage(binary: Path) -> None:
    for argv in ([], ["--minor"], ["--minor", "many"], ["--minor", "0", "0"], ["--minor", "0", "--writes", "0"]):
        done = subprocess.run([binary, *argv], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (2, ""), argv
        assert done.stderr.splitlines()[-1] == "usage: witness --minor N [--writes N] [--hooks drbd|block]"


def test_witness_source_no_device_says_so(binary: Path) -> None:
    done = subprocess.run([binary, "--minor", "1048575"], capture_output=True, text=True, check=False, timeout=60)
    start = parse_start(done.stdout.rstrip("\n"))
    assert done.returncode == 1 and start is not None
    assert start.reason.startswith("there is no device drbd1048575 here")


# What libbpf 1.1.2 said of the program of before on Linux 7.3.4, shortened in the middle of the verifier's log.
_SAID_ON_7_3 = """\
    W("prog '%s': BPF program load failed: %s\\n", "begins_in_block_layer", "Invalid argument");
    W("prog '%s': -- BEGIN PROG LOAD LOG --\\n%s-- END PROG LOAD LOG --\\n", "begins_in_block_layer",
      "123: <invalid CO-RE relocation>\\nfailed to resolve CO-RE relocation <byte_off> "
      "[39] struct bio.bi_iter.bi_bvec_done (0:2:3 @ offset 32)\\nprocessed 119 insns (limit 1000000)\\n");
    W("prog '%s': failed to load: %d\\n", "begins_in_block_layer", -22);
    W("failed to load object '%s'\\n", "4db008-10090");
"""
_KEEPER = """\
#define _GNU_SOURCE
#include "witness_said.h"
static void W(const char *format, ...)
{{
    va_list arguments;
    va_start(arguments, format);
    keep_message(LIBBPF_WARN, format, arguments);
    va_end(arguments);
}}
int main(void)
{{
{messages}    unwatched("%s", said);
}}
"""


@pytest.mark.parametrize(
    ("messages", "kept"),
    [
        (
            _SAID_ON_7_3,
            "failed to resolve CO-RE relocation <byte_off> [39] struct bio.bi_iter.bi_bvec_done (0:2:3 @ offset 32)",
        ),
        ('    W("first\\n");\n    W("failed to load object \'%s\'\\n", "x");\n', "failed to load object 'x'"),
    ],
)
def test_witness_source_keeps_the_member_that_a_kernel_lacks(
    binary: Path, tmp_path: Path, messages: str, kept: str
) -> None:
    assert binary.is_file(), "libbpf is there"
    (tmp_path / "said.c").write_text(_KEEPER.format(messages=messages))
    include = recipe.recipes_directory() / "src"
    subprocess.run(["gcc", "-I", include, "-o", tmp_path / "said", tmp_path / "said.c"], check=True)
    done = subprocess.run([tmp_path / "said"], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == f"unwatched {kept}\n"


# --------------------------------------------------------------------------- on a cell's page


def rows_of(seen: Witness | None, differing: frozenset[int] = frozenset()) -> dict[str, str]:
    comparison = Comparison(32768, extents_of(differing), 0.1, "here")
    evidence = Evidence(Cell("truncate"), 1, "2026-11-24T01:00:00Z", witness=seen, comparison=comparison)
    return dict(witness_rows(evidence))


def test_witness_rows_changed_of_watched_and_what_stayed() -> None:
    line = report([[4, 2], [9, 1]], writes=900, block_writes=1000, changed_block_writes=5)
    rows = rows_of(total([parse_report(line, "nodea")]), frozenset({4, 9, 77}))
    assert rows["Changed in flight"] == "5 of 1 000 block writes (0.5 %), in 3 blocks of the device"
    assert rows["Of those, different at the end"] == "2 of 3"
    assert rows["Watched at"] == "drbd_request_prepare to complete_master_bio on nodea"
    assert rows["Not watched"] == ""


def test_witness_rows_not_watched_by_reason() -> None:
    rows = rows_of(parse_report(report(not_watched={**NOTHING, "no_room": 2, "in_flight": 1, "other": 1}), "nodea"))
    assert rows["Not watched"] == "4 writes: 2 more in flight than could be kept, 1 not completed yet, 1 other"
    assert rows["Changed in flight"] == "0 of 0 block writes, in 0 blocks of the device"


def test_witness_rows_no_witness_reason_or_nothing() -> None:
    assert rows_of(None) == {}
    assert rows_of(total([], ["nodea: no BTF"])) == {"Changed in flight": "not fully watched: nodea: no BTF"}


def summary_of(*seen: Witness | None) -> str:
    results = []
    for one in seen:
        comparison = Comparison(9, (), 0.1, "here")
        evidence = Evidence(Cell("truncate"), 1, "2026-11-24T01:00:00Z", witness=one, comparison=comparison)
        results.append(Result(evidence.cell, None, evidence))
    return summarize(results).oracles


def test_summary_says_why_the_witness_watched_no_write() -> None:
    blind = total([], ["nodea: not watched: this kernel has no bpf_loop, which came with Linux 5.17"])
    said = "The witness watched no write of this run: nodea: this kernel has no bpf_loop, which came with Linux 5.17."
    assert summary_of(blind, None, blind).endswith(said)
    assert "witness" not in summary_of(blind, total([parse_report(report(), "nodea")]))
    assert "witness" not in summary_of(None)


def test_witness_rows_part_of_it_counts_too() -> None:
    evidence = Evidence(Cell("truncate"), 1, "", witness=total([parse_report(report(), "nodeb")], ["nodea was lost"]))
    assert [value for name, value in witness_rows(evidence) if name == "Changed in flight"] == [
        "not fully watched: nodea was lost", "0 of 0 block writes, in 0 blocks of the device",
    ]  # fmt: skip


def test_witness_rows_each_reason_of_the_program_has_words() -> None:
    assert set(NOTHING) == set(REASONS)
    source = (recipe.recipes_directory() / "src" / "witness.c").read_text()
    assert all(f'"{name}"' in source or f'\\"{name}\\"' in source for name in REASONS)
