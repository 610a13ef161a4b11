"""ci/bench-witness: what its pairs amount to, and what it says when it is called wrongly."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).parents[2] / "ci" / "lib" / "bench_witness.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_witness", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_interval_known_ratios(bench: ModuleType) -> None:
    # Logarithms -0.1, 0 and 0.1: their standard error is 0.1/sqrt(3), and Student's 97.5 % of 2 degrees is 4.3027.
    middle, low, high = bench.interval([math.exp(-0.1), 1.0, math.exp(0.1)])
    assert middle == pytest.approx(1.0)
    assert (low, high) == pytest.approx((math.exp(-0.24842), math.exp(0.24842)), rel=1e-4)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=20))
def test_interval_any_ratios_around_the_middle_and_no_direction(bench: ModuleType, ratios: list[float]) -> None:
    middle, low, high = bench.interval(ratios)
    assert low <= middle <= high
    assert bench.interval([1 / ratio for ratio in ratios]) == pytest.approx((1 / middle, 1 / high, 1 / low))


def test_bench_witness_one_pair_usage() -> None:
    argv = [sys.executable, str(SCRIPT), "--pairs", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].endswith("an interval needs two pairs or more")
