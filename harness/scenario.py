"""One cell, start to finish.

:class:`Trial` is the steps; :func:`play` is the order they go in.  A user's own test takes the same steps with its
own work in the middle (see :mod:`harness.plugin`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from harness import owners
from harness.agree import KIB_PER_BLOCK
from harness.compare import owned
from harness.drbd import Resource
from harness.errors import CommandError, DeadlineError, HarnessError, LostGuestError, LostNodeError, RefusedError
from harness.guest import AttachedDisk, Guest, observe_node
from harness.judge import REFUSED
from harness.lab.base import Lab
from harness.model import ClientKind, Control, Evidence, Failure, blocks_of
from harness.owners import Owned
from harness.parse.kernel_log import missing, trouble
from harness.store import Attempt
from harness.wait import Deadline
from harness.workloads import Planted, Site, Workload

MAX_SAMPLES = 16

Owning = Callable[[Site, list[int]], Mapping[int, Owned]]


class Trial:
    """One attempt at one cell over a resource that is up.  Facts gather in ``evidence``."""

    def __init__(self, lab: Lab, resource: Resource, attempt: Attempt, say: Callable[[str], None]) -> None:
        self.lab = lab
        self.resource = resource
        self.cell = attempt.cell
        self.attempt = attempt
        self.evidence = Evidence(self.cell, attempt.number, _now(), lab=lab.id, device_blocks=resource.blocks)
        self.deadline = Deadline.after(self.cell.deadline, f"the cell {self.cell.id}")
        self._say = say
        self._phases: dict[str, float] = {}
        self._phase = "begin"
        self._guest: Guest | None = None
        self._disk: AttachedDisk | None = None
        self._kernel_cursors: tuple[int, int] = (0, 0)
        self._sent_kib = 0

    # ------------------------------------------------------------------------------------------ bookkeeping

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside under ``name`` and name it in a failure."""
        self._phase = name
        self._say(f"{self.cell.id}: {name}")
        self.deadline.left()
        began = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = self._phases.get(name, 0.0) + time.monotonic() - began

    @property
    def disk(self) -> AttachedDisk | None:
        """The disk as the guest has it now."""
        return self._disk

    def note(self, **facts: object) -> None:
        """Add facts to the evidence."""
        self.evidence = replace(self.evidence, **facts)  # type: ignore[arg-type]

    def fail(self, trouble: BaseException) -> None:
        """Record why there is no answer; the first reason stays."""
        if self.evidence.failure is None:
            self.note(failure=Failure(_kind(trouble), self._phase, str(trouble) or type(trouble).__name__))

    def finish(self) -> Evidence:
        """Complete the evidence and keep it."""
        self.note(finished_at=_now(), phases=dict(self._phases))
        self.attempt.save(self.evidence)
        return self.evidence

    # ------------------------------------------------------------------------------------------ the steps

    def begin(self) -> None:
        """Preconditions: healthy, nothing out of sync, replicas equal; the capture of both kernel logs starts."""
        with self.phase("begin"):
            self._kernel_cursors = (
                self.lab.a.log.mark(f"{self.cell.id} begins"),
                self.lab.b.log.mark(f"{self.cell.id} begins"),
            )
            state, counters = self.resource.status()
            equal = counters.out_of_sync_kib == 0 and self._differing() == 0
            if state.healthy and not equal:
                self.resource.repair(self._differing)
                state, counters = self.resource.status()
                equal = counters.out_of_sync_kib == 0 and self._differing() == 0
            self._sent_kib = counters.sent_kib
            self.note(before=state, equal_before=equal)

    def take_host(self) -> Site:
        """The node itself is the client."""
        with self.phase("attach"):
            self.note(observed=observe_node(self.lab.a, self.resource.device))
            return self._primary()

    def take_guest(self, guest: Guest) -> Site:
        """The guest is the client: attach the disk and read back what was really opened."""
        with self.phase("attach"):
            self._guest = guest
            self._disk = guest.attach(self.resource.device, self.cell)
            self.note(observed=guest.observe(self._disk, self.resource.device))
            return Site(guest.agent, self._disk.path, self.resource)

    def widen(self) -> None:
        """The cell's widener goes on, and what is really on is read back."""
        widener = self.cell.widener
        if not widener.natural:
            self.resource.widen(widener.link_delay_ms, widener.disk_delay_ms)
            link, disk = self.resource.wideners()
            self.note(observed=replace(self.evidence.observed, link_delay_ms=link, disk_delay_ms=disk))

    def release(self) -> None:
        """Widener off, disk detached, everything flushed; counts what was exposed since the beginning."""
        with self.phase("detach"):
            if not self.cell.widener.natural:
                self.resource.widen(0, 0)
            if self._guest is not None and self._disk is not None:
                self._guest.detach(self._disk)
                self._disk = None
            self.resource.sync()
            _, counters = self.resource.status()
            self.note(exposed_blocks=max(0, counters.sent_kib - self._sent_kib) // KIB_PER_BLOCK)

    def ask(self) -> None:
        """The three oracles: verify, counter, comparison."""
        with self.phase("verify"):
            verify, raw_a, raw_b = self.resource.verify()
            self.attempt.write_raw("kmsg-verify-source.txt", raw_a)
            self.attempt.write_raw("kmsg-verify-target.txt", raw_b)
            state, counters = self.resource.status()
            self.note(verify=verify, counter_kib=counters.out_of_sync_kib, after=state)
            for node in (self.lab.a, self.lab.b):
                for what, text in self.resource.said(node).items():
                    self.attempt.write_raw(f"drbd-{what}-{node.name}.txt", text)
        with self.phase("compare"):
            self.note(comparison=self.lab.compare(self.resource.blocks))

    def explain(self, owning: Owning, method: str) -> None:
        """Samples and owners of what differs."""
        comparison = self.evidence.comparison
        if comparison is None or not comparison.differing:
            return
        with self.phase("explain"):
            blocks = sorted(blocks_of(comparison.differing))
            whose = owning(self._primary(), blocks)
            found = self.lab.sample(blocks[:MAX_SAMPLES])
            samples = (owned(one, whose[one.block].owner, whose[one.block].detail) for one in found)
            self.note(samples=tuple(samples), ownership=owners.summary(whose, method))

    def repair(self) -> None:
        """Make the replicas equal again where they are not, and say whether the comparison agrees."""
        comparison, counter = self.evidence.comparison, self.evidence.counter_kib
        if counter == 0 and comparison is not None and not comparison.differing:
            return
        with self.phase("repair"):
            self.note(repair=self.resource.repair(self._differing))

    def close_logs(self) -> None:
        """Keep both kernel logs of the whole cell and look for trouble in them."""
        found: list[str] = []
        holes = 0
        for node, cursor in zip((self.lab.a, self.lab.b), self._kernel_cursors, strict=True):
            node.log.mark(f"{self.cell.id} ended")
            self.attempt.write_raw(f"kmsg-{node.name}.txt", node.log.raw(cursor))
            lines = node.log.lines(cursor)
            found += (f"{node.name}: {line}" for line in trouble(lines))
            holes += missing(lines)
        self.note(kernel_trouble=tuple(found), log_holes=holes)

    def keep_logs(self) -> None:
        """Keep the kernel logs as far as they arrived; asks the nodes nothing, so it works on a broken lab."""
        for node, cursor in zip((self.lab.a, self.lab.b), self._kernel_cursors, strict=True):
            with contextlib.suppress(HarnessError, OSError):
                self.attempt.write_raw(f"kmsg-{node.name}.txt", node.log.raw(cursor))

    def rescue(self) -> None:
        """After a failure: nothing of the cell stays on; a guest that holds the disk is ended."""
        with contextlib.suppress(HarnessError):
            self.resource.widen(0, 0)
        if self._guest is not None and self._disk is not None:
            self.attempt.write_raw("guest-console.txt", _said(self._guest))
            self._guest.destroy()
            self._disk = None

    def _primary(self) -> Site:
        return Site(self.lab.a.runner, self.resource.device, self.resource)

    def _differing(self) -> int:
        return self.lab.compare(self.resource.blocks).differing_blocks


def play(trial: Trial, workload: Workload, guest: Callable[[], Guest]) -> Evidence:
    """One cell with one of the harness's own workloads; always ends with evidence kept.

    Only what is no :class:`HarnessError` gets out: Ctrl-C and our own bugs, after the evidence is kept.
    """
    try:
        try:
            trial.begin()
            _work(trial, workload, guest)
            trial.release()
        except HarnessError as trouble:
            trial.fail(trouble)
            trial.rescue()
        conclude(trial, workload.owners, workload.name)
    except BaseException as trouble:
        trial.fail(trouble)
        trial.keep_logs()
        trial.rescue()
        raise
    finally:
        trial.finish()
    return trial.evidence


def _work(trial: Trial, workload: Workload, guest: Callable[[], Guest]) -> None:
    site = trial.take_guest(guest()) if trial.cell.client is ClientKind.GUEST else trial.take_host()
    with trial.phase("prepare"):
        workload.prepare(site)
        trial.widen()
    with trial.phase("work"):
        work = workload.work(site, trial.cell.seconds)
        trial.note(work=work)
    with trial.phase("quiesce"):
        wrong = workload.quiesce(site)
        trial.note(work=replace(work, read_back_errors=work.read_back_errors + wrong))
    if trial.cell.control is Control.PLANTED:
        trial.note(planted=Planted.extents(trial.resource.blocks))


def conclude(trial: Trial, owning: Owning, method: str) -> None:
    """The oracles, the explanation, the repair and the kernel logs, after everything was written.

    They are asked after a failure too, where that is possible: what a lost guest left behind is worth knowing, and
    the next cell needs equal replicas.
    """
    try:
        trial.ask()
        trial.explain(owning, method)
        trial.repair()
    except HarnessError as trouble:
        trial.fail(trouble)
    # Where an oracle failed, the kernel logs are what tells why.
    try:
        trial.close_logs()
    except HarnessError as trouble:
        trial.fail(trouble)
        trial.keep_logs()


_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (RefusedError, REFUSED),
    (LostNodeError, "lost-node"),
    (LostGuestError, "lost-guest"),
    (DeadlineError, "deadline"),
    (CommandError, "command"),
    (KeyboardInterrupt, "interrupted"),
    (HarnessError, "infrastructure"),
)


def _kind(trouble: BaseException) -> str:
    return next((kind for error, kind in _KINDS if isinstance(trouble, error)), "bug")


def _said(guest: Guest) -> str:
    try:
        return guest.console()
    except HarnessError as trouble:
        return f"unreadable: {trouble}\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
