"""Does a QEMU read on the target what was written on the source?  ``ci/probe-migration`` asks it, without DRBD.

One raw file that two nodes share, each with a page cache of its own, as two loop devices on it: what one writes is in
the file, and so on the other, once it is written back.  A QEMU on the one writes blocks over and is migrated live to a
QEMU on the other, which reads them.  The control is the same with one loop device for both, hence one page cache: there
every cache mode has to read what was written, also one that never writes back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.doctor.other_root import Root, private_mounts, root_of
from harness.doctor.probe_main import exit_code
from harness.errors import HarnessError, UsageError
from harness.model import CacheMode
from harness.remote.local import LocalRunner
from harness.util.deadline import Deadline, poll
from harness.util.script import ScriptParser, run_script
from harness.util.signals import stop_like_ctrl_c

SIZE = 1 << 20
_OLD, _NEW = 0x11, 0x22
_SECONDS = 60.0


@dataclass(frozen=True)
class Program:
    """A QEMU in the file system of ``root``, and a ``folder`` that it sees too."""

    path: str
    root: Root
    folder: Path

    def named(self, name: str) -> Path:
        """What a file of the folder is called there."""
        return self.root.name(self.folder / name)


class Qemu:
    """A virtual machine with one disk, and its monitor; ``incoming``: it waits for a migration."""

    def __init__(self, program: Program, name: str, disk: str, cache: CacheMode, *, incoming: bool) -> None:
        self._monitor = program.folder / f"{name}.qmp"
        argv = [
            *program.root.argv, program.path, "-nodefaults", "-display", "none",
            "-machine", "q35,accel=tcg", "-m", "64",
            "-qmp", f"unix:{program.named(self._monitor.name)},server=on,wait=off",
            "-drive", f"if=none,id=disk,file={disk},format=raw,cache={cache},aio=threads",
            # Two QEMUs of one machine have it open.
            "-device", "virtio-blk-pci,drive=disk,share-rw=on",
            *(("-incoming", f"unix:{program.named('migration')}") if incoming else ()),
        ]  # fmt: skip
        # qemu-io prints on QEMU's own output, line by line where that is a terminal.
        self._output, terminal = os.openpty()
        os.set_blocking(self._output, False)
        try:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
        finally:
            os.close(terminal)
        try:
            self._socket = poll(self._connected, Deadline.after(_SECONDS, "QEMU's monitor"), every=0.05)
        except BaseException:
            self._end()
            raise
        self._replies = self._socket.makefile()
        self._replies.readline()
        self.ask("qmp_capabilities")

    def _connected(self) -> socket.socket | None:
        if self._process.poll() is not None:
            said = self._printed().splitlines()
            raise HarnessError(f"QEMU ended with {self._process.returncode}: {said[-1] if said else 'no output'}")
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(_SECONDS)
        try:
            made.connect(str(self._monitor))
        except OSError:
            made.close()
            return None
        return made

    def ask(self, command: str, **arguments: object) -> Any:
        """What a command of the monitor returns; :class:`HarnessError` with its message.  Up to 60 s."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            reply = json.loads(self._replies.readline() or '{"error": {"desc": "QEMU ended"}}')
            if "error" in reply:
                raise HarnessError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def qemu_io(self, command: str) -> str:
        """What a command of qemu-io prints, on the disk as the guest has it."""
        told: str = self.ask("human-monitor-command", **{"command-line": f'qemu-io disk "{command}"'})
        return f"{told}{self._printed()}".strip()

    def _printed(self) -> str:
        printed = b""
        # At the end of the process the terminal has no other end, which is an error.
        with contextlib.suppress(OSError):
            while more := os.read(self._output, 4096):
                printed += more
        return printed.decode(errors="replace").strip()

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._output)


@contextlib.contextmanager
def loops(file: Path, number: int) -> Iterator[list[str]]:
    """``number`` loop devices on ``file``, each with a page cache of its own."""
    with contextlib.ExitStack() as undo:
        made = []
        for _ in range(number):
            loop = LocalRunner().run(["losetup", "--find", "--show", str(file)]).stdout.strip()
            undo.callback(LocalRunner().run, ["losetup", "--detach", loop], ok=())
            made.append(loop)
        yield made


def play(program: Program, source: str, target: str, cache: CacheMode) -> tuple[bool, bool]:
    """One migration from the device ``source`` to ``target``: whether the target reads old data in place of what the
    source wrote, and whether it still does when the source's QEMU has ended, which writes its page cache back.
    """
    for device, pattern in ((source, bytes([_OLD]) * SIZE), (target, None)):
        descriptor = os.open(device, os.O_RDWR)
        try:
            if pattern is not None:
                os.pwrite(descriptor, pattern, 0)
                os.fsync(descriptor)
            elif os.pread(descriptor, SIZE, 0) != bytes([_OLD]) * SIZE:
                # It is in the page cache of the target now, as after a migration there and back.
                raise HarnessError(f"{target} does not show what was flushed on {source}: they share no file")
        finally:
            os.close(descriptor)
    with contextlib.ExitStack() as undo:
        there = Qemu(program, "target", target, cache, incoming=True)
        undo.callback(there.close)
        here = Qemu(program, "source", source, cache, incoming=False)
        end_of_source = undo.enter_context(contextlib.ExitStack())
        end_of_source.callback(here.close)
        if said := here.qemu_io(f"write -q -P {_NEW} 0 {SIZE}"):
            raise HarnessError(f"the source could not write: {said}")
        here.ask("migrate", uri=f"unix:{program.named('migration')}")
        status = poll(lambda: _ended(here), Deadline.after(_SECONDS, "the end of the migration"), every=0.05)
        if status != "completed":
            raise HarnessError(f"the migration ended as '{status}'")
        poll(lambda: there.ask("query-status")["running"] or None, Deadline.after(_SECONDS, "the target"), every=0.05)
        at_once = _reads_old(there)
        end_of_source.close()
        return at_once, _reads_old(there)


def _reads_old(target: Qemu) -> bool:
    said = target.qemu_io(f"read -q -P {_NEW} 0 {SIZE}")
    if not said:
        return False
    if "Pattern verification failed" not in said:
        raise HarnessError(f"the target could not read: {said}")
    if target.qemu_io(f"read -q -P {_OLD} 0 {SIZE}"):
        raise HarnessError("the target reads neither what was written nor what was there before")
    return True


def _ended(source: Qemu) -> str | None:
    status: str = source.ask("query-migrate").get("status", "")
    return status if status in ("completed", "failed", "cancelled") else None


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the target read what was written; 1: it did not; 2: it could not be found out; 4: usage."""
    parser = ScriptParser(prog="ci/probe-migration", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("qemu", nargs="?", default="qemu-system-x86_64", help="the QEMU to ask (default: that in PATH)")
    parser.add_argument("--root", type=Path, help="the root of the file system that it is in")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="migrate N times with each (default: 5)")
    return exit_code(parser, arguments, lambda wanted: _asked(wanted.qemu, root_of(wanted.root), wanted.repeat))


def _asked(path: str, root: Root, repeat: int) -> int:
    if repeat < 1:
        raise UsageError(f"--repeat is {repeat}; it is at least 1")
    if os.geteuid() != 0:
        raise UsageError("loop devices need root")
    for needed in ("losetup", *(() if root.path else (path,))):
        if shutil.which(needed) is None:
            raise UsageError(f"there is no {needed}; install the packages qemu-system-x86 and mount, or name a QEMU")
    version = LocalRunner().run([*root.argv, path, "--version"]).stdout.partition("\n")[0]
    print(f"{version}; {repeat} migrations each", flush=True)
    private_mounts()
    root.see_devices()
    found = {True: 0, False: 0}
    with root.folder("drbd-harness-migration-") as folder:
        file = folder / "shared"
        file.write_bytes(bytes(SIZE))
        with loops(file, 2) as (one, other):
            for shared in (False, True):
                print("one page cache for both (control):" if shared else "a page cache for each:")
                for cache in CacheMode:
                    program, target = Program(path, root, folder), one if shared else other
                    plays = [play(program, one, target, cache) for _ in range(repeat)]
                    print(f"  cache={cache}: {_outcome(plays)}", flush=True)
                    found[shared] += sum(at_once or later for at_once, later in plays)
    if found[True]:
        raise HarnessError("the control does not hold: with one page cache for both nothing old may be read")
    return int(found[False] > 0)


def _outcome(plays: Sequence[tuple[bool, bool]]) -> str:
    at_once, later = (sum(old) for old in zip(*plays, strict=True))
    if not at_once and not later:
        return f"read what was written ({len(plays)} of {len(plays)})"
    of = f"of {len(plays)}"
    return f"READ WHAT HAD BEEN WRITTEN OVER ({at_once} {of}, and {later} {of} when the source had ended)"


if __name__ == "__main__":
    stop_like_ctrl_c()
    run_script("ci/probe-migration", main)
