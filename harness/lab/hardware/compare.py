"""The third oracle on two real machines: each reads its own lower device, and what they say is compared here.

A small static program (``vm_images/src/replicadigest.c``) reads around the page cache, with O_DIRECT: DRBD writes below
that cache, so what is in it may be older than the device.  It prints a digest of 128 bits for each 4 KiB block;
of blocks that differ both sides are fetched.  It is compiled here, brought to each machine below
``/var/lib/drbd-harness`` and named by its SHA-256, which is looked at again each time it is run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import platform
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from harness.config.recipe import ImageError
from harness.errors import InfrastructureError
from harness.images.programs import compile_program
from harness.lab.backing_compare import sample
from harness.lab.hardware.lease import FOLDER
from harness.lab.node import Node
from harness.model import Comparison, Sample, extents_of
from harness.parse.replica_digests import contents, differing, digests
from harness.remote.base import Completed, Runner
from harness.util import resources
from harness.util.background import BackgroundTask
from harness.util.deadline import Deadline

#: What a comparison of this kind says of itself in the evidence.
WHERE = "digests (XXH3-128) of what each machine read from its own device with O_DIRECT"
PROGRAM = "replicadigest"
_PACKAGES = (
    "a static libc and the headers of xxHash are needed: libc6-dev and libxxhash-dev, or glibc-static and xxhash-devel"
)
# How much is asked for in one command: its answer is held in memory, 64 MiB on the controller where no two are alike.
_RANGE_BLOCKS = 1 << 20
_SAMPLED_AT_ONCE = 64
_BRING_SECONDS = 300.0
# Slower than any disk that somebody would test with, and than an emulated machine is.
_BYTES_PER_SECOND = 5 << 20
_START_SECONDS = 60.0
_MACHINE = "x86_64"
# Statuses of _RUN's own, which the program does not have.
_NOT_THERE, _OTHER_PROCESSOR = 90, 91
_RUN = f"""
[ "$(uname -m)" = {_MACHINE} ] || {{ uname -m; exit {_OTHER_PROCESSOR}; }}
printf '%s  %s\\n' "$1" "$2" | sha256sum -c --status 2> /dev/null || exit {_NOT_THERE}
shift
exec "$@"
"""
# A directory that somebody else owns could get another program between the look at this one and its start.
_BRING = """
umask 077
mkdir -p "$2" || exit
for one in "$1" "$1/programs" "$2"; do
    [ "$(stat -c %u "$one")" = "$(id -u)" ] || { echo "$one is not root's" >&2; exit 1; }
done
base64 -d > "$2/new.$$" && chmod 700 "$2/new.$$" && mv "$2/new.$$" "$2/$3"
"""


class HasRunner(Protocol):
    """A machine whose commands root runs: a node, or a machine of an inventory."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def runner(self) -> Runner:
        """What runs a command there."""
        ...


class DigestComparison:
    """Compares the lower devices ``a_device`` and ``b_device`` of two nodes by digests (see
    :class:`~harness.lab.base.ReplicaComparison`).

    Nothing is written to them; they are read on both machines at once.  Not for several threads.
    """

    def __init__(self, a: Node, b: Node, a_device: str, b_device: str, folder: str = FOLDER) -> None:
        self._sides = ((a, a_device), (b, b_device))
        self._folder = folder

    def compare(self, blocks: int) -> Comparison:
        """Compare the first ``blocks`` 4 KiB blocks; what lies behind (DRBD's metadata) is no data.

        Blocks for as long as the slower side needs to read them.  :class:`InfrastructureError`, which names the machine
        and the block, where one cannot be read; :class:`~harness.errors.LostNodeError`.
        """
        began = time.monotonic()
        found: list[int] = []
        for first in range(0, blocks, _RANGE_BLOCKS):
            count = min(_RANGE_BLOCKS, blocks - first)
            one, other = self._both(first, count)
            found += (first + at for at in differing(one, other))
        return Comparison(blocks, extents_of(found), time.monotonic() - began, WHERE)

    def moved(self, node: Node) -> None:
        """The lower device of ``node`` has another path since it booted."""
        self._sides = (self._side(0, node), self._side(1, node))

    def _side(self, which: int, moved: Node) -> tuple[Node, str]:
        node, device = self._sides[which]
        return (node, moved.lower) if node.name == moved.name else (node, device)

    def block_digests(self, node: Node, blocks: int) -> bytes:
        """A digest of 8 bytes for each of the first ``blocks`` 4 KiB blocks of ``node``'s lower device."""
        device = next(device for one, device in self._sides if one.name == node.name)
        found = bytearray()
        for first in range(0, blocks, _RANGE_BLOCKS):
            row = self._digests(node, device, first, min(_RANGE_BLOCKS, blocks - first))
            # Half of each: against chance, that is enough for one block's before and after.
            found += memoryview(row).cast("Q")[::2].tobytes()
        return bytes(found)

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks``, with what is around the first byte that differs."""
        wanted = tuple(blocks)
        a, b = (self._contents(node, device, wanted) for node, device in self._sides)
        return tuple(map(sample, wanted, a, b))

    def _both(self, first: int, count: int) -> list[bytes]:
        """The digests of both sides, read at the same time."""
        program()
        tasks = [
            BackgroundTask(functools.partial(self._digests, node, device, first, count), f"reading on {node.name}")
            for node, device in self._sides
        ]
        # Beyond the bounds that each side has, which end it with a better sentence.
        patient = Deadline.after(3 * (_seconds(count) + _BRING_SECONDS), "reading both lower devices")
        for task in tasks:
            # Where one side fails the other is waited for too: nobody reads any more when this returns.
            task.ended(patient.left())
        return [task.result(patient) for task in tasks]

    def _digests(self, node: Node, device: str, first: int, count: int) -> bytes:
        done = self._run(node, ("digests", device, str(first), str(count)), _seconds(count))
        try:
            return digests(done.stdout, count)
        except ValueError as error:
            raise InfrastructureError(f"what {node.name} read from {device} is not whole: {error}") from None

    def _contents(self, node: Node, device: str, blocks: Sequence[int]) -> list[bytes]:
        found: list[bytes] = []
        for start in range(0, len(blocks), _SAMPLED_AT_ONCE):
            some = blocks[start : start + _SAMPLED_AT_ONCE]
            done = self._run(node, ("blocks", device, *map(str, some)), _seconds(len(some)))
            try:
                found += contents(done.stdout, len(some))
            except ValueError as error:
                raise InfrastructureError(f"what {node.name} read from {device} is not whole: {error}") from None
        return found

    def _run(self, node: Node, arguments: Sequence[str], seconds: float) -> Completed:
        """Run the program there, and bring it first where it is not yet, or not any more."""
        digest, _ = program()
        path = f"{self._folder}/programs/{digest}/{PROGRAM}"
        argv = ["sh", "-c", _RUN, "sh", digest, path, *arguments]
        done = node.runner.run(argv, timeout=seconds, ok=())
        if done.status == _NOT_THERE:
            _bring(node, self._folder)
            done = node.runner.run(argv, timeout=seconds, ok=())
        if done.status == _OTHER_PROCESSOR:
            raise InfrastructureError(
                f"{node.name} is a machine of the architecture {done.stdout.strip() or 'unknown'}; "
                f"its lower device can be read only on {_MACHINE} so far"
            )
        if done.status == _NOT_THERE or done.status in (126, 127):
            raise InfrastructureError(
                f"the program that reads the lower device cannot be run on {node.name}: {done.message}"
            )
        if done.status:
            raise InfrastructureError(f"on {node.name}, {done.message.removeprefix(f'{PROGRAM}: ')}")
        return done


def remove_programs(machine: HasRunner, folder: str = FOLDER) -> None:
    """Take back what a comparison brought to a machine; nothing there is no error."""
    machine.runner.run(["rm", "-rf", "--", f"{folder}/programs"])


@functools.cache
def program() -> tuple[str, bytes]:
    """The program for a machine, compiled here, and its SHA-256.  Takes a second the first time.

    :class:`InfrastructureError` where this machine cannot make it.
    """
    if platform.machine() != _MACHINE:
        raise InfrastructureError(
            f"this controller is a machine of the architecture {platform.machine()}; what reads the lower devices "
            f"of two real machines can be made only on {_MACHINE} so far"
        )
    with tempfile.TemporaryDirectory() as directory:
        source = resources.recipes() / "src" / f"{PROGRAM}.c"
        try:
            made = compile_program(source, Path(directory), needs=_PACKAGES).read_bytes()
        except ImageError as error:
            raise InfrastructureError(str(error)) from None
    return hashlib.sha256(made).hexdigest(), made


def _bring(node: HasRunner, folder: str) -> None:
    digest, made = program()
    argv = ["sh", "-c", _BRING, "sh", folder, f"{folder}/programs/{digest}", PROGRAM]
    done = node.runner.run(argv, stdin=base64.b64encode(made).decode(), timeout=_BRING_SECONDS, ok=())
    if done.status:
        raise InfrastructureError(
            f"the program that reads the lower device cannot be brought to {node.name}: {done.message}"
        )


def _seconds(blocks: int) -> float:
    return _START_SECONDS + blocks * 4096 / _BYTES_PER_SECOND
