"""Workloads that prove what the lab can see: nothing written, known sectors changed, buffers changed in flight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import BLOCK_BYTES, SECTORS_PER_BLOCK, Extent, Work
from harness.render.fio_job import Job, Option
from harness.workloads.base import Workload
from harness.workloads.fio_runner import run_fio, worked

BUFFER = "/dev/shm/drbd-harness-buffer"


class NoWrites(Workload):
    """Nothing is written beyond what making the filesystem takes."""

    name = "no-writes"
    needs = frozenset(Offers)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Wait."""
        target.runner.run(["sleep", str(seconds)], timeout=seconds + MARGIN_SECONDS)
        return Work(float(seconds))


class Planted(Workload):
    """Known sectors changed below DRBD on the Secondary: the control of the oracles."""

    name = "planted"
    needs = frozenset({Offers.DEVICE})
    # The first block, a lone one, a run, and the last: in 4 KiB blocks (first, count), negative from the end.
    PLACES = ((0, 1), (1000, 1), (5003, 7), (-1, 1))

    @classmethod
    def extents(cls, blocks: int) -> tuple[Extent, ...]:
        """The planted extents on a device of ``blocks`` 4 KiB blocks."""
        return tuple(
            Extent((first % blocks) * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK) for first, count in cls.PLACES
        )

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Change the sectors."""
        extents = self.extents(target.resource.blocks)
        target.resource.corrupt_below(target.resource.b, extents)
        return Work(0.0, {"planted_sectors": float(sum(extent.size for extent in extents))})


class InflightModify(Workload):
    """fio alone: one job writes O_DIRECT from a shared buffer, another modifies that buffer during the writes."""

    name = "inflight-modify"
    needs = frozenset({Offers.DEVICE, Offers.FILES})

    def _writer_file(self, target: WorkloadTarget) -> Mapping[str, Option]:
        size = "64m" if self.filesystem.offers is Offers.DEVICE else "48m"
        return {"filename": self.filesystem.file(target, "modified"), "size": size}

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Write and modify."""
        depth, block_kib = 8, 64
        writer: dict[str, Option] = {
            **self._writer_file(target), "rw": "randwrite", "bs": f"{block_kib}k", "direct": True, "ioengine": "libaio",
            "iodepth": depth, "mem": f"mmapshared:{BUFFER}", "norandommap": True,
        }  # fmt: skip
        scribbler: dict[str, Option] = {
            "filename": BUFFER, "size": f"{depth * block_kib}k", "rw": "randwrite", "bs": 512, "ioengine": "mmap",
            "norandommap": True, "fsync": 0, "invalidate": False, "overwrite": True,
        }  # fmt: skip
        target.sh('head -c "$2" /dev/zero | tr "\\0" "\\252" > "$1"', BUFFER, str(depth * block_kib * 1024 + 4096))
        ran = run_fio(
            target.runner, (Job("writer", writer), Job("scribbler", scribbler)),
            {"time_based": True, "runtime": seconds, "group_reporting": False, "randrepeat": False},
            name=self.name, timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        target.sh('rm -f "$1"', BUFFER)
        work = worked(ran)
        # A modification changes one block of one write, and a block of a write counts once.
        blocks = work.facts.get("writer_write_bytes", 0.0) / BLOCK_BYTES
        counted = min(blocks, work.facts.get("scribbler_write_ios", 0.0))
        return replace(work, opportunities=counted, opportunity="blocks written from buffers that were being modified")
