"""QEMU's own LUKS layer: QEMU encrypts each write into a buffer of its own, and that is what it writes to DRBD."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence

from harness.errors import HarnessError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.layers.base import LAYER_SECONDS, NAME, Inner, Layer, Place, loop
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner, DiskSource, FilesystemKind, Layout

_IN_THE_COPY = f"{NAME}-owners"
# Where the data begin is given, so that nobody has to read it; the default of LUKS1 with a key of 512 bits is the same.
_HEADER_SECTORS = 4096
_HEADER_MIB = _HEADER_SECTORS * 512 // 2**20
# QEMU knows the first version of the header only.
_MAKE = f"""
cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64 --key-size 512 --hash sha256 \\
    --pbkdf-force-iterations 1000 --offset {_HEADER_SECTORS} --key-file - "$1"
"""
_CLOSE = '[ ! -e "/dev/mapper/$1" ] || cryptsetup close "$1"'


class CryptQemu(Layer):
    """LUKS in QEMU, between the guest and DRBD on the node.

    The header is made on the node; libvirt gives QEMU the key, and nothing on the node sees what is decrypted.
    """

    layout = Layout.CRYPT_QEMU
    method = "the LUKS1 header, and the data decrypted with the cell's key"
    programs = ("cryptsetup",)

    def __init__(self, filesystem: FilesystemKind = FilesystemKind.RAW) -> None:
        super().__init__(filesystem)
        # It goes over standard input and libvirt's secret only, never into a command line or a file.
        self._key = secrets.token_hex(32)

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """The header."""
        return inner_mib + _HEADER_MIB

    def make(self, target: WorkloadTarget) -> None:
        """Make the header, with a new key."""
        argv = ["sh", "-ec", _MAKE, "sh", target.device]
        target.runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """The device as large as the guest sees it; it is QEMU that opens it."""
        own = target.own_blocks - _HEADER_SECTORS * 512 // BLOCK_BYTES
        return WorkloadTarget(target.runner, target.device, target.resource, own)

    def disk(self, target: WorkloadTarget) -> DiskSource:
        """The device, and the key of its header."""
        return DiskSource(target.device, luks_key=self._key)

    @contextlib.contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        """The copy decrypted, by a device of device-mapper, which is read-only."""
        runner, first = view.runner, _HEADER_SECTORS * 512 // BLOCK_BYTES
        with loop(runner, view.path) as device:
            argv = ["cryptsetup", "open", "--type", "luks1", "--readonly", "--key-file", "-", device, _IN_THE_COPY]
            try:
                runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS)
                decrypted = ReplicaView(runner, f"/dev/mapper/{_IN_THE_COPY}", view.blocks - first)
                yield Inner(decrypted, lambda blocks: _places(blocks, first))
            finally:
                # Also where the command that made it did not end.
                with contextlib.suppress(HarnessError):
                    runner.run(["sh", "-ec", _CLOSE, "sh", _IN_THE_COPY], timeout=LAYER_SECONDS)


def _places(blocks: Sequence[int], first: int) -> Mapping[int, Place]:
    header = OwnedBlock(BlockOwner.METADATA, "the LUKS1 header")
    return {block: header if block < first else block - first for block in blocks}
