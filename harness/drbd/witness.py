"""The program ``witness`` on one node: a BPF program that sees the writes to a DRBD device change in flight.

It changes nothing of what is written.  Where it cannot run (no BTF, no bpf_loop, an image without it) it says why.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from harness.errors import DeadlineError, HarnessError, InfrastructureError
from harness.lab.node import Node
from harness.model import Witness
from harness.parse.witness import parse_report, parse_start
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline

PROGRAM = "/usr/lib/drbd-harness/witness"
READY_SECONDS = 60.0
REPORT_SECONDS = 30.0

# The shell's process becomes the program's, so what it prints first is whom to stop.
_START = """
[ -x "$0" ] || { echo "unwatched there is no $0 on this node"; exit 1; }
echo "pid $$"
exec "$0" "$@"
"""


class WitnessProgram:
    """One run of it, for the device with the number ``minor``.

    It ends with the connection to the node too, so that nothing of it stays behind.
    """

    def __init__(self, node: Node, minor: int) -> None:
        """Start it; :class:`~harness.errors.LostNodeError` when the node does not answer."""
        self.node = node
        self._attach_seconds = 0.0
        self._stream: LineStream = node.runner.stream(
            ["sh", "-c", _START, PROGRAM, "--minor", str(minor)], "the witness"
        )

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until it watches; every write that begins later is seen.

        :class:`~harness.errors.InfrastructureError` with its reason when it cannot, or with that of the wait's end.
        """
        try:
            start, _ = self._stream.wait(parse_start, 0, deadline)
        except DeadlineError:
            # One that comes late would watch the next cell.
            with contextlib.suppress(HarnessError):
                self._stop(Deadline.after(REPORT_SECONDS, "the end of the witness"))
            raise
        if not start.hooks:
            raise InfrastructureError(f"not watched: {start.reason}")
        self._attach_seconds = start.seconds

    def read(self, deadline: Deadline) -> Witness:
        """Stop it and return what it counted; :class:`~harness.errors.InfrastructureError` when that does not come."""
        cursor = self._stream.cursor()
        self._stop(deadline)
        line, _ = self._stream.wait(lambda line: line if line.startswith("{") else None, cursor, deadline)
        try:
            report = parse_report(line, self.node.name)
        except ValueError as unreadable:
            raise InfrastructureError(str(unreadable)) from unreadable
        return replace(report, attach_seconds=self._attach_seconds)

    def _stop(self, deadline: Deadline) -> None:
        pid, _ = self._stream.wait(_pid, 0, deadline)
        self.node.runner.run(["kill", "-TERM", pid], timeout=deadline.left())

    def printed(self) -> str:
        """All that it printed so far."""
        return "".join(f"{line}\n" for line in self._stream.since(0))


def _pid(line: str) -> str | None:
    return line.removeprefix("pid ") if line.startswith("pid ") else None
