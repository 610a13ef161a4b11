"""Whether other jobs of this machine weigh as much as the whole lab, whatever their nice value is.

With the kernel's autogroup each session (``setsid``) is a group of its own, so that nice counts only inside of a
session (sched(7)).  It holds for tasks in the root control group.  Where libvirt puts all of its machines into one
control group beside it, as it does with version 1, that group weighs 1024, as each session does: ten jobs in the
background, however nice they are, leave the lab one eleventh.
"""

from __future__ import annotations

from pathlib import Path

REMEDY = "sysctl -w kernel.sched_autogroup_enabled=0"
#: What a control group, and a session, weighs unless somebody says otherwise.
USUAL_SHARES = 1024
# Without systemd and with it.
_GROUPS_OF_MACHINES = ("machine", "machine.slice")


def sessions_weigh_as_much(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> bool:
    """Whether each session of this machine gets as much of its processors as all of libvirt's machines together."""
    try:
        enabled = (proc / "sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"
        lines = [line.split(":", 2) for line in (proc / "self/cgroup").read_text().splitlines()]
    except OSError:
        return False
    # In version 2 the list of controllers is empty.
    found = [(names, path) for _, names, path in lines if "cpu" in names.split(",")]
    if not enabled or not found:
        return False
    ((names, path), *_) = found
    return path == "/" and all(_shares(groups / names / group) <= USUAL_SHARES for group in _GROUPS_OF_MACHINES)


def _shares(group: Path) -> int:
    """Of a group that is not there yet: what it will have."""
    try:
        return int((group / "cpu.shares").read_text())
    except (OSError, ValueError):
        return USUAL_SHARES
