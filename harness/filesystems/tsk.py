"""Files and where their data are, by The Sleuth Kit (pytsk3), which reads a replica on the controller.

It reads FAT, exFAT and NTFS without mounting anything.  What it recovers of deleted files is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytsk3

from harness.errors import HarnessError
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES

#: So many files are looked at: some seconds' worth; blocks of a filesystem with more may stay unknown.
MAX_FILES = 100_000
#: A table or a directory of a filesystem that a lab's device has room for is far below this.
MAX_BYTES = 256 * 2**20

_ALLOCATED = int(pytsk3.TSK_FS_META_FLAG_ALLOC)
_NAMED = int(pytsk3.TSK_FS_NAME_FLAG_ALLOC)
_DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_DIR)
_VIRTUAL_DIRECTORY = int(pytsk3.TSK_FS_META_TYPE_VIRT_DIR)
_RESIDENT = int(pytsk3.TSK_FS_ATTR_RES)
_NOWHERE = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER) | int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE)


@dataclass(frozen=True)
class Run:
    """Bytes ``start`` to before ``stop`` of the device, which begin at byte ``offset`` of the stream."""

    start: int
    stop: int
    offset: int


@dataclass(frozen=True)
class Stream:
    """One attribute of a file that has clusters; ``kind`` and ``name`` as NTFS numbers and names it."""

    kind: int
    name: str
    runs: tuple[Run, ...]


class _Image(pytsk3.Img_Info):  # type: ignore[misc]
    """A view as an image that The Sleuth Kit reads."""

    def __init__(self, view: ReplicaView) -> None:
        self._view = view
        #: What went wrong below it: The Sleuth Kit goes on after it, and does not tell it.
        self.error: HarnessError | None = None
        super().__init__(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)

    def get_size(self) -> int:
        return self._view.blocks * BLOCK_BYTES

    def read(self, offset: int, size: int) -> bytes:
        try:
            return b"" if self.error is not None else self._view.read(offset, size)
        except HarnessError as error:
            # An exception would not get through: nothing is read, which it takes for an error of the disk.
            self.error = error
            return b""

    def close(self) -> None:
        """Nothing is open."""


class TskFilesystem:
    """The filesystem in a view, opened as one of ``kind``.

    Whatever is read raises :class:`OSError` where there is no such filesystem or it is broken there, and what the view
    raises.
    """

    def __init__(self, view: ReplicaView, kind: int) -> None:
        self._image = _Image(view)
        with self._told():
            self._fs = pytsk3.FS_Info(self._image, 0, kind)
        info = self._fs.info
        self.block_bytes, self.blocks = int(info.block_size), int(info.block_count)
        self.root = int(info.root_inum)
        #: The directories that :meth:`names` has seen.
        self.directories: set[int] = {self.root}

    def names(self) -> Mapping[int, tuple[str, ...]]:
        """The paths of all files and directories that have one, by their inode; the one nearest to the root first."""
        found: dict[int, list[str]] = {self.root: ["/"]}
        waiting = [(self.root, "")]
        while waiting and len(found) < MAX_FILES:
            directory, above = waiting.pop()
            for inode, name, is_directory in self._entries(directory):
                if is_directory and inode not in self.directories:
                    self.directories.add(inode)
                    waiting.append((inode, f"{above}/{name}"))
                found.setdefault(inode, []).append(f"{above}/{name}")
        return {inode: tuple(sorted(paths, key=lambda path: (path.count("/"), path))) for inode, paths in found.items()}

    def streams(self, inode: int) -> Sequence[Stream]:
        """What ``inode`` has outside of its record; nothing where it is not in use or cannot be read."""
        found = []
        try:
            with self._told():
                file = self._fs.open_meta(inode)
                if int(file.info.meta.flags) & _ALLOCATED:
                    found = [self._stream(one) for one in file if not int(one.info.flags) & _RESIDENT]
        except OSError:
            return ()
        return found

    def content(self, inode: int) -> bytes:
        """All bytes of ``inode``; :class:`OSError` where they cannot be read, or are far too many."""
        with self._told():
            file = self._fs.open_meta(inode)
            size = int(file.info.meta.size)
            if size > MAX_BYTES:
                raise OSError(f"{size} bytes are more than any table or directory of it has")
            return bytes(file.read_random(0, size)) if size else b""

    def _entries(self, directory: int) -> Sequence[tuple[int, str, bool]]:
        found = []
        try:
            with self._told():
                for entry in self._fs.open_dir(inode=directory):
                    name, meta = entry.info.name, entry.info.meta
                    if not int(name.flags) & _NAMED or name.name in (b".", b".."):
                        continue
                    kind = int(meta.type if meta is not None else name.type)
                    if kind != _VIRTUAL_DIRECTORY:
                        text = name.name.decode("utf-8", errors="replace")
                        found.append((int(name.meta_addr), text, kind == _DIRECTORY))
        except OSError:
            return found
        return found

    def _stream(self, attribute: Any) -> Stream:
        name = attribute.info.name
        runs = (
            Run(run.addr * self.block_bytes, (run.addr + run.len) * self.block_bytes, run.offset * self.block_bytes)
            for run in attribute
            if not int(run.flags) & _NOWHERE
        )
        return Stream(int(attribute.info.type), name.decode("utf-8", errors="replace") if name else "", tuple(runs))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What went wrong below is raised as it is, whatever The Sleuth Kit made of it."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise self._image.error or OSError(" ".join(str(error).split())) from None
        if self._image.error is not None:
            raise self._image.error
