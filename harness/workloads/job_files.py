"""fio's job files that come with the harness: ``harness/workloads/jobs/NAME.fio``, which a user can read and copy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from harness.errors import UsageError
from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import Work
from harness.workloads.base import Workload
from harness.workloads.fio_runner import FioRun, need_direct_io, run_job_file, worked

JOBS = Path(__file__).resolve().parent / "jobs"
#: Where no seed was given; the same in each run, for what is read back was written with it.
_SEED = 4711


def job_text(name: str) -> str:
    """The job file of that name; :class:`~harness.errors.UsageError` where there is none."""
    path = JOBS / f"{name}.fio"
    if path not in sorted(JOBS.glob("*.fio")):
        raise UsageError(f"there is no job file '{name}'; there are {', '.join(job_names())}")
    return path.read_text()


def job_names() -> tuple[str, ...]:
    """The names of the job files that come with the harness."""
    return tuple(sorted(path.stem for path in JOBS.glob("*.fio")))


class JobFileWorkload(Workload):
    """One of these job files: its section ``laid-out``, its working sections side by side, ``checked`` at the end.

    What it reads back it reads once everything was written and the filesystem mounted again.  After a crash it reads
    nothing back: pages were being changed while they were written, and such a one may be torn on any disk.
    """

    sections: ClassVar[tuple[str, ...]]
    #: The data file's name on a filesystem.
    file: ClassVar[str] = "fio-data"
    #: Whether its files are opened with O_DIRECT.
    direct: ClassVar[bool] = False

    def prepare(self, target: WorkloadTarget) -> None:
        """Lay the file out, each block with a checksum."""
        super().prepare(target)
        if self.direct:
            need_direct_io(self.filesystem, target)
        self._run(target, 1, ("laid-out",))

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """The working sections."""
        return worked(self._run(target, seconds, self.sections))

    def quiesce(self, target: WorkloadTarget) -> int:
        """Unmount, mount again, read everything back, unmount."""
        super().quiesce(target)
        self.filesystem.mount(target)
        wrong = self._run(target, 1, ("checked",)).read_back_errors
        super().quiesce(target)
        return wrong

    def _run(self, target: WorkloadTarget, seconds: int, sections: tuple[str, ...]) -> FioRun:
        environment = {
            "DRBD_FILE": self.filesystem.file(target, self.file),
            "DRBD_SECONDS": str(seconds),
            "DRBD_SEED": str(self.seed or _SEED),
        }
        return run_job_file(
            target.runner, job_text(self.name), name=self.name, environment=environment,
            arguments=tuple(f"--section={section}" for section in sections), timeout=seconds + 2 * MARGIN_SECONDS,
        )  # fmt: skip


class FioBuffered(JobFileWorkload):
    """fio's buffered random writes to a file that a second job has written back all the time."""

    name = "fio-buffered"
    needs = frozenset({Offers.FILES})
    sections = ("writer", "syncer")


class FioMmap(JobFileWorkload):
    """The same, written through a mapping."""

    name = "fio-mmap"
    needs = frozenset({Offers.FILES})
    sections = ("writer", "syncer")


class FioDirect(JobFileWorkload):
    """fio's random writes O_DIRECT, from buffers that nobody changes meanwhile."""

    name = "fio-direct"
    needs = frozenset({Offers.DEVICE, Offers.FILES})
    sections = ("writer",)
    direct = True
