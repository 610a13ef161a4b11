"""Ready DRBD modules: found in a folder or in packages, and what they say of themselves.

A module keeps what ``modinfo`` prints as ``key=value`` texts in its file, a zero byte behind each.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images import debs
from harness.images.debs import Deb, UserDebError
from harness.util.read_file import MOST_STORED_BYTES, read_file

MODULE_NAME = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$")
NOT_FOR_A_LAB = frozenset({"drbd_transport_rdma.ko"})
"""What a build of DRBD has and no node can load: their kernels have no InfiniBand, and their networks neither."""

UNPACK_ERRORS = (OSError, EOFError, lzma.LZMAError, subprocess.SubprocessError)
"""What :func:`unpacked` raises."""

_INFO = re.compile(rb"\0(vermagic|version|srcversion|depends|name)=([^\0]*)")
_BUILT_FOR = re.compile(rb"(?:^|\0)vermagic=([^\0 ]*)")


@dataclass(frozen=True)
class Module:
    """One module, unpacked: its file's name without a suffix of compression, and what ``modinfo`` says."""

    name: str
    content: bytes
    kernel: str
    version: str
    srcversion: str
    needs: tuple[str, ...]
    origin: Path

    def facts(self) -> dict[str, str]:
        """What is kept of it."""
        return {
            "version": self.version,
            "srcversion": self.srcversion,
            "kernel": self.kernel,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "origin": str(self.origin),
        }


def read(path: Path) -> Module:
    """The module in the file ``path``; :class:`UserDebError` where it is none."""
    try:
        content = unpacked(path)
    except UNPACK_ERRORS as error:
        raise UserDebError(f"{path} cannot be read as a kernel module: {error}") from error
    built_for = _BUILT_FOR.search(content)
    if not content.startswith(b"\x7fELF") or built_for is None:
        raise UserDebError(f"{path} is no kernel module")
    info = {key.decode(): value.decode(errors="replace") for key, value in _INFO.findall(content)}
    return Module(
        name=MODULE_NAME.sub(".ko", path.name),
        content=content,
        kernel=built_for[1].decode(errors="replace"),
        version=info.get("version", ""),
        srcversion=info.get("srcversion", ""),
        needs=tuple(name for name in info.get("depends", "").split(",") if name),
        origin=path,
    )


def files_in(folder: Path) -> list[Path]:
    """The modules of a folder, those at its top where there are any."""
    found = [path for path in sorted(folder.iterdir()) if MODULE_NAME.search(path.name)]
    return found or sorted(path for path in folder.rglob("*") if MODULE_NAME.search(path.name) and path.is_file())


def in_deb(deb: Deb, scratch: Path) -> list[Module]:
    """The modules in a package, which is unpacked below ``scratch``."""
    folder = scratch / deb.path.name
    folder.mkdir()
    return [read(path) for path in files_in(debs.unpack(deb, folder))]


def one_of_each(modules: Iterable[Module]) -> list[Module]:
    """``modules``, one of each name; :class:`UserDebError` where two of a name are not the same."""
    found: dict[str, Module] = {}
    for module in modules:
        other = found.setdefault(module.name, module)
        if other.content != module.content:
            raise UserDebError(f"there are two {module.name}: {other.origin} and {module.origin}; which is meant?")
    return list(found.values())


def check(modules: Sequence[Module], kernel: str, where: str) -> None:
    """:class:`UserDebError` unless there is a DRBD in ``modules`` and all are for ``kernel``; ``where`` they are."""
    if not any(module.name == "drbd.ko" for module in modules):
        others = f", only {', '.join(module.name for module in modules[:5])}" if modules else ""
        raise UserDebError(f"there is no drbd.ko in {where}{others}")
    for module in modules:
        if module.kernel != kernel:
            raise UserDebError(
                f"{module.origin} was built for the kernel {module.kernel}, and the image has {kernel}: "
                "build it for that one, or name the kernel that it is for as 'kernel' of the stack"
            )


def unpacked(path: Path) -> bytes:
    """The content of the file of a module, whatever its suffix says it is packed with; :data:`UNPACK_ERRORS`."""
    if path.suffix == ".xz":
        return lzma.decompress(read_file(path, MOST_STORED_BYTES))
    if path.suffix == ".gz":
        return gzip.decompress(read_file(path, MOST_STORED_BYTES))
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True, timeout=60.0).stdout
    return read_file(path, MOST_STORED_BYTES)
