"""The guest's image on the machines of an inventory: brought once, by the digest of what it holds, and kept there.

It lies below ``/var/lib/drbd-harness/images/DIGEST`` and stays for the next run; ``drbd-harness clean --inventory``
takes it back.  So it is noted in a journal of its own, beside that of what a run changes.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import InfrastructureError, UsageError
from harness.images.cache import Image
from harness.images.debs import sha256
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.journal import Journal
from harness.lab.hardware.lease import FOLDER, Holder
from harness.model.changes import ChangeKind
from harness.util.logs import progress

# A digest of some hundred MiB, on a machine that is emulated within an emulated one.
_LOOK_SECONDS = 900.0
_PIECE_SECONDS = 300.0
_PIECE_BYTES = 16 << 20
# What is free beside it.
_FREE_BYTES = 256 << 20
_PROGRAM = Path(__file__).parent / "programs" / "images.py"


@dataclass(frozen=True)
class BroughtImage:
    """An image as the machines have it: the digest of its three files, and each of them with its SHA-256."""

    digest: str
    files: Mapping[str, tuple[Path, str]]

    @classmethod
    def of(cls, image: Image) -> BroughtImage:
        """``image`` of this machine; its files are read, which takes a second or two the first time."""
        return _described(image.directory, str(image.manifest.get("built_at", "")), image)

    def path(self, name: str, folder: str = FOLDER) -> str:
        """The path of a file of it on a machine."""
        return f"{folder}/images/{self.digest}/{name}"


# An image that is built again is in the same folder.
@functools.lru_cache(maxsize=4)
def _described(directory: Path, built_at: str, image: Image) -> BroughtImage:
    paths = {"vmlinuz": image.kernel, "initrd.img": image.initrd, "root.img": image.root}
    files = {name: (path, sha256(path)) for name, path in paths.items()}
    named = "".join(f"{digest}  {name}\n" for name, (_, digest) in files.items())
    return BroughtImage(hashlib.sha256(named.encode()).hexdigest(), files)


def images_journal(machine: Machine, lab: str, holder: Holder | None = None, folder: str = FOLDER) -> Journal:
    """The journal of what stays on a machine between runs; no lab can be called so."""
    return Journal(machine, f"{lab}/images", holder, folder=folder)


def missing(machine: Machine, image: BroughtImage, folder: str = FOLDER) -> tuple[str, ...]:
    """Which files of ``image`` the machine does not have; nothing is written.

    Blocks while it reads those that it has.  :class:`~harness.errors.UsageError` where they have no room there.
    """
    said = _ask(machine, image, "look", _LOOK_SECONDS, folder)
    lacking = tuple(name for name, (_, digest) in image.files.items() if said["files"].get(name) != digest)
    needed = sum(image.files[name][0].stat().st_size for name in lacking)
    if lacking and said["free"] < needed + _FREE_BYTES:
        raise UsageError(
            f"{machine.name} has {said['free'] >> 20} MiB free for {folder}, and the guest's image needs "
            f"{needed >> 20} MiB there, with {_FREE_BYTES >> 20} MiB left over"
        )
    return lacking


def bring(machine: Machine, image: BroughtImage, lacking: tuple[str, ...], journal: Journal) -> None:
    """Bring the files ``lacking`` of ``image`` there, noted before; some seconds for each 100 MiB.

    :class:`~harness.errors.InfrastructureError` where they do not arrive whole.
    """
    if not lacking:
        return
    folder = journal.folder
    journal.note(ChangeKind.PROGRAMS, f"{folder}/images")
    size = sum(image.files[name][0].stat().st_size for name in lacking)
    progress(f"{machine.name}: the guest's image is brought there, {size >> 20} MiB")
    for name in lacking:
        path, digest = image.files[name]
        with path.open("rb") as file:
            first = True
            while data := file.read(_PIECE_BYTES):
                at = file.tell() - len(data)
                # Holes stay holes.
                if first or data.count(0) < len(data):
                    packed = base64.b64encode(zlib.compress(data, 1)).decode()
                    _ask(machine, image, "piece", _PIECE_SECONDS, folder, packed, name=name, at=at, first=first)
                    first = False
        whole = path.stat().st_size
        _ask(machine, image, "finish", _LOOK_SECONDS, folder, name=name, size=whole, sha256=digest)


def _ask(
    machine: Machine, image: BroughtImage, act: str, seconds: float, folder: str, data: str = "", **more: object
) -> dict[str, Any]:
    asked = {"act": act, "folder": folder, "digest": image.digest, **more}
    # What is brought comes by standard input, so the program cannot.
    program = _PROGRAM.read_text(encoding="utf-8")
    argv = [machine.python, "-I", "-c", program, json.dumps(asked, sort_keys=True)]
    done = machine.runner.run(argv, stdin=data, timeout=seconds, ok=())
    try:
        answer = json.loads(done.stdout) if not done.status else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise InfrastructureError(f"the guest's image on {machine.name}: {done.message}")
    return answer
