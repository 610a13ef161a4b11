"""A database in the client as a witness: what it acknowledged has to be there, after migrations and crashes too."""

from __future__ import annotations

import re
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.model import Cell, Work
from harness.workloads.base import Workload, numbers
from harness.workloads.python_program import run_program

# The seed where none was given.
_SEED = 1
MAX_MESSAGES = 20
#: The guest's serial console, which a file on the node outlives it in.
CONSOLE = "/dev/console"
_CHECK_FACTOR, _CHECK_MODULUS = 31, 9973
_ACK = re.compile(r"sqlite-ack (\d{1,9}) (\d{1,4})(?!\d)", re.ASCII)


def acknowledged(console: str) -> int:
    """The newest transaction that ``console`` says was acknowledged; 0 where it says of none.

    A line that another one was mixed into is passed over: each carries a check of its number.
    """
    said = ((int(number), int(check)) for number, check in _ACK.findall(console))
    return max((number for number, check in said if number * _CHECK_FACTOR % _CHECK_MODULUS == check), default=0)


class Database(Workload):
    """SQLite: transactions with checksummed rows, each acknowledged when it is durable.

    Where the cell has a crash the acknowledgements go to the guest's console as they come: what was on it before the
    crash is the least that has to be there afterwards.
    """

    needs = frozenset({Offers.FILES})
    journal: ClassVar[str]

    def __init__(self, filesystem: Filesystem, seed: int = 0, *, crashes: bool = False) -> None:
        super().__init__(filesystem, seed)
        self._crashes = crashes
        #: The newest transaction that is known to have been acknowledged.
        self._acknowledged = 0

    @classmethod
    def of(cls, filesystem: Filesystem, cell: Cell) -> Database:
        """That of ``cell``."""
        return cls(filesystem, cell.seed, crashes=cell.crash is not None)

    def prepare(self, target: WorkloadTarget) -> None:
        """The filesystem and the empty database; :class:`~harness.errors.RefusedError` where it has no such journal."""
        super().prepare(target)
        run_program(target, "database", "make", self._file(target), self.journal, timeout=2 * MARGIN_SECONDS)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """One transaction after the other."""
        console = (CONSOLE,) if self._crashes else ()
        done = run_program(
            target, "database", "work", self._file(target), self.journal, str(seconds), str(self.seed or _SEED),
            *console, timeout=seconds + 2 * MARGIN_SECONDS,
        )  # fmt: skip
        facts = numbers(done.stdout)
        self._acknowledged = int(facts.get("transactions", 0))
        return Work(facts.get("seconds", done.seconds), facts)

    def hear_console(self, printed: str) -> None:
        """The acknowledgements among it."""
        self._acknowledged = max(self._acknowledged, acknowledged(printed))

    def quiesce(self, target: WorkloadTarget) -> int:
        """Unmount, mount again, check the database, unmount."""
        super().quiesce(target)
        self.filesystem.mount(target)
        wrong = self.read_back(target)
        super().quiesce(target)
        return wrong

    def read_back(self, target: WorkloadTarget) -> int:
        """``PRAGMA integrity_check``, every row's checksum, and whether the last acknowledged transaction is there."""
        done = run_program(
            target, "database", "check", self._file(target), str(self._acknowledged), timeout=2 * MARGIN_SECONDS
        )
        self.findings += done.stderr.strip().splitlines()[:MAX_MESSAGES]
        self.looked_at = f"PRAGMA integrity_check, all rows, and {self._acknowledged} acknowledged transactions"
        return int(numbers(done.stdout).get("wrong", 0))

    def _file(self, target: WorkloadTarget) -> str:
        return self.filesystem.file(target, "database")


class SqliteWal(Database):
    """SQLite with a write-ahead log."""

    name = "sqlite-wal"
    journal = "wal"


class SqliteJournal(Database):
    """SQLite with a rollback journal."""

    name = "sqlite-journal"
    journal = "delete"
