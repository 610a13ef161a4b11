"""What an image holds, read out of its files here on the controller: what its nodes have to run.

The image is asked itself, and not what was written down when it was built: so this is known of every image there is.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeVar

from harness.images import modules
from harness.images.cache import Image
from harness.images.debs import sha256
from harness.model import ImageLock, Software
from harness.parse.software import kernel_of, module_facts, module_file, qemu_version
from harness.remote.local import LocalRunner
from harness.util import paths

T = TypeVar("T")

# Where Debian has it, and where a build of somebody's own may be put before that.
QEMU_PATHS = ("/usr/local/bin/qemu-system-x86_64", "/usr/bin/qemu-system-x86_64")
# In a Debian whose /lib is no link yet it is there.
_TREES = ("/usr/lib/modules", "/lib/modules")
_READ_SECONDS = 120.0
_LINK = re.compile(r'^Fast link dest: "([^"]+)"', re.MULTILINE)
_MOST_LINKS = 8


def lock_of(image: Image) -> ImageLock:
    """The image, and what it holds of what is under test; what cannot be read of it is empty.

    Reads kernel, initrd, QEMU and DRBD's module: a second or two, and once only for each image.
    :class:`~harness.errors.CommandError` where there is no debugfs.
    """
    return _lock_of(image.directory, str(image.manifest.get("built_at", "")), image)


# Keyed by what tells two images from another; an image built again is in the same folder.
@functools.lru_cache(maxsize=16)
def _lock_of(directory: Path, built_at: str, image: Image) -> ImageLock:
    return ImageLock(
        role=image.role,
        suite=image.suite,
        digest=image.digest,
        built_at=built_at,
        kernel_sha256=_sha256(image.kernel),
        initrd_sha256=_sha256(image.initrd),
        holds=_software(image),
    )


def _software(image: Image) -> Software:
    release, build = _mapped(image.kernel, kernel_of) or ("", "")
    found = Software(
        kernel=release or str(image.manifest.get("kernel", "")),
        kernel_build=build,
        drbd_utils=image.packages.get("drbd-utils", ""),
    )
    if image.role != "node":
        return found
    with tempfile.TemporaryDirectory(prefix="drbd-harness-") as scratch:
        return _as_asked(_programs(image.root, Path(scratch), found), image.manifest.get("stack", {}))


def _as_asked(found: Software, stack: Mapping[str, Any]) -> Software:
    """``found``, but for what a stack put into the image: that is to run, whatever depmod and the links may say."""
    module, qemu = stack.get("modules", {}).get("drbd.ko", {}), stack.get("qemu", {})
    if module:
        found = replace(
            found, drbd=module["version"], drbd_srcversion=module["srcversion"], drbd_sha256=module["sha256"]
        )  # fmt: skip
    return replace(found, qemu_sha256=qemu["sha256"]) if qemu else found


def _programs(root: Path, scratch: Path, known: Software) -> Software:
    """``known`` with DRBD's module and the QEMU in the filesystem ``root``."""
    for tree in _TREES:
        folder = f"{tree}/{known.kernel}"
        if not (listed := _copied(root, f"{folder}/modules.dep", scratch)):
            continue
        if name := module_file(listed.read_text(errors="replace"), "drbd"):
            module = _copied(root, f"{folder}/{name}", scratch)
            content = module.read_bytes() if module else b""
            facts = module_facts(_unpacked(module))
            known = replace(
                known, drbd=facts.drbd, drbd_srcversion=facts.drbd_srcversion, drbd_git_hash=facts.drbd_git_hash,
                drbd_sha256=hashlib.sha256(content).hexdigest() if content else "",
            )  # fmt: skip
        break
    for path in QEMU_PATHS:
        if program := _copied(root, path, scratch):
            return replace(
                known, qemu=_mapped(program, qemu_version) or "", qemu_path=path, qemu_sha256=_sha256(program)
            )
    return known


def _copied(root: Path, path: str, scratch: Path) -> Path | None:
    """A copy of the file ``path`` of the filesystem ``root``, links followed; None where it has none."""
    for _ in range(_MOST_LINKS):
        # debugfs ends with 0 also where there is no such file.
        about = _debugfs(root, f'stat "{path}"')
        if (link := _LINK.search(about)) is None:
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
    copy = scratch / posixpath.basename(path)
    copy.unlink(missing_ok=True)
    if "Type: regular" in about:
        _debugfs(root, f'dump "{path}" "{copy}"')
    return copy if copy.is_file() and copy.stat().st_size else None


def _debugfs(root: Path, request: str) -> str:
    argv = ["env", f"PATH={paths.programs()}", "debugfs", "-R", request, str(root)]
    return LocalRunner().run(argv, timeout=_READ_SECONDS).stdout


def _unpacked(module: Path | None) -> bytes:
    """The content of a module; empty where there is none, or it cannot be unpacked."""
    with suppress(*modules.UNPACK_ERRORS):
        return modules.unpacked(module) if module else b""
    return b""


def _sha256(path: Path) -> str:
    with suppress(OSError):
        return sha256(path)
    return ""


def _mapped(path: Path, read: Callable[[mmap], T]) -> T | None:
    """What ``read`` finds in the file; None where it is empty or cannot be read."""
    with suppress(OSError, ValueError), path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return read(content)
    return None
