"""What the program ``replicadigest`` prints: a digest of 128 bits of each 4 KiB block, or blocks themselves."""

from __future__ import annotations

import binascii
import re

from harness.model import BLOCK_BYTES

#: XXH3-128.
DIGEST_BYTES = 16
_RUN = re.compile(r"\*([1-9][0-9]{0,18})", re.ASCII)


def digests(text: str, count: int) -> bytes:
    """The digests of ``count`` blocks, :data:`DIGEST_BYTES` each, one behind the other.

    :class:`ValueError` unless ``text`` has exactly those: what was cut off is no answer.
    """
    found = bytearray()
    for line in text.splitlines():
        if run := _RUN.fullmatch(line):
            more, last = int(run[1]), bytes(found[-DIGEST_BYTES:])
            if not last or len(found) // DIGEST_BYTES + more > count:
                raise ValueError(f"'{line}' stands for blocks that were not asked for")
            found += last * more
        else:
            found += _bytes(line)
    if len(found) != count * DIGEST_BYTES:
        raise ValueError(f"{count} digests were asked for and {len(found) / DIGEST_BYTES:g} came")
    return bytes(found)


def contents(text: str, count: int) -> tuple[bytes, ...]:
    """The ``count`` blocks that were asked for; :class:`ValueError` unless each is there and whole."""
    found = tuple(_bytes(line) for line in text.splitlines())
    if len(found) != count or any(len(block) != BLOCK_BYTES for block in found):
        raise ValueError(f"{count} blocks of {BLOCK_BYTES} bytes were asked for and {len(found)} lines came")
    return found


def differing(a: bytes, b: bytes) -> list[int]:
    """Which digests of two rows of them differ, by their numbers in it; :class:`ValueError` where one is longer."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} bytes of digests are not of the same blocks")
    found: list[int] = []
    many = 1024 * DIGEST_BYTES
    for start in range(0, len(a), many):
        one, other = a[start : start + many], b[start : start + many]
        if one != other:
            found += (
                (start + at) // DIGEST_BYTES
                for at in range(0, len(one), DIGEST_BYTES)
                if one[at : at + DIGEST_BYTES] != other[at : at + DIGEST_BYTES]
            )
    return found


def _bytes(line: str) -> bytes:
    try:
        return binascii.a2b_base64(line.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise ValueError(f"a line is no Base64: {line[:40]!r}") from None
