"""User namespaces of an ordinary user: his ranges of ids (subuid(5), subgid(5)), and the kernel's say in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
#: What useradd gives each user, from this id on.
FIRST, COUNT = 100_000, 65_536
#: Where the kernel's settings are.
SYSCTLS = Path("/proc/sys")
# A setting, the value with which it refuses, and one with which it does not: Debian's of old, Ubuntu's, everybody's.
_REFUSING = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "15000"),
)


def without_range(names: Collection[str], files: Sequence[Path] = FILES) -> Path | None:
    """The first of ``files`` that has no range for any of ``names`` (a user's name and number); None if all have."""
    return next((file for file in files if not any(name in names for name, *_ in _ranges(file))), None)


def command_for_range(user: str, files: Sequence[Path] = FILES) -> str:
    """What root has to run to give ``user`` a range that nobody else has: two who share one can read each other's."""
    first = max((begin + count for file in files for _, begin, count in _ranges(file)), default=FIRST)
    ids = f"{max(first, FIRST)}-{max(first, FIRST) + COUNT - 1}"
    return f"usermod --add-subuids {ids} --add-subgids {ids} {user}"


def command_for_kernel(settings: Path = SYSCTLS) -> str | None:
    """What root has to run so that the kernel lets ordinary users have namespaces; None where no setting refuses."""
    for name, refuses, allows in _REFUSING:
        try:
            found = (settings / name).read_text().strip()
        except OSError:
            continue
        if found == refuses:
            return f"sysctl -w {name.replace('/', '.')}={allows}"
    return None


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    """Owner, first id, how many ids, of each line that can be read."""
    try:
        fields = [line.split(":") for line in file.read_text().splitlines()]
    except OSError:
        return []
    return [(one[0], int(one[1]), int(one[2])) for one in fields if len(one) == 3 and (one[1] + one[2]).isdecimal()]
