"""Workloads that are fio with checksums: what it wrote is read back."""

from __future__ import annotations

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT
from harness.model import Work
from harness.remote.guest_system import system_of
from harness.render.fio_job import Job, Option
from harness.workloads import windows
from harness.workloads.base import Workload
from harness.workloads.fio_runner import fio_seed, need_direct_io, run_fio, worked


class FioVerify(Workload):
    """fio alone, O_DIRECT: it writes a few MiB and reads them back, all the time; what it reads comes from the host.

    So it meets what a host's page cache or a replica has that is not what was written, also in the moment of a move.
    """

    name = "fio-verify"
    needs = frozenset({Offers.DEVICE, Offers.FILES})

    def prepare(self, target: WorkloadTarget) -> None:
        """The filesystem; :class:`~harness.errors.RefusedError` where it cannot do without the page cache."""
        super().prepare(target)
        need_direct_io(self.filesystem, target)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Write and read back; fio goes on after it read something wrong, and counts it."""
        options: dict[str, Option] = {
            "filename": self.filesystem.file(target, "verified"), "size": "64m", "rw": "randwrite", "bs": "4k",
            "direct": True, "ioengine": "libaio", "iodepth": 16, "verify": "crc32c", "verify_backlog": 1024,
            "verify_fatal": False, "verify_state_save": False, "continue_on_error": "verify", "time_based": True,
            "runtime": seconds, "randrepeat": False, **fio_seed(self.seed),
        }  # fmt: skip
        ran = run_fio(
            target.runner, (Job("verified", options),), None, name=self.name, timeout=seconds + MARGIN_SECONDS
        )
        return worked(ran)


class Buffered(Workload):
    """fio with verify through the client's page cache, read back after everything was dropped from it."""

    name = "buffered"
    needs = frozenset({Offers.FILES})
    windows = True

    def _job(self) -> Job:
        return Job(
            "buffered",
            {"directory": MOUNT_POINT, "size": "24m", "rw": "randwrite", "bs": "4k", "ioengine": "psync",
             "numjobs": 2, "verify": "crc32c", "verify_state_save": False, "fsync": 64,
             **fio_seed(self.seed or 4711)},
        )  # fmt: skip

    def prepare(self, target: WorkloadTarget) -> None:
        """Write every block once, safely: the reading at the end or after a crash checks all."""
        super().prepare(target)
        if system_of(target.runner).windows:
            windows.require_diskspd(target)
            return
        fill = Job("buffered", {**self._job().options, "rw": "write", "end_fsync": True})
        run_fio(target.runner, (fill,), {"do_verify": False}, name=f"{self.name}-layout", timeout=MARGIN_SECONDS)
        target.sh("sync", timeout=MARGIN_SECONDS)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Write again here and there, each block with its checksum."""
        if system_of(target.runner).windows:
            return windows.buffered(target, self.filesystem.file(target, "buffered"), seconds, self.seed)
        ran = run_fio(
            target.runner, (self._job(),), {"runtime": seconds, "time_based": True, "do_verify": False},
            name=self.name, timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        return worked(ran)

    def quiesce(self, target: WorkloadTarget) -> int:
        """Unmount, mount again, read everything back, unmount."""
        super().quiesce(target)
        if system_of(target.runner).windows:
            return 0
        self.filesystem.mount(target)
        wrong = self.read_back(target)
        super().quiesce(target)
        return wrong

    def read_back(self, target: WorkloadTarget) -> int:
        """fio reads every block and checks its checksum."""
        common: dict[str, Option] = {"rw": "read", "verify_state_load": False}
        read = Job("buffered", {**self._job().options, **common})
        ran = run_fio(target.runner, (read,), None, name=f"{self.name}-read", timeout=MARGIN_SECONDS)
        return ran.read_back_errors
