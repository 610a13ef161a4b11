"""What is changed on a machine is written down there first, and put back from what was written: after a run, after one
that was killed at any moment, and after a boot.

The journal lies in ``/var/lib/drbd-harness/journal`` on the machine, an entry a file, root's alone.  What was made by
the guard is taken back by the guard.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InfrastructureError, ProtectedError, RefusedError
from harness.lab.hardware.guard import Guard, Machine
from harness.lab.hardware.lease import FOLDER, Holder
from harness.lab.hardware.storage import remove
from harness.model.changes import ASKED_FOR, Change, ChangeKind

NOTE_SECONDS, PUT_BACK_SECONDS = 120.0, 600.0
_PARTS = ("journal_values", "journal_made", "journal")
_REFUSED = 1


@dataclass(frozen=True)
class Entry:
    """A change that was noted: ``before`` is how it was, ``how`` an administrator's command that puts it back."""

    number: int
    kind: ChangeKind
    what: str
    how: str
    holder: str
    since: str
    boot: str

    @property
    def words(self) -> str:
        """It in a line."""
        return f"{self.number}: {self.kind} {self.what}, by {self.holder} on {self.since}; by hand: {self.how}"


@dataclass(frozen=True)
class PutBack:
    """What became of the changes, a sentence each; ``left``: somebody else changed it since, ``failed``: try again."""

    done: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


@dataclass
class Journal:
    """The journal of one machine for the lab ``lab``.

    ``may_change`` has what the inventory asks for of :data:`~harness.model.changes.ASKED_FOR`.  May be used by several
    threads.
    """

    machine: Machine
    lab: str
    holder: Holder | None = None
    may_change: Sequence[str] = ()
    folder: str = FOLDER
    _noted: set[Change] = field(default_factory=set, repr=False)
    _ever: set[tuple[ChangeKind, str]] = field(default_factory=set, repr=False)

    def note(self, kind: ChangeKind, what: str, *ours: str, file: str = "") -> None:
        """One change is about to be made: :meth:`note_all`."""
        self.note_all(Change(kind, what, ours, file))

    def note_all(self, *changes: Change) -> None:
        """Write on the machine that ``changes`` are about to be made, and how it is now; on its disk on return.

        More values for what was noted before are added.  What this process has noted already is not asked for again.
        :class:`~harness.errors.RefusedError` where one may not be made, :class:`~harness.errors.ProtectedError` where
        it is there already and somebody's, :class:`~harness.errors.InfrastructureError` where it cannot be written: in
        each case none may be made.
        """
        new = [one for one in changes if one not in self._noted]
        for one in new:
            self._require_asked_for(one.kind, one.what)
        if not new:
            return
        items = [{"kind": one.kind, "what": one.what, "ours": list(one.ours), "file": one.file} for one in new]
        done = self._run("note", NOTE_SECONDS, items=items)
        if done.status == _REFUSED:
            if all(one.kind in ASKED_FOR for one in new):
                raise RefusedError(f"the journal of {self.machine.name}", done.message)
            raise ProtectedError(f"on {self.machine.name}, {done.message}; nothing was changed")
        self._answer(done)
        self._noted.update(new)
        self._ever.update((one.kind, one.what) for one in new)

    def has_noted(self, kind: ChangeKind, what: str) -> bool:
        """Whether this process has noted it, before a boot of the machine or after."""
        return (kind, what) in self._ever

    def forget(self) -> None:
        """The machine may have booted: what it took back has to be noted again before it is changed again."""
        self._noted.clear()

    def entries(self) -> tuple[Entry, ...]:
        """What this lab has changed and not put back, the oldest first; nothing is written."""
        found = self._answer(self._run("list", NOTE_SECONDS))["entries"]
        return tuple(_entry(one) for one in found)

    def end_commands(self) -> tuple[str, ...]:
        """End the commands of a run that is over which still work on the machine; a sentence for each that stays.

        Not while a run of this lab is alive.
        """
        return tuple(self._answer(self._run("end-commands", NOTE_SECONDS))["failed"])

    def put_back(self, guard: Guard | None = None) -> PutBack:
        """Put back all that this lab noted, the latest first; ``guard`` is of the storage.

        Whoever calls holds the lease.  May be called again, whatever became of the last time.  Blocks for at most some
        minutes.  What was not put back and is still the harness's stays noted.
        """
        self._noted.clear()
        done: list[str] = []
        left: list[str] = []
        failed: list[str] = []
        skip: list[int] = []
        stuck = False
        while True:
            said = self._answer(self._run("put-back", PUT_BACK_SECONDS, skip=skip, stuck=stuck))
            done += said["done"]
            left += said["left"]
            failed += said["failed"]
            skip += said["tried"]
            if said.get("waiting"):
                failed.append(f"{len(said['waiting'])} earlier changes wait for that, the last {said['waiting'][0]}")
            if said["storage"] is None:
                return PutBack(tuple(done), tuple(left), tuple(failed))
            skip.append(said["storage"]["number"])
            try:
                done.append(self._storage(guard, said["storage"]))
            except HarnessError as error:
                stuck = True
                failed.append(
                    f"storage {said['storage']['what']} cannot be put back: {error} (where nothing of it is left for "
                    f"sure, 'rm {self.folder}/journal/{said['storage']['number']:08d}.json' on {self.machine.name} "
                    "forgets it)"
                )

    def _storage(self, guard: Guard | None, entry: Mapping[str, Any]) -> str:
        if guard is None or guard.subject != entry["what"]:
            raise ProtectedError("the inventory names other storage")
        steps = remove(guard)
        self._answer(self._run("drop", NOTE_SECONDS, number=entry["number"]))
        return f"storage {entry['what']}: {'put back' if steps else 'it is gone'}"

    def _require_asked_for(self, kind: ChangeKind, what: str) -> None:
        name = ASKED_FOR.get(kind)
        if name is None or name in self.may_change:
            return
        raise RefusedError(
            f"the inventory of {self.machine.name}",
            f"a change of the {kind} {what} is felt by all that the machine does with it; it is made only where the "
            f'inventory asks for it by may_change = ["{name}"]',
        )

    def _run(self, act: str, timeout: float, **more: object) -> Any:
        asked = {"act": act, "folder": self.folder, "lab": self.lab, **more}
        asked["holder"] = vars(self.holder) if self.holder else {}
        argv = [self.machine.python, "-I", "-", json.dumps(asked, sort_keys=True)]
        return self.machine.runner.run(argv, stdin=_program(), timeout=timeout, ok=())

    def _answer(self, done: Any) -> dict[str, Any]:
        with contextlib.suppress(ValueError):
            answer = json.loads(done.stdout)
            if done.status == 0 and isinstance(answer, dict):
                return answer
        raise InfrastructureError(f"the journal of {self.machine.name} cannot be kept: {done.message}")


def _program() -> str:
    """Its parts one behind the other; they go to the machine by standard input."""
    folder = Path(__file__).parent / "programs"
    return "\n\n".join((folder / f"{part}.py").read_text(encoding="utf-8") for part in _PARTS)


def _entry(one: Mapping[str, Any]) -> Entry:
    since = datetime.fromtimestamp(one["at"], UTC)
    return Entry(
        one["number"], ChangeKind(one["kind"]), one["what"], one["how"], one["holder"].get("owner", "somebody"),
        f"{since:%Y-%m-%d %H:%M} UTC", one["boot"],
    )  # fmt: skip
