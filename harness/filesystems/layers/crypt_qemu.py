"""QEMU's own LUKS layer: QEMU encrypts each write into a buffer of its own, and that is what it writes to DRBD."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace

from harness.filesystems.base import WorkloadTarget
from harness.filesystems.layers.base import Inner
from harness.filesystems.layers.luks import Luks
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, DiskSource, Layout

# Where the data begin is given, so that nobody has to read it; the default of LUKS1 with a key of 512 bits is the same.
_HEADER_SECTORS = 4096
_HEADER_BLOCKS = _HEADER_SECTORS * 512 // BLOCK_BYTES
# QEMU knows the first version of the header only.
_MAKE = f"""
cryptsetup luksFormat --batch-mode --type luks1 --cipher aes-xts-plain64 --key-size 512 --hash sha256 \\
    --pbkdf-force-iterations 1000 --offset {_HEADER_SECTORS} --key-file - "$1"
"""


class CryptQemu(Luks):
    """LUKS in QEMU, between the guest and DRBD on the node.

    The header is made on the node; libvirt gives QEMU the key, and nothing on the node sees what is decrypted.
    """

    layout = Layout.CRYPT_QEMU
    method = "the LUKS1 header, and the data decrypted with the cell's key"
    version = 1
    header_mib = _HEADER_SECTORS * 512 // 2**20

    def make(self, target: WorkloadTarget) -> None:
        """Make the header, with a new key."""
        self._run(target, _MAKE, target.device)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """The device as large as the guest sees it; it is QEMU that opens it."""
        own = target.own_blocks - _HEADER_BLOCKS
        return replace(target, blocks=own)

    def disk(self, target: WorkloadTarget) -> DiskSource:
        """The device, and the key of its header."""
        return DiskSource(target.device, luks_key=self._key)

    def inner(self, view: ReplicaView) -> AbstractContextManager[Inner]:
        """The copy decrypted."""
        return self._decrypted(view, _HEADER_BLOCKS)
