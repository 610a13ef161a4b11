"""A read-only copy of node a's replica, made on node a: owners of blocks are looked for in it.

Not on /dev/drbdN: a tool that opens a device for writing, or a kernel that looks at what is on it, would change what is
compared.  The copy is of the lower device, past DRBD and past the page cache (O_DIRECT); everything was flushed before,
and of DRBD, which holds the device open, that asks nothing.  Its metadata lie behind what is copied.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping

from harness.engine.context import CellContext
from harness.errors import HarnessError
from harness.filesystems.owned import OwnedBlock, unknown
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES
from harness.model.changes import Change, ChangeKind

#: On node a's own disk; what a session that was killed left there is removed by the next.
FOLDER = "/var/lib/drbd-harness-replica"
# An emulated node reads 20 MB/s at the least.
COPY_SECONDS = 60.0
COPY_MIB_PER_SECOND = 5.0
REMOVE_SECONDS = 60.0
# What stays free of the disk of a machine that is somebody's, whose other programs write to it too.
SPARE_BYTES = 1 << 30

# Holes stay holes: what was never written takes neither room nor time.
_COPY = """
umask 077
rm -rf "$2"
mkdir "$2"
room=$(($(stat -f -c '%a * %S' "$2") - $4))
if [ "$room" -lt "$3" ]; then
    left=; [ "$4" = 0 ] || left=", with $(($4 / 1048576)) MiB left over"
    echo "$(($3 / 1048576)) MiB are needed for it, and the disk has room for $((room / 1048576))$left" >&2
    exit 1
fi
dd if="$1" of="$2/replica" ibs=1M obs=64k count="$3" iflag=direct,fullblock,count_bytes conv=sparse status=none
truncate -s "$3" "$2/replica"
"""

#: Says who owns each of the given 4 KiB blocks of a replica.
BlockOwners = Callable[[ReplicaView, list[int]], Mapping[int, OwnedBlock]]


@contextlib.contextmanager
def owners_in_copy(
    context: CellContext, owners: BlockOwners, blocks: int, *, reads_replica: bool
) -> Iterator[Callable[[list[int]], Mapping[int, OwnedBlock]]]:
    """``owners`` over a copy of the first ``blocks`` 4 KiB blocks, which is removed in the end.

    With ``reads_replica`` False nothing is copied: then they know without looking.  Where the copy cannot be made, or
    they cannot be asked, all that was asked for is unknown, with the reason.  Blocks for a minute and 0.2 s for each
    MiB at most.
    """
    with contextlib.ExitStack() as stack:
        try:
            view = _view(context, blocks, stack) if reads_replica else _lower(context, blocks)
        except HarnessError as error:
            why = f"the replica of {context.lab.a.name} could not be copied: {error}"
            context.log_event(f"nobody was asked whose the differing blocks are: {why}")
            yield lambda asked: unknown(asked, why)
            return

        def ask(asked: list[int]) -> Mapping[int, OwnedBlock]:
            try:
                found = owners(view, asked)
            except (HarnessError, OSError, ValueError) as error:
                # It may be a bug of ours, whose place is worth more than its message.
                logging.getLogger(__name__).error("the owners of blocks could not be found out", exc_info=error)
                return unknown(asked, f"it could not be found out: {' '.join(str(error).split())}")
            return {**unknown(asked, "nobody tells"), **found}

        yield ask


@contextlib.contextmanager
def copy_of_replica(context: CellContext, blocks: int) -> Iterator[ReplicaView]:
    """A copy of the first ``blocks`` 4 KiB blocks of node a's replica, which is removed in the end.

    Everything was flushed before.  Blocks for a minute and 0.2 s for each MiB at most; raises what the node does.
    """
    with contextlib.ExitStack() as stack:
        yield _view(context, blocks, stack)


def _lower(context: CellContext, blocks: int) -> ReplicaView:
    return ReplicaView(context.lab.a.runner, context.lab.a.lower, blocks)


def _view(context: CellContext, blocks: int, stack: contextlib.ExitStack) -> ReplicaView:
    node, size = context.lab.a, blocks * BLOCK_BYTES
    allowed = COPY_SECONDS + size / 2**20 / COPY_MIB_PER_SECOND
    deadline = context.deadline.sooner(allowed, f"the copy of the replica of {node.name}")
    stack.callback(_remove, context)
    # Of a layer that is in it loop devices are made.
    node.note(Change(ChangeKind.PROGRAMS, FOLDER), Change(ChangeKind.LOOP, f"{FOLDER}/replica"))
    spare = SPARE_BYTES if node.somebodys else 0
    argv = ["sh", "-ec", _COPY, "sh", node.lower, FOLDER, str(size), str(spare)]
    node.runner.run(argv, timeout=deadline.left())
    return ReplicaView(node.runner, f"{FOLDER}/replica", blocks)


def _remove(context: CellContext) -> None:
    # On a node that is lost it goes with the next copy, or with the node.
    with contextlib.suppress(HarnessError):
        context.lab.a.runner.run(["rm", "-rf", FOLDER], timeout=REMOVE_SECONDS)
