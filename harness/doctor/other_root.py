"""A QEMU of another release, in a tree of its own such as mmdebstrap makes: it runs there with chroot."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, UsageError

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_BIND, _MS_PRIVATE = 0x4000, 0x1000, 1 << 18


@dataclass(frozen=True)
class Root:
    """The file system below ``path``; None: the one of this machine."""

    path: Path | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """What stands before a command that runs there."""
        return ("chroot", str(self.path)) if self.path else ()

    def name(self, path: Path) -> Path:
        """What ``path`` is called there."""
        return Path("/", path.relative_to(self.path)) if self.path else path

    @contextlib.contextmanager
    def folder(self, prefix: str) -> Iterator[Path]:
        """A new folder that is seen there too, and is removed in the end."""
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self.path / "tmp" if self.path else None) as made:
            yield Path(made)

    def see_devices(self) -> None:
        """/dev is the machine's own there; needs :func:`private_mounts` before."""
        if self.path:
            libc("mount", b"/dev", os.fsencode(self.path / "dev"), None, _MS_BIND | _MS_REC, None)


def root_of(path: Path | None) -> Root:
    """The root that a user named; :class:`UsageError` where it is none."""
    if path is not None and not all((path / name).is_dir() for name in ("dev", "tmp", "usr")):
        raise UsageError(f"--root is '{path}', which is no root of a system: it has no dev, tmp and usr")
    return Root(path.resolve() if path else None)


def private_mounts() -> None:
    """Whatever this process mounts from now on is seen by it and its children only, and ends with them.  Needs root."""
    libc("unshare", _CLONE_NEWNS)
    libc("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def libc(name: str, *arguments: object) -> None:
    """A call of the C library that returns 0; :class:`HarnessError` with its error."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*(ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments)):
        raise HarnessError(f"{name}: {os.strerror(ctypes.get_errno())}")
