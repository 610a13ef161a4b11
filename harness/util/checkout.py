"""The commit of the harness itself, where it runs from a checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.util import logs

_PACKAGE = Path(__file__).resolve().parent.parent
MODIFIED = "+modified"
# What decides about a run, relative to the checkout: notes and runs beside it do not.
_DECIDING = ("harness", "vm_images", "testcases")


def harness_commit(package: Path = _PACKAGE) -> str:
    """The full commit id of the checkout that ``package`` belongs to, with ``+modified`` where its files differ.

    Empty where it was installed, also below somebody else's checkout, and where git is missing or takes more than 10 s.
    """
    top = package.parent
    try:
        # Installed packages may lie below a repository that knows nothing of them.
        _git(top, "ls-files", "--error-unmatch", f"{package.name}/__init__.py")
        commit = _git(top, "rev-parse", "HEAD").strip()
        changed = _git(top, "status", "--porcelain", "--", *_DECIDING)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}{MODIFIED if changed else ''}"


def _git(directory: Path, *arguments: str) -> str:
    # --no-optional-locks: nothing in the checkout is written, not even git's cache of what it has seen.
    argv = ["git", "--no-optional-locks", "-C", str(directory), *arguments]
    # A git hook, say, sets GIT_DIR to its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    with logs.command(logs.CONTROLLER, argv) as logged:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10, env=environment)
        logged.status = done.returncode
    done.check_returncode()
    return done.stdout
