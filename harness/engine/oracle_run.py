"""The three oracles asked, what differs classified, the replicas repaired."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.engine.context import CellContext
from harness.engine.replica_copy import BlockOwners, owners_in_copy
from harness.errors import HarnessError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import OwnedBlock, WorkloadTarget, summary, unknown
from harness.lab.backing_compare import owned
from harness.model import BlockOwner, ClientKind, blocks_of

MAX_SAMPLES = 16

CANARY_RECORD = OwnedBlock(BlockOwner.ALLOCATED, "a record of the canary")

#: Says whose each of the given 4 KiB blocks of the device is.
_Ask = Callable[[list[int]], Mapping[int, OwnedBlock]]


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


def classify_differences(context: CellContext, owners: BlockOwners, method: str, *, reads_replica: bool = True) -> None:
    """Samples and owners of what differs, and owners of what the guest read differently.

    ``owners`` is asked on one read-only copy of node a's replica, for which nothing is copied where it does not read
    (``reads_replica`` False); ``method`` says by what reasoning it knows.  Node a's programs are not asked where they
    are older than those that made the filesystem.
    """
    differing = context.evidence.comparison.differing if context.evidence.comparison else ()
    reread = context.evidence.readback.differing if context.evidence.readback else ()
    if not differing and not reread:
        return
    own_blocks = primary_target(context).own_blocks
    with context.phase("explain"), contextlib.ExitStack() as stack:
        if reads_replica and (why := _older_programs(context)):
            context.log_event(f"nobody was asked whose the differing blocks are: {why}")
            reads_replica, owners = False, lambda _, asked: unknown(asked, why)
        ask = stack.enter_context(owners_in_copy(context, owners, own_blocks, reads_replica=reads_replica))
        if differing:
            _classify(context, ask, sorted(blocks_of(differing)), method)
        if (readback := context.evidence.readback) is not None and reread:
            owner_of = _owners(context, ask, sorted(blocks_of(reread)))
            context.note(readback=replace(readback, ownership=summary(owner_of, method)))


def _older_programs(context: CellContext) -> str:
    """Why node a's programs may misread what the guest's made, as a sentence; empty where there is no reason."""
    package = FILESYSTEMS[context.cell.filesystem].owner_package
    packages = context.lab.provenance().packages
    mine, made_it = (packages.get(role, {}).get(package, "") for role in ("node", "guest"))
    if context.cell.client is not ClientKind.GUEST or not mine or not made_it or mine == made_it:
        return ""
    node = context.lab.a
    try:
        older = node.runner.run(["dpkg", "--compare-versions", mine, "lt", made_it], ok=(0, 1)).status == 0
    except HarnessError as error:
        return f"whether {package} of {node.name} is older than the guest's could not be found out: {error}"
    if not older:
        return ""
    return f"{package} {mine} of {node.name} is older than {made_it} of the guest, which made the filesystem"


def _classify(context: CellContext, ask: _Ask, blocks: list[int], method: str) -> None:
    owner_of = _owners(context, ask, blocks)
    planted = sorted(blocks_of(context.evidence.planted) & {*blocks})
    shown = sorted(dict.fromkeys((*planted, *blocks)).keys(), key=lambda block: block not in planted)
    samples = []
    for one in context.lab.sample(sorted(shown[:MAX_SAMPLES])):
        whose = owner_of[one.block]
        samples.append(owned(one, whose.owner, whose.detail, whose.path, whose.offset))
    context.note(samples=tuple(samples), ownership=summary(owner_of, method))


def primary_target(context: CellContext) -> WorkloadTarget:
    """The part of the device on the Primary that is not the canary's."""
    # On what a layout on the node holds the canary is at the end of that.
    canary = context.cell.has_canary and not context.cell.layout.on_node
    blocks = context.region.first_block if canary else 0
    return WorkloadTarget(context.lab.a.runner, context.resource.device, context.resource, blocks, context.lab.a)


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


def _owners(context: CellContext, ask: _Ask, blocks: list[int]) -> Mapping[int, OwnedBlock]:
    """The workload knows who owns its blocks; those behind them are the canary's."""
    own_blocks = primary_target(context).own_blocks
    mine = [block for block in blocks if block < own_blocks]
    return {**(ask(mine) if mine else {}), **{block: CANARY_RECORD for block in blocks if block >= own_blocks}}
