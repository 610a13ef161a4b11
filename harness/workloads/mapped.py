"""Threads dirty the pages of a mapped file while its writeback is under way."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import Work
from harness.remote.guest_system import system_of
from harness.workloads import windows
from harness.workloads.base import Workload, numbers

MAPSTORM = "/usr/lib/drbd-harness/mapstorm"


class Mmap(Workload):
    """A mapped file, written back again and again.

    A page changed in flight is dirty again and written again, which heals the block; unless the guest dies first.
    """

    name = "mmap"
    needs = frozenset({Offers.FILES})
    windows = True
    mebibytes: ClassVar[int] = 8
    threads: ClassVar[int] = 2
    truncate_every_ms: ClassVar[int] = 0

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Dirty, and write back, and dirty again."""
        if system_of(target.runner).windows:
            file = self.filesystem.file(target, "mapped")
            facts = numbers(windows.mapped_storm(target, file, seconds, self.truncate_every_ms, self.seed))
            return self.counted(Work(facts.get("seconds", float(seconds)), facts))
        argv = [
            MAPSTORM, "--file", self.filesystem.file(target, "mapped"), "--mebibytes", str(self.mebibytes),
            "--threads", str(self.threads), "--seconds", str(seconds),
        ]  # fmt: skip
        if self.truncate_every_ms:
            argv += ["--cut-every", str(self.truncate_every_ms)]
        if self.seed:
            argv += ["--seed", str(self.seed)]
        done = target.runner.run(argv, timeout=seconds + MARGIN_SECONDS)
        facts = numbers(done.stdout)
        return self.counted(Work(facts.get("seconds", done.seconds), facts))

    def counted(self, work: Work) -> Work:
        """``work`` with the opportunities that this workload counts: none, for what is changed is written again."""
        return work


class Truncate(Mmap):
    """The same, and every few seconds the file is truncated to nothing before its changed pages are written again."""

    name = "truncate"
    truncate_every_ms = 2500

    def counted(self, work: Work) -> Work:
        """Each page that had been changed in a file that was truncated may have been in flight just then."""
        truncated = work.facts.get("pages_truncated")
        return replace(work, opportunities=truncated, opportunity="changed pages that were truncated")
