"""The results of a stored run: its evidence, judged again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.config.controls import with_controls
from harness.judgement.rejudge import judged_attempts, rejudged, standing
from harness.model import SCHEMA_VERSION, Evidence, Result, Run
from harness.store.run_store import Attempt, Store


@dataclass(frozen=True)
class JudgedRun:
    """All of a stored run: its plays judged, every attempt that is whole, and a sentence for each that is not.

    ``folders``: by the ``id()`` of each evidence the folder of its attempt.
    """

    run: Run
    results: list[Result]
    attempts: tuple[Evidence, ...]
    damaged: tuple[str, ...]
    folders: Mapping[int, Path]


def judged_run(store: Store) -> JudgedRun:
    """All of the run, as :func:`judged_results` judges it; each file is read once."""
    run = store.run()
    whole, damaged = store.whole_and_damaged()
    attempts = tuple(evidence for _, evidence in whole)
    folders = {id(evidence): folder for folder, evidence in whole}
    return JudgedRun(run, rejudged(run, attempts), attempts, damaged, folders)


def judged_results(store: Store) -> list[Result]:
    """Every play of the run, judged from all its evidence; one without evidence has no verdict."""
    return rejudged(store.run(), store.every_attempt())


def judged_cells(store: Store, cell_ids: Iterable[str]) -> list[Result]:
    """The plays of some cells of the run, judged between its controls; reads no evidence of others.

    So what a CLEAN is worth, which other cells may show, is not known.
    """
    run, wanted = store.run(), {*cell_ids}
    if not any(map(store.was_begun, wanted)):
        # Most runs have no play of any one cell, and then no control of theirs says anything.
        return [one for one in rejudged(run, ()) if one.cell.id in wanted and one.cell.control is None]
    controls = {cell.id for cell in with_controls(run.cells) if cell.control is not None}
    attempts = [evidence for _, evidence in store.attempts({*wanted, *controls})]
    return [one for one in rejudged(run, attempts) if one.cell.id in wanted and one.cell.control is None]


def keep_judged(store: Store) -> list[Result]:
    """The same, and each attempt's kept verdict is written again where it is another now.

    What an earlier schema kept is left as it is.  :class:`~harness.errors.StoreError` where there is no room.
    """
    attempts = list(store.attempts())
    evidence = [one for _, one in attempts]
    run = store.run()
    judged = judged_attempts(run, evidence)
    stand = standing(run, judged)
    # Of an attempt that stands the verdict may say more: what only the whole run can tell.
    verdicts = {id(one.evidence): one.verdict for one in (*judged, *stand)}
    for directory, one in attempts:
        verdict = verdicts[id(one)]
        if verdict is not None and one.schema == SCHEMA_VERSION and store.kept_verdict(directory) != verdict:
            Attempt(one.cell, one.attempt, directory).save_verdict(verdict)
    return stand
