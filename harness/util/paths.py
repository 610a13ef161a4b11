"""Where things are: images (worth keeping) in the cache, labs and daemons (made anew) in the state; programs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from harness.errors import UsageError

NAME = "drbd-harness"
#: Where root's images are, for others to read.
SYSTEM_CACHE = Path("/var/cache") / NAME
_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/usr/libexec")


def cache_dir() -> Path:
    """Images and probe results: ``DRBD_HARNESS_CACHE``, else the place the system has for caches."""
    return _place("DRBD_HARNESS_CACHE", SYSTEM_CACHE.parent, "XDG_CACHE_HOME", Path(".cache"))


def state_dir() -> Path:
    """Labs, their consoles and the daemons' logs: ``DRBD_HARNESS_STATE``, else the place the system has for state."""
    return _place("DRBD_HARNESS_STATE", Path("/var/lib"), "XDG_STATE_HOME", Path(".local/state"))


def log_dir() -> Path:
    """The logs of commands that belong to no run, such as ``lab up``: a folder for each, below the state."""
    return state_dir() / "logs"


def expanded(written: str, what: str) -> Path:
    """A path that begins with ``~`` from somebody's home; UsageError where nobody is called so.  ``what`` it is of."""
    try:
        return Path(written).expanduser()
    except RuntimeError:
        raise UsageError(f"{what} is '{written}', and nobody is called so here") from None


def programs() -> str:
    """The search path for programs, with what an ordinary user's leaves out: e2fsprogs, say, is in an sbin."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_PROGRAMS))


def own_command() -> str:
    """How this user starts the program again: its name where the search path has it, else as it was started."""
    started = Path(sys.argv[0])
    return str(started) if started.name == NAME and not shutil.which(NAME) else NAME


def make(directory: Path) -> Path:
    """Create ``directory``; root's can be entered by others, because libvirt runs QEMU as another user."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for made in missing:
        made.chmod(0o755 if os.geteuid() == 0 else 0o700)
    return directory


def _place(own: str, for_root: Path, xdg: str, under_home: Path) -> Path:
    if named := os.environ.get(own):
        return expanded(named, own).absolute()
    if os.geteuid() == 0:
        return for_root / NAME
    base = os.environ.get(xdg, "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / under_home) / NAME
