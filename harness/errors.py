"""The two kinds of error: what the caller asked for is wrong, or the machinery is.

Every message is one sentence a user can act on.  ``exit_code`` is what ``drbd-harness`` ends with:
1 for a workload that failed, 2 for inconclusive or infrastructure, 3 for nothing ran, 4 for usage.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence


class HarnessError(Exception):
    """Root of every error the harness raises on purpose."""

    exit_code = 2


class UsageError(HarnessError):
    """The request itself is wrong: an unknown name, a malformed matrix, a missing run."""

    exit_code = 4


class NothingRanError(HarnessError):
    """The request was well formed and selected nothing."""

    exit_code = 3


class WorkloadFailedError(HarnessError):
    """What was to be done on the device could not be: a user's own job or script failed, or the disk was full.

    The lab is well, and playing the cell again would end the same.
    """

    exit_code = 1


class ProtectedError(HarnessError):
    """What was to be written on somebody's machine may be theirs: it was not.

    No failure of a lab, which would be made anew: a person has to look at it.
    """


class InfrastructureError(HarnessError):
    """The lab, not the thing under test, failed: the answer is unknown."""


class StoreError(InfrastructureError):
    """What was found out cannot be kept: doing it again would be no better."""


class StackError(InfrastructureError):
    """What runs on the nodes is not what was asked for, or does not work together; another lab would be no better."""


class DeadlineError(InfrastructureError):
    """A condition did not come true in the time that was given for it."""


class LostNodeError(InfrastructureError):
    """A node no longer answers; the lab has to be rebuilt."""


class HostKeyError(InfrastructureError):
    """A machine shows a host key that nobody pinned, or another one than was pinned: nobody logged in to it."""


class LostGuestError(InfrastructureError):
    """The guest no longer answers; it has to be replaced."""


class GuestImageError(InfrastructureError):
    """The guest image that a user brought does not start, or its agent cannot be used; another start is no better."""


class HungCallError(DeadlineError):
    """A call of libvirt's did not return in the time that it has; its connection was ended, and the next use opens
    another.
    """


class LostLibvirtError(LostNodeError):
    """The libvirt of a node, or of the controller, went away under a call, or answers nothing any more."""


class OutputError(HarnessError):
    """What was to be printed cannot be: the disk is full, or ``nobody_reads`` it any more."""

    def __init__(self, why: str, *, nobody_reads: bool = False) -> None:
        super().__init__(f"what is printed cannot be written: {why}")
        self.nobody_reads = nobody_reads


class RefusedError(HarnessError):
    """QEMU, libvirt, DRBD or a client's kernel refused a configuration; ``message`` is theirs."""

    def __init__(self, who: str, message: str) -> None:
        super().__init__(f"{who} refused: {message}")
        self.who = who
        self.message = message


class CommandError(InfrastructureError):
    """A command ended with a status that was not expected.

    Carries everything needed to understand it without running it again.
    """

    def __init__(self, host: str, argv: Sequence[str], status: int, stdout: str, stderr: str) -> None:
        message = (stderr.strip() or stdout.strip() or "no output").splitlines()[-1]
        # A script in one line, and no more of it than shows which it is; the log of commands has all of it.
        command = textwrap.shorten(" ".join(argv), 160, placeholder=" ...")
        # Windows' exceptions are known by their number in hexadecimal.
        shown = f"0x{status:X}" if status >= 0xC0000000 else str(status)
        super().__init__(f"on {host}, '{command}' ended with status {shown}: {message}")
        self.host = host
        self.argv = tuple(argv)
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
