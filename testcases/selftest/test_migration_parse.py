"""libvirt's figures of a migration, and its refusals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.parse.migration import Figures, figures

COMPLETED: dict[str, object] = {
    "type": 3, "operation": 5, "time_elapsed": 5312, "downtime": 87, "setup_time": 4,
    "data_total": 537923584, "data_processed": 301219840, "data_remaining": 0,
    "memory_total": 537923584, "memory_processed": 301219840, "memory_remaining": 0, "memory_bps": 58720256,
    "memory_constant": 91223, "memory_normal": 72811, "memory_normal_bytes": 298233856, "memory_dirty_rate": 0,
    "memory_iteration": 4, "memory_page_size": 4096, "memory_postcopy_requests": 0,
}  # fmt: skip
UNDER_WAY: list[dict[str, object]] = [
    {"type": 2, "downtime": 300, "data_processed": 100, "memory_iteration": 1, "memory_total": 500},
    {"type": 2, "downtime": 900, "data_processed": 300, "memory_iteration": 6, "auto_converge_throttle": 40},
    {"type": 2, "downtime": 700, "data_processed": 200, "memory_iteration": 5, "auto_converge_throttle": 30},
]


def test_figures_completed_job_all_read() -> None:
    assert figures(COMPLETED) == Figures(
        downtime_ms=87, iterations=4, transferred_bytes=301219840, memory_bytes=537923584, throttle_percent=None
    )


def test_figures_completed_over_samples_except_throttle() -> None:
    assert figures(COMPLETED, UNDER_WAY) == Figures(87, 4, 301219840, 537923584, throttle_percent=40)
    assert figures({**COMPLETED, "auto_converge_throttle": 0}, UNDER_WAY).throttle_percent == 40
    assert figures({**COMPLETED, "auto_converge_throttle": 60}, UNDER_WAY).throttle_percent == 60


def test_figures_not_completed_from_samples_only() -> None:
    # The downtime of a sample is what QEMU expects, not what was.
    assert figures({}, UNDER_WAY) == Figures(None, 6, 300, 500, 40)
    assert figures({"type": 4, "downtime": 300}, UNDER_WAY).downtime_ms is None
    assert figures({}) == figures({"type": 0}) == Figures()


def test_figures_missing_none_zero_kept() -> None:
    assert figures({"downtime": 0, "memory_iteration": 0}, UNDER_WAY) == Figures(0, 0, 300, 500, 40)


NUMBERS = st.none() | st.integers(0, 2**63) | st.booleans() | st.text(max_size=3)
SAMPLE = st.dictionaries(st.sampled_from(sorted(COMPLETED)), NUMBERS)


@given(SAMPLE, st.lists(SAMPLE, max_size=4))
def test_figures_any_statistics_only_values_in_them(
    completed: dict[str, object], seen: list[dict[str, object]]
) -> None:
    found = figures(completed, seen)
    everything = [value for sample in (completed, *seen) for value in sample.values() if type(value) is int]
    for value in (found.downtime_ms, found.iterations, found.transferred_bytes, found.memory_bytes):
        assert value is None or value in everything
    if type(completed.get("memory_iteration")) is int:
        assert found.iterations == completed["memory_iteration"]
