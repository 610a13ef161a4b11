"""A disk whose flushes take long: a loop device on a file in a filesystem of our own (FUSE), kept in memory.

Each flush that reaches the file is answered ``seconds`` after it began.  It does not matter by which system call or
ring it was asked for: fdatasync, RWF_DSYNC, io_uring.  A write that nobody flushes is answered at once, from the page
cache of the loop device.  So whoever says that a write is flushed sooner than that after it was written is wrong.

Needs root and Linux with FUSE and loop devices.  All of it is in a mount namespace of this process and ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.other_root import libc
from harness.errors import HarnessError
from harness.remote.local import LocalRunner

SIZE = 1 << 20
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2
# Requests of the FUSE protocol, include/uapi/linux/fuse.h; whatever else is asked for gets ENOSYS.
_LOOKUP, _GETATTR, _SETATTR, _OPEN, _READ, _WRITE = 1, 3, 4, 14, 15, 16
_RELEASE, _FSYNC, _FLUSH, _INIT = 18, 20, 25, 26
_SILENT = {2, 36, 42}  # FORGET, INTERRUPT and BATCH_FORGET have no answer
_ROOT_NODE, _FILE_NODE = 1, 2
_NAME = b"disk"
_HEADER = struct.Struct("<IIQQIIIHH")
_REQUEST_BYTES = 1 << 20


@contextlib.contextmanager
def slow_disk(folder: Path, seconds: float) -> Iterator[Path]:
    """The loop device, of 1 MiB; ``folder`` is empty.  Needs
    :func:`~harness.doctor.other_root.private_mounts` before.

    :class:`HarnessError` where there is none, or where its flushes do not take ``seconds``.
    """
    with contextlib.ExitStack() as undo:
        fuse = os.open("/dev/fuse", os.O_RDWR)
        undo.callback(os.close, fuse)
        options = f"fd={fuse},rootmode=40755,user_id=0,group_id=0"
        libc("mount", b"drbd-harness", os.fsencode(folder), b"fuse", _MS_NOSUID | _MS_NODEV, options.encode())
        undo.callback(libc, "umount2", os.fsencode(folder), _MNT_DETACH)
        threading.Thread(target=_Filesystem(fuse, seconds).serve, daemon=True).start()
        loop = LocalRunner().run(["losetup", "--find", "--show", str(folder / _NAME.decode())]).stdout.strip()
        undo.callback(lambda: LocalRunner().run(["losetup", "--detach", loop], ok=()))
        _control(loop, seconds)
        yield Path(loop)


def _control(loop: str, seconds: float) -> None:
    """The device does what the answers rest on: a write is fast, its flush is slow."""
    disk = os.open(loop, os.O_WRONLY)
    try:
        began = time.monotonic()
        os.pwrite(disk, b"\1" * 4096, SIZE - 4096)
        wrote = time.monotonic() - began
        os.fdatasync(disk)
        took = time.monotonic() - began
    finally:
        os.close(disk)
    if wrote > seconds / 2 or took < seconds:
        raise HarnessError(f"the slow disk is none: a write took {wrote:.2f} s, with its flush {took:.2f} s")


class _Filesystem:
    """One file of :data:`SIZE` bytes, and the answers to what the kernel asks about it."""

    def __init__(self, fuse: int, seconds: float) -> None:
        self._fuse = fuse
        self._seconds = seconds
        self._data = bytearray(SIZE)

    def serve(self) -> None:
        """Answer until it is unmounted."""
        while True:
            try:
                request = os.read(self._fuse, _REQUEST_BYTES)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return
            _, code, unique, node, *_ = _HEADER.unpack_from(request)
            if code in _SILENT:
                continue
            status, answer, slow = self._answered(code, node, request[_HEADER.size :])
            if slow:
                threading.Timer(self._seconds, self._reply, (unique, status, answer)).start()
            else:
                self._reply(unique, status, answer)

    def _reply(self, unique: int, status: int, answer: bytes) -> None:
        # After an unmount, or an interrupted request, nobody waits for it.
        with contextlib.suppress(OSError):
            os.write(self._fuse, struct.pack("<IiQ", 16 + len(answer), -status, unique) + answer)

    def _answered(self, code: int, node: int, body: bytes) -> tuple[int, bytes, bool]:
        """The error number, the answer, and whether it has to wait as a flush."""
        if code == _INIT:
            # Version 7.31; no feature is asked for, so that each write arrives at once and by itself.
            return 0, struct.pack("<IIIIHHIIHHII24x", 7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, 0, 0), False
        if code == _LOOKUP:
            if body.rstrip(b"\0") != _NAME:
                return errno.ENOENT, b"", False
            return 0, struct.pack("<QQQQII", _FILE_NODE, 0, 3600, 3600, 0, 0) + _attributes(_FILE_NODE), False
        if code in (_GETATTR, _SETATTR):
            return 0, struct.pack("<QII", 3600, 0, 0) + _attributes(node), False
        if code == _OPEN:
            return 0, struct.pack("<QIi", 0, 0, 0), False
        if code == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, bytes(self._data[offset : offset + size]), False
        if code == _WRITE:
            _, offset, size, _, _, flags, _ = struct.unpack_from("<QQIIQII", body)
            self._data[offset : offset + size] = body[40 : 40 + size]
            return 0, struct.pack("<II", size, 0), bool(flags & os.O_DSYNC)
        if code == _FSYNC:
            return 0, b"", True
        return (0 if code in (_FLUSH, _RELEASE) else errno.ENOSYS), b"", False


def _attributes(node: int) -> bytes:
    file = node == _FILE_NODE
    mode, size = (stat.S_IFREG | 0o600, SIZE) if file else (stat.S_IFDIR | 0o755, 0)
    # ino, size, blocks; six fields of times; mode, links, owner; device, block size, flags.
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
