"""The canary's life in a disturbed cell: started before the work, read when all is written."""

from __future__ import annotations

import secrets

from harness.engine.cell_steps import CellRun
from harness.filesystems.base import WorkloadTarget
from harness.guest.canary import CanaryWatch, Region


def start_canary(run: CellRun, target: WorkloadTarget) -> None:
    """Start the canary in the guest; from now on its acknowledgements reach us, whatever becomes of the guest."""
    context = run.context
    region = Region(0, context.region.blocks)
    watch = CanaryWatch(context.nodes, region, secrets.randbits(63), context.lab.guest_spec)
    run.canary = watch
    for node in context.nodes:
        watch.follow(node)
    watch.start(target.runner, run.guest_disk.canary_device)


def collect_canary(run: CellRun, *, survived: bool) -> None:
    """What the canary kept, read in the guest that has the disk now."""
    assert run.canary is not None
    target = run.guest_disk.target
    run.context.note(canary=run.canary.report(target.runner, run.guest_disk.canary_device, survived=survived))
    run.keep_canary()
