"""One cell, start to finish: the order that the steps of a :class:`~harness.engine.trial.Trial` go in.

A user's own test takes the same steps with its own work in the middle (see :mod:`harness.pytest_plugin.plugin`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from harness.engine.disturbances import crash, migrations
from harness.engine.trial import Owning, Trial
from harness.errors import HarnessError
from harness.guest.domain import Guest
from harness.model import ClientKind, Control, Evidence
from harness.workloads.base import Workload
from harness.workloads.controls import Planted


def play(trial: Trial, workload: Workload, guest: Callable[[], Guest]) -> Evidence:
    """One cell with one of the harness's own workloads; always ends with evidence kept.

    Only what is no :class:`HarnessError` gets out: Ctrl-C and our own bugs, after the evidence is kept; and a
    :class:`~harness.errors.StoreError` where it cannot be kept.
    """
    try:
        try:
            trial.begin()
            _work(trial, workload, guest)
            trial.release()
        except HarnessError as error:
            trial.fail(error)
            trial.rescue()
        conclude(trial, workload.owners, workload.filesystem.method)
    except BaseException as error:
        trial.fail(error)
        trial.keep_logs()
        trial.rescue()
        raise
    finally:
        trial.finish()
    return trial.evidence


def _work(trial: Trial, workload: Workload, guest: Callable[[], Guest]) -> None:
    target = trial.take_guest(guest()) if trial.cell.client is ClientKind.GUEST else trial.take_host()
    with trial.phase("prepare"):
        workload.prepare(target)
        if trial.cell.has_canary:
            migrations.start_canary(trial, target)
        trial.apply_delays()
    with trial.phase("work"):
        work = migrations.work(trial, workload, target)
        trial.note(work=work)
    if trial.cell.crash is not None:
        with trial.phase("crash_recovery"):
            crash.recover_and_check(trial, workload)
    else:
        with trial.phase("quiesce"):
            wrong = workload.quiesce(trial.target() if trial.guest else target)
            trial.note(work=replace(work, read_back_errors=work.read_back_errors + wrong))
        migrations.finish_in_guest(trial)
    if trial.cell.control is Control.PLANTED:
        trial.note(planted=Planted.extents(trial.resource.blocks))


def conclude(trial: Trial, owning: Owning, method: str) -> None:
    """The oracles, the explanation, the repair and the kernel logs, after everything was written.

    They are asked after a failure too, where that is possible: what a lost guest left behind is worth knowing, and
    the next cell needs equal replicas.
    """
    try:
        trial.run_oracles()
        trial.classify_differences(owning, method)
        trial.repair()
    except HarnessError as error:
        trial.fail(error)
    # Where an oracle failed, the consoles and the kernel logs are what tells why.
    try:
        trial.keep_console()
        trial.close_logs()
    except HarnessError as error:
        trial.fail(error)
        trial.keep_logs()
