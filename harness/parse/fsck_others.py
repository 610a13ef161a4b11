"""What the checkers of NTFS, FAT and exFAT found, as an exit status of fsck(8): theirs say less, or something else.

By what they print and end with: ntfsresize 2022.10.3, fsck.fat 4.2, fsck.exfat 1.2.9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_ERRORS_LEFT, _OPERATIONAL_ERROR, _USAGE = 4, 8, 16
# The disk could not be read, whatever else a checker says about what it did not see.
_UNREADABLE = re.compile(r"Buffer I/O error|Read \d+ bytes at .*: Input/output error|Got \d+ bytes instead of")


@dataclass(frozen=True)
class Checker:
    """How a checker is understood: lines that match ``damage`` are damage, and ``statuses`` gives its own in fsck's.

    ``sums_up`` matches the line that says most where that is not the last.
    """

    damage: re.Pattern[str]
    statuses: Mapping[int, int] = field(default_factory=dict)
    sums_up: re.Pattern[str] | None = None


#: ``ntfsresize --info``: compares the clusters of all files with $Bitmap. Whatever it meets, its status is 1.
NTFSRESIZE = Checker(
    re.compile(
        r"Filesystem check failed|Cluster accounting failed|has no FILE magic|Corrupt |Incomplete multi-sector"
        r"|NTFS signature is missing|doesn't have a valid NTFS|Failed to load \$|Failed to open \$"
    ),
    {1: _OPERATIONAL_ERROR},
    re.compile(r"^Filesystem check failed|^ERROR|^Space in use"),
)
#: ``fsck.fat -n``: 1 is errors, or that it could make nothing of it; 6 that there is no such device.
FSCK_FAT = Checker(re.compile(r"Dirty bit is set"), {1: _ERRORS_LEFT, 2: _USAGE, 6: _OPERATIONAL_ERROR})
#: ``fsck.exfat -n``: as fsck, but for a boot sector that is none.
FSCK_EXFAT = Checker(re.compile(r"which does not describe a valid exfat|^ERROR: /|: corrupted\. "))


def checked(checker: Checker, status: int, printed: str) -> tuple[int, str]:
    """fsck's status for what ``checker`` ended with and ``printed`` (both streams), and the line that says it."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if unreadable := [line for line in lines if _UNREADABLE.search(line)]:
        return _OPERATIONAL_ERROR, unreadable[0]
    damage = [line for line in lines if checker.damage.search(line)]
    told = [line for line in damage or lines if checker.sums_up is not None and checker.sums_up.search(line)]
    if damage:
        return _ERRORS_LEFT, (told or damage)[0]
    return checker.statuses.get(status, status), (told or lines[-1:] or [""])[0]
