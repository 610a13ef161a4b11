"""Packages (.deb) that a user brings: what they are, what is in them, and why one cannot be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.recipe import ImageError
from harness.errors import CommandError, UsageError
from harness.remote.local import LocalRunner
from harness.util.read_file import open_file

ARCHITECTURE = "amd64"
_FIELDS = ("Package", "Version", "Architecture", "Depends", "Pre-Depends")
# What a kernel build makes beside the kernel, which no node boots.
_NO_KERNEL = re.compile(r"-dbg(sym)?$|^linux-(headers|kbuild|libc-dev|compiler|doc|source|config|perf|cpupower)")
# Debian's since 7.x lies beside its modules; installing it makes a copy in /boot.
_KERNEL = re.compile(r"(?:boot/vmlinuz-|lib/modules/(?=[^/\s]+/vmlinuz$))([^/\s]+)(?:/vmlinuz)?$", re.MULTILINE)
_MODULE = re.compile(r"\.ko(\.xz|\.zst|\.gz)?$", re.MULTILINE)
_DKMS = re.compile(r"usr/src/[^/\s]+/dkms\.conf$", re.MULTILINE)
_UNPACK_SECONDS = 600.0


class UserDebError(ImageError, UsageError):
    """A package or a file of the user's cannot be what a stack uses it as."""

    exit_code = UsageError.exit_code


@dataclass(frozen=True)
class Deb:
    """One package file; ``needs`` are the names in its dependencies, ``files`` the paths in it, one a line."""

    path: Path
    package: str
    version: str
    architecture: str
    needs: frozenset[str]
    files: str

    @property
    def kernel(self) -> str:
        """The release of the kernel in it, as ``uname -r`` prints it; empty where there is none."""
        found = _KERNEL.search(self.files)
        return found[1] if found else ""

    @property
    def has_modules(self) -> bool:
        """Whether there are ready kernel modules in it."""
        return bool(_MODULE.search(self.files))

    @property
    def has_dkms(self) -> bool:
        """Whether there are sources in it that dkms builds."""
        return bool(_DKMS.search(self.files))


def read(path: Path) -> Deb:
    """The package in the file ``path``; :class:`UserDebError` where it is none, or of another architecture."""
    try:
        told = LocalRunner().run(["dpkg-deb", "--field", str(path), *_FIELDS]).stdout
        files = LocalRunner().run(["dpkg-deb", "--contents", str(path)], timeout=_UNPACK_SECONDS).stdout
    except CommandError as error:
        why = (error.stderr.strip() or str(error)).splitlines()[-1].removeprefix("dpkg-deb: error: ")
        raise UserDebError(f"{path} is no Debian package that dpkg-deb can read: {why}") from error
    fields = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line and line[0] != " ")
    architecture = fields.get("Architecture", "")
    if architecture not in (ARCHITECTURE, "all"):
        raise UserDebError(f"{path} is a package for {architecture}, and the machines of a lab are {ARCHITECTURE}")
    needs = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"
    names = frozenset(found for part in re.split(r"[,|]", needs) if (found := re.split(r"[\s:(]", part.strip())[0]))
    # The sixth column, without the target of a link.
    paths = "\n".join(line.split(None, 5)[-1].split(" -> ")[0] for line in files.splitlines())
    return Deb(path, fields.get("Package", ""), fields.get("Version", ""), architecture, names, paths)


def in_paths(paths: Iterable[str], component: str) -> list[Deb]:
    """The packages that ``paths`` name, in folders too; ``component`` is the key that says them in a sentence."""
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.deb")) if path.is_dir() else [path]
        if not found:
            raise UserDebError(f"'{component}' names the folder {path}, and there is no package (.deb) in it")
        files += found
    for file in files:
        if file.suffix != ".deb":
            raise UserDebError(f"'{component}' names {file}, which is neither a package (.deb) nor a folder")
        if not file.is_file():
            raise UserDebError(f"'{component}' names {file}, which is not there any more")
    return [read(file) for file in files]


def kernel_of(debs: Sequence[Deb]) -> tuple[list[Deb], str]:
    """Those of ``debs`` that a machine needs to boot, and the release of the kernel in them."""
    chosen = [deb for deb in debs if not _NO_KERNEL.search(deb.package)]
    kernels = [deb for deb in chosen if deb.kernel]
    if len(kernels) != 1:
        what = " and ".join(deb.path.name for deb in kernels) or ", ".join(deb.path.name for deb in debs)
        raise UserDebError(
            f"'kernel' names {what}; there has to be one kernel (boot/vmlinuz-...) in them, not {len(kernels)}"
        )
    return chosen, kernels[0].kernel


def chosen_for(debs: Sequence[Deb], installed: Collection[str]) -> list[Deb]:
    """Those of ``debs`` that replace something that is ``installed``, and what these need; all, if that is none."""
    chosen = {deb.package: deb for deb in debs if deb.package in installed}
    waiting = list(chosen.values())
    while waiting:
        for deb in debs:
            if deb.package in waiting[0].needs and deb.package not in chosen:
                chosen[deb.package] = deb
                waiting.append(deb)
        del waiting[0]
    return list(chosen.values()) or list(debs)


def unpack(deb: Deb, folder: Path) -> Path:
    """The files of ``deb`` below ``folder``, which is returned."""
    try:
        LocalRunner().run(["dpkg-deb", "--extract", str(deb.path), str(folder)], timeout=_UNPACK_SECONDS)
    except CommandError as error:
        raise UserDebError(f"{deb.path} cannot be unpacked: {error.stderr.strip() or error}") from error
    return folder


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file, in a second for each few hundred MiB."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
