"""Anonymous memory that is larger than the client's RAM, swapped to the device."""

from __future__ import annotations

from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import Work
from harness.parse.system import meminfo
from harness.workloads.base import Workload, numbers

SWAPSTORM = "/usr/lib/drbd-harness/swapstorm"
MIB = 1024 * 1024


class Pressure(Workload):
    """Threads dirty random pages of anonymous memory under memory pressure."""

    name = "pressure"
    needs = frozenset({Offers.SWAP})
    threads: ClassVar[int] = 8
    reclaim_every: ClassVar[int] = 0

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Dirty memory."""
        memory = meminfo(target.runner.run(["cat", "/proc/meminfo"]).stdout)
        mebibytes = (memory["MemAvailable"] + memory["SwapFree"] * 6 // 10) // MIB
        argv = [SWAPSTORM, "--mebibytes", str(mebibytes), "--threads", str(self.threads), "--seconds", str(seconds)]
        if self.reclaim_every:
            argv += ["--reclaim-every", str(self.reclaim_every)]
        done = target.runner.run(argv, timeout=seconds + 2 * MARGIN_SECONDS)
        facts = numbers(done.stdout)
        return Work(facts.get("seconds", done.seconds), facts)


class Reclaim(Pressure):
    """The same in a client that reclaims pages ahead of need (MADV_PAGEOUT) and takes busy ones for idle.

    Plain pressure meets a page in flight by chance only: 0 to 535 blocks in ten seconds of the same cell.
    """

    name = "reclaim"
    reclaim_every = 8
