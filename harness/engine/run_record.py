"""What is known of a run, saved whenever something about it is known better."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from harness.model import Cell, LabProvenance, Run, Stack, StackLock
from harness.store import Store, keep_lock, keep_protocol, keep_provenance


class RunRecord:
    """The run's file; every method writes it whole, synced, and raises :class:`~harness.errors.StoreError`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The planned cells."""
        return self._store.run().cells

    @property
    def seed(self) -> int:
        """What the seeds of the cells are made from; 0 where the run has none."""
        return self._store.run().seed

    def took(self, what: str, began: float) -> None:
        """``what`` went on since ``began`` (:func:`time.monotonic`); seconds add up."""
        seconds = time.monotonic() - began
        self._save(
            lambda run: replace(run, lab_seconds={**run.lab_seconds, what: run.lab_seconds.get(what, 0.0) + seconds})
        )

    def plays_on(self, stack: Stack, lock: StackLock, lab: LabProvenance) -> None:
        """The versions under test, the images and packages of the lab, and the version of the harness.

        :class:`~harness.errors.StackError` where the run began with other versions: it stays as it was recorded then.
        """
        keep_lock(self._store, lock, lab)
        self._save(lambda run: replace(run, stack=stack))
        keep_provenance(self._store, lab)

    def drbd_protocol(self, version: str) -> None:
        """The version of DRBD's network protocol, which only two nodes that are connected can tell."""
        keep_protocol(self._store, version)

    def guest_kernel(self, version: str) -> None:
        """The kernel of the guest, which only a guest that runs can tell."""
        self._save(lambda run: replace(run, stack=replace(run.stack, guest_kernel=version)))

    def note(self, sentence: str, *, once: bool = False) -> None:
        """A sentence about the run as a whole; ``once``: however often it is said."""
        self._save(lambda run: run if once and sentence in run.notes else replace(run, notes=(*run.notes, sentence)))

    def gave_up(self, labs: Iterable[str], why: str) -> None:
        """There is no lab any more; ``labs`` are the ids of those that failed without an answer in between."""
        given_up = dict.fromkeys(labs, why)
        self.note(f"the lab was given up: {why}")
        self._save(lambda run: replace(run, given_up={**run.given_up, **given_up}))

    def goes_on(self) -> None:
        """The run is being played: it has no end yet, or one that is resumed has none any more."""
        self._save(lambda run: replace(run, finished_at=""))

    def finished(self) -> None:
        """The run ended now."""
        self._save(lambda run: replace(run, finished_at=datetime.now(UTC).isoformat(timespec="seconds")))

    def _save(self, change: Callable[[Run], Run]) -> None:
        self._store.save_run(change(self._store.run()))
