"""dm-crypt with a LUKS2 header: each write is encrypted into a buffer of its own, and that is what goes on."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence

from harness.errors import HarnessError
from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.filesystems.layers.base import LAYER_SECONDS, NAME, Inner, Layer, Place, loop, opened
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemKind, Layout
from harness.parse.luks import luks_data_offset

#: What the header takes, in MiB; cryptsetup's default.
_HEADER_MIB = 16
_MAPPING = f"{NAME}-crypt"
_IN_THE_COPY = f"{NAME}-owners"

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
_CLOSE = '[ ! -e "/dev/mapper/$1" ] || cryptsetup close "$1"'


class Crypt(Layer):
    """dm-crypt in the client."""

    layout = Layout.CRYPT
    method = "the LUKS2 header, and the data decrypted with the cell's key"
    modules = ("dm-crypt",)
    programs = ("cryptsetup",)

    def __init__(self, filesystem: FilesystemKind = FilesystemKind.RAW) -> None:
        super().__init__(filesystem)
        # It goes over standard input only, never into a command line or a file.
        self._key = secrets.token_hex(32)

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """The header."""
        return inner_mib + _HEADER_MIB

    def make(self, target: WorkloadTarget) -> None:
        """Make the header, with a new key."""
        self._run(target, _MAKE, target.device)

    def open(self, target: WorkloadTarget) -> WorkloadTarget:
        """The device of device-mapper with what is decrypted."""
        device, size = self._run(target, _OPEN, target.device, _MAPPING).split()
        return opened(target, device, int(size))

    def _run(self, target: WorkloadTarget, script: str, *arguments: str) -> str:
        argv = ["sh", "-ec", script, "sh", *arguments]
        return target.runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS).stdout

    def close(self, target: WorkloadTarget) -> None:
        """The device of device-mapper goes."""
        target.sh(_CLOSE, _MAPPING, timeout=MARGIN_SECONDS)

    @contextlib.contextmanager
    def inner(self, view: ReplicaView) -> Iterator[Inner]:
        """The copy decrypted, by another device of device-mapper, which is read-only."""
        runner = view.runner
        dump = ["cryptsetup", "luksDump", "--dump-json-metadata", view.path]
        offset = luks_data_offset(runner.run(dump, timeout=LAYER_SECONDS).stdout)
        if offset % BLOCK_BYTES:
            raise ValueError(f"the encrypted data begin at byte {offset}, in the middle of a block")
        first = offset // BLOCK_BYTES
        with loop(runner, view.path) as device:
            argv = ["cryptsetup", "open", "--type", "luks2", "--readonly", "--key-file", "-", device, _IN_THE_COPY]
            try:
                runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS)
                decrypted = ReplicaView(runner, f"/dev/mapper/{_IN_THE_COPY}", view.blocks - first)
                yield Inner(decrypted, lambda blocks: _places(blocks, first))
            finally:
                # Also where the command that made it did not end.
                with contextlib.suppress(HarnessError):
                    runner.run(["sh", "-ec", _CLOSE, "sh", _IN_THE_COPY], timeout=LAYER_SECONDS)


class CryptNode(Crypt):
    """The same above DRBD on the node, below QEMU."""

    layout = Layout.CRYPT_NODE


def _places(blocks: Sequence[int], first: int) -> Mapping[int, Place]:
    header = OwnedBlock(BlockOwner.METADATA, "the LUKS2 header")
    return {block: header if block < first else block - first for block in blocks}
