"""Programs that do not do what they say: ``drbdadm verify`` on node a, the swap storm in the guest."""

from __future__ import annotations

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.sabotage.one_byte import invert_byte
from harness.engine.disturbances.sabotage.undo import cover_for_the_cell
from harness.filesystems.base import WorkloadTarget
from harness.model import SECTORS_PER_BLOCK, PlantedChange, Sabotage
from harness.workloads.swap import SWAPSTORM

# Among the first that a verify looks at.
BLIND_SECTOR = 128

SILENT_VERIFY = """#!/bin/sh
for word in "$@"; do [ "$word" != verify ] || exit 0; done
exec {directory}/drbdadm "$@"
"""
PARTIAL_VERIFY = """#!/bin/sh
for word in "$@"; do
    shift
    [ "$word" != --start=0 ] || word=--start={sector}s
    set -- "$@" "$word"
done
exec {directory}/drbdadm "$@"
"""
# A sector that the verify has passed becomes another: to everybody else it had been so before.
BLIND_VERIFY = """#!/bin/sh
{directory}/drbdadm "$@" || exit
case " $* " in
    *" verify "*) ;;
    *) exit 0 ;;
esac
(
    sleep 1
    head -c 512 /dev/urandom |
        dd of="{lower}" bs=512 seek={sector} oflag=direct conv=notrunc iflag=fullblock
) </dev/null >/dev/null 2>&1 &
"""
IDLE_STORM = """#!/bin/sh
before=
for word in "$@"; do
    shift
    [ "$before" != --mebibytes ] || word=1
    before=$word
    set -- "$@" "$word"
done
exec {directory}/swapstorm "$@"
"""


def idle_storm(run: CellRun, target: WorkloadTarget) -> None:
    """The swap storm gets next to no memory."""
    cover_for_the_cell(run, target.runner, SWAPSTORM, IDLE_STORM)
    run.context.log_event("sabotage: the swap storm gets 1 MiB of memory, whatever it is told")


def deceive_by_verify(run: CellRun, sabotage: Sabotage) -> None:
    """A block differs, and ``drbdadm verify`` on a says nothing of it."""
    a, blocks = run.context.lab.a, run.context.resource.blocks
    match sabotage:
        case Sabotage.BLIND_VERIFY:
            change = PlantedChange(BLIND_SECTOR, 1, a.name)
            run.context.note(planted=(*run.evidence.planted, change))
            cover_for_the_cell(run, a.runner, "drbdadm", BLIND_VERIFY, sector=BLIND_SECTOR, lower=a.lower)
            what = f"passes sector {BLIND_SECTOR} before that is changed below DRBD"
        case Sabotage.PARTIAL_VERIFY:
            invert_byte(run, blocks // 4, None)
            cover_for_the_cell(run, a.runner, "drbdadm", PARTIAL_VERIFY, sector=blocks // 2 * SECTORS_PER_BLOCK)
            what = "begins in the middle of the device"
        case _:
            invert_byte(run, blocks // 4, None)
            cover_for_the_cell(run, a.runner, "drbdadm", SILENT_VERIFY)
            what = "does nothing and ends well"
    run.context.log_event(f"sabotage: drbdadm verify on {a.name} {what}")
