"""The results of a stored run: its evidence, judged again."""

from __future__ import annotations

from pathlib import Path

from harness.judgement.rejudge import judged_attempts, rejudged
from harness.model import SCHEMA_VERSION, Result
from harness.store.run_store import Attempt, Store


def judged_results(store: Store) -> list[Result]:
    """Every play of the run, judged from all its evidence; one without evidence has no verdict."""
    return rejudged(store.run(), store.every_attempt())


def judged_folders(store: Store) -> tuple[list[Result], dict[int, Path]]:
    """The same, and by the ``id()`` of each evidence among them the folder of its attempt."""
    attempts = list(store.attempts())
    results = rejudged(store.run(), [evidence for _, evidence in attempts])
    return results, {id(evidence): folder for folder, evidence in attempts}


def keep_judged(store: Store) -> list[Result]:
    """The same, and each attempt's kept verdict is written again where it is another now.

    What an earlier schema kept is left as it is.  :class:`~harness.errors.StoreError` where there is no room.
    """
    attempts = list(store.attempts())
    evidence = [one for _, one in attempts]
    run = store.run()
    standing = rejudged(run, evidence)
    # Of an attempt that stands the verdict may say more: what only the whole run can tell.
    verdicts = {id(one.evidence): one.verdict for one in (*judged_attempts(run, evidence), *standing)}
    for directory, one in attempts:
        verdict = verdicts[id(one)]
        if verdict is not None and one.schema == SCHEMA_VERSION and store.kept_verdict(directory) != verdict:
            Attempt(one.cell, one.attempt, directory).save_verdict(verdict)
    return standing
