"""The results of a stored run: its evidence, judged again."""

from __future__ import annotations

from harness.judgement.rejudge import rejudged
from harness.model import Result
from harness.store.run_store import Store


def judged_results(store: Store) -> list[Result]:
    """Every cell of the run, judged from its newest evidence; cells without evidence have no verdict."""
    return rejudged(store.run(), store.every_attempt())
