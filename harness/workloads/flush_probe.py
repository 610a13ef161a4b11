"""Does the node's QEMU acknowledge a write of a write-through disk before it has flushed it?

``qemu-io`` writes to /dev/drbdN as a guest's disk would, while each flush of the lower device takes long
(``flush_delay_ms``).  A write that is acknowledged sooner cannot have waited for a flush that began after it was
written.  That holds for every aio mode where the writes go through the page cache, cache=writethrough: its flush is one
of the whole device, with fdatasync as with RWF_DSYNC.  A direct write may carry FUA instead, which no delay holds up.
A slow machine can hide an early write and cannot make one up.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from harness.errors import InfrastructureError, RefusedError
from harness.filesystems.base import MARGIN_SECONDS, Filesystem, Offers, WorkloadTarget
from harness.model import CacheMode, Cell, Work
from harness.model.acknowledgement import ACKNOWLEDGED, EARLY, EARLY_OF_EACH, QEMU_PROBES, WRITES
from harness.parse.qemu_io import durations, unflushed, version
from harness.remote.base import Completed
from harness.render.qemu_io import Image, three_writes
from harness.workloads.base import Workload

# Where the probe itself writes to find out what it can see: in the same 4 MiB, of which DRBD's activity log knows then.
_CONTROL_OFFSET = 512 * 1024
_WARM_UP = 'dd if=/dev/zero of="$1" bs=1M count=1 oflag=direct conv=notrunc 2> /dev/null'
_FLUSH = """
began=$(date +%s%N)
dd if=/dev/zero of="$1" bs=4k count=1 seek="$2" conv=notrunc,fdatasync 2> /dev/null
ended=$(date +%s%N)
echo $(((ended - began) / 1000000))
"""
_MOST_PLAYS = 50


class FlushProbe(Workload):
    """Three writes, again and again: the first after opening, one alone, one that comes while another is flushed."""

    name = QEMU_PROBES[0]
    needs = frozenset({Offers.DEVICE})
    raw_layer: ClassVar[bool] = False

    def __init__(self, filesystem: Filesystem, seed: int = 0, cell: Cell | None = None) -> None:
        super().__init__(filesystem, seed)
        cache = cell.cache if cell is not None and cell.cache is not None else CacheMode.WRITETHROUGH
        aio, delay = (cell.aio, cell.delays.flush_delay_ms) if cell is not None else ("threads", 0)
        self._image = Image(cache, aio, "host_device", self.raw_layer)
        self._delay = delay / 1000

    @classmethod
    def of(cls, filesystem: Filesystem, cell: Cell) -> Self:
        """With the cache mode, the aio mode and the delay that the cell says."""
        return cls(filesystem, cell.seed, cell)

    def prepare(self, target: WorkloadTarget) -> None:
        """Find both programs, of one version; and let DRBD's log of what is active not flush for these writes later."""
        super().prepare(target)
        found = [
            version(_asked(target, [program, "--version"]).stdout) for program in ("qemu-io", "qemu-system-x86_64")
        ]
        if not found[0] or found[0] != found[1]:
            raise RefusedError(
                target.runner.host, f"its qemu-io is {found[0] or 'unknown'}, its QEMU {found[1] or 'unknown'}"
            )
        target.sh(_WARM_UP, target.device)

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        """Look what can be seen, then play for ``seconds``, once at least."""
        began = time.monotonic()
        facts = self._controls(target)
        plays: list[tuple[float, ...]] = []
        while not plays or (time.monotonic() - began < seconds and len(plays) < _MOST_PLAYS):
            took = durations(self._qemu_io(target, self._image, three_writes(self._delay)).stdout)
            if len(took) != len(WRITES):
                raise InfrastructureError(
                    f"qemu-io on {target.runner.host} reports {len(took)} of {len(WRITES)} writes"
                )
            plays.append(took)
        early = [sum(number in unflushed(took, self._delay) for took in plays) for number in range(len(WRITES))]
        facts |= dict(zip(EARLY_OF_EACH, map(float, early), strict=True))
        facts |= {ACKNOWLEDGED: float(len(plays) * len(WRITES)), EARLY: float(sum(early))}
        notes = (str(self._image), *(_note(what, number, plays, early[number]) for number, what in enumerate(WRITES)))
        return Work(time.monotonic() - began, facts, notes=notes)

    def _controls(self, target: WorkloadTarget) -> dict[str, float]:
        """A flush takes as long as asked, and a write that nobody flushes does not.

        :class:`~harness.errors.InfrastructureError` where one of them is not so: then nothing can be told.
        """
        flush = float(target.sh(_FLUSH, target.device, str(_CONTROL_OFFSET // 4096)).strip() or 0)
        if flush < self._delay * 1000 - 10 or not self._delay:
            raise InfrastructureError(
                f"a flush of {target.device} took {flush:.0f} ms, and {self._delay * 1000:.0f} ms were asked for:"
                " whether a write waited for one cannot be told"
            )
        plain = replace(self._image, cache=CacheMode.WRITEBACK)
        done = self._qemu_io(target, plain, (f"aio_write {_CONTROL_OFFSET // 1024}k 4k", "aio_flush"))
        took = durations(done.stdout, (_CONTROL_OFFSET,))
        if len(took) != 1 or not unflushed(took, self._delay):
            seconds = f"{took[0]:.2f} s" if took else "unknown"
            raise InfrastructureError(f"a write that nobody flushed took {seconds}: this machine is too slow to tell")
        return {"flush_ms": flush, "unflushed_write_ms": took[0] * 1000}

    def _qemu_io(self, target: WorkloadTarget, image: Image, commands: tuple[str, ...]) -> Completed:
        argv = image.argv("qemu-io", Path(target.device), commands)
        done = _asked(target, argv, MARGIN_SECONDS + 20 * self._delay)
        if done.status or "wrote" not in done.stdout:
            raise RefusedError(f"qemu-io on {target.runner.host}", done.message)
        return done


class FlushProbeRawLayer(FlushProbe):
    """The same below a raw format layer, as libvirt gives each raw disk to a QEMU before 9.0."""

    name = QEMU_PROBES[1]
    raw_layer = True


def _asked(target: WorkloadTarget, argv: list[str], timeout: float = 60) -> Completed:
    done = target.runner.run(argv, timeout=timeout, ok=())
    if done.status == 127:
        raise RefusedError(target.runner.host, f"it has no {argv[0]} (Debian: qemu-utils)")
    return done


def _note(what: str, number: int, plays: list[tuple[float, ...]], early: int) -> str:
    seconds = sorted(took[number] for took in plays)
    said = f"early {early} of {len(plays)}" if early else f"flushed first {len(plays)} of {len(plays)}"
    return f"{what}: {said} ({seconds[0]:.2f} to {seconds[-1]:.2f} s)"
