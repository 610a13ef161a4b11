"""Which process this is, so that another one on this machine can tell later whether it has ended.

A number alone says nothing: it is given again, also after a boot, and counts in one PID namespace of one kernel only.
"""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

# No pid is larger (PID_MAX_LIMIT of the kernel).
_MOST = 2**22


@dataclass(frozen=True)
class ProcessIdentity:
    """A process: ``controller`` stands for the machine, its boot and the namespaces in which ``pid`` and ``started``
    (clock ticks since the boot) count; empty where that is not known.
    """

    controller: str = ""
    pid: int = 0
    started: int = 0

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Of the process that calls; what cannot be read leaves it empty."""
        own = _stat("self")
        return cls(_controller(), os.getpid(), own.started) if own is not None and _controller() else cls()

    def has_ended(self) -> bool:
        """Whether it is known to have ended; False for one of another machine or boot, and where it cannot be told."""
        if not self.controller or self.controller != _controller() or not 0 < self.pid <= _MOST:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # there is one, which belongs to somebody else
        there = _stat(str(self.pid))
        return there is not None and (there.started != self.started or there.is_over)


@dataclass(frozen=True)
class _Stat:
    started: int
    is_over: bool


def _stat(process: str) -> _Stat | None:
    """What ``/proc`` says of a process; None where it says nothing, as mounted with hidepid of somebody else's."""
    try:
        # Behind the program's name, which may hold anything.
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        state, threads, started = fields[0], int(fields[17]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
    # One that only waits to be asked how it ended; its other threads, if any, would still work.
    return _Stat(started, state in (b"Z", b"X") and threads <= 1)


def boot_id() -> str:
    """What the kernel calls this boot of the machine; "" where it does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _controller() -> str:
    """This machine since its boot, as its processes see each other; a digest, since it is written on other machines."""
    try:
        boot = boot_id()
        spaces = [str(Path("/proc/self/ns/pid").readlink()), _link("/proc/self/ns/time")]
        # Else /proc shows another namespace's processes.
        if not boot or str(Path("/proc/self").readlink()) != str(os.getpid()):
            return ""
    except OSError:
        return ""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256("\n".join([platform.node(), machine, boot, *spaces]).encode()).hexdigest()[:32]


def _link(path: str) -> str:
    """Where it leads; kernels before 5.6 have no namespaces of time."""
    try:
        return str(Path(path).readlink())
    except FileNotFoundError:
        return ""
