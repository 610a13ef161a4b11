"""``stack.lock.json``, beside a run: what it was played with, to the byte; all of a run is played with that."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from harness.errors import StackError, UsageError
from harness.model import LabProvenance, StackLock
from harness.model.stack_lock import LOCK_SCHEMA, not_as_it_began
from harness.store.provenance import packages_digest
from harness.store.run_store import Store, dumped
from harness.util.atomic_file import write_atomic
from harness.util.read_file import read_file

LOCK = "stack.lock.json"

_LOCK: TypeAdapter[StackLock] = TypeAdapter(StackLock)


def read_lock(store: Store) -> StackLock | None:
    """The lock of the run; None where it has none, as runs of before there was one.

    :class:`~harness.errors.UsageError` where it cannot be read.
    """
    path = store.directory / LOCK
    try:
        found = _LOCK.validate_json(read_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise UsageError(f"{path} is damaged: {error.errors()[0]['msg']}") from None
    if found.schema > LOCK_SCHEMA:
        raise UsageError(f"{path} is of a later version of the harness (schema {found.schema})")
    return found


def keep_lock(store: Store, lock: StackLock, lab: LabProvenance) -> None:
    """Keep what the run's ``lab`` is, or hold it against what the run began with, which stays.

    :class:`~harness.errors.StackError` where another kernel, DRBD or QEMU runs than the run began with;
    :class:`~harness.errors.UsageError` where the lock that is there cannot be read, and
    :class:`~harness.errors.StoreError` where one cannot be kept.
    """
    began = read_lock(store)
    if began is None:
        _write(store, replace(lock, packages_sha256=packages_digest(lab)))
    elif why := not_as_it_began(began, lock):
        raise StackError(f"{why}; what is played now would not belong to it: begin a new run")


def keep_protocol(store: Store, protocol: str) -> None:
    """The version of DRBD's network protocol that the nodes agreed upon, in the run and in its lock."""
    run, lock = store.run(), read_lock(store)
    if protocol and run.stack.drbd_protocol != protocol:
        store.save_run(replace(run, stack=replace(run.stack, drbd_protocol=protocol)))
    if protocol and lock is not None and lock.drbd_protocol != protocol:
        _write(store, replace(lock, drbd_protocol=protocol))


def _write(store: Store, lock: StackLock) -> None:
    write_atomic(store.directory / LOCK, dumped(lock))
