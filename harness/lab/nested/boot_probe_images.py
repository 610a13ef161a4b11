"""The two smallest things worth booting: a boot sector, and an initial filesystem for any Linux kernel."""

from __future__ import annotations

from harness.images import newc
from harness.images.newc import Member

SECTOR_SENTINEL = b"drbd-harness: the boot sector ran"
KERNEL_SENTINEL = b"Run /init as init process"
"""The kernel's own line, the last it prints before it leaves for user space."""

_CODE = """
    fa        cli
    31 c0     xor  ax, ax
    8e d8     mov  ds, ax
    be 23 7c  mov  si, 0x7c23      the text, right behind this code
    fc        cld
    ac        lodsb                next:
    84 c0     test al, al
    74 12     jz   halt
    88 c4     mov  ah, al
    ba fd 03  mov  dx, 0x3fd       status of the first serial port
    ec        in   al, dx          wait:
    a8 20     test al, 0x20        is there room for a byte?
    74 fb     jz   wait
    88 e0     mov  al, ah
    ba f8 03  mov  dx, 0x3f8
    ee        out  dx, al
    eb e9     jmp  next
    f4        hlt                  halt:
    eb fd     jmp  halt
"""


def boot_sector() -> bytes:
    """512 bytes that print their sentinel on the first serial port and halt."""
    code = bytes.fromhex("".join(line[:14] for line in _CODE.splitlines()))
    return (code + SECTOR_SENTINEL + b"\r\n\0").ljust(510, b"\0") + b"\x55\xaa"


def tiny_initramfs() -> bytes:
    """An archive with an ``/init`` that cannot run: the kernel prints its line before it notices."""
    return newc.archive([Member("init", 0o100755, b"#!/nowhere\n")]).ljust(512, b"\0")
