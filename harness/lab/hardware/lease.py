"""One harness at a time on two machines: a lease on each, taken in the same order by everybody, with an end.

It lies in :data:`FOLDER` on the machine, which root alone reads; who breaks one stands in ``leases.log`` there.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import HarnessError, InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Machine
from harness.util.logs import progress

FOLDER = "/var/lib/drbd-harness"
# How long a lease that is renewed lasts without that: for so long a machine waits for a controller that is gone.
KEPT_SECONDS = 900
_RENEW_SECONDS = 180.0
_PROGRAM = Path(__file__).parent / "programs" / "lease.py"
_TAKEN = 4


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: this process by its ``id``, a person as he is known, and what for."""

    id: str
    owner: str
    what: str

    @classmethod
    def of_this_process(cls, what: str) -> Holder:
        """A new one, for ``what`` is done."""
        return cls(secrets.token_hex(8), f"{getpass.getuser()} on {platform.node()}", what)


@contextlib.contextmanager
def held(machines: Sequence[tuple[str, Machine]], holder: Holder, seconds: int, folder: str = FOLDER) -> Iterator[None]:
    """The leases of all ``machines`` for at most ``seconds``; each comes with what everybody orders them by.

    :class:`~harness.errors.ProtectedError` that says who holds one; then none was taken.
    """
    with contextlib.ExitStack() as undo:
        for _, machine in sorted(machines, key=lambda one: one[0]):
            _ask(machine, "take", folder, holder, seconds)
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

    def lost(self, why: str) -> None:
        """One of them was taken away."""
        self._lost = why

    def require(self) -> None:
        """:class:`~harness.errors.ProtectedError` where one of them is not held any more."""
        if self._lost is not None:
            raise ProtectedError(f"{self._lost}; nothing more is written")

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
                _ask(self._machines[name], "take", self._folder, self._holder, KEPT_SECONDS)
            except ProtectedError as error:
                self.lost(str(error).removesuffix("; nothing was written"))
                raise
            self._away.discard(name)

    def renew(self) -> None:
        """Renew those of all machines that are not away; one that somebody broke ends all writing."""
        for name, machine in self._machines.items():
            try:
                with self._asking:
                    if name not in self._away:
                        _ask(machine, "renew", self._folder, self._holder, KEPT_SECONDS)
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


def _give(machine: Machine, folder: str, holder: Holder) -> None:
    # One that was broken is somebody else's by now, and a machine that is gone keeps it until its end.
    with contextlib.suppress(InfrastructureError, ProtectedError):
        _ask(machine, "give", folder, holder)


def _ask(machine: Machine, act: str, folder: str, holder: Holder | None = None, seconds: int = 0) -> dict[str, object]:
    asked = {"act": act, "folder": folder, "holder": vars(holder) if holder else {}, "seconds": seconds}
    argv = [machine.python, "-I", "-", json.dumps(asked, sort_keys=True)]
    done = machine.runner.run(argv, stdin=_PROGRAM.read_text(encoding="utf-8"), ok=())
    try:
        lease = dict(json.loads(done.stdout)) if done.status in (0, _TAKEN) else None
    except (ValueError, TypeError):
        lease = None
    if lease is None:
        raise InfrastructureError(f"the lease of {machine.name} cannot be read: {done.message}")
    if done.status == _TAKEN:
        if not lease:
            raise ProtectedError(f"somebody ended the harness's lease of {machine.name}; nothing was written")
        raise ProtectedError(f"{machine.name} is in use: {_words(lease)}; nothing was written")
    return lease


def _words(lease: dict[str, object]) -> str:
    if not lease:
        return "nobody holds its lease"
    return f"{lease.get('owner', 'somebody')} holds its lease for '{lease.get('what', '?')}'{_until(lease)}"


def _until(lease: dict[str, object]) -> str:
    until = lease.get("until")
    return f" until {datetime.fromtimestamp(until, UTC):%Y-%m-%d %H:%M} UTC" if isinstance(until, int) else ""
