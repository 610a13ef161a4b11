"""ext4, with 4 KiB blocks so that its blocks and DRBD's have the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.filesystems.base import (
    MARGIN_SECONDS,
    CheckResult,
    Filesystem,
    Offers,
    OwnedBlock,
    WorkloadTarget,
    unknown,
)
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemCheck, FilesystemKind
from harness.parse.debugfs import in_use, inodes, paths
from harness.remote.base import Runner

MOUNT_POINT = "/mnt/drbd-harness"
# Searched block by block; beyond this many the answer does not change and the cell only takes longer.
MAX_SEARCHED = 4000
# As many numbers as one command line of debugfs is asked; more are asked in turns.
_BATCH = 500
# EXT4_JOURNAL_INO in fs/ext4/ext4.h.
JOURNAL_INODE = 8


class Ext4(Filesystem):
    """ext4 with its defaults, everything initialized when it is made."""

    kind = FilesystemKind.EXT4
    offers = Offers.FILES
    method = "debugfs: icheck, ncheck and testb of each block"

    def make(self, target: WorkloadTarget) -> None:
        """Make it."""
        options = "-E lazy_itable_init=0,lazy_journal_init=0"
        target.sh(f'mkfs.ext4 -q -F -b {BLOCK_BYTES} {options} "$1"', target.device, timeout=MARGIN_SECONDS)

    def mount(self, target: WorkloadTarget) -> None:
        """Mount it, which replays the journal."""
        # To mount(8) a device that is not there is no other failure than a filesystem that is broken.
        script = """
        test -b "$1" || { echo "there is no block device $1" >&2; exit 2; }
        mkdir -p "$2"
        mount -t ext4 "$1" "$2"
        """
        target.sh(script, target.device, MOUNT_POINT, timeout=MARGIN_SECONDS)

    def unmount(self, target: WorkloadTarget) -> None:
        """Unmount; whatever was dirty is written."""
        target.sh('sync; umount "$1"; sync', MOUNT_POINT, timeout=MARGIN_SECONDS)

    def check(self, target: WorkloadTarget) -> CheckResult:
        """e2fsck without a change."""
        checked = target.runner.run(["e2fsck", "-fn", target.device], timeout=MARGIN_SECONDS, ok=())
        printed = CheckResult(checked.status, _last_line(checked.stdout))
        # Why it could not check is in its errors; otherwise those are its name and version.
        if printed.found is FilesystemCheck.UNCHECKED:
            return replace(printed, message=_last_line(checked.stderr) or printed.message)
        return printed

    def file(self, target: WorkloadTarget, name: str) -> str:
        """Below its mount point."""
        return f"{MOUNT_POINT}/{name}"

    def owners(self, target: WorkloadTarget, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        """What debugfs says of each block of the unmounted filesystem."""
        found: dict[int, OwnedBlock] = {}
        wanted = sorted(blocks)
        found.update(unknown(wanted[MAX_SEARCHED:], f"not searched: behind the first {MAX_SEARCHED} blocks"))
        wanted = wanted[:MAX_SEARCHED]
        for at in range(0, len(wanted), _BATCH):
            found.update(_owners(target.runner, target.device, wanted[at : at + _BATCH]))
        return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def _owners(runner: Runner, device: str, blocks: list[int]) -> Mapping[int, OwnedBlock]:
    inode_of = inodes(_debugfs(runner, device, f"icheck {' '.join(map(str, blocks))}"))
    used = in_use(_debugfs(runner, device, *(f"testb {block}" for block in blocks)))
    hit = sorted({inode for inode in inode_of.values() if inode is not None})
    names = paths(_debugfs(runner, device, f"ncheck {' '.join(map(str, hit))}")) if hit else {}
    found: dict[int, OwnedBlock] = {}
    for block in blocks:
        inode = inode_of.get(block)
        if inode == JOURNAL_INODE:
            found[block] = OwnedBlock(BlockOwner.JOURNAL, "the journal")
        elif inode is not None:
            found[block] = OwnedBlock(BlockOwner.ALLOCATED, next(iter(names.get(inode, ())), f"inode {inode}"))
        elif used.get(block, True):
            found[block] = OwnedBlock(BlockOwner.METADATA, "filesystem metadata")
        else:
            found[block] = OwnedBlock(BlockOwner.FREE, "free space")
    return found


def _debugfs(runner: Runner, device: str, *commands: str) -> str:
    return runner.run(["debugfs", "-f", "-", device], stdin="\n".join(commands) + "\n", timeout=60).stdout
