"""Every cell of the matrix is one test; see ``--drbd-matrix``."""

import pytest

from harness.model import Result
from harness.pytest_plugin.pytest_run import expectation_missed


def test_cell(cell_result: Result) -> None:
    """The verdict on the cell is what the matrix expects, where it expects something."""
    assert cell_result.verdict is not None
    if not cell_result.verdict.meets(cell_result.cell.expected):
        pytest.fail(expectation_missed(cell_result), pytrace=False)
