"""Anonymous memory that is larger than the client's RAM, swapped to the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import Work
from harness.parse.system import meminfo, vmstat
from harness.remote.base import Runner
from harness.remote.guest_system import system_of
from harness.workloads import windows
from harness.workloads.base import Workload, numbers

SWAPSTORM = "/usr/lib/drbd-harness/swapstorm"
MIB = 1024 * 1024
#: Where a storm is told of moves of its machine; it is there while it storms.
MOVES_FILE = "/run/drbd-harness-moves"
MOVE_BEGINS, MOVED, NOT_MOVED = "b", "e", "x"


class Pressure(Workload):
    """Threads dirty random pages of anonymous memory under memory pressure, and check each page that they meet again.

    A wrong page counts as a wrong read: the client reads something else from its memory than it put there.
    """

    name = "pressure"
    needs = frozenset({Offers.SWAP})
    windows = True
    threads: ClassVar[int] = 8
    reclaim_every: ClassVar[int] = 0
    #: How long all pages are checked once more after the storm, at most.
    sweep_seconds: ClassVar[int] = 5

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Dirty memory; blocks for twice ``seconds`` and ``sweep_seconds`` more, for it is filled before.

        A move of the client's that is under way when its time is over is waited for, up to two minutes more.
        """
        if system_of(target.runner).windows:
            return windows.paged_storm(target, seconds, self.threads, self.seed)
        memory = meminfo(target.runner.run(["cat", "/proc/meminfo"]).stdout)
        mebibytes = (memory["MemAvailable"] + memory["SwapFree"] * 6 // 10) // MIB
        if self.filesystem.in_memory:
            # Nothing of these pages can be compressed: what is swapped out takes as much as before.
            mebibytes = memory["MemAvailable"] * 5 // 10 // MIB
        argv = [
            SWAPSTORM, "--mebibytes", str(mebibytes), "--threads", str(self.threads), "--seconds", str(seconds),
            "--sweep-seconds", str(self.sweep_seconds), "--moves", MOVES_FILE,
        ]  # fmt: skip
        if self.reclaim_every:
            argv += ["--reclaim-every", str(self.reclaim_every)]
        if self.seed:
            argv += ["--seed", str(self.seed)]
        before = _paged(target)
        done = target.runner.run(argv, timeout=seconds + 2 * MARGIN_SECONDS)
        after = _paged(target)
        paged = {name: float(after[name] - before[name]) for name in after.keys() & before.keys()}
        facts = {**numbers(done.stdout), **paged}
        if "pages_swapped_out" in facts:
            # What the storm put out for a move is no proof that it swaps.
            facts["pages_swapped_out"] -= facts.get("pages_put_out", 0.0)
        notes = tuple(done.stderr.strip().splitlines())
        wrong = int(facts.get("pages_wrong", 0))
        return self.counted(Work(facts.get("seconds", done.seconds), facts, wrong, notes))

    def counted(self, work: Work) -> Work:
        """``work`` with the opportunities that this workload counts: none, for most pages are written undisturbed."""
        return work


class Reclaim(Pressure):
    """The same in a client that reclaims pages ahead of need (MADV_PAGEOUT) and takes busy ones for idle.

    Plain pressure meets a page in flight by chance only: 0 to 535 blocks in ten seconds of the same cell.
    """

    name = "reclaim"
    windows = False
    reclaim_every = 8

    def counted(self, work: Work) -> Work:
        """Each page that was reclaimed is dirty just then, and changed again at once.

        Under pressure the kernel swaps such a page out again by itself while it is still being changed, to another
        place each time: 1,400 blocks differed after 1,042 pages.
        """
        reclaimed = work.facts.get("pages_reclaimed")
        return replace(work, opportunities=reclaimed, opportunity="pages reclaimed while they were being changed")


def announce_move(runner: Runner, mark: str) -> None:
    """Tell a storm that runs, if one does, that its machine is about to move, has moved, or has not moved after all."""
    runner.run(["sh", "-c", '[ ! -e "$1" ] || printf %s "$2" >> "$1"', "sh", MOVES_FILE, mark], timeout=30)


def _paged(target: WorkloadTarget) -> Mapping[str, int]:
    """How many pages the client's kernel has written to swap and read from it so far, as far as it says."""
    counted = vmstat(target.runner.run(["cat", "/proc/vmstat"]).stdout)
    names = {"pages_swapped_in": "pswpin", "pages_swapped_out": "pswpout"}
    return {fact: counted[name] for fact, name in names.items() if name in counted}
