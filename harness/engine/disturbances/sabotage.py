"""The instrument itself is sabotaged, to see that it does not lie: what it does not notice would make it CLEAN.

Everything here is done with commands of its own, past the classes that it is meant to deceive, and is undone when the
cell is over at the latest.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.base import finished, quiesce
from harness.errors import InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.ext4 import MOUNT_POINT
from harness.lab.node import Node
from harness.model import (
    SECTOR_BYTES,
    SECTORS_PER_BLOCK,
    BlockOwner,
    PlantedChange,
    PlantedKind,
    Sabotage,
    Work,
)
from harness.parse.filefrag import FileExtent, file_extents
from harness.parse.pagemap import swap_slots
from harness.remote.base import Runner
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline
from harness.workloads.base import Workload
from harness.workloads.swap import SWAPSTORM

DELAY_MS = 20
# Of the file that is written and removed again: large enough to have a run of blocks to itself.
FREED_MIB = 4
# Among the first that a verify looks at.
BLIND_SECTOR = 128

_DIRECTORY = f"/tmp/drbd-harness-sabotage-{secrets.token_hex(8)}"
# A program is covered by a script that runs the program itself from another place.
_COVER = """
path=$(readlink -f "$(command -v "$1")")
mkdir -p "$2"
cp "$path" "$2/${path##*/}"
cat > "$2/script"
chmod 755 "$2/script" "$2/${path##*/}"
mount --bind "$2/script" "$path"
"""
_UNCOVER = """
path=$(readlink -f "$(command -v "$1")")
if mountpoint -q "$path"; then umount -l "$path"; fi
rm -rf "$2"
"""
_SILENT_VERIFY = """#!/bin/sh
for word in "$@"; do [ "$word" != verify ] || exit 0; done
exec {directory}/drbdadm "$@"
"""
_PARTIAL_VERIFY = """#!/bin/sh
for word in "$@"; do
    shift
    [ "$word" != --start=0 ] || word=--start={sector}s
    set -- "$@" "$word"
done
exec {directory}/drbdadm "$@"
"""
# A sector that the verify has passed becomes another: to everybody else it had been so before.
_BLIND_VERIFY = """#!/bin/sh
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
_IDLE_STORM = """#!/bin/sh
before=
for word in "$@"; do
    shift
    [ "$before" != --mebibytes ] || word=1
    before=$word
    set -- "$@" "$word"
done
exec {directory}/swapstorm "$@"
"""
# The largest file, by its name on the filesystem, and where the kernel says that it lies.
_KNOWN_FILE = """
cd "$1"
file=$(find . -xdev -type f -printf '%s %p\\n' | sort -rn | head -n 1 | cut -d ' ' -f 2-)
sync
echo "${file#.}"
filefrag -v -b4096 "$file"
"""
_FREED_FILE = """
file="$1/freed"
dd if=/dev/urandom of="$file" bs=1M count="$2" status=none
sync
filefrag -v -b4096 "$file"
rm "$file"
sync
"""
# A process that holds some memory and does nothing with it, in a control group of its own, which can be swapped out.
_HOLD_MEMORY = """
mkdir -p "$1"
mount -t cgroup2 none "$1"
echo +memory > "$1/cgroup.subtree_control"
mkdir "$1/held"
setsid sh -c '
    echo $$ > "$1/held/cgroup.procs"
    held=$(head -c 1000000 /dev/zero | tr "\\000" x)
    while :; do sleep 600; done
' sh "$1" </dev/null >/dev/null 2>&1 &
echo $!
"""
_LET_GO = """
for process in $(cat "$1/held/cgroup.procs"); do kill -9 "$process" || true; done
if mountpoint -q "$1"; then umount -l "$1"; fi
"""
# The kernel says that it could not reclaim as much as it was asked for: that much is not there.
_SWAP_OUT = 'echo 16M > "$1/held/memory.reclaim" || true'
_PAGEMAP = """
while read -r range mode rest; do
    case $mode in rw*) ;; *) continue;; esac
    first=$((0x${range%-*} / 4096)); last=$((0x${range#*-} / 4096))
    dd if="/proc/$1/pagemap" bs=8 skip="$first" count=$((last - first)) status=none
done < "/proc/$1/maps" | od -An -v -tx8
"""


def leave_behind(run: CellRun) -> None:
    """What somebody left on the lab before the cell, or nothing; before anything that is in force is read."""
    a, b = run.context.nodes
    match run.cell.sabotage:
        case Sabotage.DELAY_LEFT_A:
            _leave_delay(run, a)
        case Sabotage.DELAY_LEFT_B:
            _leave_delay(run, b)
        case Sabotage.SCATTER_GATHER_OFF_A:
            _switch_scatter_gather_off(run, a)
        case Sabotage.SCATTER_GATHER_OFF_B:
            _switch_scatter_gather_off(run, b)


class SabotageDisturbance:
    """What is done while the cell is played, behind its back."""

    def __init__(self, sabotage: Sabotage) -> None:
        self._sabotage = sabotage
        self._holder = ""

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """Whatever the workload has to meet."""
        if self._sabotage is Sabotage.FLIP_SWAP_SLOT:
            _undo(run, target.runner, ["sh", "-c", _LET_GO, "sh", _DIRECTORY])
            self._holder = target.sh(_HOLD_MEMORY, _DIRECTORY).strip()
        elif self._sabotage is Sabotage.IDLE_WORKLOAD:
            _cover(run, target.runner, SWAPSTORM, _IDLE_STORM)
            run.context.log_event("sabotage: the swap storm gets 1 MiB of memory, whatever it is told")

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """The work; the machine of node b stops in its middle where that is asked."""
        if self._sabotage is not Sabotage.STOPPED_NODE:
            return work()
        task = BackgroundTask(work, "the workload")
        if task.ended(run.cell.seconds / 2):
            task.result(Deadline.after(1, "the work"))
            raise InfrastructureError("the work was over before the node was stopped")
        # It goes on with the end of the lab: the cell has to do without it.
        run.context.lab.stop(run.context.lab.b)
        run.context.log_event(f"sabotage: the machine of {run.context.lab.b.name} was stopped")
        return finished(run, task)

    def after(self, run: CellRun, workload: Workload) -> None:
        """A byte is inverted below DRBD, or the verify is made to say less than it knows."""
        target = run.target()
        match self._sabotage:
            case Sabotage.FLIP_FILE:
                block, name = _block_of_known_file(target, _chance(run))
                quiesce(run, workload)
                _invert_byte(run, block, BlockOwner.ALLOCATED, name)
            case Sabotage.FLIP_FREE:
                block = _block_of_removed_file(target, _chance(run))
                quiesce(run, workload)
                _invert_byte(run, block, BlockOwner.FREE)
            case Sabotage.FLIP_SWAP_SLOT:
                # In use now.  Nobody looks before swapoff, which reads each slot on the Primary and frees it.
                _invert_byte(run, _used_swap_slot(target, self._holder), BlockOwner.FREE)
                quiesce(run, workload)
            case Sabotage.SILENT_VERIFY | Sabotage.PARTIAL_VERIFY | Sabotage.BLIND_VERIFY:
                quiesce(run, workload)
                _deceive_by_verify(run, self._sabotage)
            case _:
                quiesce(run, workload)


# ------------------------------------------------------------------------------------------ what is left behind


def _leave_delay(run: CellRun, node: Node) -> None:
    # It may have been taken off by the cell meanwhile, which is no error.
    _undo(run, node.runner, ["sh", "-c", 'tc qdisc del dev "$1" root 2>/dev/null || true', "sh", node.link])
    node.runner.run(["tc", "qdisc", "replace", "dev", node.link, "root", "netem", "delay", f"{DELAY_MS}ms"])
    run.context.log_event(f"sabotage: a delay of {DELAY_MS} ms was left on the link of {node.name}")


def _switch_scatter_gather_off(run: CellRun, node: Node) -> None:
    _undo(run, node.runner, ["ethtool", "-K", node.link, "sg", "on"])
    node.runner.run(["ethtool", "-K", node.link, "sg", "off"])
    run.context.log_event(f"sabotage: scatter-gather was switched off on the link of {node.name}")


def _deceive_by_verify(run: CellRun, sabotage: Sabotage) -> None:
    """A block differs, and ``drbdadm verify`` on a says nothing of it."""
    a, blocks = run.context.lab.a, run.context.resource.blocks
    match sabotage:
        case Sabotage.BLIND_VERIFY:
            change = PlantedChange(BLIND_SECTOR, 1, a.name)
            run.context.note(planted=(*run.evidence.planted, change))
            _cover(run, a.runner, "drbdadm", _BLIND_VERIFY, sector=BLIND_SECTOR, lower=a.lower)
            what = f"passes sector {BLIND_SECTOR} before that is changed below DRBD"
        case Sabotage.PARTIAL_VERIFY:
            _invert_byte(run, blocks // 4, None)
            _cover(run, a.runner, "drbdadm", _PARTIAL_VERIFY, sector=blocks // 2 * SECTORS_PER_BLOCK)
            what = "begins in the middle of the device"
        case _:
            _invert_byte(run, blocks // 4, None)
            _cover(run, a.runner, "drbdadm", _SILENT_VERIFY)
            what = "does nothing and ends well"
    run.context.log_event(f"sabotage: drbdadm verify on {a.name} {what}")


def _cover(run: CellRun, runner: Runner, program: str, script: str, **values: int | str) -> None:
    text = script.format(directory=_DIRECTORY, **values)
    _undo(run, runner, ["sh", "-ec", _UNCOVER, "sh", program, _DIRECTORY])
    runner.run(["sh", "-ec", _COVER, "sh", program, _DIRECTORY], stdin=text)


def _undo(run: CellRun, runner: Runner, argv: list[str]) -> None:
    """Run ``argv`` when the cell is over, at the latest; asked for before anything is done that it has to undo.

    A guest that was lost took with it what was done to it.
    """

    def undo() -> None:
        guest = run.guest_disk.guest
        if guest is not None and runner is guest.agent and not guest.alive():
            return
        runner.run(argv)

    run.register_fault_cleanup(undo)


# ------------------------------------------------------------------------------------------ one byte


def _chance(run: CellRun) -> random.Random:
    return random.Random(run.cell.seed)


def _invert_byte(run: CellRun, block: int, owner: BlockOwner | None, owner_detail: str = "") -> None:
    """Invert one byte of ``block`` on the Secondary, below DRBD; the repair of the cell undoes it.

    Whatever the Primary has in its page cache is written before: it would write over the change.
    """
    context, node, chance = run.context, run.context.lab.b, _chance(run)
    context.resource.sync()
    sector, byte = block * SECTORS_PER_BLOCK + chance.randrange(SECTORS_PER_BLOCK), chance.randrange(SECTOR_BYTES)
    change = PlantedChange(sector, 1, node.name, PlantedKind.BYTE, byte, owner, owner_detail)
    context.resource.plant_below(node, [change])
    context.note(planted=(*context.evidence.planted, change))
    whose = f", which is {owner}{f' ({owner_detail})' if owner_detail else ''}" if owner else ""
    context.log_event(f"sabotage: one byte of block {block} was inverted on {node.name} below DRBD{whose}")


def _block_of_known_file(target: WorkloadTarget, chance: random.Random) -> tuple[int, str]:
    """A block of the largest file that was written, as the mounted filesystem tells, and the file's name on it."""
    name, _, printed = target.sh(_KNOWN_FILE, MOUNT_POINT).partition("\n")
    return _one_of(file_extents(printed), chance), name


def _block_of_removed_file(target: WorkloadTarget, chance: random.Random) -> int:
    """A block of a file that is written and removed just now: it is free, and nobody writes any more."""
    return _one_of(file_extents(target.sh(_FREED_FILE, MOUNT_POINT, str(FREED_MIB))), chance)


def _one_of(extents: tuple[FileExtent, ...], chance: random.Random) -> int:
    """A block that holds data; one that is only preallocated is free, whosever it is."""
    written = [block for extent in extents if not extent.unwritten for block in extent.blocks]
    if not written:
        raise InfrastructureError("the file has no block that was written")
    return chance.choice(written)


def _used_swap_slot(target: WorkloadTarget, pid: str) -> int:
    """A slot that holds a page of process ``pid`` now, as the kernel's own map of the process says."""
    target.sh(_SWAP_OUT, _DIRECTORY)
    slots = [slot for slot in swap_slots(target.sh(_PAGEMAP, pid)) if 0 < slot < target.own_blocks]
    if not slots:
        raise InfrastructureError("no page of the process that holds memory was swapped out")
    return slots[len(slots) // 2]
