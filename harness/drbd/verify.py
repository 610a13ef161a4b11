"""An online verify, read from both kernel logs; and what makes two replicas equal again.

Nothing here holds state; one verify or resync of a resource at a time.
"""

from __future__ import annotations

import contextlib
import time

from harness.drbd.dialect import DrbdDialect, ResyncStep
from harness.drbd.drbdadm import run_drbdadm
from harness.drbd.events import Events
from harness.errors import DeadlineError, InfrastructureError
from harness.lab.node import Node
from harness.model import Verify
from harness.parse.kernel_log import last_verify, verify_of
from harness.render.drbd_conf import ResourceSpec
from harness.util.deadline import Deadline, poll

# From the end of the command that starts a verify to the event that says so: DRBD has begun when the command ends.
START_SECONDS = 30.0
BUSY_SECONDS = 15.0
_BUSY = "Can not start OV/resync since it is already active"


def run_verify(
    a: Node, b: Node, events: Events, dialect: DrbdDialect, spec: ResourceSpec, seconds: float
) -> tuple[Verify, str, str]:
    """One `drbdadm verify` of the whole device, run on ``a``; also the raw kernel logs of both nodes over it.

    ``events`` are ``a``'s.  Blocks for at most ``seconds``, and up to 30 s for each of the four markers in the
    logs; raises :class:`~harness.errors.DeadlineError` then, :class:`InfrastructureError` with DRBD's message where it
    does not start one, and :class:`~harness.errors.LostNodeError` when a node is lost meanwhile.  A verify that was cut
    off, or whose start or end is not in ``a``'s kernel log, is not :attr:`~harness.model.Verify.complete`.
    """
    began = time.monotonic()
    cursors = [node.log.mark("verify begins") for node in (a, b)]
    cursor = events.cursor()
    deadline = Deadline.after(seconds, "the online verify")
    _start(a, dialect, spec)
    start = deadline.sooner(min(START_SECONDS, seconds), "the start of the verify")
    begun = events.wait(lambda state: state.replication == "VerifyS", start.what, start, cursor)
    events.wait(lambda state: state.replication != "VerifyS", "the end of the verify", deadline, begun)
    for node in (a, b):
        node.log.mark("verify ended")
    raw_a, raw_b = (node.log.raw(at) for node, at in zip((a, b), cursors, strict=True))
    logs = [node.log.lines(at) for node, at in zip((a, b), cursors, strict=True)]
    source = verify_of(logs[0], a.name, spec.minor)
    target = verify_of(logs[1], b.name, spec.minor)
    skipped = max(last_verify(log, spec.minor).skipped_blocks for log in logs)
    return Verify(source, target, time.monotonic() - began, skipped), raw_a, raw_b


def _start(node: Node, dialect: DrbdDialect, spec: ResourceSpec) -> None:
    said = ""

    def attempt() -> bool | None:
        nonlocal said
        done = run_drbdadm(node.runner, dialect.start_verify(spec), ok=())
        said = done.message if done.status else ""
        # DRBD 9 may begin a resync anew just behind the end of one.
        return None if _BUSY in said else True

    with contextlib.suppress(DeadlineError):
        poll(attempt, Deadline.after(BUSY_SECONDS, "the end of the resync before the verify"), every=0.5)
    # A refusal is no answer about the stack under test: nothing was compared.
    if said:
        raise InfrastructureError(f"DRBD on {node.name} did not start the online verify: {said}")


def resync(source: Node, events: Events, steps: tuple[ResyncStep, ...], seconds: float) -> None:
    """Run ``steps`` on ``source``, whose data is right, and wait for what each has to lead to.

    ``events`` are ``source``'s.  Blocks for at most ``seconds`` in all; raises
    :class:`~harness.errors.DeadlineError` then.
    """
    cursor = events.cursor()
    deadline = Deadline.after(seconds, "the resync")
    for step in steps:
        run_drbdadm(source.runner, step.argv)
        for awaited in step.awaited:
            cursor = events.wait(awaited.reached, awaited.what, deadline, cursor)
