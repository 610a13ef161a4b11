"""A verify that did not look at everything: cut off, ended too early, refused, unlogged; none of it is an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from judged_evidence import HELD, evidence
from recorded_nodes import START_VERIFY, RecordedVerify, adopted, verified

from harness.drbd import verify
from harness.drbd.resource import Resource
from harness.errors import InfrastructureError, LostNodeError, RefusedError
from harness.judgement.judge import judge
from harness.model import VerdictKind, Verify, blocks_of

GENERATIONS = ["8.4", "9"]
EXTENT, DONE, FOUND = "Out of sync: start=", "Online verify done", "Online verify found"
STARTED = ("Starting Online Verify from sector", "Online Verify start sector")


def index(lines: list[str], *pieces: str) -> int:
    """The first line with one of ``pieces``."""
    return next(number for number, line in enumerate(lines) if any(piece in line for piece in pieces))


def no_answer(verify: Verify) -> bool:
    """Whether it counts as incomplete, and nothing that found nothing beside it is CLEAN."""
    kinds = {judge(evidence(verify=verify, counter_kib=count), HELD).kind for count in (0, 4)}
    return not verify.complete and kinds == {VerdictKind.INCONCLUSIVE}


# --------------------------------------------------------------------------- cut off


def cut_after_two_extents(recorded: RecordedVerify) -> None:
    """Both kernels fall silent in mid-verify."""
    for log in recorded.logs:
        del log[index(log, EXTENT) + 2 :]


def loses_its_peer(recorded: RecordedVerify) -> None:
    """And events2 tells why.

    No such loss was recorded under a verify: the states are those of the recorded disconnects of both generations.
    """
    cut_after_two_extents(recorded)
    peer = recorded.events[0].partition("name:r0 ")[2].partition(" volume:")[0]
    recorded.events[1:] = [
        f"change connection name:r0 {peer} connection:NetworkFailure role:Unknown",
        f"change peer-device name:r0 {peer} volume:0 replication:Off peer-disk:DUnknown",
    ]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_whose_nodes_lose_each_other_is_no_answer_and_keeps_what_was_logged(generation: str) -> None:
    resource, _, _ = verified(generation, change=loses_its_peer)
    verify, raw_a, raw_b = resource.verify()
    assert no_answer(verify)
    assert verify.source.started and not verify.source.finished and verify.source.found_blocks is None
    assert len(verify.source.extents) == 2 == len(verify.target.extents), "what was found until then is kept"
    assert raw_a.count(EXTENT) == raw_b.count(EXTENT) == 2


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_whose_end_was_not_logged_is_no_answer(generation: str) -> None:
    resource, _, _ = verified(generation, change=cut_after_two_extents)
    assert no_answer(resource.verify()[0]), "events2 telling of its end is not the kernel saying that it is done"


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("stream", "side", "awaited"),
    [
        ("events", 0, "events2 ended while waiting for the end of the verify"),
        ("kernel", 0, "kernel log ended while waiting for the marker in the kernel log of nodea"),
        ("kernel", 1, "kernel log ended while waiting for the marker in the kernel log of nodeb"),
    ],
)
def test_verify_whose_connection_to_a_node_is_lost_is_lost_node_error(
    generation: str, stream: str, side: int, awaited: str
) -> None:
    def only_begins(recorded: RecordedVerify) -> None:
        cut_after_two_extents(recorded)
        if stream == "events":
            del recorded.events[1:]

    resource, *nodes = verified(generation, change=only_begins)
    begin = nodes[0].happens[START_VERIFY[generation]]

    def begin_and_lose() -> None:
        begin()
        nodes[side].lose(stream, "Socket is closed")

    nodes[0].happens[START_VERIFY[generation]] = begin_and_lose
    with pytest.raises(LostNodeError) as caught:
        resource.verify()
    assert str(caught.value) == f"{awaited}: Socket is closed"


# --------------------------------------------------------------------------- the end before the last extent


def end_before_the_last_extent(recorded: RecordedVerify) -> None:
    """The recorded lines, the two of the end moved up before the last extent."""
    for log in recorded.logs:
        done = index(log, DONE)
        last = max(number for number, line in enumerate(log) if EXTENT in line)
        assert last < done and FOUND in log[done + 1]
        log[last:last] = [log.pop(done), log.pop(done)]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_ended_before_its_last_extent_is_no_answer(generation: str) -> None:
    resource, _, _ = verified(generation, change=end_before_the_last_extent)
    verify, _, _ = resource.verify()
    assert no_answer(verify)
    whole = verified(generation)[0].verify()[0]
    last = whole.source.extents[-1]
    assert blocks_of([last]) <= blocks_of(verify.source.extents), "what was logged after the end is not dropped"


# --------------------------------------------------------------------------- lines that were overrun


def overrun(lost: tuple[str, ...]) -> Callable[[RecordedVerify], None]:
    """The kernel overwrote everything up to the line with ``lost`` on the node that ran the verify, and that too."""

    def change(recorded: RecordedVerify) -> None:
        del recorded.source[: index(recorded.source, *lost) + 1]

    return change


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_whose_start_was_overrun_is_no_answer(generation: str) -> None:
    resource, _, _ = verified(generation, change=overrun(STARTED))
    verify, _, _ = resource.verify()
    assert no_answer(verify) and verify.source.finished and not verify.source.started
    assert verify.target.started, "and what the other node logged does not stand in for it"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_of_which_nothing_but_the_count_is_left_is_no_answer(generation: str) -> None:
    resource, _, _ = verified(generation, change=overrun((DONE,)))
    verify, _, _ = resource.verify()
    assert no_answer(verify) and not verify.source.finished and verify.source.extents == ()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_of_a_part_of_the_device_is_no_answer(generation: str) -> None:
    def resumed(recorded: RecordedVerify) -> None:
        for log in recorded.logs:
            at = index(log, *STARTED)
            log[at] = log[at].replace("sector 0", "sector 4096").replace("sector: 0", "sector: 4096")

    resource, _, _ = verified(generation, change=resumed)
    assert no_answer(resource.verify()[0])


# --------------------------------------------------------------------------- refused

# Written after the table of messages in DRBD's source (drbd_strings.c) and the numbers of its drbd.h; each is what
# drbdsetup prints for a state change, with the line that drbdadm adds.
REFUSALS = {
    "(-15) Need a connection to start verify or resync",
    "(-8) Can not start OV/resync since it is already active",
    "(-14) Need a verify algorithm to start online verify",
    "(-4) Can not resync without local disk",
}
CALLS = {
    "8.4": ("0: ", "Command 'drbdsetup-84 verify 0 --start=0' terminated with exit code 11"),
    "9": ("r0: ", "Command 'drbdsetup verify r0 1 0 --start=0' terminated with exit code 11"),
}


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("words", sorted(REFUSALS))
def test_verify_that_is_refused_is_an_error_with_drbds_message(
    generation: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "BUSY_SECONDS", 0.1)
    resource, on_a, on_b = adopted(generation)
    who, call = CALLS[generation]
    on_a.answers[START_VERIFY[generation]] = (11, "", f"{who}State change failed: {words}\n{call}\n")
    with pytest.raises(InfrastructureError) as caught:
        resource.verify()
    message = str(caught.value)
    assert message.startswith(f"DRBD on nodea did not start the online verify: {who}State change failed: {words} ")
    assert "\n" not in message and not isinstance(caught.value, RefusedError), "that would be an answer"
    assert on_b.drbd() == []


def test_verify_while_a_resync_is_just_ending_is_started_again() -> None:
    resource, on_a, _ = verified("9")
    begin = on_a.happens.pop(START_VERIFY["9"])
    tried: list[int] = []

    def starts() -> None:
        tried.append(1)
        if len(tried) == 3:
            del on_a.answers[START_VERIFY["9"]]
            begin()

    busy = "(-8) Can not start OV/resync since it is already active"
    on_a.answers[START_VERIFY["9"]] = (11, "", f"r0: State change failed: {busy}\n")
    on_a.happens[START_VERIFY["9"]] = starts
    assert complete(resource) and len(tried) == 3


def test_verify_after_one_that_was_refused_is_an_answer() -> None:
    resource, on_a, _ = verified("8.4")
    begin = on_a.happens.pop(START_VERIFY["8.4"])
    on_a.answers[START_VERIFY["8.4"]] = (11, "", "0: State change failed: (-15) Need a connection\n")
    with pytest.raises(InfrastructureError):
        resource.verify()
    del on_a.answers[START_VERIFY["8.4"]]
    on_a.happens[START_VERIFY["8.4"]] = begin
    assert complete(resource)


def complete(resource: Resource) -> bool:
    return resource.verify()[0].complete


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_ran_to_its_end_is_an_answer(generation: str) -> None:
    assert complete(verified(generation)[0]), "else nothing above shows anything"
