"""An image file, raw or qcow2, on a filesystem on the node's DRBD device: the guest's disk is that file."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from harness.errors import HarnessError
from harness.filesystems.base import MARGIN_SECONDS, Filesystem, WorkloadTarget
from harness.filesystems.ext4 import Ext4
from harness.filesystems.layers.base import LAYER_SECONDS, Inner, Layer, Place, loop, opened
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.filesystems.xfs import Xfs
from harness.model import BLOCK_BYTES, BlockOwner, DiskSource, Layout
from harness.parse.disk_image import ImageExtent, image_extents, qcow2_tables, virtual_size
from harness.remote.base import Runner

# The whole of the image has to fit, whatever the guest writes: with the tables of a qcow2 image, which take a
# 4,000th, and the extents of a file that grew in pieces.
_MAKE = """
free=$(df --output=avail --block-size=1 "$1" | tail -n 1)
mebibytes=$((free / 100 * 97 / 1048576 - 2))
if [ "$mebibytes" -lt 16 ]; then echo "there is no room for an image: $free bytes are free" >&2; exit 1; fi
qemu-img create -q -f "$3" "$2" "${mebibytes}M"
"""
_CLOSE = """
mountpoint -q "$1" || exit 0
sync
umount "$1"
sync
"""
_MOUNT = 'mkdir -p "$3"; mount -t "$1" -o "$2" "$4" "$3"'
_UNMOUNT = '! mountpoint -q "$1" || umount "$1"'
# Mounted for writing once, its kernel replays the log; mount's own loop device goes with it.
_REPLAY = 'mkdir -p "$4"; mount -t "$1" -o "loop,$2" "$3" "$4"; umount "$4"'
_CONVERT = """
folder=$(mktemp -d /var/tmp/drbd-harness-image.XXXXXX)
echo "$folder"
qemu-img convert -U -f qcow2 -O raw "$1" "$folder/disk"
"""
_REMOVE = "rm -rf /var/tmp/drbd-harness-image.*"
_COPY_POINT = "/mnt/drbd-harness-copy"
COPY_SECONDS = 300.0


class ImageFile(Layer):
    """The base: an image of QEMU's format ``image`` on the filesystem ``outer``; sparse, as qemu-img makes it."""

    image: ClassVar[str]
    outer: ClassVar[Filesystem]
    #: With these the copy is mounted: read-only, and no journal replayed.
    read_only: ClassVar[str]
    #: With these it is mounted for writing before, where a freeze leaves the journal dirty; "" where it does not.
    replayed: ClassVar[str] = ""
    programs = ("qemu-img",)

    def make(self, target: WorkloadTarget) -> None:
        """Make the filesystem, and on it an image that takes nearly all of its room."""
        self.outer.require_room(target)
        try:
            self.outer.make(target)
            self.outer.mount(target)
        except HarnessError:
            self.outer.require(target)
            raise
        where = self.outer.file(target, "")
        target.sh(_MAKE, where, self._path(target), self.image, timeout=LAYER_SECONDS)
        self.close(target)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """Mount the filesystem."""
        self.outer.mount(target)
        path = self._path(target)
        argv = ["qemu-img", "info", "-U", "--output=json", "-f", self.image, path]
        return opened(target, path, virtual_size(target.runner.run(argv, timeout=LAYER_SECONDS).stdout))

    def close(self, target: WorkloadTarget) -> None:
        """Unmount it; no QEMU may have the image open any more."""
        target.sh(_CLOSE, self.outer.file(target, "").rstrip("/"), timeout=MARGIN_SECONDS)

    @contextlib.contextmanager
    def settled(self, target: WorkloadTarget) -> Iterator[None]:
        """Frozen, its filesystem is whole on the device: ext4 with an empty journal, XFS with one to be replayed."""
        where = self.outer.file(target, "").rstrip("/")
        target.runner.run(["fsfreeze", "--freeze", where], timeout=MARGIN_SECONDS)
        try:
            yield
        finally:
            target.runner.run(["fsfreeze", "--unfreeze", where], timeout=MARGIN_SECONDS)

    def disk(self, target: WorkloadTarget) -> DiskSource:
        """The image."""
        return DiskSource(target.device, file=True, format=self.image)

    def _path(self, target: WorkloadTarget) -> str:
        return self.outer.file(target, self._name)

    @property
    def _name(self) -> str:
        return f"disk.{self.image}"

    @contextlib.contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        """The image on the copy, mounted read-only; of a qcow2 image what it holds, written out.

        A log that has to be replayed is so in the copy, which nobody else reads: it is written to.
        """
        runner, path = view.runner, f"{_COPY_POINT}/{self._name}"
        with contextlib.ExitStack() as stack:
            kind = self.outer.kind.value
            if self.replayed:
                stack.callback(_quietly, runner, ["sh", "-ec", _UNMOUNT, "sh", _COPY_POINT])
                replay = ["sh", "-ec", _REPLAY, "sh", kind, self.replayed, view.path, _COPY_POINT]
                runner.run(replay, timeout=LAYER_SECONDS)
            device = stack.enter_context(loop(runner, view.path))
            stack.callback(_quietly, runner, ["sh", "-ec", _UNMOUNT, "sh", _COPY_POINT])
            runner.run(["sh", "-ec", _MOUNT, "sh", kind, self.read_only, _COPY_POINT, device], timeout=LAYER_SECONDS)
            info = ["qemu-img", "info", "-U", "--output=json", "-f", self.image, path]
            size = virtual_size(runner.run(info, timeout=LAYER_SECONDS).stdout)
            seen, in_image = self._seen(runner, path, stack)
            disk = ReplicaView(runner, seen, size // BLOCK_BYTES)
            yield Inner(disk, lambda blocks: self._places(view, blocks, in_image))

    def _seen(
        self, runner: Runner, path: str, stack: contextlib.ExitStack
    ) -> tuple[str, Callable[[int], Place]]:  # fmt: skip
        """A path at which the guest's disk can be read, and where in it a block of the file is."""
        return path, lambda block: block

    def _places(
        self, view: ReplicaView, blocks: Sequence[int], in_image: Callable[[int], Place]
    ) -> Mapping[int, Place]:  # fmt: skip
        found: dict[int, Place] = {}
        for block, owned in self.outer.owners(view, blocks).items():
            if owned.path != f"/{self._name}" or owned.owner is not BlockOwner.ALLOCATED:
                found[block] = OwnedBlock(owned.owner, f"{self.outer.kind} below the image: {owned.detail}")
            elif owned.offset is None or owned.offset % BLOCK_BYTES:
                found[block] = OwnedBlock(BlockOwner.UNKNOWN, "somewhere in the image file")
            else:
                found[block] = in_image(owned.offset // BLOCK_BYTES)
        return found


class Qcow2(ImageFile):
    """The same with a qcow2 image, whose tables say where it holds what."""

    image = "qcow2"

    def _seen(
        self, runner: Runner, path: str, stack: contextlib.ExitStack
    ) -> tuple[str, Callable[[int], Place]]:  # fmt: skip
        stack.callback(_quietly, runner, ["sh", "-ec", _REMOVE])
        folder = runner.run(["sh", "-ec", _CONVERT, "sh", path], timeout=COPY_SECONDS).stdout.strip()
        mapped = ["qemu-img", "map", "-U", "--output=json", "-f", "qcow2", path]
        extents = image_extents(runner.run(mapped, timeout=LAYER_SECONDS).stdout)
        blocks = int(runner.run(["stat", "--format", "%s", path]).stdout) // BLOCK_BYTES
        tables = qcow2_tables(ReplicaView(runner, path, blocks).read)
        begins = [one.offset for one in extents]
        return f"{folder}/disk", lambda block: _in_qcow2(block, extents, begins, tables)


def _in_qcow2(
    block: int, extents: Sequence[ImageExtent], begins: Sequence[int], tables: frozenset[int]
) -> Place:  # fmt: skip
    start = block * BLOCK_BYTES
    at = bisect_right(begins, start) - 1
    if at >= 0 and start < extents[at].offset + extents[at].size:
        return (start - extents[at].offset + extents[at].start) // BLOCK_BYTES
    if block in tables:
        return OwnedBlock(BlockOwner.METADATA, "a table of the qcow2 image")
    return OwnedBlock(BlockOwner.FREE, "a cluster of the qcow2 image that nothing is in")


class _OnExt4(ImageFile):
    outer = Ext4()
    read_only = "ro,noload"

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """Journal and inodes, what ext4 keeps for root, and what the image leaves."""
        return inner_mib * 110 // 100 + 28


class _OnXfs(ImageFile):
    outer = Xfs()
    read_only = "ro,norecovery,nouuid"
    # A frozen XFS leaves its log dirty on purpose, so that a snapshot of it gets its unlinked inodes cleared.
    replayed = "nouuid"

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """The least that XFS is made on, or its log of 64 MiB, its maps, and what the image leaves."""
        return max(Xfs.needs_mib, inner_mib * 106 // 100 + 84)


class RawOnExt4(_OnExt4):
    """A raw image on ext4."""

    layout = Layout.RAW_ON_EXT4
    image = "raw"
    method = "the maps of the ext4 below the image"


class Qcow2OnExt4(Qcow2, _OnExt4):
    """A qcow2 image on ext4."""

    layout = Layout.QCOW2_ON_EXT4
    method = "the maps of the ext4 below the image, and the tables of the qcow2 image, by qemu-img"


class RawOnXfs(_OnXfs):
    """A raw image on XFS."""

    layout = Layout.RAW_ON_XFS
    image = "raw"
    method = "the maps of the XFS below the image"


class Qcow2OnXfs(Qcow2, _OnXfs):
    """A qcow2 image on XFS."""

    layout = Layout.QCOW2_ON_XFS
    method = "the maps of the XFS below the image, and the tables of the qcow2 image, by qemu-img"


def _quietly(runner: Runner, argv: Sequence[str]) -> None:
    """Undo something; where that does not succeed it is no reason to lose what was found."""
    with contextlib.suppress(HarnessError):
        runner.run(argv, timeout=LAYER_SECONDS)
