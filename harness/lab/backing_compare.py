"""The third oracle: two backing devices compared block by block, outside DRBD.

In a lab of virtual nodes both are plain files on the controller.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.errors import InfrastructureError
from harness.model import BLOCK_BYTES, BlockOwner, Comparison, Extent, Sample, extents_of
from harness.parse.content import looks_like

_CHUNK_BLOCKS = 1024
# A piece of a block as a sample keeps it, and how much of it stands before the first byte that differs, at least.
_SAMPLE_BYTES = 256
_BEFORE_BYTES = 16
_LINE_BYTES = 64
DIGEST_BYTES = 8
_ZEROS = bytes(_CHUNK_BLOCKS * BLOCK_BYTES)


def compare_files(a: Path, b: Path, blocks: int) -> Comparison:
    """Compare the first ``blocks`` 4 KiB blocks of two files; what lies behind (DRBD's metadata) is no data."""
    began = time.monotonic()
    differing: list[int] = []
    with _opened(a) as left, _opened(b) as right:
        for first in range(0, blocks, _CHUNK_BLOCKS):
            count = min(_CHUNK_BLOCKS, blocks - first)
            one = _read(left, first, count, a)
            two = _read(right, first, count, b)
            if one != two:
                differing += (first + block for block in _differing(one, two, count))
    return Comparison(blocks, extents_of(differing), time.monotonic() - began, "backing files on the controller")


def _opened(path: Path) -> io.FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise InfrastructureError(f"the backing file {path} cannot be read: {error.strerror}") from None


def _read(file: io.FileIO, first: int, count: int, path: Path) -> bytes:
    file.seek(first * BLOCK_BYTES)
    data = bytearray()
    while len(data) < count * BLOCK_BYTES and (chunk := file.read(count * BLOCK_BYTES - len(data))):
        data += chunk
    if len(data) < count * BLOCK_BYTES:
        raise InfrastructureError(f"{path} is shorter than the DRBD device on it")
    return bytes(data)


def _differing(one: bytes, two: bytes, count: int) -> Iterable[int]:
    for block in range(count):
        at = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        if one[at] != two[at]:
            yield block


def block_digests(path: Path, blocks: int) -> bytes:
    """The digests of the first ``blocks`` 4 KiB blocks of a file, ``DIGEST_BYTES`` each, one behind the other.

    0.2 s for 128 MiB; what was never written costs less.
    """
    found = bytearray()
    with _opened(path) as file:
        for first in range(0, blocks, _CHUNK_BLOCKS):
            count = min(_CHUNK_BLOCKS, blocks - first)
            data = _read(file, first, count, path)
            if data == _ZEROS[: len(data)]:
                found += _digest(_ZEROS[:BLOCK_BYTES]) * count
                continue
            for at in range(0, len(data), BLOCK_BYTES):
                found += _digest(data[at : at + BLOCK_BYTES])
    return bytes(found)


def _digest(block: bytes) -> bytes:
    # Against chance, not against anybody: the processor has instructions for this one.
    return hashlib.sha1(block, usedforsecurity=False).digest()[:DIGEST_BYTES]


def changed_blocks(before: bytes, after: bytes) -> tuple[Extent, ...]:
    """The blocks whose digests are another in ``after`` than in ``before``, both from :func:`block_digests`.

    :class:`ValueError` when they are not of the same number of blocks.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} bytes of digests are not of the same blocks")
    places = range(0, len(before), DIGEST_BYTES)
    return extents_of(
        at // DIGEST_BYTES for at in places if before[at : at + DIGEST_BYTES] != after[at : at + DIGEST_BYTES]
    )


def sample_files(a: Path, b: Path, blocks: Iterable[int]) -> tuple[Sample, ...]:
    """A piece of both sides of each of ``blocks``, with what is around the first byte that differs."""
    samples = []
    with a.open("rb") as left, b.open("rb") as right:
        for block in blocks:
            left.seek(block * BLOCK_BYTES)
            right.seek(block * BLOCK_BYTES)
            samples.append(sample(block, left.read(BLOCK_BYTES), right.read(BLOCK_BYTES)))
    return tuple(samples)


def sample(block: int, a: bytes, b: bytes) -> Sample:
    """What differs in one block whose two sides are ``a`` and ``b``."""
    places = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    first = places[0] if places else 0
    start = max(0, (first - _BEFORE_BYTES) // _BEFORE_BYTES * _BEFORE_BYTES)
    start = min(start, max(0, len(a) - _SAMPLE_BYTES))
    piece = slice(start, start + _SAMPLE_BYTES)
    differing = {at // _LINE_BYTES for at in places}
    lines = "".join("1" if line in differing else "0" for line in range(BLOCK_BYTES // _LINE_BYTES))
    return Sample(
        block, first, len(places), a[piece].hex(), b[piece].hex(), start=start, looks_a=looks_like(a),
        looks_b=looks_like(b), lines=f"{int(lines, 2):0{len(lines) // 4}x}",
    )  # fmt: skip


def owned(sample: Sample, owner: BlockOwner, detail: str, path: str = "", file_offset: int | None = None) -> Sample:
    """The sample with its owner; with the file and the offset in it where those are known."""
    return replace(sample, owner=owner, detail=detail, path=path, file_offset=file_offset)
