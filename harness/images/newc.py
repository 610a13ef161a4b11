"""The archive that a Linux kernel unpacks as its first filesystem: cpio in the format "newc".

The format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """A file, directory or device node, owned by root; ``mode`` says the kind too, ``device`` is major and minor."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(members: Iterable[Member]) -> bytes:
    """``members`` in their order, uncompressed; directories have to come before what is in them."""
    out = io.BytesIO()
    for serial, member in enumerate([*members, Member(_TRAILER, 0)], start=1):
        name = member.name.encode() + b"\0"
        fields = (serial, member.mode, 0, 0, 1, 0, len(member.data), 0, 0, *member.device, len(name), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        out.write(b"\0" * (-out.tell() % 4))
        out.write(member.data)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()
