"""A LUKS header and a key of the cell's own: what dm-crypt and QEMU's encryption have in common."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from harness.errors import HarnessError
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.layers.base import LAYER_SECONDS, NAME, Inner, Layer, Place, loop
from harness.filesystems.owned import OwnedBlock
from harness.filesystems.view import ReplicaView
from harness.model import BlockOwner, FilesystemKind

_IN_THE_COPY = f"{NAME}-owners"
#: Ends a mapping of device-mapper; nothing where it is not there.
CLOSE = '[ ! -e "/dev/mapper/$1" ] || cryptsetup close "$1"'


class Luks(Layer):
    """The base; ``version`` is that of the header, which takes ``header_mib`` MiB."""

    version: ClassVar[int]
    header_mib: ClassVar[int]
    programs = ("cryptsetup",)

    def __init__(self, filesystem: FilesystemKind = FilesystemKind.RAW) -> None:
        super().__init__(filesystem)
        # It goes over standard input, or libvirt's secret, only, never into a command line or a file.
        self._key = secrets.token_hex(32)

    @classmethod
    def device_mib(cls, inner_mib: int) -> int:
        """The header."""
        return inner_mib + cls.header_mib

    def _run(self, target: WorkloadTarget, script: str, *arguments: str) -> str:
        """The output of ``script``, which gets the key on its standard input."""
        argv = ["sh", "-ec", script, "sh", *arguments]
        return target.runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS).stdout

    @contextlib.contextmanager
    def _decrypted(self, view: ReplicaView, first: int) -> Iterator[Inner]:
        """The copy from its 4 KiB block ``first`` on, decrypted by a device of device-mapper, which is read-only."""
        runner, kind = view.runner, f"luks{self.version}"
        with loop(runner, view.path) as device:
            argv = ["cryptsetup", "open", "--type", kind, "--readonly", "--key-file", "-", device, _IN_THE_COPY]
            try:
                runner.run(argv, stdin=self._key, timeout=LAYER_SECONDS)
                decrypted = ReplicaView(runner, f"/dev/mapper/{_IN_THE_COPY}", view.blocks - first)
                yield Inner(decrypted, lambda blocks: self._places(blocks, first))
            finally:
                # Also where the command that made it did not end.
                with contextlib.suppress(HarnessError):
                    runner.run(["sh", "-ec", CLOSE, "sh", _IN_THE_COPY], timeout=LAYER_SECONDS)

    def _places(self, blocks: Sequence[int], first: int) -> Mapping[int, Place]:
        header = OwnedBlock(BlockOwner.METADATA, f"the LUKS{self.version} header")
        return {block: header if block < first else block - first for block in blocks}
