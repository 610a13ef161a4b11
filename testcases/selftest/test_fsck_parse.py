"""What fsck's exit status means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import FilesystemCheck
from harness.parse.fsck import fsck_meaning


@pytest.mark.parametrize(
    ("status", "found", "why"),
    [
        (0, FilesystemCheck.CLEAN, "no errors"),
        (1, FilesystemCheck.UNCHECKED, "corrected errors although it was to change nothing"),
        (3, FilesystemCheck.UNCHECKED, "corrected errors"),
        (4, FilesystemCheck.DAMAGED, "left uncorrected"),
        (12, FilesystemCheck.DAMAGED, "left uncorrected"),  # e2fsck -fn of a filesystem whose root inode is gone
        (8, FilesystemCheck.UNCHECKED, "an operational error"),
        (9, FilesystemCheck.UNCHECKED, "an operational error"),
        (16, FilesystemCheck.UNCHECKED, "wrong usage"),
        (40, FilesystemCheck.UNCHECKED, "an operational error, it was cancelled"),
        (64, FilesystemCheck.UNCHECKED, "does not document"),
        (124, FilesystemCheck.UNCHECKED, "took too long"),
        (125, FilesystemCheck.UNCHECKED, "could not be started"),
        (126, FilesystemCheck.UNCHECKED, "could not be executed"),
        (127, FilesystemCheck.UNCHECKED, "no such program"),
        (128, FilesystemCheck.UNCHECKED, "shared library"),
        (134, FilesystemCheck.UNCHECKED, "killed by signal 6"),  # 4 is among its bits
        (-9, FilesystemCheck.UNCHECKED, "killed by signal 9"),
    ],
)
def test_fsck_meaning_documented_statuses(status: int, found: FilesystemCheck, why: str) -> None:
    meaning = fsck_meaning(status)
    assert meaning[0] is found and why in meaning[1]


@given(st.integers(-64, 255))
def test_fsck_meaning_clean_only_without_any_bit_damaged_only_with_its_own(status: int) -> None:
    found, why = fsck_meaning(status)
    assert why and (found is FilesystemCheck.CLEAN) == (status == 0)
    assert found is not FilesystemCheck.DAMAGED or (status & 4 and 0 < status < 124)
