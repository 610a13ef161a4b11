"""Which software something is: a kernel's file, a module's file, what a QEMU and a DRBD print about themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from mmap import mmap

from harness.model import Software
from harness.parse.kernel_log import KernelLine

# An unpacked kernel has two: what it says, and a template of its build, which lacks the number and what is behind it,
# or, where the build was given a number as by 'make bindeb-pkg', only the date at its end.
_BANNER = re.compile(rb"Linux version (\S+) [^\n\0]*?(#\d+[^\n\0]*)")
_BOOT_SECTOR = b"HdrS"
_BOOT_VERSION = re.compile(rb"(\S+) [^\0]*?(#\d+[^\0]*)\0")
_MODINFO = re.compile(rb"(?<=\0)(version|srcversion)=([\x20-\x7e]*)\0")
_GIT_HASH = re.compile(rb"GIT-hash: ([0-9a-f]{40})")
_QEMU = re.compile(rb"QEMU emulator version (\d[^\s\0]*)")
_MACHINE = re.compile(r"^(pc-q35-\d+(?:\.\d+)+)\s", re.ASCII | re.MULTILINE)
_AGREED = re.compile(r"Agreed network protocol version (\d+)", re.ASCII)
_INCOMPATIBLE = re.compile(r"incompatible (?:DRBD dialects|\S* ?protocol)", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"(\d+)(?:-(\d+))?", re.ASCII)


def kernel_of(image: bytes | mmap) -> tuple[str, str]:
    """``uname -r`` and ``uname -v`` of the kernel in the file ``image``, packed (bzImage) or unpacked; empty if neither
    can be read.
    """
    if image[0x202 : 0x202 + len(_BOOT_SECTOR)] == _BOOT_SECTOR:
        # As the boot protocol says: a text at the offset that is in the setup header.
        at = int.from_bytes(image[0x20E:0x210], "little") + 0x200
        found = _BOOT_VERSION.match(image, at)
    else:
        found = max(_BANNER.finditer(image), key=lambda banner: len(banner[2]), default=None)
    return (_text(found[1]), _text(found[2])) if found else ("", "")


def module_facts(module: bytes) -> Software:
    """The version, the srcversion and the commit of the unpacked module of DRBD; what it does not tell is empty."""
    told = dict(_MODINFO.findall(b"\0" + module))
    commit = _GIT_HASH.search(module)
    return Software(
        drbd=_text(told.get(b"version", b"")),
        drbd_srcversion=_text(told.get(b"srcversion", b"")),
        drbd_git_hash=_text(commit[1]) if commit else "",
    )


def module_file(modules_dep: str, module: str) -> str | None:
    """The file of ``module``, relative to the folder of ``modules.dep``: the one that depmod chose; None without."""
    names = (line.partition(":")[0] for line in modules_dep.splitlines())
    return next((name for name in names if name.rpartition("/")[2].partition(".ko")[0] == module), None)


def qemu_version(program: bytes | mmap) -> str:
    """The version that is in a QEMU's ``program``; empty where it cannot be found."""
    found = _QEMU.search(program)
    return _text(found[1]) if found else ""


def machine_types(printed: str) -> tuple[str, ...]:
    """The versioned machine types for a guest that ``-machine help`` names, the oldest first."""
    return tuple(sorted(set(_MACHINE.findall(printed)), key=machine_order))


def machine_order(name: str) -> tuple[int, ...]:
    """A key to sort machine types by their version."""
    return tuple(int(number) for number in re.findall(r"\d+", name.removeprefix("pc-q35-"), re.ASCII))


def agreed_protocol(lines: Iterable[KernelLine]) -> str:
    """The version of DRBD's network protocol that the last handshake in ``lines`` ended with; empty without one."""
    found = [agreed[1] for line in lines if (agreed := _AGREED.search(line.text))]
    return found[-1] if found else ""


def refused_dialect(lines: Iterable[KernelLine]) -> str | None:
    """What DRBD logged last of a peer that knows no version of its network protocol; None where it logged none."""
    found = [line.text for line in lines if _INCOMPATIBLE.search(line.text)]
    return found[-1] if found else None


def protocols(listed: str) -> frozenset[int]:
    """The versions of DRBD's network protocol in a list such as ``86-101``; empty where it cannot be read."""
    ranges = (_RANGE.fullmatch(part.strip()) for part in listed.split(","))
    return frozenset(
        version for found in ranges if found for version in range(int(found[1]), int(found[2] or found[1]) + 1)
    )


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace").strip()
