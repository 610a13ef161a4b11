"""What a run leaves behind, and how it is read again."""

from harness.store.lock import keep_lock, keep_protocol, read_lock
from harness.store.merge import merge_runs
from harness.store.merge_plan import cut_differently, missing_of
from harness.store.provenance import keep_provenance, kept_packages
from harness.store.results import JudgedRun, judged_cells, judged_results, judged_run, keep_judged
from harness.store.run_store import KEPT, Attempt, Store, dumped, new_run_id, run_ids
from harness.store.small_form import keep_small

__all__ = [
    "KEPT",
    "Attempt",
    "JudgedRun",
    "Store",
    "cut_differently",
    "dumped",
    "judged_cells",
    "judged_results",
    "judged_run",
    "keep_judged",
    "keep_lock",
    "keep_protocol",
    "keep_provenance",
    "keep_small",
    "kept_packages",
    "merge_runs",
    "missing_of",
    "new_run_id",
    "read_lock",
    "run_ids",
]
