"""Does a QEMU tell a guest that a write is safe before it has flushed it?  ``ci/probe-flush`` asks one.

With cache=writethrough and cache=directsync QEMU has to flush each write before it acknowledges it.  ``qemu-io`` writes
as a guest's disk would, where each flush takes long and is answered at the end of that time only: so a write that is
acknowledged sooner cannot have waited for a flush that began after it was written.  There are two ways:

- *device* (root): a loop device whose flushes are slow (:mod:`harness.doctor.slow_flush`); for every aio mode.
- *file*: a file, and strace holds up every ``fdatasync`` at its exit; with aio=threads.  A QEMU that flushes in another
  way, RWF_DSYNC or a ring, is beyond it: then it cannot tell.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.doctor.other_root import Root, private_mounts, root_of
from harness.doctor.probe_main import exit_code
from harness.doctor.slow_flush import slow_disk
from harness.errors import HarnessError, StoreError, UsageError
from harness.model.acknowledgement import DELAY_SECONDS, WRITES
from harness.parse.qemu_io import durations, unflushed
from harness.remote.local import LocalRunner
from harness.render.qemu_io import Image, three_writes
from harness.util.script import ScriptParser, run_script
from harness.util.signals import stop_like_ctrl_c

# With cache=writethrough QEMU refuses aio=native.
_MODES = {"writethrough": ("threads", "io_uring"), "directsync": ("threads", "native", "io_uring")}
#: What is asked of a device and of a file.
IMAGES = {
    "device": tuple(
        Image(cache, aio, "host_device", raw)
        for cache, modes in _MODES.items()
        for aio in modes
        for raw in (False, True)
    ),
    "file": tuple(Image("writethrough", "threads", "file", raw) for raw in (False, True)),
}


def other_way(trace: str) -> str | None:
    """How writes are flushed in strace's ``trace`` that no fdatasync shows; None where nothing says so."""
    if "RWF_DSYNC" in trace:
        return "it writes with RWF_DSYNC"
    if len(re.findall(r"\bpwrite(?:64|v|v2)\(", trace)) < len(WRITES):
        return "its writes go another way than by pwrite, pwritev and pwritev2"
    return None


def lines(image: Image, plays: Sequence[Sequence[float]], delay: float = DELAY_SECONDS) -> Iterator[str]:
    """What is printed of one image that was asked ``len(plays)`` times: one line, and one for each write."""
    yield f"{image}:"
    for number, what in enumerate(WRITES):
        early = sum(number in unflushed(took, delay) for took in plays)
        seconds = sorted(took[number] for took in plays)
        outcome = "ACKNOWLEDGED BEFORE IT WAS FLUSHED" if early else "flushed first"
        counted = early or len(plays)
        yield f"  {what}: {outcome} ({counted} of {len(plays)}; {seconds[0]:.2f} to {seconds[-1]:.2f} s)"


class Probe:
    """One ``qemu-io``, in the file system of ``root``; ``record`` gets what it printed."""

    def __init__(self, qemu_io: str, root: Root, record: Path | None = None) -> None:
        self._qemu_io = qemu_io
        self._root = root
        self._record = record

    def version(self) -> str:
        """Its first line about itself."""
        return LocalRunner().run([*self._root.argv, self._qemu_io, "--version"]).stdout.partition("\n")[0]

    @contextlib.contextmanager
    def disk(self, on: str) -> Iterator[Path]:
        """The disk that it writes to, under the name that it has for it."""
        with self._root.folder("drbd-harness-flushes-") as folder:
            if on == "device":
                private_mounts()
                self._root.see_devices()
                with slow_disk(folder, DELAY_SECONDS) as disk:
                    yield disk
                return
            disk = folder / "disk"
            disk.write_bytes(bytes(1 << 20))
            yield self._root.name(disk)

    def ask(self, image: Image, disk: Path) -> tuple[float, ...]:
        """How long the three writes took.  :class:`HarnessError` when it does not run, or flushes in a way that cannot
        be seen.
        """
        argv = [*self._root.argv, *image.argv(self._qemu_io, disk, three_writes())]
        with tempfile.TemporaryDirectory(prefix="drbd-harness-trace-") as folder:
            traced = Path(folder, "trace")
            if image.driver == "file":
                argv = [
                    "strace", "-f", "-o", str(traced), "-e", "trace=fdatasync,pwrite64,pwritev,pwritev2",
                    "-e", f"inject=fdatasync:delay_exit={int(DELAY_SECONDS * 1e6)}", *argv,
                ]  # fmt: skip
            done = LocalRunner().run(argv, ok=())
            trace = traced.read_text(errors="replace") if traced.is_file() else None
        self._keep(image, done.stdout + done.stderr)
        took = durations(done.stdout)
        if done.status or len(took) != len(WRITES):
            output = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise HarnessError(f"{self._qemu_io} ended with {done.status}: {output[-1] if output else 'no output'}")
        if trace is not None and (other := other_way(trace)) is not None:
            raise HarnessError(f"cannot tell whether {self._qemu_io} flushes its writes in time: {other}")
        return took

    def _keep(self, image: Image, output: str) -> None:
        if self._record is None:
            return
        try:
            with self._record.open("a") as record:
                record.write(f"== {image}\n{output.strip()}\n")
        except OSError as error:
            raise StoreError(f"--record: {self._record} cannot be written: {error.strerror or error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """0: each write waited for its flush; 1: one did not; 2: it could not be found out; 4: usage."""
    return exit_code(_parser(), arguments, _asked)


def _parser() -> argparse.ArgumentParser:
    parser = ScriptParser(prog="ci/probe-flush", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("qemu_io", nargs="?", default="qemu-io", help="the qemu-io to ask (default: the one in PATH)")
    parser.add_argument("--root", type=Path, help="the root of the file system that it is in (needs root)")
    parser.add_argument(
        "--on", choices=sorted(IMAGES),
        help="device: a slow loop device, needs root; file: under strace, aio=threads (default: device for root)",
    )  # fmt: skip
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="ask each N times (default: 5)")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append what qemu-io printed to FILE")
    return parser


def _asked(wanted: argparse.Namespace) -> int:
    if wanted.repeat < 1:
        raise UsageError(f"--repeat is {wanted.repeat}; it is at least 1")
    is_root = os.geteuid() == 0
    on: str = wanted.on or ("device" if is_root else "file")
    if (on == "device" or wanted.root) and not is_root:
        raise UsageError("--on device and --root need root; --on file needs neither")
    needed = {"file": ["strace"], "device": ["losetup"]}[on]
    for program in [*needed, *([] if wanted.root else [wanted.qemu_io])]:
        if shutil.which(program) is None:
            raise UsageError(f"there is no {program}; install the packages strace and qemu-utils, or name a qemu-io")
    probe = Probe(wanted.qemu_io, root_of(wanted.root), wanted.record)
    print(f"{probe.version()}; each {wanted.repeat} times; a flush takes {DELAY_SECONDS} s", flush=True)
    status = 0
    with probe.disk(on) as disk:
        for image in IMAGES[on]:
            plays = [probe.ask(image, disk) for _ in range(wanted.repeat)]
            print("\n".join(lines(image, plays)), flush=True)
            status = max(status, int(any(unflushed(took) for took in plays)))
    return status


if __name__ == "__main__":
    stop_like_ctrl_c()
    run_script("ci/probe-flush", main)
