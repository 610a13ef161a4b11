"""Workloads that prove what the lab can see: nothing written, known sectors changed, buffers changed
in flight, and the same load from buffers that nobody changes."""

from __future__ import annotations

import random
import secrets
from dataclasses import replace
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, Offers, WorkloadTarget
from harness.model import BLOCK_BYTES, SECTOR_BYTES, SECTORS_PER_BLOCK, PlantedChange, PlantedKind, Work
from harness.remote.guest_system import system_of
from harness.remote.windows import powershell
from harness.render.fio_job import Job, Option
from harness.workloads.base import Workload
from harness.workloads.fio_runner import fio_seed, need_direct_io, run_fio, worked

BUFFER = "/dev/shm/drbd-harness-buffer"


class NoWrites(Workload):
    """Nothing is written beyond what making the filesystem takes."""

    name = "no-writes"
    needs = frozenset(Offers)
    windows = True

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Wait."""
        windows = system_of(target.runner).windows
        argv = powershell("Start-Sleep -Seconds $a[0]", str(seconds)) if windows else ["sleep", str(seconds)]
        target.runner.run(argv, timeout=seconds + MARGIN_SECONDS)
        return Work(float(seconds))


class Planted(Workload):
    """Seeded random places changed below DRBD, on either side: the control of the oracles."""

    name = "planted"
    needs = frozenset({Offers.DEVICE})
    # The places between the first and the last block: on which side, how, and how many sectors.
    PLACES = (
        ("b", PlantedKind.SECTORS, 7 * SECTORS_PER_BLOCK), ("b", PlantedKind.SECTORS, SECTORS_PER_BLOCK),
        ("b", PlantedKind.SECTORS, 1), ("b", PlantedKind.BYTE, 1), ("b", PlantedKind.BYTE, 1),
        ("a", PlantedKind.SECTORS, 3 * SECTORS_PER_BLOCK), ("a", PlantedKind.SECTORS, 1),
        ("a", PlantedKind.BYTE, 1), ("a", PlantedKind.BYTE, 1),
    )  # fmt: skip

    @classmethod
    def changes(cls, blocks: int, seed: int, a: str, b: str) -> tuple[PlantedChange, ...]:
        """What ``seed`` plants on a device of ``blocks`` 4 KiB blocks (256 at least) whose nodes are ``a`` and ``b``.

        The first block and the last of ``b`` are always among it.  No two places are in each other's neighbourhood:
        DRBD 8.4 does not print every extent where differing blocks are close together.
        """
        chance = random.Random(seed)
        nodes = {"a": a, "b": b}
        places = list(cls.PLACES)
        chance.shuffle(places)
        # Each has a stretch of the device to itself, of which it uses the first half.
        stretch = (blocks - 2) // len(places)
        found = [PlantedChange(0, SECTORS_PER_BLOCK, b)]
        for number, (side, kind, size) in enumerate(places):
            first = 1 + number * stretch + chance.randrange(stretch // 2 - size // SECTORS_PER_BLOCK)
            sector = first * SECTORS_PER_BLOCK
            if size < SECTORS_PER_BLOCK:
                sector += chance.randrange(SECTORS_PER_BLOCK)
            byte = chance.randrange(SECTOR_BYTES) if kind is PlantedKind.BYTE else None
            found.append(PlantedChange(sector, size, nodes[side], kind, byte))
        return (*found, PlantedChange((blocks - 1) * SECTORS_PER_BLOCK, SECTORS_PER_BLOCK, b))

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Change what the seed says, or a new one; nothing of the device is in a cache, and nobody uses it."""
        resource, seed = target.resource, self.seed or secrets.randbits(31)
        changes = self.changes(resource.blocks, seed, resource.a.name, resource.b.name)
        resource.sync()
        for node in (resource.a, resource.b):
            resource.plant_below(node, [one for one in changes if one.node == node.name])
        self.planted = changes
        return Work(0.0, {"seed": float(seed), "planted_sectors": float(sum(one.size for one in changes))})


class Steady(Workload):
    """fio alone, O_DIRECT, from buffers that nobody changes while a write from them is under way.

    The load of ``inflight-modify`` without what makes it diverge.  fio changes a buffer between two writes from it, so
    that no two writes are alike.
    """

    name = "steady"
    needs = frozenset({Offers.DEVICE, Offers.FILES})
    depth: ClassVar[int] = 8
    block_kib: ClassVar[int] = 64

    def prepare(self, target: WorkloadTarget) -> None:
        """The filesystem; :class:`~harness.errors.RefusedError` where it cannot do without the page cache."""
        super().prepare(target)
        need_direct_io(self.filesystem, target)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Write."""
        size = self.depth * self.block_kib * 1024 + 4096
        target.sh('head -c "$2" /dev/zero | tr "\\0" "\\252" > "$1"', BUFFER, str(size))
        ran = run_fio(
            target.runner, self.jobs(target),
            {"time_based": True, "runtime": seconds, "group_reporting": False, "randrepeat": False,
             **fio_seed(self.seed)},
            name=self.name, timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        target.sh('rm -f "$1"', BUFFER)
        return worked(ran)

    def jobs(self, target: WorkloadTarget) -> tuple[Job, ...]:
        """The jobs of fio: one that writes."""
        size = "64m" if self.filesystem.offers is Offers.DEVICE else "48m"
        options: dict[str, Option] = {
            "filename": self.filesystem.file(target, "modified"), "size": size, "rw": "randwrite",
            "bs": f"{self.block_kib}k", "direct": True, "ioengine": "libaio", "iodepth": self.depth,
            "mem": f"mmapshared:{BUFFER}", "norandommap": True,
        }  # fmt: skip
        return (Job("writer", options),)


class InflightModify(Steady):
    """fio alone: one job writes O_DIRECT from a shared buffer, another modifies that buffer during the writes."""

    name = "inflight-modify"

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Write and modify."""
        work = super().work(target, seconds)
        # A modification changes one block of one write, and a block of a write counts once.
        blocks = work.facts.get("writer_write_bytes", 0.0) / BLOCK_BYTES
        counted = min(blocks, work.facts.get("scribbler_write_ios", 0.0))
        return replace(work, opportunities=counted, opportunity="blocks written from buffers that were being modified")

    def jobs(self, target: WorkloadTarget) -> tuple[Job, ...]:
        """The jobs of fio: one that writes, and one that modifies its buffers, all of them and nothing behind them."""
        scribbler: dict[str, Option] = {
            "filename": BUFFER, "size": f"{self.depth * self.block_kib}k", "rw": "randwrite", "bs": 512,
            "ioengine": "mmap", "norandommap": True, "fsync": 0, "invalidate": False, "overwrite": True,
        }  # fmt: skip
        return (*super().jobs(target), Job("scribbler", scribbler))
