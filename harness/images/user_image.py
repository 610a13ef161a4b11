"""A guest image that a user brings: looked at, and copied into the cache once, by its digest; it is never written to.

Guests boot from overlays on the copy, so what becomes of the user's file during a run, or before it is resumed, does
not matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.recipe import ImageError
from harness.errors import CommandError, UsageError
from harness.parse.boot_disk import BEGINNING_BYTES, BootFacts, boot_facts, image_file
from harness.remote.local import LocalRunner
from harness.util import logs
from harness.util.paths import make
from harness.util.read_file import open_file

_MAGIC = b"QFI\xfb"
_PIECE_BYTES = 4 * 2**20
_REPORTED_BYTES = 2**30
# What stays free on the disk of the cache beside the copy: the guest's overlay grows there or beside it.
_SPARE_BYTES = 2**30
_LOOK_SECONDS = 120.0
_WINDOWS_MIB = 2048
#: Where distributions put the firmware for UEFI, with the template of its variables.
_UEFI = (
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
)


@dataclass(frozen=True)
class UserImage:
    """An image file that can be used; its disk has ``virtual_bytes``, the file takes ``actual_bytes``."""

    path: Path
    virtual_bytes: int
    actual_bytes: int
    boot: BootFacts


def look_at(path: Path, option: str) -> UserImage:
    """The image in the file ``path``, which ``option`` names; takes a second.

    :class:`~harness.errors.UsageError` with one sentence where no guest can be booted from an overlay on it alone.
    """
    try:
        with open_file(path) as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise UsageError(
            f"{option}: {path} is no qcow2 image; 'qemu-img convert -O qcow2' makes one of other images of a disk"
        )
    try:
        # The format is never guessed: what a file says of itself may name other files.  -U: it is only read.
        told = LocalRunner().run(["qemu-img", "info", "-U", "-f", "qcow2", "--output=json", str(path)])
        facts = image_file(told.stdout)
    except (CommandError, ValueError) as error:
        raise UsageError(f"{option}: {path} is no qcow2 image that qemu-img can read: {_last(error)}") from error
    if facts.backing or facts.data_file:
        what = "a backing file" if facts.backing else "an external data file"
        raise UsageError(
            f"{option}: {path} has {what}, {facts.backing or facts.data_file}; "
            "'qemu-img convert -O qcow2' makes an image of it that stands alone"
        )
    if facts.encrypted:
        raise UsageError(f"{option}: {path} is encrypted; 'qemu-img convert' makes an image of it that is not")
    try:
        boot = boot_facts(_beginning(path))
    except (CommandError, OSError, ValueError) as error:
        raise UsageError(f"{option}: nothing can boot from {path}: {_last(error)}") from error
    return UserImage(path, facts.virtual_bytes, facts.actual_bytes, boot)


@dataclass(frozen=True)
class Choices:
    """What a user says about the guest of an image; None for what is left to the image."""

    firmware: str | None = None
    bus: str | None = None
    memory_mib: int | None = None
    vcpus: int | None = None
    boot_seconds: int | None = None


def table(image: UserImage, chosen: Choices, digest: str = "") -> dict[str, Any]:
    """The image as a lab spec has it: the fields of :class:`~harness.config.lab_spec.UserImageSpec`.

    A Windows gets a disk that it has a driver for, and the memory that it needs at least.  :class:`ImageError` where it
    needs UEFI, and this machine has no firmware for that.
    """
    windows = image.boot.windows
    made: dict[str, Any] = {
        "name": image.path.name,
        "digest": digest,
        "firmware": chosen.firmware or ("uefi" if image.boot.uefi else "bios"),
        "bus": chosen.bus or ("sata" if windows else "virtio"),
        "windows": windows,
        "disk_mib": -(-image.virtual_bytes // 2**20),
    }
    if made["firmware"] == "uefi":
        uefi_firmware()
    if windows:
        made["memory_mib"] = _WINDOWS_MIB
    numbers = {"memory_mib": chosen.memory_mib, "vcpus": chosen.vcpus, "boot_seconds": chosen.boot_seconds}
    return made | {name: number for name, number in numbers.items() if number is not None}


def kept(digest: str, cache: Path) -> Path:
    """Where the copy of the image of that SHA-256 is, or would be."""
    return _folder(cache) / f"{digest}.qcow2"


def keep(image: UserImage, cache: Path) -> str:
    """The SHA-256 of the image, which is in the cache then; a copy takes as long as reading and writing the file.

    :class:`~harness.config.recipe.ImageError` where there is no room for it, or it cannot be read or written.
    """
    try:
        make(_folder(cache))
        digest = _digest(image.path)
        target = kept(digest, cache)
        if not target.is_file():
            _check_room(image, target.parent)
            _copy(image.path, target, digest)
    except OSError as error:
        raise ImageError(
            f"{image.path} could not be copied into the cache {cache}: {error.strerror or error}"
        ) from error
    return digest


def require_kept(digest: str, cache: Path) -> Path:
    """The copy of that SHA-256; :class:`~harness.config.recipe.ImageError` where the cache has it no more."""
    path = kept(digest, cache)
    if not path.is_file():
        raise ImageError(f"the guest image with the SHA-256 {digest[:12]} is not in the cache {cache} any more")
    return path


def prune_kept(cache: Path, dry_run: bool) -> list[Path]:
    """Remove all copies of users' images from the cache; returns them.  With ``dry_run`` nothing is removed."""
    found = sorted(_folder(cache).glob("*.qcow2")) if _folder(cache).is_dir() else []
    for path in [] if dry_run else found:
        path.unlink(missing_ok=True)
    return found


def uefi_firmware() -> tuple[Path, Path]:
    """The firmware for UEFI and the template of its variables, on this machine; :class:`ImageError`."""
    for code, variables in _UEFI:
        if Path(code).is_file() and Path(variables).is_file():
            return Path(code), Path(variables)
    raise ImageError("the guest image needs UEFI, and this machine has no OVMF: 'apt-get install --no-remove ovmf'")


def _beginning(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "beginning"
        argv = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", f"count={BEGINNING_BYTES // 512}"]
        LocalRunner().run([*argv, f"if={path}", f"of={out}"], timeout=_LOOK_SECONDS)
        return out.read_bytes()


def _digest(path: Path) -> str:
    found, done = hashlib.sha256(), 0
    with open_file(path) as file:
        while piece := file.read(_PIECE_BYTES):
            found.update(piece)
            if done // _REPORTED_BYTES < (done + len(piece)) // _REPORTED_BYTES:
                logs.progress(f"reading the guest image: {(done + len(piece)) >> 20} MiB")
            done += len(piece)
    return found.hexdigest()


def _check_room(image: UserImage, folder: Path) -> None:
    needed, free = image.actual_bytes + _SPARE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise ImageError(
            f"there is no room for the guest image {image.path}: its copy needs {needed >> 20} MiB in {folder}, "
            f"and {free >> 20} MiB are free"
        )


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy it, in no time where the filesystem can share its blocks; what is not the same afterwards is not kept."""
    logs.progress(f"copying the guest image {source.name} into the cache")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        argv = ["cp", "--reflink=auto", "--sparse=always", str(source), str(part)]
        LocalRunner().run(argv, timeout=3600.0)
        part.chmod(0o644)
        if _digest(part) != digest:
            raise ImageError(f"{source} changed while it was copied; is a machine running from it?")
        part.rename(target)
    except CommandError as error:
        raise ImageError(f"{source} could not be copied into the cache: {_last(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _folder(cache: Path) -> Path:
    return cache / "guest-images"


def _last(error: Exception) -> str:
    said = error.stderr.strip() or str(error) if isinstance(error, CommandError) else str(error)
    return said.splitlines()[-1] if said else type(error).__name__
