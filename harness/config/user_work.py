"""A user's own fio job file or script as a workload: read once, then part of the cell; pure but for reading it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model import Cell, UserFile
from harness.util.read_file import read_file

FIO_JOB, GUEST_SCRIPT = "fio-job", "guest-script"
#: The workloads that a user's file makes, and the option that it comes with.
OPTIONS: Mapping[str, str] = {FIO_JOB: "--fio-job", GUEST_SCRIPT: "--guest-script"}
#: How long it works where nobody says it, and what a cell has for all else: also for a job that takes longer.
SECONDS = 10
_BESIDES_SECONDS = 300
#: It is part of each cell, and so of each evidence.
MOST_BYTES = 64 * 1024


def read_user_file(path: Path, option: str) -> UserFile:
    """The file that was given with ``option``; :class:`~harness.errors.UsageError` where it cannot be used."""
    try:
        raw = read_file(path)
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be read: {error.strerror or error}") from error
    if len(raw) > MOST_BYTES:
        raise UsageError(f"{option}: {path} has {len(raw)} bytes; {MOST_BYTES} are the most")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{option}: {path} is no text in UTF-8") from error
    if not text.strip():
        raise UsageError(f"{option}: {path} is empty")
    # It becomes the name of a file in the run and of one in the guest.
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", path.name).lstrip("._+-") or "file"
    return UserFile(name[:100], hashlib.sha256(raw).hexdigest(), text)


def entry(workload: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What to play with a user's file where no matrix says it, as an entry of a matrix.

    ``chosen``: ``cache`` and ``filesystem`` (each several), ``client``, ``seconds``, as they were given on the command
    line; None or empty for what was not.
    """
    found: dict[str, Any] = {"workload": workload, "filesystem": chosen.get("filesystem") or ["ext4"]}
    if chosen.get("client"):
        found["client"] = chosen["client"]
    if chosen.get("cache") or found.get("client") != "host":
        found["cache"] = chosen.get("cache") or ["none", "writeback"]
    seconds = chosen.get("seconds") or SECONDS
    return {**found, "seconds": seconds, "deadline": seconds + _BESIDES_SECONDS}


def with_user_files(cells: Iterable[Cell], files: Mapping[str, UserFile]) -> tuple[Cell, ...]:
    """``cells`` with the file of each that needs one; ``files`` are by workload.

    :class:`~harness.errors.UsageError` where one is missing, or is for nothing.
    """
    found = tuple(
        replace(cell, user_file=files.get(cell.workload)) if cell.workload in OPTIONS else cell for cell in cells
    )
    for cell in found:
        if cell.workload in OPTIONS and cell.user_file is None:
            option = OPTIONS[cell.workload]
            raise UsageError(f"the workload '{cell.workload}' is a file of yours: give it with {option} FILE")
    for workload in files:
        if not any(cell.workload == workload for cell in found):
            raise UsageError(f'{OPTIONS[workload]} is given, but no cell of the matrix has workload = "{workload}"')
    return found
