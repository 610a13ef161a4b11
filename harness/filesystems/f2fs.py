"""F2FS, where the client's kernel has it: Debian's kernel for clouds, the guest's since trixie, does not."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from harness.filesystems.base import MARGIN_SECONDS, CheckResult, OwnedBlock, ReplicaView, WorkloadTarget, unknown
from harness.filesystems.mounted import Mounted
from harness.model import BlockOwner, FilesystemKind
from harness.parse.f2fs import F2fsMap, f2fs_map
from harness.parse.repair_tools import f2fs_check_status

TOOL_SECONDS = 60.0
# It writes the segments into a file where it runs.
_LOOK = """
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
dump.f2fs -d 1 -s 0~-1 "$1"
echo '== segments'
cat dump_sit
"""


class F2fs(Mounted):
    """F2FS with its defaults."""

    kind = FilesystemKind.F2FS
    needs_mib = 100
    modules = ("f2fs",)
    programs = ("mkfs.f2fs", "fsck.f2fs")
    mount_type = "f2fs"
    method = "the filesystem's own map of what is in use, by dump.f2fs"
    owner_package = "f2fs-tools"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        target.sh('mkfs.f2fs -q -f "$1"', target.device, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """fsck.f2fs without a change."""
        checked = target.runner.run(["fsck.f2fs", "--dry-run", target.device], timeout=MARGIN_SECONDS, ok=())
        status = f2fs_check_status(checked.status, checked.stdout)
        if status == 0:
            return CheckResult(0, "fsck.f2fs found nothing")
        lines = [line.strip() for line in checked.stdout.splitlines() if "[ASSERT]" in line or "[Fail]" in line]
        said = next(iter(lines), (checked.stderr.strip().splitlines()[-1:] and checked.message) or "nothing")
        return CheckResult(status, f"fsck.f2fs ended with status {checked.status}: {said}")

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What is in use and what is free; whose a block in use is, nothing in the images tells.

        Unknown where it was not unmounted.  Blocks for at most ``TOOL_SECONDS``.
        """
        wanted = sorted({*blocks})
        if not wanted:
            return {}
        done = view.runner.run(["env", "LC_ALL=C", "sh", "-ec", _LOOK, "sh", view.path], timeout=TOOL_SECONDS)
        printed, _, segments = done.stdout.partition("== segments\n")
        try:
            told = f2fs_map(printed, segments)
        except ValueError as error:
            return unknown(wanted, str(error))
        return {block: _owner(block, told) for block in wanted}


def _owner(block: int, told: F2fsMap) -> OwnedBlock:
    if block >= told.main.stop:
        return OwnedBlock(BlockOwner.FREE, "behind the end of the filesystem")
    if block in told.nodes:
        return OwnedBlock(BlockOwner.METADATA, "a node: an inode, with what it holds itself, or a map of a file")
    if block in told.data:
        return OwnedBlock(BlockOwner.ALLOCATED, "data of a file or a directory, which f2fs's tools do not name")
    if block in told.main:
        return OwnedBlock(BlockOwner.FREE, "free space")
    area = bisect_right([start for start, _ in told.areas], block) - 1
    return OwnedBlock(BlockOwner.METADATA, told.areas[area][1] if area >= 0 else "the superblocks")
