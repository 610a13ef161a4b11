"""The real program, built here, with a file for its disk and one for its port.  Nothing here is a test."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from canary_records import RUN

from harness.config import recipe
from harness.model import BLOCK_BYTES, Canary
from harness.parse.canary import WRITE_MODES, Ack, Message, Received, Slot, parse_check, received, report

FIRST, PIECE = 5, 20
PATIENCE = 120.0


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("there is no gcc")
    lockable, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if os.geteuid() and 0 <= lockable < 8 * 2**20:
        pytest.skip("too little memory may be locked here")
    folder = tmp_path_factory.mktemp("program")
    source = recipe.recipes_directory() / "src" / "canary.c"
    argv = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", str(folder / "canary"), str(source)]
    subprocess.run(argv, check=True, timeout=120)
    return folder / "canary"


def has_o_direct(folder: Path) -> bool:
    """Whether a file in ``folder`` can be read around the page cache."""
    if not os.access(folder, os.W_OK):
        return False
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def perch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for disks and ports, in memory where that can be: what a real disk is doing must not matter."""
    candidates = [Path("/dev/shm"), tmp_path_factory.mktemp("perch")]
    usable = [folder for folder in candidates if has_o_direct(folder)]
    if not usable:
        pytest.skip("no folder here has O_DIRECT")
    with tempfile.TemporaryDirectory(dir=usable[0], prefix="drbd-harness-canary-") as folder:
        yield Path(folder)


class Bird:
    """A canary on a file, with a file for its port."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.disk, self.port, self.pid_file = folder / "disk", folder / "port", folder / "pid"
        # Not zero: the region has to be cleared, and only the region.
        self.disk.write_bytes(b"\xee" * (FIRST + 3 * PIECE + 7) * BLOCK_BYTES)
        self.port.touch()

    def call(
        self, what: str, *more: object, run: int = RUN, blocks: int = 3 * PIECE
    ) -> subprocess.CompletedProcess[str]:
        argv = [self.program, what, "--device", self.disk, "--first-block", FIRST, "--blocks", blocks, "--run", run]
        # Its output is read to its end: a canary that kept the pipe open would hang here.
        return subprocess.run(
            [*map(str, argv), *map(str, more)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            # A write behind a limit of its size is to be an error and not its end: Python ignores that signal too.
            restore_signals=False,
        )

    def start(self) -> None:
        done = self.call("run", "--port", self.port, "--pid-file", self.pid_file, "--mebibytes", 1)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def messages(self) -> tuple[Received, ...]:
        return received(((0.0, line) for line in self.port.read_text().split("\n")), RUN)

    def wait(self, enough: Callable[[list[Message]], bool]) -> list[Message]:
        deadline = time.monotonic() + PATIENCE
        while not enough(messages := [one.message for one in self.messages()]):
            assert time.monotonic() < deadline, messages[-5:]
            time.sleep(0.05)
        return messages

    def newest(self) -> int:
        """The record that every write_mode has reached."""
        reached = dict.fromkeys(WRITE_MODES, 0)
        for one in self.messages():
            if isinstance(one.message, Ack):
                reached[one.message.write_mode] = max(reached[one.message.write_mode], one.message.number)
        return min(reached.values())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """While this lasts it does nothing, and no write of it is under way: a thread stops behind its system call."""
        pid = int(self.pid_file.read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + PATIENCE
            tasks = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
            while {task.read_text().rpartition(")")[2].split()[0] for task in tasks} != {"T"}:
                assert time.monotonic() < deadline, "a stopped canary goes on"
                time.sleep(0.01)
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def end(self, how: signal.Signals) -> None:
        """Send ``how``; after a kill it is really gone, so that what is on the disk stays as it is."""
        pid = int(self.pid_file.read_text())
        process = os.pidfd_open(pid)
        try:
            os.kill(pid, how)
            if how is signal.SIGKILL:
                gone, _, _ = select.select([process], [], [], PATIENCE)
                assert gone, "a killed canary goes on"
        finally:
            os.close(process)

    def found(self, run: int = RUN) -> tuple[Slot, ...]:
        done = self.call("check", run=run)
        assert done.returncode == 0, done.stderr
        return parse_check(done.stdout, 3 * PIECE)

    def judged(self) -> Canary:
        return report(self.messages(), self.found(), 3 * PIECE)

    def flip(self, write_mode: str, slot: int, offset: int) -> None:
        with self.disk.open("r+b") as file:
            at = (FIRST + WRITE_MODES.index(write_mode) * PIECE + slot) * BLOCK_BYTES + offset
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x80]))


@pytest.fixture
def bird(program: Path, perch: Path) -> Iterator[Bird]:
    bird = Bird(program, Path(tempfile.mkdtemp(dir=perch)))
    yield bird
    if bird.pid_file.exists() and bird.pid_file.read_text().strip():
        pid = int(bird.pid_file.read_text())
        # Only what is really this test's, and still there.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/exe").readlink() == bird.program:
                os.kill(pid, signal.SIGKILL)
