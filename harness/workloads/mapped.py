"""Threads dirty the pages of a mapped file while its writeback is under way."""

from __future__ import annotations

from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import Work
from harness.workloads.base import Workload, numbers

MAPSTORM = "/usr/lib/drbd-harness/mapstorm"


class Mmap(Workload):
    """A mapped file, written back again and again.

    A page changed in flight is dirty again and written again, which heals the block; unless the guest dies first.
    """

    name = "mmap"
    needs = frozenset({Offers.FILES})
    mebibytes: ClassVar[int] = 8
    threads: ClassVar[int] = 2
    truncate_every_ms: ClassVar[int] = 0

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Dirty, and write back, and dirty again."""
        argv = [
            MAPSTORM, "--file", self.filesystem.file(target, "mapped"), "--mebibytes", str(self.mebibytes),
            "--threads", str(self.threads), "--seconds", str(seconds),
        ]  # fmt: skip
        if self.truncate_every_ms:
            argv += ["--cut-every", str(self.truncate_every_ms)]
        done = target.runner.run(argv, timeout=seconds + MARGIN_SECONDS)
        facts = numbers(done.stdout)
        return Work(facts.get("seconds", done.seconds), facts)


class Truncate(Mmap):
    """The same, and every few seconds the file is truncated to nothing before its changed pages are written again."""

    name = "truncate"
    truncate_every_ms = 2500
