"""One ``drbdadm`` command on a node, also where ``drbdadm`` does not wait for the ``drbdsetup`` that it started."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Sequence

from harness.errors import DeadlineError
from harness.remote.base import Completed, Runner
from harness.util.deadline import Deadline, poll

# drbdadm gives a drbdsetup 5 s, says so, ends with status 20, and leaves it running: what was asked may still be done.
# Seen with drbd-utils 9.22 on a node that emulation within emulation made slow.
_GIVEN_UP = re.compile(r"Command '([^']+)' did not terminate within \d+ seconds")
# What is refused, or done twice, where it is asked again.  Whoever asks for one of them waits for what it leads to.
_ONLY_ONCE = ("connect", "disconnect", "invalidate-remote", "new-current-uuid", "verify")


def run_drbdadm(runner: Runner, argv: Sequence[str], *, timeout: float = 60, ok: Collection[int] = (0,)) -> Completed:
    """Run ``argv``, a ``drbdadm`` and its arguments, as :meth:`~harness.remote.base.Runner.run` does.

    Where ``drbdadm`` gives its ``drbdsetup`` up, the end of that is waited for, at most ``timeout`` seconds more, and
    the command is given again; but what is done only once, a disconnect say, then counts as done.
    """
    done = runner.run(argv, timeout=timeout, ok=())
    given_up = _GIVEN_UP.search(done.message) if done.status else None
    if given_up is not None and _ended(runner, given_up[1], timeout):
        if not set(argv).isdisjoint(_ONLY_ONCE):
            return Completed(done.host, done.argv, 0, done.stdout, done.stderr, done.seconds)
        return runner.run(argv, timeout=timeout, ok=ok)
    return done.expect(ok) if ok else done


def _ended(runner: Runner, command: str, seconds: float) -> bool:
    """Whether no process of this command line is left; waits for that."""
    # Not what looks for it: [d] is d, and no [.
    pattern = f"[{command[0]}]{re.escape(command[1:])}"
    with contextlib.suppress(DeadlineError):
        return poll(
            # 1: there is none.  A machine without pgrep tells nothing.
            lambda: runner.run(["pgrep", "-f", pattern], ok=()).status == 1 or None,
            Deadline.after(seconds, f"the end of '{command}'"),
            every=0.5,
        )
    return False
