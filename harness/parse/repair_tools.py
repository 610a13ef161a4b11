"""What filesystem checkers other than e2fsck found, as statuses of fsck(8): see :mod:`harness.parse.fsck`.

Each was asked to change nothing.  A status that is none of the tool's own (a signal, no such program) stays as it is.
"""

from __future__ import annotations

_CLEAN, _ERRORS_LEFT, _NOT_DONE = 0, 4, 8
# What a shell or `timeout` says instead of the tool, and deaths by a signal.
_NOT_ITS_OWN = 124


def xfs_repair_status(status: int, printed: str) -> int:
    """Of ``xfs_repair -n``: 1 is damage (xfs_repair(8)).

    Where the log was not replayed it says that what it finds may be no damage: then nothing was checked.
    """
    if status < 0 or status >= _NOT_ITS_OWN:
        return status
    if "valuable metadata changes in a log" in printed:
        return _NOT_DONE
    return {0: _CLEAN, 1: _ERRORS_LEFT}.get(status, _NOT_DONE)


def btrfs_check_status(status: int, printed: str) -> int:
    """Of ``btrfs check --readonly``: it ends with 1 both for damage and where it could not begin.

    Once it has checked it prints how many bytes it found.
    """
    if status < 0 or status >= _NOT_ITS_OWN:
        return status
    if status == 0:
        return _CLEAN if "no error found" in printed else _NOT_DONE
    checked = "error(s) found" in printed or "[1/" in printed
    return _ERRORS_LEFT if checked else _NOT_DONE


def f2fs_check_status(status: int, printed: str) -> int:
    """Of ``fsck.f2fs --dry-run``: by what it prints, for up to 1.15 it ends with 255 for whatever was wrong."""
    if "[Fail]" in printed:
        return _ERRORS_LEFT
    if status == 0:
        return _CLEAN if "[FSCK]" in printed else _NOT_DONE
    return status if status < 0 or (status >= _NOT_ITS_OWN and status != 255) else _NOT_DONE
