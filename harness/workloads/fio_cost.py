"""How fast the client's disk is: fio's figures, from buffers that nobody changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import FioFigures, FioPerformance, Work
from harness.render.fio_job import Job, Option
from harness.workloads.base import Workload
from harness.workloads.fio_runner import FioRun, fio_seed, need_direct_io, run_fio, worked

#: Each way of writing: fio's name for the job, what it is called, and its options.
PATTERNS: tuple[tuple[str, str, Mapping[str, Option]], ...] = (
    ("random", "4k random writes", {"rw": "randwrite", "bs": "4k", "iodepth": 8}),
    ("sequential", "128k sequential writes", {"rw": "write", "bs": "128k", "iodepth": 2}),
)


class FioCost(Workload):
    """fio, O_DIRECT, in each pattern for half of the time; what it measured is in ``Work.performance``."""

    name = "fio-cost"
    needs = frozenset({Offers.DEVICE, Offers.FILES})
    mebibytes: ClassVar[int] = 48
    #: Each measurement begins that long after its load.
    ramp_seconds: ClassVar[int] = 1

    def prepare(self, target: WorkloadTarget) -> None:
        """Write all of it once: neither the filesystem nor what the lower devices lie on has to find room later."""
        super().prepare(target)
        need_direct_io(self.filesystem, target)
        fill: dict[str, Option] = {"rw": "write", "bs": "1m", "iodepth": 4, "end_fsync": True}
        self._run(target, Job("fill", {**self._common(target), **fill}), "fill", 0)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """One pattern after the other; blocks for ``seconds`` and what each takes before and after it."""
        each = max(1, seconds // len(PATTERNS))
        works, figures = [], []
        for job, pattern, options in PATTERNS:
            timed: dict[str, Option] = {"time_based": True, "runtime": each, "ramp_time": self.ramp_seconds}
            ran = self._run(target, Job(job, {**self._common(target), **options, **timed}), job, each)
            works.append(worked(ran))
            figures += [_figures(pattern, ran)]
        facts = {name: value for one in works for name, value in one.facts.items()}
        measured = FioPerformance(tuple(figures))
        return Work(sum(one.seconds for one in works), facts, performance=measured)

    def _common(self, target: WorkloadTarget) -> dict[str, Option]:
        return {
            "filename": self.filesystem.file(target, "measured"), "size": f"{self.mebibytes}m", "direct": True,
            "ioengine": "libaio", **fio_seed(self.seed),
        }  # fmt: skip

    def _run(self, target: WorkloadTarget, job: Job, name: str, seconds: int) -> FioRun:
        timeout = seconds + self.ramp_seconds + MARGIN_SECONDS
        return run_fio(target.runner, (job,), None, name=f"{self.name}-{name}", timeout=timeout)


def _figures(pattern: str, ran: FioRun) -> FioFigures:
    """Of the only job."""
    wrote = ran.result.jobs[0].write
    return FioFigures(pattern, wrote.ios, wrote.iops, float(wrote.bandwidth_bytes), wrote.p50_ns, wrote.p99_ns)
