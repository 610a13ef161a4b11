"""Settings of all selftests."""

from __future__ import annotations

import gc
import os

import pytest

# A process loads NumPy once; where pytest runs inside of a test, what that loaded first would be forgotten behind it.
import scipy.stats  # noqa: F401
from hypothesis import HealthCheck, settings

# What these assert for the tests says what it compared, as a test does.
pytest.register_assert_rewrite("canary_process", "judged_evidence")

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# readline, which pytest loads, leaves these to what pytest starts, its workers too; and how wide the terminal of
# whoever runs the tests is does not matter either.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
    os.unsetenv(_name)

# What thousands of tests are made of stays to the end.  To look through it for garbage, as Python does again and again
# while tests are collected and while stored evidence is read, takes a third of the one and as much of the other.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
