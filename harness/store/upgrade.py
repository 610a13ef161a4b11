"""Stored JSON of earlier schemas as the present model reads it.  Files that are kept are never rewritten.

Schema 1 had other names: see :data:`_RENAMED` and :mod:`harness.model.aliases`.  It knew no filesystem beside the
workload, and of a block's owner only whether it was live or dead.  Schema 1 and 2 told that a filesystem could not be
mounted in fsck's message only.  What schema 3 added has defaults that say "not known".

What is read of schema 1 keeps the number 2, not the present one: a judge that needs a fact which neither of them has
must be able to tell that.
"""

from __future__ import annotations

import re
from typing import Any

from harness.model import FilesystemKind, aliases

_RENAMED = {
    # cell
    "widener": "delays",
    # cell, observed
    "arm": "replication",
    # evidence
    "struck": "fault_injected",
    "happened": "event_log",
    "readings": "readback",
    "aftermath": "crash_recovery",
    "kernel_trouble": "kernel_errors",
    "console_trouble": "console_errors",
    # crash recovery
    "fsck_words": "fsck_message",
    # migration
    "words": "message",
    # ownership
    "live": "allocated",
    "dead": "free",
}
# What a workload or the harness counts and times, by names of its own.
_FREE_NAMES = (
    "facts", "phases", "lab_seconds", "lab_spec", "stack_spec", "acknowledged", "lost", "states", "qemu_cache",
    "given_up",
)  # fmt: skip
# Of the options that a run kept instead of its specs, those that are about the software in its lab.
_STACK_OPTIONS = ("suite", "guest_suite")
_OWNERS = {"live": "allocated", "dead": "free"}
_NOT_MOUNTED = re.compile(r"mount: (.*); fsck: (.*)", re.DOTALL)
_DURING = {"readings": "readback"}


def upgraded(stored: Any) -> Any:
    """``stored`` (a run, a verdict or a piece of evidence as JSON has it) with the names of the present schema.

    Anything that is not of an earlier schema comes back as it is, damage included: the model finds that.
    """
    if not isinstance(stored, dict) or "kind" in stored:
        return stored
    if stored.get("schema", 1) == 1:
        stored = {**_renamed(_with_specs(stored)), "schema": 2}
    recovery = stored.get("crash_recovery")
    if stored["schema"] == 2 and isinstance(recovery, dict) and "mounted" not in recovery:
        return {**stored, "crash_recovery": _mount_told_apart(recovery)}
    return stored


def _with_specs(stored: dict[str, Any]) -> dict[str, Any]:
    """A run's options became the fields of two specs; ``keep`` was never a choice of the run's."""
    options = stored.get("lab_options")
    if not isinstance(options, dict):
        return stored
    stack = {name: options[name] for name in _STACK_OPTIONS if name in options}
    lab = {name: value for name, value in options.items() if name not in (*_STACK_OPTIONS, "keep")}
    rest = {name: value for name, value in stored.items() if name != "lab_options"}
    return {**rest, "lab_spec": lab, "stack_spec": stack}


def _mount_told_apart(recovery: dict[str, Any]) -> dict[str, Any]:
    """What mount and what fsck reported, each in its place; whether it was mounted is known only where it was not."""
    found = _NOT_MOUNTED.fullmatch(str(recovery.get("fsck_message")))
    if found is None:
        return recovery
    return {**recovery, "mounted": False, "mount_message": found[1], "fsck_message": found[2]}


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {
        _RENAMED.get(str(key), str(key)): item if key in _FREE_NAMES else _renamed(item) for key, item in value.items()
    }
    if isinstance(owner := found.get("owner"), str):
        found["owner"] = _OWNERS.get(owner, owner)
    if isinstance(during := found.get("during"), str):
        found["during"] = _DURING.get(during, during)
    if "workload" in found and "client" in found:
        return _cell(found)
    return found


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    # As text, for what is damaged may be anything; the model says what is wrong with it.
    kind, workload = aliases.WORKLOADS.get(str(cell["workload"]), (FilesystemKind.RAW, cell["workload"]))
    control = aliases.CONTROLS.get(str(cell.get("control")), cell.get("control"))
    return {**cell, "filesystem": kind.value, "workload": workload, "control": control}
