"""Whether packages can be had at all: what a build that failed for want of a mirror is told apart by."""

from __future__ import annotations

import os

from harness.errors import CommandError, DeadlineError
from harness.images.builder import stale_options
from harness.images.process import MIRROR_VARIABLE, reason
from harness.remote.local import LocalRunner

_SECONDS = 120.0


def why_no_packages(suite: str) -> str:
    """Why the mirror that images are built from gives no packages of ``suite`` now; empty where it does.

    mmdebstrap itself is asked, which fetches the lists and installs nothing.  Takes some 10 s, at most 120.
    """
    argv = ["mmdebstrap", "--simulate", "--variant=extract", *(f"--aptopt={option}" for option in stale_options())]
    mirror = os.environ.get(MIRROR_VARIABLE)
    try:
        told = LocalRunner().run([*argv, suite, "/dev/null", *([mirror] if mirror else [])], timeout=_SECONDS, ok=())
    except (CommandError, DeadlineError) as error:
        return str(error)
    lines = [line for line in told.stderr.splitlines() if line.strip()]
    return reason(lines) if told.status else ""
