"""Does a QEMU tell a guest that a write is safe before it has flushed it?  ``ci/probe-flush`` asks one.

With cache=writethrough and cache=directsync QEMU has to flush each write before it acknowledges it.  ``qemu-io`` writes
to a file as a guest's disk would, with aio=threads, while ``strace`` holds up every ``fdatasync`` at its *exit*: what
it flushes is flushed by then, so it covers no write that comes meanwhile, and a write that is acknowledged sooner than
that delay cannot have waited for a flush that began after it was written.  (Held up at its beginning, it would cover
such a write.)  A QEMU that flushes a write in another way, RWF_DSYNC or a ring, is beyond this: then it cannot tell.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError, UsageError
from harness.remote.local import LocalRunner

#: How long each fdatasync is held up, in seconds.
DELAY_SECONDS = 0.4
# The first write; then two, of which the second comes while the first is being flushed.
_SCRIPT = (
    "aio_write 64k 4k",
    "sleep 1000",
    "aio_write 0 4k",
    "sleep 100",
    "aio_write 4k 4k",
    "sleep 1500",
    "aio_flush",
)
WRITES = ("the first write after opening", "the next write, alone", "a write that came while another was being flushed")
# qemu-io: "wrote 4096/4096 bytes at offset 65536", then "4 KiB, 1 ops; 00.40 sec (9.970 KiB/sec and 2.4924 ops/sec)",
# or "... 0:00:01.50 (2.6 KiB/sec ..." from one second on.  In the order in which they were acknowledged.
_TOOK = re.compile(
    r"^wrote \d+/\d+ bytes at offset (\d+)\n\S+ \S+, 1 ops; (?:(\d+):(\d+):)?(\d+\.\d+)(?: sec)? \(", re.MULTILINE
)
_OFFSETS = (65536, 0, 4096)


def durations(output: str) -> tuple[float, ...]:
    """From qemu-io's ``output``: how long each of the :data:`WRITES` took until it was acknowledged, in s.

    Fewer where the output does not report all of them.
    """
    found = {
        int(offset): int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        for offset, hours, minutes, seconds in (match.groups("0") for match in _TOOK.finditer(output))
    }
    return tuple(found[offset] for offset in _OFFSETS if offset in found)


def unflushed(took: Sequence[float], delay: float = DELAY_SECONDS) -> tuple[int, ...]:
    """Which of the writes were acknowledged before a flush of theirs can have ended.

    qemu-io reports hundredths of a second.
    """
    return tuple(number for number, seconds in enumerate(took) if seconds < delay - 0.01)


def other_way(trace: str) -> str | None:
    """How writes are flushed in strace's ``trace`` that no fdatasync shows; None where nothing says so."""
    if "RWF_DSYNC" in trace:
        return "it writes with RWF_DSYNC"
    if len(re.findall(r"\bpwrite(?:64|v|v2)\(", trace)) < len(WRITES):
        return "its writes go another way than by pwrite, pwritev and pwritev2"
    return None


def probe(qemu_io: str, *, raw: bool) -> tuple[float, ...]:
    """How long the three writes took with that qemu-io; ``raw``: with a format layer above the file, as libvirt
    before 10.0 gave each disk.  :class:`HarnessError` when it does not run, or flushes in a way that this cannot see.
    """
    with tempfile.TemporaryDirectory(prefix="drbd-harness-flushes-") as folder:
        disk = Path(folder, "disk")
        disk.write_bytes(bytes(1 << 20))
        image = f"driver=file,filename={disk},aio=threads"
        if raw:
            image = f"driver=raw,file.driver=file,file.filename={disk},file.aio=threads"
        argv = [
            "strace", "-f", "-o", f"{folder}/trace", "-e", "trace=fdatasync,pwrite64,pwritev,pwritev2",
            "-e", f"inject=fdatasync:delay_exit={int(DELAY_SECONDS * 1e6)}",
            qemu_io, "-t", "writethrough", "--image-opts", image,
        ]  # fmt: skip
        for command in _SCRIPT:
            argv += ["-c", command]
        done = LocalRunner().run(argv, ok=())
        traced = Path(folder, "trace")
        other = other_way(traced.read_text(errors="replace")) if traced.is_file() else None
    took = durations(done.stdout)
    if done.status or len(took) != len(WRITES):
        output = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise HarnessError(f"{qemu_io} under strace ended with {done.status}: {output[-1] if output else 'no output'}")
    if other is not None:
        raise HarnessError(f"cannot tell whether {qemu_io} flushes its writes in time: {other}")
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """0: each write waited for its flush; 1: one did not; 2: it could not be found out; 4: usage."""
    parser = argparse.ArgumentParser(prog="ci/probe-flush", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("qemu_io", nargs="?", default="qemu-io", help="the qemu-io to ask (default: the one in PATH)")
    try:
        wanted = parser.parse_args(arguments)
    except SystemExit as ended:
        return UsageError.exit_code if ended.code else 0
    try:
        for program in ("strace", wanted.qemu_io):
            if shutil.which(program) is None:
                raise UsageError(
                    f"there is no {program}; install the packages strace and qemu-utils, or name a qemu-io"
                )
        version = LocalRunner().run([wanted.qemu_io, "--version"])
        print(f"{version.stdout.partition(chr(10))[0]}, aio=threads")
        status = 0
        for raw in (False, True):
            took = probe(wanted.qemu_io, raw=raw)
            early = unflushed(took)
            print("with a raw format layer:" if raw else "on the file itself:")
            for number, (what, seconds) in enumerate(zip(WRITES, took, strict=True)):
                outcome = "ACKNOWLEDGED BEFORE IT WAS FLUSHED" if number in early else "flushed first"
                print(f"  {what}: {seconds:.2f} s, {outcome}")
            status = max(status, int(bool(early)))
    except (HarnessError, OSError) as error:
        print(f"ci/probe-flush: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, HarnessError) else 2
    return status


if __name__ == "__main__":
    sys.exit(main())
