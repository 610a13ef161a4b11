"""The owner control: a byte in a block of each class that a filesystem has; each has to be given to its owner."""

from __future__ import annotations

import contextlib
import secrets
import string
from collections.abc import Callable

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.base import Undisturbed, quiesce
from harness.engine.disturbances.sabotage.known_places import Laid, Place, known_places
from harness.engine.disturbances.sabotage.one_byte import chance_of, hold_memory, invert_byte, swap_out
from harness.engine.replica_copy import copy_of_replica
from harness.errors import InfrastructureError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers, WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT
from harness.model import BLOCK_BYTES, Work
from harness.parse.marks import TOKEN_CHARACTERS, MarkedAs
from harness.workloads.base import Workload

FILE_BLOCKS, RAW_BLOCKS, MEMORY_MARKS, MEMORY_BYTES = 512, 64, 1000, 1000
# So many entries that a directory has blocks of its own.
ENTRIES, _NAME_LETTERS = 300, 4
LAY_SECONDS = 120.0

# Pieces of so many bytes, each beginning with a mark and its number.
_MARKED = """
marked() {
    awk -v kind="$1" -v token="$2" -v count="$3" -v size="$4" 'BEGIN {
        pad = sprintf("%" size "s", "")
        for (i = 0; i < count; i++) {
            mark = kind token sprintf("%08d", i)
            printf "%s%s", mark, substr(pad, 1 + length(mark))
        }
    }'
}
"""
_LAY_FILES = f"""{_MARKED}
cd "$1"
marked {MarkedAs.FREED} "$2" "$4" {BLOCK_BYTES} > "$6"
marked {MarkedAs.FILE} "$2" "$4" {BLOCK_BYTES} > "$5"
mkdir NAMES
awk -v letters="$3" -v count={ENTRIES} 'BEGIN {{
    for (i = 0; i < count; i++) printf "NAMES/%s%04d.TXT\\n", letters, i
}}' | xargs touch
sync
rm "$6"
sync
"""
_LAY_RAW = f"""{_MARKED}
marked {MarkedAs.FILE} "$2" "$3" {BLOCK_BYTES} | dd of="$1" bs={BLOCK_BYTES} seek="$4" conv=notrunc,fsync status=none
"""
_HELD = f'{_MARKED} marked {MarkedAs.MEMORY} "$1" {MEMORY_MARKS} {MEMORY_BYTES}'


class OwnerControl:
    """Lays out what is known, takes it out of use, looks where it lies, and inverts a byte of each class.

    Where a block of a class lies is not asked of what the owners are found by: what was laid out carries marks, which
    are searched for in a copy of the replica.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(TOKEN_CHARACTERS // 2)
        self._letters = "".join(secrets.choice(string.ascii_uppercase) for _ in range(_NAME_LETTERS))

    def before(self, run: CellRun, target: WorkloadTarget) -> None:
        """Where there is swap space, a process holds memory that is marked."""
        if FILESYSTEMS[run.cell.filesystem].offers is Offers.SWAP:
            hold_memory(run, target, _HELD, self._token)

    def during(self, run: CellRun, work: Callable[[], Work]) -> Work:
        """The work alone."""
        return Undisturbed().during(run, work)

    def after(self, run: CellRun, workload: Workload) -> None:
        """Plant, once everything is written and nothing is in use."""
        target, offers = run.target(), workload.filesystem.offers
        with run.context.phase("plant"):
            laid = self._lay(target, offers)
        quiesce(run, workload)
        with run.context.phase("plant"):
            for place in self._places(run, laid):
                invert_byte(run, place.block, place.owner, place.detail, place.offset)

    def _lay(self, target: WorkloadTarget, offers: Offers) -> Laid:
        laid = Laid(self._token, self._letters, offers)
        if offers is Offers.FILES:
            names = (laid.known[1:], laid.freed[1:])
            argv = (MOUNT_POINT, self._token, self._letters, str(FILE_BLOCKS), *names)
            target.sh(_LAY_FILES, *argv, timeout=LAY_SECONDS)
        elif offers is Offers.DEVICE:
            at = target.own_blocks // 2
            target.sh(_LAY_RAW, target.device, self._token, str(RAW_BLOCKS), str(at), timeout=LAY_SECONDS)
        else:
            swap_out(target)
        return laid

    def _places(self, run: CellRun, laid: Laid) -> tuple[Place, ...]:
        """Where to plant, in the order of the device; nothing is where another class is."""
        context = run.context
        context.resource.sync()
        blocks = context.region.first_block if run.cell.has_canary else context.resource.blocks
        with contextlib.ExitStack() as stack:
            with run.layout.settled():
                view = stack.enter_context(copy_of_replica(context, blocks))
            places = known_places(view, run.layout.layer, run.cell.filesystem, laid, chance_of(run))
        if len({place.block for place in places}) < len(places):
            raise InfrastructureError("the owner control found two classes in one block")
        for why in laid.not_found:
            context.log_event(f"sabotage: {why}")
        return tuple(sorted(places))
