"""The canary in the guest, from the controller's side: started, followed on both nodes, stopped, its report read.

It writes to a virtio port that QEMU appends to a file on the node the guest is on; the controller follows that file on
both nodes.  What reached the controller before a node died is what was acknowledged, whatever is left of the node.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.config.lab_spec import GuestSpec
from harness.errors import DeadlineError, HarnessError, InfrastructureError, LostGuestError, LostNodeError
from harness.model import Canary
from harness.parse.canary import Ack, Done, Message, parse_check, parse_line, received, report
from harness.remote.base import Runner
from harness.remote.stream import LineStream
from harness.render.domain import CANARY_PORT
from harness.util.deadline import Deadline

# Where the guest image has it.
PROGRAM = "/usr/lib/drbd-harness/canary"
PORT = CANARY_PORT

START_SECONDS = 120.0
FIRST_MESSAGE_SECONDS = 30.0
STOP_SECONDS = 60.0
CHECK_SECONDS = 120.0
# A collector looks up this often when no line comes.
_IDLE_SECONDS = 3600.0

_FIND_PORT = """
for port in /sys/class/virtio-ports/*; do
    read -r name < "$port/name" && [ "$name" = "$1" ] && echo "/dev/${port##*/}"
done 2>/dev/null
true
"""
_FOLLOW = 'kill "$(cat "$2")" 2>/dev/null; echo $$ > "$2"; exec tail -n +1 -F "$1" 2>/dev/null'
_UNFOLLOW = 'kill "$(cat "$1")"; rm -f "$1"'
_STOP = 'kill -TERM "$(cat "$1")"'


class StreamingRunner(Runner, Protocol):
    """A runner that can also hand out what a command goes on printing."""

    def stream(self, argv: Sequence[str], name: str) -> LineStream:
        """Start ``argv`` and hand out its lines."""
        ...


class FollowedNode(Protocol):
    """As much of a node as is needed here."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def runner(self) -> StreamingRunner:
        """Its runner."""
        ...


@dataclass(frozen=True)
class Region:
    """The 4 KiB blocks of the device that belong to the canary; nobody else may write there."""

    first_block: int
    blocks: int

    @classmethod
    def at_end(cls, device_blocks: int, blocks: int) -> Region:
        """The last ``blocks`` of a device; :class:`InfrastructureError` when it has no more than those."""
        if device_blocks <= blocks:
            raise InfrastructureError(f"a device of {device_blocks} blocks has no room for a canary's {blocks}")
        return cls(device_blocks - blocks, blocks)

    def argv(self, device: str) -> list[str]:
        """As the guest program is told."""
        return ["--device", device, "--first-block", str(self.first_block), "--blocks", str(self.blocks)]


@dataclass
class _Followed:
    """One stream, and when each of its lines came."""

    stream: LineStream
    arrivals: list[float] = field(default_factory=list)

    def lines(self) -> list[tuple[float, str]]:
        lines = self.stream.since(0)
        now = time.monotonic()
        # The collector may be a line behind.
        arrivals = [*self.arrivals[: len(lines)]]
        arrivals += [now] * (len(lines) - len(arrivals))
        return list(zip(arrivals, lines, strict=True))


class CanaryWatch:
    """The controller's side of one canary; ``run`` (64 bits, another for each canary) tells it from all others.

    A stream that ended with its node keeps what it delivered; :meth:`follow` the node again when it is back.
    """

    def __init__(self, nodes: Sequence[FollowedNode], region: Region, run: int, spec: GuestSpec) -> None:
        self.region = region
        self.run = run
        self._spec = spec
        self._nodes = tuple(nodes)
        self._followed: list[_Followed] = []
        self._names: set[str] = set()
        # The lines of all streams as they come, to be waited on.
        self._all = LineStream("the canary's messages")

    def follow(self, node: FollowedNode) -> None:
        """Follow the file that QEMU on ``node`` writes; the first time from an empty file, later from its beginning.

        :class:`~harness.errors.LostNodeError` when the node does not answer.
        """
        if node.name not in self._names:
            # Never again later: the guest may be writing to it.  Lines that come twice do no harm.
            node.runner.run(["truncate", "-s", "0", self._spec.canary_log])
            self._names.add(node.name)
        follow = ["sh", "-c", _FOLLOW, "sh", self._spec.canary_log, self._tail_file]
        stream = node.runner.stream(follow, "the canary's lines")
        followed = _Followed(stream)
        self._followed.append(followed)
        threading.Thread(target=self._collect, args=(followed,), name=stream.name, daemon=True).start()

    def start(self, runner: Runner, device: str) -> None:
        """Start it in the guest on its region of ``device``, and wait for its first message.

        Every node is followed before.  The region is zeroed.  :class:`InfrastructureError` when the guest has no port
        for it, when it does not start, or when nothing of it arrives within 30 s.
        """
        for node in self._nodes:
            if node.name not in self._names:
                self.follow(node)
        ports = runner.run(["sh", "-c", _FIND_PORT, "sh", PORT]).stdout.split()
        if not ports:
            raise InfrastructureError(f"the guest has no virtio port with the name {PORT}")
        argv = [PROGRAM, "run", *self.region.argv(device), "--port", ports[0], "--run", str(self.run)]
        argv += ["--mebibytes", str(self._spec.canary_memory_mib), "--pid-file", self._spec.canary_pid_file]
        runner.run(argv, timeout=START_SECONDS)
        self._wait(Ack, Deadline.after(FIRST_MESSAGE_SECONDS, "the first acknowledgement of the canary"))

    def stop(self, runner: Runner) -> None:
        """Let it finish its records and check all its memory, and wait for its last message.

        :class:`LostGuestError` when it is not running any more, :class:`~harness.errors.DeadlineError` when its last
        message does not come within 60 s, as when a write of it never ends.
        """
        done = runner.run(["sh", "-c", _STOP, "sh", self._spec.canary_pid_file], ok=())
        if done.status != 0:
            message = (done.stderr.strip() or "no output").splitlines()[-1]
            raise LostGuestError(f"the canary in {runner.host} is not running any more: {message}")
        self._wait(Done, Deadline.after(STOP_SECONDS, "the canary's last message"))

    def report(self, runner: Runner, device: str, *, survived: bool = False) -> Canary:
        """Read its region of ``device`` in the guest: what it kept and lost.

        It must not be running.  ``survived``: the caller knows that it lived to the end although its last message did
        not come.  :class:`~harness.errors.CommandError` when the region cannot be read.
        """
        argv = [PROGRAM, "check", *self.region.argv(device), "--run", str(self.run)]
        found = runner.run(argv, timeout=CHECK_SECONDS).stdout
        try:
            slots = parse_check(found, self.region.blocks)
        except ValueError as unreadable:
            raise InfrastructureError(f"what the canary found on the disk is unreadable: {unreadable}") from unreadable
        lines = [line for followed in self._followed for line in followed.lines()]
        return report(received(lines, self.run), slots, self.region.blocks, survived=survived)

    def transcript(self) -> str:
        """All lines as they came, stream after stream."""
        return "".join(f"{line}\n" for followed in self._followed for line in followed.stream.since(0))

    def close(self) -> None:
        """Follow no more; the lines that came stay.  A node that does not answer is left alone."""
        for node in self._nodes:
            if node.name in self._names:
                with contextlib.suppress(HarnessError):
                    node.runner.run(["sh", "-c", _UNFOLLOW, "sh", self._tail_file], ok=())

    @property
    def _tail_file(self) -> str:
        return f"/run/drbd-harness-canary-{self.run:x}.pid"

    def _wait(self, kind: type[Message], deadline: Deadline) -> None:
        def match(line: str) -> Message | None:
            message = parse_line(line, self.run)
            return message if isinstance(message, kind) else None

        self._all.wait(match, 0, deadline)

    def _collect(self, followed: _Followed) -> None:
        cursor = 0
        with contextlib.suppress(LostNodeError):
            while True:
                with contextlib.suppress(DeadlineError):
                    line, cursor = followed.stream.wait(str, cursor, Deadline.after(_IDLE_SECONDS, "a line"))
                    followed.arrivals.append(time.monotonic())
                    self._all.append(line)
