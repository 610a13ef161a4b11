"""The three oracles asked, what differs classified, the replicas repaired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.engine.context import CellContext
from harness.filesystems.base import OwnedBlock, WorkloadTarget, summary
from harness.lab.backing_compare import owned
from harness.model import BlockOwner, blocks_of

MAX_SAMPLES = 16

#: Says who owns each of the given 4 KiB blocks, asked on the Primary.
BlockOwners = Callable[[WorkloadTarget, list[int]], Mapping[int, OwnedBlock]]


def run_verify(context: CellContext) -> None:
    """A verify of the whole device and DRBD's counter; what both nodes report of the resource is kept as printed."""
    resource, attempt = context.resource, context.attempt
    with context.phase("verify"):
        verify, raw_a, raw_b = resource.verify()
        attempt.write_raw("kmsg-verify-source.txt", raw_a)
        attempt.write_raw("kmsg-verify-target.txt", raw_b)
        state, counters = resource.status()
        context.note(verify=verify, counter_kib=counters.out_of_sync_kib, after=state)
        for node in context.nodes:
            for what, text in resource.raw_status(node).items():
                attempt.write_raw(f"drbd-{what}-{node.name}.txt", text)


def run_comparison(context: CellContext) -> None:
    """The comparison of the two backing devices, block by block, outside DRBD."""
    with context.phase("compare"):
        context.note(comparison=context.lab.compare(context.resource.blocks))


def classify_differences(context: CellContext, owners: BlockOwners, method: str) -> None:
    """Samples and owners of what differs, and owners of what the guest read differently.

    ``method`` says by what reasoning ``owners`` knows.
    """
    comparison, readback = context.evidence.comparison, context.evidence.readback
    if comparison is not None and comparison.differing:
        with context.phase("explain"):
            blocks = sorted(blocks_of(comparison.differing))
            owner_of = _owners(context, owners, blocks)
            planted = sorted(blocks_of(context.evidence.planted) & {*blocks})
            shown = sorted(dict.fromkeys((*planted, *blocks)).keys(), key=lambda block: block not in planted)
            found = context.lab.sample(sorted(shown[:MAX_SAMPLES]))
            samples = (owned(one, owner_of[one.block].owner, owner_of[one.block].detail) for one in found)
            context.note(samples=tuple(samples), ownership=summary(owner_of, method))
    if readback is not None and readback.differing:
        with context.phase("explain"):
            owner_of = _owners(context, owners, sorted(blocks_of(readback.differing)))
            context.note(readback=replace(readback, ownership=summary(owner_of, method)))


def primary_target(context: CellContext) -> WorkloadTarget:
    """The workload's part of the device on the Primary."""
    blocks = context.region.first_block if context.cell.has_canary else 0
    return WorkloadTarget(context.lab.a.runner, context.resource.device, context.resource, blocks)


def repair(context: CellContext) -> None:
    """Make the replicas equal again where they are not, and note whether the comparison agrees."""
    comparison, counter = context.evidence.comparison, context.evidence.counter_kib
    if comparison is None:
        # Nothing overwrites a replica that nobody compared; the next cell's preconditions see to it.
        return
    if counter == 0 and not comparison.differing:
        return
    with context.phase("repair"):
        for node in context.nodes:
            # Where one does not answer, the end of a resync would be waited for in vain.
            context.resource.status(node)
        context.note(repair=context.resource.repair(context.differing_blocks))


def _owners(context: CellContext, owners: BlockOwners, blocks: list[int]) -> Mapping[int, OwnedBlock]:
    """The workload knows who owns its blocks; those behind them are the canary's."""
    target = primary_target(context)
    mine = [block for block in blocks if block < target.own_blocks]
    canary = OwnedBlock(BlockOwner.ALLOCATED, "a record of the canary")
    return {**owners(target, mine), **{block: canary for block in blocks if block >= target.own_blocks}}
