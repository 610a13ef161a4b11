"""What fsck's exit status means, as fsck(8) and e2fsck(8) document it: a sum of bits."""

from __future__ import annotations

from harness.model import FilesystemCheck

_CORRECTED, _REBOOT, _ERRORS_LEFT = 1, 2, 4
#: Each bit says that fsck did not do its work.
_NOT_DONE = {8: "an operational error", 16: "wrong usage", 32: "it was cancelled"}
_LIBRARY_ERROR = 128
# What a shell or `timeout` says instead of fsck.
_BY_SHELL = {
    124: "it took too long", 125: "it could not be started", 126: "it could not be executed",
    127: "there is no such program",
}  # fmt: skip


def fsck_meaning(status: int) -> tuple[FilesystemCheck, str]:
    """What fsck found by its exit ``status``, and why; it was asked to change nothing.

    Errors that were left are damage, even where fsck stopped at them.  A status that comes from no fsck, or that says
    that it corrected something although it had to leave all as it is, is no answer.  A negative status, and one from
    129 on, is a death by that signal.
    """
    if status == 0:
        return FilesystemCheck.CLEAN, "no errors"
    if status < 0 or status > _LIBRARY_ERROR:
        signal = -status if status < 0 else status - _LIBRARY_ERROR
        return FilesystemCheck.UNCHECKED, f"it was killed by signal {signal}"
    if status == _LIBRARY_ERROR:
        return FilesystemCheck.UNCHECKED, "an error of a shared library"
    if status in _BY_SHELL:
        return FilesystemCheck.UNCHECKED, _BY_SHELL[status]
    if status & _ERRORS_LEFT:
        return FilesystemCheck.DAMAGED, "errors were left uncorrected"
    not_done = [why for bit, why in _NOT_DONE.items() if status & bit]
    if not_done:
        return FilesystemCheck.UNCHECKED, ", ".join(not_done)
    if status & (_CORRECTED | _REBOOT):
        return FilesystemCheck.UNCHECKED, "it corrected errors although it was to change nothing"
    return FilesystemCheck.UNCHECKED, "a status that fsck does not document"
