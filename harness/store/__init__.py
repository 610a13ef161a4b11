"""What a run leaves behind, and how it is read again."""

from harness.store.merge import merge_runs
from harness.store.provenance import keep_provenance
from harness.store.results import judged_results, keep_judged
from harness.store.run_store import Attempt, Store, new_run_id, run_ids

__all__ = [
    "Attempt",
    "Store",
    "judged_results",
    "keep_judged",
    "keep_provenance",
    "merge_runs",
    "new_run_id",
    "run_ids",
]
