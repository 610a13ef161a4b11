"""Pages and tables made from what a run left; nothing here changes a run."""

from __future__ import annotations

from harness.report.table import Entry, HeatMap, heat_map

__all__ = ["Entry", "HeatMap", "heat_map"]
