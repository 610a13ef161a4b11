"""What was not in force as asked, in a user's terms: each node's replication, and the disk after each move."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_evidence import HELD, SWAP, evidence, observed

from harness.judgement.in_force import not_in_force
from harness.judgement.judge import judge
from harness.model import (
    DISK_UNDER_TEST,
    DelayProfile,
    DelayReading,
    Evidence,
    FilesystemKind,
    Mitigation,
    NodeSettings,
    Observed,
    ObservedAfterMove,
    Protocol,
    ReplicationProfile,
    VerdictKind,
    settings,
)

ASKED = ReplicationProfile()


def with_nodes(a: ReplicationProfile = ASKED, b: ReplicationProfile = ASKED) -> Evidence:
    nodes = {"nodea": NodeSettings(a, "repl0", a.scatter_gather), "nodeb": NodeSettings(b, "repl1", b.scatter_gather)}
    return evidence(observed=replace(observed(SWAP), replication=a, nodes=nodes))


def test_not_in_force_both_nodes_as_asked_is_nothing() -> None:
    assert not_in_force(with_nodes()) is None
    assert judge(with_nodes(), HELD).kind is VerdictKind.CLEAN


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            ReplicationProfile(scatter_gather=False),
            "scatter-gather is off on nodeb's replication NIC (repl1), although the cell asked for it on",
        ),
        (
            ReplicationProfile(protocol=Protocol.A),
            "DRBD on nodeb replicates with protocol A, although the cell asked for protocol C",
        ),
        (
            ReplicationProfile(integrity="crc32c"),
            "DRBD on nodeb has the digest crc32c (data-integrity-alg), although the cell asked for no digest",
        ),
        (
            ReplicationProfile(disable_sendpage=True),
            "disable_sendpage of DRBD on nodeb is on, although the cell asked for it off",
        ),
        (
            ReplicationProfile(two_primaries=True),
            "DRBD on nodeb allows two Primaries, although the cell asked for one",
        ),
    ],
)
def test_not_in_force_on_node_b_only_says_what_differs_and_where(found: ReplicationProfile, sentence: str) -> None:
    one = with_nodes(b=found)
    assert not_in_force(one) == sentence
    verdict = judge(one, HELD)
    assert (verdict.kind, verdict.sentence) == (VerdictKind.INCONCLUSIVE, sentence)
    text = f"{verdict.sentence} {verdict.reasons}"
    assert "ReplicationProfile" not in text and "Protocol." not in text, "never a Python repr"


def test_not_in_force_older_evidence_without_nodes_is_judged_by_what_it_has() -> None:
    older = evidence(observed=replace(observed(SWAP), replication=ReplicationProfile(scatter_gather=False)))
    assert not_in_force(older) == (
        "scatter-gather is off on the replication NIC, although the cell asked for it on"
    )  # fmt: skip


def test_not_in_force_after_a_move_is_judged_as_before_it() -> None:
    seen = observed(SWAP)
    as_asked = ObservedAfterMove(1, "nodeb", seen)
    assert not_in_force(evidence(observed_after_moves=(as_asked,))) is None
    buffered = ObservedAfterMove(2, "nodea", replace(seen, o_direct=False))
    assert not_in_force(evidence(observed_after_moves=(as_asked, buffered))) == (
        "on nodea, after migration 2, O_DIRECT of QEMU's descriptor is off, although the cell asked for cache=none, "
        "aio=threads, which makes it on"
    )


def test_not_in_force_unread_after_a_move_is_not_taken_for_granted() -> None:
    lost = ObservedAfterMove(1, "nodeb", None, "the guest's QEMU does not report what it opened")
    assert not_in_force(evidence(observed_after_moves=(lost,))) == (
        "on nodeb, after migration 1, what is in force of the disk could not be read back: the guest's QEMU does not "
        "report what it opened"
    )
    partly = ObservedAfterMove(1, "nodeb", replace(observed(SWAP), guest_write_cache=None))
    verdict = judge(evidence(observed_after_moves=(partly,)), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE
    assert verdict.sentence == "on nodeb, after migration 1, the guest's write_cache could not be read back"


# --------------------------------------------------------------------------- mitigations

# What is read back of a disk as libvirt makes it.
PLAIN = replace(
    observed(SWAP), qemu_bus="virtio", qemu_format="raw", qemu_iothread=False, qemu_detect_zeroes="off",
    qemu_discard="ignore", guest_stable_writes=False,
)  # fmt: skip


def mitigated(mitigation: Mitigation, seen: Observed, **found: object) -> Evidence:
    """The cell with ``mitigation``; what was read back is ``seen`` but for ``found``."""
    cell = replace(SWAP, mitigation=mitigation).with_values(settings(None, mitigation))
    return evidence(cell=cell, observed=replace(seen, **found))  # type: ignore[arg-type]


ASKED_AND_READ: dict[Mitigation, dict[str, object]] = {
    Mitigation.STABLE_WRITES: {"guest_stable_writes": True, "stable_writes_in_use": True},
    Mitigation.IOTHREAD: {"qemu_iothread": True},
    Mitigation.BUS_SCSI: {"qemu_bus": "scsi"},
    Mitigation.BUS_SATA: {"qemu_bus": "sata"},
    Mitigation.BUS_NVME: {"qemu_bus": "nvme"},
    Mitigation.DETECT_ZEROES: {"qemu_detect_zeroes": "on"},
    Mitigation.CRYPT_QEMU: {"qemu_format": "luks"},
    Mitigation.DISCARD: {"qemu_discard": "unmap"},
    Mitigation.SWAP_OFF_DRBD: {"guest_swaps": ("/dev/vdc",)},
    Mitigation.ZRAM: {"guest_swaps": ("/dev/zram0",)},
}


@pytest.mark.parametrize("mitigation", ASKED_AND_READ)
def test_mitigation_read_back_as_asked_is_in_force(mitigation: Mitigation) -> None:
    one = mitigated(mitigation, PLAIN, **ASKED_AND_READ[mitigation])
    assert not_in_force(one) is None


@pytest.mark.parametrize("mitigation", ASKED_AND_READ)
def test_mitigation_asked_and_not_in_force_is_inconclusive(mitigation: Mitigation) -> None:
    one = mitigated(mitigation, replace(PLAIN, guest_swaps=(DISK_UNDER_TEST,), stable_writes_in_use=False))
    said = not_in_force(one)
    assert said is not None and "although the cell asked for" in said
    assert judge(one, HELD).kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize("mitigation", ASKED_AND_READ)
def test_mitigation_asked_and_not_read_back_is_inconclusive(mitigation: Mitigation) -> None:
    one = mitigated(mitigation, observed(SWAP))
    assert "could not be read back" in (not_in_force(one) or "")
    assert judge(one, HELD).kind is VerdictKind.INCONCLUSIVE


@pytest.mark.parametrize(
    "found",
    [{"qemu_iothread": True}, {"qemu_detect_zeroes": "unmap"}, {"qemu_discard": "unmap"}, {"qemu_format": "luks"},
     {"qemu_bus": "scsi"}],
    ids=lambda found: next(iter(found)),
)  # fmt: skip
def test_what_nobody_asked_for_is_not_in_force_as_asked(found: dict[str, object]) -> None:
    one = evidence(observed=replace(PLAIN, **found))  # type: ignore[arg-type]
    assert not_in_force(one) is not None


def test_stable_writes_lost_while_in_use_is_not_in_force() -> None:
    one = mitigated(Mitigation.STABLE_WRITES, PLAIN, guest_stable_writes=True, stable_writes_in_use=False)
    assert not_in_force(one) == "the guest's stable_writes (in use) is off, although the cell asked for on"


def test_stable_writes_that_were_asked_for_take_no_ground_away() -> None:
    assert judge(evidence(observed=replace(PLAIN, guest_stable_writes=True)), HELD).kind is VerdictKind.INCONCLUSIVE
    asked = mitigated(Mitigation.STABLE_WRITES, PLAIN, **ASKED_AND_READ[Mitigation.STABLE_WRITES])
    assert judge(asked, HELD).kind is VerdictKind.CLEAN


def test_swap_elsewhere_that_writes_nothing_to_drbd_is_clean() -> None:
    one = mitigated(Mitigation.SWAP_OFF_DRBD, PLAIN, guest_swaps=("/dev/vdc",))
    assert judge(replace(one, exposed_blocks=0), HELD).kind is VerdictKind.CLEAN
    assert judge(evidence(exposed_blocks=0), HELD).kind is VerdictKind.INCONCLUSIVE


def test_online_discard_that_is_not_among_the_mount_options_is_not_in_force() -> None:
    cell = replace(SWAP, workload="truncate", filesystem=FilesystemKind.EXT4, mitigation=Mitigation.DISCARD)
    cell = cell.with_values(settings(None, Mitigation.DISCARD))
    seen = replace(PLAIN, qemu_discard="unmap", guest_mount_options=("rw", "relatime"))
    said = not_in_force(evidence(cell=cell, observed=seen))
    assert said == "the guest mounted with rw,relatime, although the cell asked for discard"
    seen = replace(seen, guest_mount_options=("rw", "discard"))
    assert not_in_force(evidence(cell=cell, observed=seen)) is None


@pytest.mark.parametrize("flush", [0, 3])
def test_flush_delay_that_is_not_as_asked_is_not_in_force(flush: int) -> None:
    cell = replace(SWAP, delays=DelayProfile(0, 0, 5))
    reading = DelayReading("before", "nodea", {"nodea": DelayProfile(0, 0, flush), "nodeb": DelayProfile()})
    one = evidence(cell=cell, observed=replace(PLAIN, delays=(reading,)))
    said = not_in_force(one)
    assert said == f"the delay of nodea's flush was {flush} ms, 5 ms were requested (read before)"


def test_two_primaries_that_were_to_be_allowed_are_in_force_only_when_they_are() -> None:
    allowed = ReplicationProfile(allow_two_primaries=True)
    cell = replace(SWAP, replication=allowed)
    for found, fits in ((ReplicationProfile(two_primaries=True), True), (ReplicationProfile(), False)):
        nodes = {name: NodeSettings(found, "repl0", True) for name in ("nodea", "nodeb")}
        said = not_in_force(evidence(cell=cell, observed=replace(PLAIN, replication=found, nodes=nodes)))
        assert (said is None) == fits, said
