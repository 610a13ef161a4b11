"""What an earlier cell or a test left on in a guest that answers: swap, a mount, a device of device-mapper, a disk."""

from __future__ import annotations

from collections.abc import Collection

from harness.errors import HarnessError
from harness.remote.base import Runner
from harness.remote.guest_system import system_of


def leftovers(runner: Runner, root: str = "", own: Collection[str] = ()) -> str | None:
    """Why the guest of ``runner`` cannot take a cell's disk, as half a sentence; None where nothing is in the way.

    Asked while it has no disk of a cell.  One that cannot run the program that looks has a reason too.  Takes at most
    80 s.  ``root`` is where its ``/proc``, ``/sys`` and ``/dev`` are; ``own`` is what it had when it was started.
    """
    try:
        left = system_of(runner).left_on(runner, root)
    except HarnessError as error:
        return f"it does not run a program: {error}"
    found = [one for one in left if one not in own]
    return f"it has {', '.join(found)}" if found else None
