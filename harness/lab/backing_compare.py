"""The third oracle: two backing devices compared block by block, outside DRBD.

In a lab of virtual nodes both are plain files on the controller.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.errors import InfrastructureError
from harness.model import BLOCK_BYTES, BlockOwner, Comparison, Sample, extents_of

_CHUNK_BLOCKS = 1024
_SAMPLE_BYTES = 32


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


def sample_files(a: Path, b: Path, blocks: Iterable[int]) -> tuple[Sample, ...]:
    """A piece of both sides of each of ``blocks``, from the first differing byte on."""
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
    piece = slice(first, first + _SAMPLE_BYTES)
    return Sample(block, first, len(places), a[piece].hex(), b[piece].hex())


def owned(sample: Sample, owner: BlockOwner, detail: str) -> Sample:
    """The sample with its owner."""
    return replace(sample, owner=owner, detail=detail)
