"""Files that are made, appended to, rewritten, truncated and deleted while their pages are being written."""

from __future__ import annotations

from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.model import Work
from harness.remote.base import Completed
from harness.workloads.base import Workload, numbers
from harness.workloads.python_program import run_program

# The seed where none was given.
_SEED = 1
MAX_MESSAGES = 20


class FileStorm(Workload):
    """Two threads over many files, with checksums in all of them.

    Nothing writes the last changed pages of a file a second time once it is truncated or deleted, which is what heals
    them otherwise.  What stays is read back once everything was written; after a crash nothing is, for what nobody
    synced may be torn or gone on any disk.
    """

    needs = frozenset({Offers.FILES})

    def __init__(self, filesystem: Filesystem, seed: int = 0) -> None:
        super().__init__(filesystem, seed)
        #: How many files the work left behind; None before it.
        self._left: int | None = None

    def prepare(self, target: WorkloadTarget) -> None:
        """The filesystem, and a look whether the program runs at all, which also brings Python into the cache."""
        super().prepare(target)
        self._check(target)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Work on files for so long."""
        done = run_program(
            target, "file_storm", self.name, self._directory(target), str(seconds), str(self.seed or _SEED),
            timeout=seconds + 2 * MARGIN_SECONDS,
        )  # fmt: skip
        facts = numbers(done.stdout)
        self._left = int(facts["files_left"]) if "files_left" in facts else None
        notes = tuple(done.stderr.strip().splitlines())[:MAX_MESSAGES]
        return Work(facts.get("seconds", done.seconds), facts, int(facts.get("files_wrong", 0)), notes)

    def quiesce(self, target: WorkloadTarget) -> int:
        """Unmount, mount again, read back every file that is left, unmount."""
        super().quiesce(target)
        self.filesystem.mount(target)
        done = self._check(target)
        facts = numbers(done.stdout)
        self.findings += done.stderr.strip().splitlines()[:MAX_MESSAGES]
        wrong, found = int(facts.get("files_wrong", 0)), int(facts.get("files_found", 0))
        if self._left is not None and found != self._left:
            self.findings.append(f"{found} files are there where {self._left} were left")
            wrong += abs(self._left - found)
        super().quiesce(target)
        return wrong

    def _check(self, target: WorkloadTarget) -> Completed:
        return run_program(target, "file_storm", "check", self._directory(target), timeout=2 * MARGIN_SECONDS)

    def _directory(self, target: WorkloadTarget) -> str:
        return self.filesystem.file(target, "").rstrip("/")


class AppendDelete(FileStorm):
    """Files that are appended to, truncated, appended to again and deleted."""

    name: ClassVar[str] = "append-delete"


class SmallFiles(FileStorm):
    """Many small files, made, rewritten and deleted."""

    name: ClassVar[str] = "small-files"
