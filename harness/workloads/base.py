"""What a client does to the device: each workload prepares, works, and leaves everything written.

A workload runs on a :class:`Site`: the guest with the attached disk, or the node itself on /dev/drbdN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.drbd.resource import Resource
from harness.errors import InfrastructureError
from harness.filesystems import ownership
from harness.filesystems.ownership import Owned
from harness.model import BLOCK_BYTES, SECTORS_PER_BLOCK, Extent, Work
from harness.parse.system import meminfo
from harness.remote.base import Runner
from harness.render.fio_job import Job, Option
from harness.workloads.fio_runner import FioRun, run_fio

MIB = 1024 * 1024
SWAPSTORM = "/usr/lib/drbd-harness/swapstorm"
MAPSTORM = "/usr/lib/drbd-harness/mapstorm"
MOUNT_POINT = "/mnt/drbd-harness"
BUFFER = "/dev/shm/drbd-harness-buffer"

# So many of fio's sentences about wrong data are kept: enough to see where it begins and what it is.
MAX_FAILURES = 64

# Start-up and tear-down of a program on an emulated machine, on top of the time it works.
MARGIN_SECONDS = 90.0


@dataclass(frozen=True)
class Recovered:
    """What a workload finds when its device comes back after a crash.

    ``fsck_status``: fsck's exit status once the journal was replayed, None without a file system; ``words``: its own.
    """

    fsck_status: int | None = None
    words: str = ""
    wrong_reads: int = 0


@dataclass(frozen=True)
class Site:
    """Where a workload runs: ``device`` as ``runner`` sees it; ``resource`` is what lies below.

    ``blocks``: how many 4 KiB blocks from its beginning are the workload's; 0 for all.
    """

    runner: Runner
    device: str
    resource: Resource
    blocks: int = 0

    @property
    def own_blocks(self) -> int:
        """The number of blocks that are the workload's."""
        return self.blocks or self.resource.blocks

    def sh(self, script: str, *arguments: str, timeout: float = 60) -> str:
        """Run a shell script with positional ``arguments`` there and return what it printed."""
        return self.runner.run(["sh", "-ec", script, "sh", *arguments], timeout=timeout).stdout


class Workload:
    """The base: does nothing, writes nothing, knows no owner."""

    name = "idle"

    def prepare(self, site: Site) -> None:
        """Make what the work needs: file system, swap area."""

    def work(self, site: Site, seconds: int) -> Work:
        """Work for ``seconds`` and say what was done."""
        site.runner.run(["sleep", str(seconds)], timeout=seconds + MARGIN_SECONDS)
        return Work(float(seconds))

    def quiesce(self, site: Site) -> int:
        """Leave everything written and nothing in use; returns how many wrong data a final reading found."""
        return 0

    def recover(self, site: Site) -> Recovered:
        """After a crash, instead of :meth:`quiesce`: bring the data up again as its owner would, and look at it."""
        return Recovered()

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """Who each of ``blocks`` belongs to now; ``site`` is the Primary after everything was written."""
        return ownership.unknown(blocks, f"{self.name} owns no blocks")


class Planted(Workload):
    """Known sectors changed below DRBD on the Secondary: the control of the oracles."""

    name = "planted"
    # The first block, a lone one, a run, and the last: in 4 KiB blocks (first, count), negative from the end.
    PLACES = ((0, 1), (1000, 1), (5003, 7), (-1, 1))

    @classmethod
    def extents(cls, blocks: int) -> tuple[Extent, ...]:
        """The planted extents on a device of ``blocks`` 4 KiB blocks."""
        return tuple(
            Extent((first % blocks) * SECTORS_PER_BLOCK, count * SECTORS_PER_BLOCK) for first, count in cls.PLACES
        )

    def work(self, site: Site, seconds: int) -> Work:
        """Change the sectors."""
        extents = self.extents(site.resource.blocks)
        site.resource.plant(site.resource.b, extents)
        return Work(0.0, {"planted_sectors": float(sum(extent.size for extent in extents))})


class Mutator(Workload):
    """fio alone: one job writes O_DIRECT from a shared buffer, another scribbles over that buffer."""

    name = "mutator"

    def target(self, site: Site) -> Mapping[str, Option]:
        """The writer's file options."""
        return {"filename": site.device, "size": "64m"}

    def work(self, site: Site, seconds: int) -> Work:
        """Write and scribble."""
        depth, block_kib = 8, 64
        writer: dict[str, Option] = {
            **self.target(site), "rw": "randwrite", "bs": f"{block_kib}k", "direct": True, "ioengine": "libaio",
            "iodepth": depth, "mem": f"mmapshared:{BUFFER}", "norandommap": True,
        }  # fmt: skip
        scribbler: dict[str, Option] = {
            "filename": BUFFER, "size": f"{depth * block_kib}k", "rw": "randwrite", "bs": 512, "ioengine": "mmap",
            "norandommap": True, "fsync": 0, "invalidate": False, "overwrite": True,
        }  # fmt: skip
        site.sh('head -c "$2" /dev/zero | tr "\\0" "\\252" > "$1"', BUFFER, str(depth * block_kib * 1024 + 4096))
        ran = run_fio(
            site.runner, (Job("writer", writer), Job("scribbler", scribbler)),
            {"time_based": True, "runtime": seconds, "group_reporting": False, "randrepeat": False},
            name=self.name, timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        site.sh('rm -f "$1"', BUFFER)
        return _worked(ran)

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """The application's own data, all of it."""
        return ownership.application(blocks)


class FioVerify(Workload):
    """fio alone, O_DIRECT: it writes a few MiB and reads them back, all the time; what it reads comes from the host.

    So it meets what a host's page cache or a replica has that is not what was written, also in the moment of a move.
    """

    name = "fio-verify"

    def work(self, site: Site, seconds: int) -> Work:
        """Write and read back; fio goes on after it read something wrong, and counts it."""
        options: dict[str, Option] = {
            "filename": site.device, "size": "64m", "rw": "randwrite", "bs": "4k", "direct": True,
            "ioengine": "libaio", "iodepth": 16, "verify": "crc32c", "verify_backlog": 1024, "verify_fatal": False,
            "continue_on_error": "verify", "time_based": True, "runtime": seconds, "randrepeat": False,
        }  # fmt: skip
        ran = run_fio(site.runner, (Job("verified", options),), None, name=self.name, timeout=seconds + MARGIN_SECONDS)
        return _worked(ran)

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """The application's own data, all of it."""
        return ownership.application(blocks)


class Swap(Workload):
    """A storm over anonymous memory that is larger than the guest's RAM, swapping to the device."""

    name = "swap"
    threads = 8
    reclaim_every = 0

    def prepare(self, site: Site) -> None:
        """Make the device the only swap."""
        site.sh('mkswap "$1" >/dev/null && swapon "$1"', site.device)

    def work(self, site: Site, seconds: int) -> Work:
        """Storm."""
        memory = meminfo(site.runner.run(["cat", "/proc/meminfo"]).stdout)
        mebibytes = (memory["MemAvailable"] + memory["SwapFree"] * 6 // 10) // MIB
        argv = [SWAPSTORM, "--mebibytes", str(mebibytes), "--threads", str(self.threads), "--seconds", str(seconds)]
        if self.reclaim_every:
            argv += ["--reclaim-every", str(self.reclaim_every)]
        done = site.runner.run(argv, timeout=seconds + 2 * MARGIN_SECONDS)
        facts = ownership.numbers(done.stdout)
        return Work(facts.get("seconds", done.seconds), facts)

    def quiesce(self, site: Site) -> int:
        """Free every slot."""
        site.sh('swapoff "$1"; sync', site.device, timeout=MARGIN_SECONDS)
        return 0

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """Slots of a swap area that is off are dead; its header is not."""
        return ownership.swap(blocks)


class SwapReclaim(Swap):
    """The same storm in a guest that gives up pages ahead of need and takes busy ones for idle.

    The plain storm meets a page in flight by chance only: 0 to 535 blocks in ten seconds of the same cell.
    """

    name = "swap-reclaim"
    reclaim_every = 8


class Ext4(Workload):
    """The base of the workloads on ext4: makes it, mounts it, unmounts it."""

    def prepare(self, site: Site) -> None:
        """Make and mount it.  4 KiB blocks, so that its blocks and DRBD's are the same."""
        options = "-E lazy_itable_init=0,lazy_journal_init=0"
        site.sh(
            f'mkfs.ext4 -q -F -b {BLOCK_BYTES} {options} "$1" && mkdir -p "$2" && mount -t ext4 "$1" "$2"',
            site.device, MOUNT_POINT, timeout=MARGIN_SECONDS,
        )  # fmt: skip

    def quiesce(self, site: Site) -> int:
        """Unmount; whatever was dirty is written."""
        site.sh('sync; umount "$1"; sync', MOUNT_POINT, timeout=MARGIN_SECONDS)
        return 0

    def recover(self, site: Site) -> Recovered:
        """Mount, which replays the journal; unmount; fsck, which then has nothing to find; read back what is there."""
        site.runner.run(["mkdir", "-p", MOUNT_POINT])
        mounted = site.runner.run(["mount", "-t", "ext4", site.device, MOUNT_POINT], timeout=MARGIN_SECONDS, ok=())
        if mounted.status:
            checked = site.runner.run(["e2fsck", "-fn", site.device], timeout=MARGIN_SECONDS, ok=())
            return Recovered(checked.status, f"mount: {mounted.stderr.strip()}; fsck: {_last(checked.stdout)}")
        wrong = self._read_back(site)
        site.sh('sync; umount "$1"; sync', MOUNT_POINT, timeout=MARGIN_SECONDS)
        checked = site.runner.run(["e2fsck", "-fn", site.device], timeout=MARGIN_SECONDS, ok=())
        return Recovered(checked.status, _last(checked.stdout), wrong)

    def _read_back(self, site: Site) -> int:
        """How much of the mounted file system's checksummed data is wrong."""
        return 0

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """As the file system's own structures say."""
        return ownership.ext4(site.runner, site.device, blocks)


class Ext4Buffered(Ext4):
    """fio with verify through the guest's page cache, read back after everything was dropped from it."""

    name = "ext4-buffered"

    def _job(self) -> Job:
        return Job(
            "buffered",
            {"directory": MOUNT_POINT, "size": "24m", "rw": "randwrite", "bs": "4k", "ioengine": "psync",
             "numjobs": 2, "verify": "crc32c", "fsync": 64, "randseed": 4711},
        )  # fmt: skip

    def prepare(self, site: Site) -> None:
        """Make and mount it, and write every block once, safely: the reading at the end or after a crash checks all."""
        super().prepare(site)
        whole = Job("buffered", {**self._job().options, "rw": "write", "end_fsync": True})
        run_fio(site.runner, (whole,), {"do_verify": False}, name=f"{self.name}-layout", timeout=MARGIN_SECONDS)
        site.sh("sync", timeout=MARGIN_SECONDS)

    def work(self, site: Site, seconds: int) -> Work:
        """Write again here and there, each block with its checksum."""
        ran = run_fio(
            site.runner, (self._job(),), {"runtime": seconds, "time_based": True, "do_verify": False},
            name=self.name, timeout=seconds + MARGIN_SECONDS,
        )  # fmt: skip
        return _worked(ran)

    def quiesce(self, site: Site) -> int:
        """Unmount, mount again, read everything back, unmount."""
        super().quiesce(site)
        site.sh('mount -t ext4 "$1" "$2"', site.device, MOUNT_POINT)
        wrong = self._read_back(site)
        super().quiesce(site)
        return wrong

    def _read_back(self, site: Site) -> int:
        common: dict[str, Option] = {"rw": "read", "verify_state_load": False}
        read = Job("buffered", {**self._job().options, **common})
        ran = run_fio(site.runner, (read,), None, name=f"{self.name}-read", timeout=MARGIN_SECONDS)
        return ran.read_back_errors


class Ext4Mmap(Ext4):
    """Threads dirty the pages of a mapped file while its writeback is under way.

    A page changed in flight is dirty again and written again, which heals the block; unless the guest dies first.
    """

    name = "ext4-mmap"
    mebibytes = 8
    threads = 2
    cut_every_ms = 0

    def work(self, site: Site, seconds: int) -> Work:
        """Dirty, and write back, and dirty again."""
        argv = [
            MAPSTORM, "--file", f"{MOUNT_POINT}/mapped", "--mebibytes", str(self.mebibytes),
            "--threads", str(self.threads), "--seconds", str(seconds),
        ]  # fmt: skip
        if self.cut_every_ms:
            argv += ["--cut-every", str(self.cut_every_ms)]
        done = site.runner.run(argv, timeout=seconds + MARGIN_SECONDS)
        facts = ownership.numbers(done.stdout)
        return Work(facts.get("seconds", done.seconds), facts)


class Ext4Cut(Ext4Mmap):
    """The same, and every few seconds the file is cut to nothing before its changed pages are written again."""

    name = "ext4-cut"
    cut_every_ms = 2500


class Ext4Mutator(Ext4, Mutator):
    """The mutator, O_DIRECT into a file of ext4."""

    name = "ext4-mutator"

    def target(self, site: Site) -> Mapping[str, Option]:
        """A file instead of the device."""
        return {"filename": f"{MOUNT_POINT}/mutated", "size": "48m"}

    def owners(self, site: Site, blocks: Iterable[int]) -> Mapping[int, Owned]:
        """As the file system says."""
        return Ext4.owners(self, site, blocks)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def _worked(ran: FioRun) -> Work:
    facts: dict[str, float] = {}
    for job in ran.result.jobs:
        facts[f"{job.name}_write_ios"] = facts.get(f"{job.name}_write_ios", 0.0) + job.write.ios
        facts[f"{job.name}_write_bytes"] = facts.get(f"{job.name}_write_bytes", 0.0) + job.write.bytes
    seconds = max((job.write.runtime_ms for job in ran.result.jobs), default=0) / 1000
    return Work(seconds or ran.seconds, facts, ran.read_back_errors, ran.failures[:MAX_FAILURES])


_ALL = (
    Workload(), Planted(), Mutator(), FioVerify(),
    Swap(), SwapReclaim(), Ext4Buffered(), Ext4Mmap(), Ext4Cut(), Ext4Mutator(),
)  # fmt: skip
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}


def workload_named(name: str) -> Workload:
    """The workload of that name; a matrix has checked it before."""
    try:
        return WORKLOADS[name]
    except KeyError:
        raise InfrastructureError(f"there is no workload '{name}'") from None
