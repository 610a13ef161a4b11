"""A user's own test with the public fixtures; the README shows it."""

import pytest

from harness.model import VerdictKind


@pytest.mark.cell(cache="writeback")
def test_random_writes_stay_equal(disk, fio, verdict):
    fio(rw="randwrite", bs="16k", size="16m", direct=1, verify="crc32c")
    assert verdict().kind is VerdictKind.CLEAN, verdict().sentence
