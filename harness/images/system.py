"""The system in a finished image: read out of its filesystem, without mounting it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytsk3

from harness.config.recipe import ImageError

_KINDS = {
    pytsk3.TSK_FS_META_TYPE_DIR: tarfile.DIRTYPE,
    pytsk3.TSK_FS_META_TYPE_REG: tarfile.REGTYPE,
    pytsk3.TSK_FS_META_TYPE_LNK: tarfile.SYMTYPE,
}
# What the kernel and mmdebstrap fill.
_NOT_KEPT = ("/dev", "/proc", "/sys", "/lost+found")


class _Content(io.RawIOBase):
    """A file in the image, for one reading from its beginning."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    def read(self, size: int = -1) -> bytes:
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        data: bytes = self._file.read_random(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data


class System:
    """The root filesystem ``root`` of an image."""

    def __init__(self, root: Path) -> None:
        try:
            self._filesystem = pytsk3.FS_Info(pytsk3.Img_Info(str(root)))
        except OSError as error:
            raise ImageError(f"the image {root} cannot be read: {error}") from error

    def read(self, path: str) -> bytes:
        """The content of the file ``path``; :class:`ImageError` where there is none."""
        try:
            file = self._filesystem.open(path)
            return _Content(file, file.info.meta.size).read()
        except OSError as error:
            raise ImageError(f"there is no {path} in the image") from error

    def pack(self, tar_path: Path) -> None:
        """Write all of it as the tar ``tar_path``, with owners, modes, times and hard links; takes a few seconds."""
        with tarfile.open(tar_path, "w", format=tarfile.PAX_FORMAT) as tar:
            self._pack(tar, self._filesystem.info.root_inum, "", {})

    def _pack(self, tar: tarfile.TarFile, inode: int, path: str, known: dict[int, str]) -> None:
        for file in self._filesystem.open_dir(inode=inode):
            name, meta = file.info.name.name, file.info.meta
            if name in (b".", b"..") or meta is None:
                continue
            below = f"{path}/{name.decode(errors='surrogateescape')}"
            kind = _KINDS.get(meta.type)
            if kind is None or below == "/lost+found":
                continue
            member = tarfile.TarInfo(f".{below}")
            member.mode, member.uid, member.gid, member.mtime = int(meta.mode) & 0o7777, meta.uid, meta.gid, meta.mtime
            member.type = kind
            if kind == tarfile.SYMTYPE:
                member.linkname = meta.link.decode(errors="surrogateescape")
            elif kind == tarfile.REGTYPE and meta.nlink > 1 and meta.addr in known:
                member.type, member.linkname = tarfile.LNKTYPE, known[meta.addr]
            elif kind == tarfile.REGTYPE:
                member.size = meta.size
                known[meta.addr] = member.name
            tar.addfile(member, _Content(file, meta.size) if member.type == tarfile.REGTYPE else None)
            if kind == tarfile.DIRTYPE and below not in _NOT_KEPT:
                self._pack(tar, meta.addr, below, known)
