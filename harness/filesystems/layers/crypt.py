"""dm-crypt with a LUKS2 header: each write is encrypted into a buffer of its own, and that is what goes on."""

from __future__ import annotations

from contextlib import AbstractContextManager

from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.filesystems.layers.base import LAYER_SECONDS, NAME, Inner, opened
from harness.filesystems.layers.luks import CLOSE, Luks
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, Layout
from harness.parse.luks import luks_data_offset

_MAPPING = f"{NAME}-crypt"

# The password is 256 bits of chance: nobody has to be kept from guessing it, and deriving the key from it slowly would
# take seconds on an emulated machine.
_MAKE = """
modprobe -q dm-crypt || true
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file - "$1"
"""
_OPEN = """
modprobe -q dm-crypt || true
cryptsetup open --type luks2 --key-file - "$1" "$2"
echo "/dev/mapper/$2"
blockdev --getsize64 "/dev/mapper/$2"
"""


class Crypt(Luks):
    """dm-crypt in the client."""

    layout = Layout.CRYPT
    method = "the LUKS2 header, and the data decrypted with the cell's key"
    modules = ("dm-crypt",)
    version = 2
    # cryptsetup's default.
    header_mib = 16

    def make(self, target: WorkloadTarget) -> None:
        """Make the header, with a new key."""
        self._run(target, _MAKE, target.device)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """The device of device-mapper with what is decrypted."""
        device, size = self._run(target, _OPEN, target.device, _MAPPING).split()
        return opened(target, device, int(size))

    def close(self, target: WorkloadTarget) -> None:
        """The device of device-mapper goes."""
        target.sh(CLOSE, _MAPPING, timeout=MARGIN_SECONDS)

    def inner(self, view: ReplicaView) -> AbstractContextManager[Inner]:
        """The copy decrypted, from where its header says that the data begin."""
        dump = ["cryptsetup", "luksDump", "--dump-json-metadata", view.path]
        offset = luks_data_offset(view.runner.run(dump, timeout=LAYER_SECONDS).stdout)
        if offset % BLOCK_BYTES:
            raise ValueError(f"the encrypted data begin at byte {offset}, in the middle of a block")
        return self._decrypted(view, offset // BLOCK_BYTES)


class CryptNode(Crypt):
    """The same above DRBD on the node, below QEMU."""

    layout = Layout.CRYPT_NODE
