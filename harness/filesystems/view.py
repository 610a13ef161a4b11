"""A replica as those see it who look for the owners of its blocks: a copy that nobody writes to."""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass, field

from harness.errors import InfrastructureError
from harness.model import BLOCK_BYTES
from harness.remote.base import Runner

READ_SECONDS = 60.0
# A round trip to an emulated node takes as long as reading so much there.
CHUNK_BYTES = 256 * 1024
_CHUNKS_KEPT = 64
_READ = 'dd if="$1" bs="$2" skip="$3" count=1 iflag=fullblock status=none | base64 -w 0'


@dataclass(frozen=True)
class ReplicaView:
    """A read-only copy of node a's replica, or what a layer in it holds.

    ``path`` is a file or a block device where ``runner`` runs, which is node a; ``blocks`` its size in 4 KiB blocks.
    Nobody writes to it, so that what was read once is not read again.
    """

    runner: Runner
    path: str
    blocks: int
    _read: OrderedDict[int, bytes] = field(default_factory=OrderedDict, repr=False, compare=False)

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from byte ``offset`` on, fewer at the end, none behind it.

        Blocks for at most a minute for each 256 KiB.  :class:`ValueError` for a negative place;
        :class:`InfrastructureError` where less is there than belongs there.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"no place of a replica: {size} bytes at {offset}")
        end = min(offset + size, self.blocks * BLOCK_BYTES)
        if end <= offset:
            return b""
        chunks = range(offset // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1)
        data = b"".join(self._chunk(number) for number in chunks)
        return data[offset - chunks[0] * CHUNK_BYTES :][: end - offset]

    def _chunk(self, number: int) -> bytes:
        if (data := self._read.get(number)) is None:
            done = self.runner.run(self._reading(number), timeout=READ_SECONDS)
            try:
                data = base64.b64decode(done.stdout, validate=True)
            except binascii.Error:
                data = b""
            if len(data) < min(CHUNK_BYTES, self.blocks * BLOCK_BYTES - number * CHUNK_BYTES):
                why = f": {done.message}" if done.stderr.strip() else ""
                where = f"{self.path} on {self.runner.host}"
                raise InfrastructureError(f"{where} cannot be read {self._place(number)}{why}")
            self._read[number] = data
        self._read.move_to_end(number)
        while len(self._read) > _CHUNKS_KEPT:
            self._read.popitem(last=False)
        return data

    def _reading(self, number: int) -> list[str]:
        """The command that prints a chunk in Base64."""
        return ["sh", "-ec", _READ, "sh", self.path, str(CHUNK_BYTES), str(number)]

    def _place(self, number: int) -> str:
        """Where a chunk could not be read, as an end of a sentence."""
        return f"to its end of {self.blocks} blocks"
