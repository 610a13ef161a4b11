"""What only DRBD 9 has: its options are asked for where they are known, refused in a sentence elsewhere, read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged_evidence import HELD, SWAP, evidence, observed, oracles

from harness.drbd import replication
from harness.drbd.dialect import Drbd9, Drbd84, options_of_9
from harness.drbd.resource import Resource
from harness.errors import RefusedError
from harness.judgement.judge import judge
from harness.judgement.oracles import combine
from harness.model import (
    BITMAP_BLOCK_SIZES,
    BLOCK_BYTES,
    Evidence,
    Quorum,
    ReplicationProfile,
    Transport,
    VerdictKind,
    Verify,
)
from harness.parse.alarms import drops, link_history
from harness.parse.drbd_show import profile_of
from harness.parse.drbd_status import parse_status_json
from harness.parse.kernel_log import (
    KernelLine,
    bears_on_oracles,
    became_standalone,
    error_lines,
    last_verify,
    parse_dmesg,
    resyncs_kib,
    split_brain,
    verify_of,
)
from harness.remote.scripted import ScriptedRunner
from harness.render.drbd_conf import ResourceNode, ResourceSpec, replicating

RECORDED = Path(__file__).parent / "recordings" / "drbd-9.3.3-linux-6.12"
SPEC = ResourceSpec(nodes=tuple(ResourceNode(name, "192.0.2.1", "/dev/vdb") for name in ("nodea", "nodeb")))
EACH = [
    (ReplicationProfile(transport=Transport.LB_TCP), "transport", "lb-tcp"),
    (ReplicationProfile(tls=True), "tls", "yes"),
    (ReplicationProfile(quorum=Quorum.MAJORITY), "quorum", "majority"),
    (ReplicationProfile(auto_promote=False), "auto-promote", "no"),
    (ReplicationProfile(bitmap_block_size="64k"), "bitmap-block-size", "64k"),
]


def resource(version: str, help_of_b: str = "") -> Resource:
    """Over two nodes whose drbd-utils print the help that was recorded, on ``nodeb`` with more in it."""
    known = (RECORDED / "help-drbd-utils-9.22.txt").read_text()
    nodes = [
        SimpleNamespace(
            name=name, guard=None, runner=ScriptedRunner(lambda argv, more=more: (0, f"9.22.0\n{known}{more}", ""))
        )
        for name, more in (("nodea", help_of_b), ("nodeb", help_of_b))
    ]
    made = SimpleNamespace(
        a=nodes[0], b=nodes[1], version=version, spec=SPEC, dialect=Drbd84() if version < "9" else Drbd9(),
        replication=ReplicationProfile(),
    )  # fmt: skip
    return cast(Resource, cast(Any, made))


@pytest.mark.parametrize(("profile", "option", "value"), EACH)
def test_drbd_84_has_none_of_it_and_says_so(profile: ReplicationProfile, option: str, value: str) -> None:
    with pytest.raises(RefusedError) as caught:
        replication.apply(resource("8.4.11"), profile)
    assert str(caught.value) == f"DRBD 8.4.11 refused: it has no {option} {value}: DRBD 9 has"


@pytest.mark.parametrize(("profile", "option", "value"), EACH)
def test_drbd_utils_of_debian_are_asked_before_anything_is_changed(
    profile: ReplicationProfile, option: str, value: str
) -> None:
    assert options_of_9(profile) == {option: value}
    why = replication.knows(resource("9.3.3"), profile)
    known = option in ("transport", "quorum", "auto-promote")
    assert why == ("" if known else f"the drbd-utils 9.22.0 of nodea: they do not know {option}")
    newer = resource("9.3.3", "[--tls={yes|no}] [--bitmap-block-size {val}]")
    assert replication.knows(newer, profile) == ""


def test_bitmap_of_other_blocks_is_not_known_before_9_3() -> None:
    profile = ReplicationProfile(bitmap_block_size="64k")
    assert "as all before 9.3" in replication.knows(resource("9.2.18", "--bitmap-block-size"), profile)
    assert replication.bitmap_for(resource("9.2.18", "--bitmap-block-size"), profile) == "4k"
    knowing = resource("9.3.3", "--bitmap-block-size")
    assert replication.bitmap_for(knowing, profile) == "64k"
    knowing.b.guard = cast(Any, "whoever guards the storage of a real machine")
    assert replication.bitmap_for(knowing, profile) == "4k"
    with pytest.raises(RefusedError, match="r0 refused: its metadata has a bitmap of 4k blocks, not 64k"):
        replication.apply(resource("9.10.0", "--bitmap-block-size"), profile)
    assert Drbd9().create_metadata(replace(SPEC, bitmap_block_size="64k"))[-1] == "--bitmap-block-size=64k"
    assert Drbd9().create_metadata(SPEC) == Drbd84().create_metadata(SPEC) == ("create-md", "--force")


def test_plain_profile_asks_nobody() -> None:
    asked = resource("8.4.11")
    assert replication.knows(asked, ReplicationProfile(integrity="crc32c")) == ""
    assert cast(ScriptedRunner, cast(Any, asked.a.runner)).ran == []


def test_resource_file_has_the_options_where_they_belong() -> None:
    profile = ReplicationProfile(transport=Transport.LB_TCP, quorum=Quorum.MAJORITY, auto_promote=False)
    text = Drbd9().resource_file(replicating(SPEC, (), profile))
    net, options = text.split("net {")[1].split("}")[0], text.split("options {")[1].split("}")[0]
    assert "transport lb-tcp;" in net
    assert [line.strip() for line in options.strip().splitlines()] == ["quorum majority;", "auto-promote no;"]
    assert "options {" not in Drbd9().resource_file(replicating(SPEC, (), ReplicationProfile()))


# --------------------------------------------------------------------------- read back


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("show-defaults.txt", ReplicationProfile()),
        ("show-lb-tcp.txt", ReplicationProfile(transport=Transport.LB_TCP)),
        ("show-quorum.txt", ReplicationProfile(quorum=Quorum.MAJORITY)),
    ],
)
def test_recorded_show_is_the_profile_in_force(name: str, profile: ReplicationProfile) -> None:
    assert profile_of((RECORDED / name).read_text(), "N", True) == profile


@given(st.sampled_from(BITMAP_BLOCK_SIZES), st.integers(300, 10**9))
def test_bitmap_block_size_is_read_from_what_the_kernel_logged(size: str, blocks: int) -> None:
    a_bit = ReplicationProfile(bitmap_block_size=size).bitmap_block_kib * 1024 // BLOCK_BYTES
    if blocks < 8 * a_bit:
        blocks *= a_bit
    line = f"[  7.1] drbd r0/0 drbd0: resync bitmap: bits={-(-blocks // a_bit)} bits_4k={blocks} words=1 pages=1"
    assert profile_of("resource r0 {\n}\n", "N", True, line).bitmap_block_size == size


# --------------------------------------------------------------------------- what a verify marks


def marked(size: str, *differing: int) -> Evidence:
    """A cell in which these blocks differ and a verify marks whole bits."""
    profile = ReplicationProfile(bitmap_block_size=size)
    a_bit = profile.bitmap_block_kib * 1024 // BLOCK_BYTES
    bits = {block // a_bit for block in differing}
    whole = {block for bit in bits for block in range(bit * a_bit, (bit + 1) * a_bit)}
    cell = replace(SWAP, replication=profile)
    seen = replace(observed(cell), replication=profile)
    return evidence(cell, observed=seen, **oracles(whole, {*differing}))


@given(st.sampled_from(BITMAP_BLOCK_SIZES), st.sets(st.integers(0, 5000), min_size=1, max_size=20))
def test_bits_that_are_for_more_than_a_block_agree_with_the_comparison(size: str, blocks: set[int]) -> None:
    agreed = combine(marked(size, *sorted(blocks)))
    assert agreed.dispute is None and agreed.healed == 0 and agreed.differing == frozenset(blocks)
    other = combine(replace(marked(size, *sorted(blocks)), counter_kib=0))
    assert other.dispute is not None


def test_bits_that_are_for_more_than_a_block_are_no_healed_blocks() -> None:
    verdict = judge(marked("64k", 5, 6, 700), HELD)
    assert verdict.kind is VerdictKind.DIVERGED and verdict.sentence.startswith("3 blocks differ")
    assert not [reason for reason in verdict.reasons if "equal again" in reason]


# --------------------------------------------------------------------------- recorded with DRBD 9.3.3


def recorded(name: str) -> tuple[KernelLine, ...]:
    return parse_dmesg((RECORDED / name).read_text())


def test_verify_with_skipped_blocks_is_no_answer() -> None:
    source, target = recorded("dmesg-verify-skipped-source.txt"), recorded("dmesg-verify-skipped-target.txt")
    assert [last_verify(log, 0).skipped_blocks for log in (source, target)] == [49, 49]
    sides = [verify_of(log, name, 0) for log, name in ((source, "nodea"), (target, "nodeb"))]
    verify = Verify(sides[0], sides[1], 206.0, 49)
    assert verify.complete and not sides[0].extents
    said = judge(evidence(verify=verify), HELD)
    assert (said.kind, said.sentence) == (VerdictKind.INCONCLUSIVE, "the verify skipped 49 busy blocks")


def test_verify_of_which_only_the_single_lines_tell_what_was_skipped_is_no_answer_either() -> None:
    lines = recorded("dmesg-verify-skipped-source.txt")
    told = [replace(line, text=line.text.replace(" but 49 4k blocks skipped", "")) for line in lines]
    assert last_verify(told, 0).skipped_blocks == 49
    assert last_verify([line for line in told if "Starting" not in line.text], 0).skipped_blocks == 49


def test_skipped_blocks_are_never_left_out_as_repetitions() -> None:
    assert all(
        bears_on_oracles(line.text)
        for line in recorded("dmesg-verify-skipped-source.txt")
        if "kipped" in line.text
    )  # fmt: skip


def test_resync_without_replication_is_one_resync_that_copies_what_was_marked() -> None:
    lines = recorded("dmesg-resync-without-replication-a.txt")
    assert resyncs_kib(lines) == (24_000,)
    assert any("replication( yes -> no )" in line.text for line in lines)
    assert not split_brain(lines) and not [line for line in lines if became_standalone(line.text)]


def test_status_without_quorum_is_not_healthy() -> None:
    state, counters = parse_status_json((RECORDED / "status-no-quorum.json").read_text(), "r0", 0)
    assert (state.connection, state.peer_disk, state.healthy) == ("Connecting", "DUnknown", False)
    assert counters.disk_write_kib == 6388


def test_two_primaries_of_which_one_wrote_while_apart_are_a_split_brain_in_the_log_of_the_other() -> None:
    wrote, idle = recorded("dmesg-two-primaries-apart-wrote.txt"), recorded("dmesg-two-primaries-apart-idle.txt")
    assert (split_brain(wrote), split_brain(idle)) == (False, True)
    for log in (wrote, idle):
        assert [line.text for line in log if became_standalone(line.text)][-1].endswith("StandAlone ) [disconnected]")
        assert not error_lines(log)


def test_events_of_a_lost_quorum_are_one_drop_and_of_an_auto_promotion_none() -> None:
    lines = (RECORDED / "events2-skips-resync-quorum-promotion.txt").read_text().splitlines()
    history = link_history(lines, "r0")
    assert drops(history) == 1
    seen = [entry.state.replication for entry in history]
    assert [one for one, before in zip(seen, ["", *seen], strict=False) if one != before] == [
        "Off", "Established", "VerifyS", "Established", "VerifyS", "Established",
        "WFBitMapS", "SyncSource", "Established", "Off", "Established",
    ]  # fmt: skip


def test_no_recorded_line_of_quorum_or_promotion_is_an_error_of_the_kernel() -> None:
    for name in ("dmesg-quorum-lost.txt", "dmesg-auto-promote.txt", "dmesg-promotion-declined.txt"):
        assert error_lines(recorded(name)) == ()
