"""One harness at a time on two machines: a lease on each, taken in the same order by everybody, with an end.

It lies in :data:`FOLDER` on the machine, which root alone reads; who breaks one stands in ``leases.log`` there.  That
of a process of this very controller which is known to have ended is taken over, and stands there too.
"""

from __future__ import annotations

import contextlib
import json
import platform
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError, InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.own import this_user
from harness.util.logs import progress
from harness.util.process_identity import ProcessIdentity

FOLDER = "/var/lib/drbd-harness"
# How long a lease that is renewed lasts without that: for so long a machine waits for a controller that is gone.
KEPT_SECONDS = 900
_RENEW_SECONDS = 180.0
_PROGRAM = Path(__file__).parent / "programs" / "lease.py"
_TAKEN = 4


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: this process by its ``id``, a person as he is known, and what for.

    ``controller``, ``pid`` and ``started`` are the process's :class:`~harness.util.process_identity.ProcessIdentity`.
    """

    id: str
    owner: str
    what: str
    controller: str = ""
    pid: int = 0
    started: int = 0

    @classmethod
    def of_this_process(cls, what: str) -> Holder:
        """A new one, for ``what`` is done."""
        process = ProcessIdentity.of_this_process()
        owner = f"{this_user()} on {platform.node()}"
        return cls(secrets.token_hex(8), owner, what, process.controller, process.pid, process.started)


@contextlib.contextmanager
def held(machines: Sequence[tuple[str, Machine]], holder: Holder, seconds: int, folder: str = FOLDER) -> Iterator[None]:
    """The leases of all ``machines`` for at most ``seconds``; each comes with what everybody orders them by.

    One whose process has ended on this controller, killed for example, is taken over, and that is said.
    :class:`~harness.errors.ProtectedError` that says who holds one; then none was taken.
    """
    with contextlib.ExitStack() as undo:
        for _, machine in sorted(machines, key=lambda one: one[0]):
            _take(machine, folder, holder, seconds)
            undo.callback(_give, machine, folder, holder)
        yield


class Lease:
    """The leases of ``machines`` for as long as a run lasts; whoever writes asks first whether they are still held.

    A boot ends a machine's lease: that of one whose power is cut is not renewed, and is taken again when it is back.
    """

    def __init__(self, machines: Sequence[Machine] = (), holder: Holder | None = None, folder: str = FOLDER) -> None:
        self._machines = {machine.name: machine for machine in machines}
        self._holder = holder
        self._folder = folder
        self._away: set[str] = set()
        self._asking = threading.Lock()
        self._lost: str | None = None
        self._until = dict.fromkeys(self._machines, _now() + KEPT_SECONDS)

    def lost(self, why: str) -> None:
        """One of them was taken away."""
        self._lost = why

    def require(self) -> None:
        """:class:`~harness.errors.ProtectedError` where one of them is not held any more, or may not be: nobody could
        renew it for as long as it lasts.
        """
        if self._lost is not None:
            raise ProtectedError(f"{self._lost}; nothing more is written")
        for name, until in self._until.items():
            if name not in self._away and _now() > until:
                raise ProtectedError(f"the harness's lease of {name} has run out unrenewed; nothing more is written")

    def away(self, name: str) -> None:
        """The machine is about to lose its power; blocks while it is being asked for its lease."""
        with self._asking:
            self._away.add(name)

    def take_again(self, name: str) -> None:
        """The machine has booted: its lease is taken anew.  :class:`~harness.errors.ProtectedError` where somebody else
        was there before; then nothing more is written.
        """
        with self._asking:
            try:
                _take(self._machines[name], self._folder, self._holder, KEPT_SECONDS)
            except ProtectedError as error:
                self.lost(str(error).removesuffix("; nothing was written"))
                raise
            self._until[name] = _now() + KEPT_SECONDS
            self._away.discard(name)

    def ensure(self, name: str) -> None:
        """The machine's lease is held from here on, also where it had run out or was broken, if nobody else has it.

        :class:`~harness.errors.ProtectedError` where somebody else does, :class:`~harness.errors.LostNodeError`.
        """
        with self._asking:
            taken, lease = _asked(self._machines[name], "renew", self._folder, self._holder, KEPT_SECONDS)
            if taken and lease:
                _require_ours(self._machines[name], taken, lease)
            if not taken:
                return
        self.take_again(name)

    def renew(self) -> None:
        """Renew those of all machines that are not away; one that somebody broke ends all writing."""
        for name, machine in self._machines.items():
            try:
                with self._asking:
                    if name not in self._away:
                        until = _now() + KEPT_SECONDS
                        _ask(machine, "renew", self._folder, self._holder, KEPT_SECONDS)
                        self._until[name] = until
            except ProtectedError as error:
                self.lost(str(error).removesuffix("; nothing was written"))
            except HarnessError as error:
                progress(f"the lease of {name} was not renewed, which is tried again: {error}")


@contextlib.contextmanager
def kept(
    machines: Sequence[tuple[str, Machine]], holder: Holder, folder: str = FOLDER, every: float = _RENEW_SECONDS
) -> Iterator[Lease]:
    """The leases of all ``machines``, renewed in a thread of its own until the context ends.

    A lease that somebody broke ends all writing; a machine that does not answer keeps it for ``KEPT_SECONDS`` more.
    """
    lease, ended = Lease([machine for _, machine in machines], holder, folder), threading.Event()

    def renew() -> None:
        while not ended.wait(every):
            lease.renew()

    with held(machines, holder, KEPT_SECONDS, folder):
        thread = threading.Thread(target=renew, name="the leases", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            ended.set()


def shown(machine: Machine, folder: str = FOLDER) -> str:
    """Who holds the machine's lease, in words; nothing is written."""
    return _words(_ask(machine, "show", folder))


def broken(machine: Machine, holder: Holder, folder: str = FOLDER) -> str:
    """Break the machine's lease, whoever holds it, and keep who did; whose it was, in words."""
    before = shown(machine, folder)
    _ask(machine, "break", folder, holder)
    return before


def _take(machine: Machine, folder: str, holder: Holder | None, seconds: int) -> None:
    taken, lease = _asked(machine, "take", folder, holder, seconds)
    if taken and _process(lease).has_ended():
        process, whose = _process(lease).pid, f"of {lease.get('owner', 'somebody')} for '{lease.get('what', '?')}'"
        # The machine looks whether it is still that one's, and keeps that it was taken over.
        taken, lease = _asked(machine, "take", folder, holder, seconds, over=str(lease.get("id")))
        if not taken:
            progress(f"the lease of {machine.name} is taken over: process {process} here, {whose}, has ended")
    _require_ours(machine, taken, lease)


def _give(machine: Machine, folder: str, holder: Holder) -> None:
    # One that was broken is somebody else's by now, and a machine that is gone keeps it until its end.
    with contextlib.suppress(InfrastructureError, ProtectedError):
        _ask(machine, "give", folder, holder)


def _ask(machine: Machine, act: str, folder: str, holder: Holder | None = None, seconds: int = 0) -> dict[str, object]:
    taken, lease = _asked(machine, act, folder, holder, seconds)
    _require_ours(machine, taken, lease)
    return lease


def _asked(
    machine: Machine, act: str, folder: str, holder: Holder | None, seconds: int, **more: str
) -> tuple[bool, dict[str, object]]:
    """Whether somebody else has it, and the lease as it is then."""
    asked = {"act": act, "folder": folder, "holder": vars(holder) if holder else {}, "seconds": seconds, **more}
    argv = [machine.python, "-I", "-", json.dumps(asked, sort_keys=True)]
    done = machine.runner.run(argv, stdin=_PROGRAM.read_text(encoding="utf-8"), ok=())
    try:
        lease = dict(json.loads(done.stdout)) if done.status in (0, _TAKEN) else None
    except (ValueError, TypeError):
        lease = None
    if lease is None:
        raise InfrastructureError(f"the lease of {machine.name} cannot be read: {done.message}")
    return done.status == _TAKEN, lease


def _require_ours(machine: Machine, taken: bool, lease: dict[str, object]) -> None:
    if taken and not lease:
        raise ProtectedError(f"somebody ended the harness's lease of {machine.name}; nothing was written")
    if taken:
        raise ProtectedError(f"{machine.name} is in use: {_words(lease)}; nothing was written")


def _process(lease: dict[str, object]) -> ProcessIdentity:
    controller, pid, started = lease.get("controller"), lease.get("pid"), lease.get("started")
    if isinstance(controller, str) and isinstance(pid, int) and isinstance(started, int):
        return ProcessIdentity(controller, pid, started)
    return ProcessIdentity()


def _words(lease: dict[str, object]) -> str:
    if not lease:
        return "nobody holds its lease"
    over = ", and its process, which was one of this controller's, has ended: the next command here takes it over"
    held = f"{lease.get('owner', 'somebody')} holds its lease for '{lease.get('what', '?')}'{_until(lease)}"
    return held + (over if _process(lease).has_ended() else "")


def _now() -> float:
    """Seconds that go on while this machine is suspended, as those of the others do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _until(lease: dict[str, object]) -> str:
    until = lease.get("until")
    return f" until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC" if isinstance(until, int) else ""
