"""Evidence to verdict: what was not in force as the cell asked for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judged_evidence import HELD, SWAP, assert_inconclusive, evidence, kind, observed, oracles

from harness.judgement.judge import judge
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    DelayProfile,
    Failure,
    FilesystemKind,
    Observed,
    Protocol,
    ReplicationProfile,
    VerdictKind,
)

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


# --------------------------------------------------------------------------- whatever the evidence


def test_judge_not_in_force_names_the_failure_beside_it() -> None:
    lost = Failure("lost-node", "detach", "the ssh connection to nodeb was lost")
    seen = replace(observed(SWAP), link_delay_ms=5)
    verdict = judge(evidence(observed=seen, failure=lost), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and "delay" in verdict.sentence
    assert verdict.reasons[0] == "detach failed: the ssh connection to nodeb was lost", "why it could not be read"
