"""Tests on a machine that nobody prepared for the harness: ``--drbd-foreign DIR`` says where it is, else all skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import Foreign


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("a foreign machine")
    group.addoption("--drbd-foreign", metavar="DIR", type=Path, help="what ci/foreign-machine made")
    group.addoption("--drbd-foreign-record", metavar="DIR", type=Path, help="keep what the machine said in each case")


@pytest.fixture(scope="session")
def foreign(pytestconfig: pytest.Config) -> Iterator[Foreign]:
    """The machine, booted once for all tests."""
    directory = pytestconfig.getoption("--drbd-foreign", default=None)
    if directory is None:
        pytest.skip("needs --drbd-foreign DIR, a machine that ci/foreign-machine made")
    machine = Foreign(directory)
    machine.start()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Path | None:
    """Where the machine's own words are to be kept."""
    directory: Path | None = pytestconfig.getoption("--drbd-foreign-record", default=None)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    return directory
