"""One byte on the Secondary is another, below DRBD, and it is known whose it is."""

from __future__ import annotations

import random

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.sabotage.undo import DIRECTORY, undo
from harness.errors import InfrastructureError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT
from harness.model import SECTOR_BYTES, SECTORS_PER_BLOCK, BlockOwner, PlantedChange, PlantedKind
from harness.parse.filefrag import FileExtent, file_extents
from harness.parse.pagemap import swap_slots

# Of the file that is written and removed again: large enough to have a run of blocks to itself.
FREED_MIB = 4

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
mkdir -p "$1/held"
rm -f "$1-held"
setsid sh -c '
    echo $$ > "$1/held/cgroup.procs"
    held=$(sh -c "$2" sh "$3")
    : > "$1-held"
    while :; do sleep 600; done
' sh "$1" "$2" "$3" </dev/null >/dev/null 2>&1 &
echo $!
until [ -e "$1-held" ]; do sleep 0.1; done
"""
_FILLER = 'head -c 1000000 /dev/zero | tr "\\000" x'
_LET_GO = """
for process in $(cat "$1/held/cgroup.procs"); do kill -9 "$process" || true; done
rm -f "$1-held"
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


def hold_memory(run: CellRun, target: WorkloadTarget, filler: str = _FILLER, argument: str = "") -> str:
    """The number of a process that holds memory until the cell is over, in a control group of its own.

    It holds what the shell script ``filler`` prints, which gets ``argument``.
    """
    undo(run, target.runner, ["sh", "-c", _LET_GO, "sh", DIRECTORY])
    return target.sh(_HOLD_MEMORY, DIRECTORY, filler, argument).strip()


def swap_out(target: WorkloadTarget) -> None:
    """Let the process that holds memory be swapped out."""
    target.sh(_SWAP_OUT, DIRECTORY)


def chance_of(run: CellRun) -> random.Random:
    """What decides which byte it is."""
    return random.Random(run.cell.seed)


def invert_byte(
    run: CellRun, block: int, owner: BlockOwner | None, owner_detail: str = "", owner_offset: int | None = None
) -> None:
    """Invert one byte of ``block`` on the Secondary, below DRBD; the repair of the cell undoes it.

    Whatever the Primary has in its page cache is written before: it would write over the change.
    """
    context, node, chance = run.context, run.context.lab.b, chance_of(run)
    context.resource.sync()
    sector, byte = block * SECTORS_PER_BLOCK + chance.randrange(SECTORS_PER_BLOCK), chance.randrange(SECTOR_BYTES)
    change = PlantedChange(sector, 1, node.name, PlantedKind.BYTE, byte, owner, owner_detail, owner_offset)
    context.resource.plant_below(node, [change])
    context.note(planted=(*context.evidence.planted, change))
    whose = f", which is {owner}{f' ({owner_detail})' if owner_detail else ''}" if owner else ""
    context.log_event(f"sabotage: one byte of block {block} was inverted on {node.name} below DRBD{whose}")


def block_of_known_file(target: WorkloadTarget, chance: random.Random) -> tuple[int, str]:
    """A block of the largest file that was written, as the mounted filesystem tells, and the file's name on it."""
    name, _, printed = target.sh(_KNOWN_FILE, MOUNT_POINT).partition("\n")
    return _one_of(file_extents(printed), chance), name


def block_of_removed_file(target: WorkloadTarget, chance: random.Random) -> int:
    """A block of a file that is written and removed just now: it is free, and nobody writes any more."""
    return _one_of(file_extents(target.sh(_FREED_FILE, MOUNT_POINT, str(FREED_MIB))), chance)


def _one_of(extents: tuple[FileExtent, ...], chance: random.Random) -> int:
    """A block that holds data; one that is only preallocated is free, whosever it is."""
    written = [block for extent in extents if not extent.unwritten for block in extent.blocks]
    if not written:
        raise InfrastructureError("the file has no block that was written")
    return chance.choice(written)


def used_swap_slot(target: WorkloadTarget, pid: str) -> int:
    """A slot that holds a page of process ``pid`` now, as the kernel's own map of the process says."""
    swap_out(target)
    slots = [slot for slot in swap_slots(target.sh(_PAGEMAP, pid)) if 0 < slot < target.own_blocks]
    if not slots:
        raise InfrastructureError("no page of the process that holds memory was swapped out")
    return slots[len(slots) // 2]
