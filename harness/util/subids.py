"""The ranges of user and group ids that an ordinary user may use in a namespace of his own: subuid(5), subgid(5)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
#: What useradd gives each user, from this id on.
FIRST, COUNT = 100_000, 65_536


def without_range(names: Collection[str], files: Sequence[Path] = FILES) -> Path | None:
    """The first of ``files`` that has no range for any of ``names`` (a user's name and number); None if all have."""
    return next((file for file in files if not any(name in names for name, *_ in _ranges(file))), None)


def command_for_range(user: str, files: Sequence[Path] = FILES) -> str:
    """What root has to run to give ``user`` a range that nobody else has: two who share one can read each other's."""
    first = max((begin + count for file in files for _, begin, count in _ranges(file)), default=FIRST)
    ids = f"{max(first, FIRST)}-{max(first, FIRST) + COUNT - 1}"
    return f"usermod --add-subuids {ids} --add-subgids {ids} {user}"


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    """Owner, first id, how many ids, of each line that can be read."""
    try:
        fields = [line.split(":") for line in file.read_text().splitlines()]
    except OSError:
        return []
    return [(one[0], int(one[1]), int(one[2])) for one in fields if len(one) == 3 and (one[1] + one[2]).isdecimal()]
