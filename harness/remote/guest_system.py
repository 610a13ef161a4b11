"""What the system in a guest decides: how a program is run there, and how one asks it about its disks.

Whoever works in a guest asks this, and nothing else, for what is not the same everywhere; :func:`system_of` is the
system of any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.remote.base import Completed

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYNC_SECONDS = 120.0
_LOCATE = """
serial=$1
shift
[ "$#" -eq 0 ] || modprobe -qa "$@"
for f in /sys/block/*; do
    found=$(cat "$f/serial" "$f/device/serial" "$f/device/vpd_pg80" 2>/dev/null | tr -cd "a-z0-9-")
    [ "$found" = "$serial" ] && echo "/dev/${f##*/}"
done
true
"""
# Between two cells a guest has no swap, no disk of a cell's, no device of device-mapper and no mount of a device that
# is gone.  It says so by a program that it has to start, which one whose memory is on a swap device that is gone
# cannot.  $1 is "" in a guest.
_LEFT = r"""
{ read -r heading; while read -r file rest; do printf 'left on: swap on %s\n' "$file"; done; } < "$1/proc/swaps"
for disk in "$1"/sys/block/*; do
    serial=$(cat "$disk/serial" "$disk/device/vpd_pg80" 2> /dev/null | tr -cd a-z0-9-)
    case $serial in *cell-*) echo "left on: the disk ${disk##*/} of an earlier cell";; esac
done
for name in "$1"/sys/block/dm-*/dm/name; do
    [ ! -e "$name" ] || printf 'left on: the device-mapper device %s\n' "$(cat "$name")"
done
while read -r source point rest; do
    case $source in /dev/root) ;; /dev/mapper/* | /dev/[a-z]*)
        [ -e "$1/sys/class/block/${source##*/}" ] || [ -e "$1$source" ] ||
            printf 'left on: a mount at %s of %s, which is gone\n' "$point" "$source"
    esac
done < "$1/proc/mounts"
true
"""


class Running(Protocol):
    """As much of a runner as is needed here."""

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Run ``argv`` to its end."""
        ...


@dataclass(frozen=True)
class DiskQueue:
    """What a guest was told of a disk: ``write_cache`` in Linux' words; None where it does not say."""

    write_cache: str | None = None
    stable_writes: bool | None = None


class GuestSystem(Protocol):
    """One kind of system.  Steps block until they are done; a :class:`~harness.errors.HarnessError` where one fails."""

    @property
    def windows(self) -> bool:
        """Whether it is Windows, which has no shell and no files in ``/dev``."""
        ...

    def command(self, argv: Sequence[str], timeout: float) -> Mapping[str, Any]:
        """The arguments of ``guest-exec`` that run ``argv``, where that is possible for ``timeout`` seconds at most."""
        ...

    def end(self, process: int) -> Sequence[str] | None:
        """What ends a ``process`` that took too long; None where :meth:`command` saw to that."""
        ...

    def status(self, answer: Mapping[str, Any]) -> int:
        """The status of a program that ended, by the agent's answer to ``guest-exec-status``."""
        ...

    def locate(self, runner: Running, serial: str, modules: Sequence[str] = ()) -> str | None:
        """Where it has the disk with that serial number; None where it has none.  ``modules`` may be its drivers."""
        ...

    def queue(self, runner: Running, disk: str) -> DiskQueue:
        """What it was told of ``disk``."""
        ...

    def sync(self, runner: Running) -> None:
        """Write what waits in its caches."""
        ...

    def left_on(self, runner: Running, root: str = "") -> Sequence[str]:
        """What of an earlier cell is in the way of another, each as half a sentence; ``root`` is for tests."""
        ...


class Posix:
    """Linux, with a POSIX shell and coreutils."""

    windows = False

    def command(self, argv: Sequence[str], timeout: float) -> Mapping[str, Any]:
        """Below timeout(1), with a search path and a home."""
        bounded = ["timeout", "-k", "2", f"{timeout:.0f}", *argv]
        return {"path": bounded[0], "arg": bounded[1:], "env": [f"PATH={_PATH}", "HOME=/root"]}

    def end(self, process: int) -> Sequence[str] | None:
        """None: timeout(1) has ended it."""
        return None

    def status(self, answer: Mapping[str, Any]) -> int:
        """Of a death by signal N it is 128 + N, as in a shell."""
        return 128 + int(answer["signal"]) if "signal" in answer else int(answer["exitcode"])

    def locate(self, runner: Running, serial: str, modules: Sequence[str] = ()) -> str | None:
        """By what the kernel has of it, without udev."""
        return runner.run(["sh", "-c", _LOCATE, "sh", serial, *modules]).stdout.strip() or None

    def queue(self, runner: Running, disk: str) -> DiskQueue:
        """Of its queue in /sys."""
        queue = f"/sys/block/{disk.rsplit('/', 1)[-1]}/queue"
        lines = runner.run(["cat", f"{queue}/write_cache", f"{queue}/stable_writes"], ok=()).stdout.splitlines()
        return DiskQueue(
            lines[0].strip() if lines else None, lines[1].strip() == "1" if len(lines) > 1 else None
        )  # fmt: skip

    def sync(self, runner: Running) -> None:
        """sync(1); at most two minutes."""
        runner.run(["sync"], timeout=_SYNC_SECONDS)

    def left_on(self, runner: Running, root: str = "") -> Sequence[str]:
        """Swap, a disk, a device of device-mapper, a mount of a device that is gone; at most 20 s."""
        printed = runner.run(["sh", "-c", _LEFT, "sh", root], timeout=20.0).stdout.splitlines()
        return [line.removeprefix("left on: ") for line in printed if line.startswith("left on: ")]


POSIX = Posix()


def system_of(runner: object) -> GuestSystem:
    """The system of the machine of ``runner``: of a guest the one that its agent found, of any other POSIX."""
    found: GuestSystem = getattr(runner, "system", POSIX)
    return found
