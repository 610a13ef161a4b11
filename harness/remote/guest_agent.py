"""Commands in a guest, through qemu-guest-agent: no guest network, and it goes on after a live migration."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import libvirt

from harness.errors import DeadlineError, InfrastructureError, LostGuestError, LostNodeError
from harness.remote.base import Completed
from harness.remote.guest_system import POSIX, GuestSystem
from harness.util import logs
from harness.util.deadline import Deadline, patience

# guest-file-write takes base64 in one JSON line; the agent's line buffer is far larger than this.
_CHUNK_BYTES = 48 * 1024
_ANSWER_SECONDS = 60
_UNSENT = "didn't respond to synchronization"


class GuestAgent:
    """A :class:`~harness.remote.base.Runner` in the guest of ``domain``, a domain of
    :class:`~harness.remote.libvirt_calls.LibvirtConnection`.

    ``domain`` is asked anew for each command, since a live migration moves it to another connection.
    ``lab`` is for the log.  ``lost`` says why the lab is lost, None while it is not: then nobody waits for the guest
    any more, also where the other node is the one that is lost.
    """

    def __init__(
        self,
        domain: Callable[[], Any],
        host: str = "guest",
        lab: str = "",
        lost: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.host = host
        self.lab = lab
        #: The system in the guest; POSIX until whoever started the guest found another.
        self.system: GuestSystem = POSIX
        self._lost = lost
        self._domain = domain
        self._turn = threading.RLock()
        self._held_seconds = 0.0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else speak with the agent meanwhile; who waits for an answer gets that much more time.

        An answer that is on its way while the guest moves to another QEMU would be lost.
        """
        with self._turn:
            began = time.monotonic()
            try:
                yield
            finally:
                self._held_seconds += time.monotonic() - began

    def call(self, command: str, arguments: Mapping[str, Any] | None = None, timeout: int = _ANSWER_SECONDS) -> Any:
        """One agent command and what it returned.

        ``timeout`` in seconds, the machine's patience apart, is for the agent to take it, and again to answer.
        """
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        seconds = round(timeout * patience())
        sent_by = time.monotonic() + seconds
        while True:
            if (why := self._lost()) is not None:
                raise LostNodeError(f"{self.host} is not waited for any longer: {why}")
            try:
                with self._turn:
                    answer = self._domain().qemuAgentCommand(json.dumps(request), seconds, 0)
                return json.loads(answer)["return"]
            except libvirt.libvirtError as error:
                # libvirt waits 5 s for an agent to find its feet before it sends the command: a guest in a storm, or
                # just arrived on another node, may need longer, and a command that was not sent may be sent again.
                unsent = _UNSENT in str(error)
                if unsent and time.monotonic() < sent_by and self.active():
                    continue
                raise LostGuestError(f"the agent of {self.host} did not do {command}: {error}") from None

    def wait_ready(self, deadline: Deadline) -> None:
        """Wait until the agent answers."""
        with logs.timed("libvirt", self.host, "guest-ping until the agent answers", self.lab):
            while True:
                left = deadline.left()
                try:
                    self.call("guest-ping", timeout=max(1, min(5, int(left))))
                    return
                except LostGuestError:
                    if not self.active():
                        raise LostGuestError(f"{self.host} ended before its agent answered") from None
                    time.sleep(min(0.3, deadline.left()))

    def active(self) -> bool:
        """Whether its domain runs; asked in turn, since the work may be speaking over the same connection.

        :class:`~harness.errors.LostNodeError` where libvirt itself is lost, :class:`~harness.errors.HungCallError`.
        """
        try:
            with self._turn:
                return bool(self._domain().isActive())
        except libvirt.libvirtError:  # a transient domain that ended is not there any more
            return False

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Run ``argv`` in the guest to its end; a death by signal N is the status 128 + N, as in a shell.

        :class:`~harness.errors.InfrastructureError` where the agent did not keep all that it printed (16 MiB).
        """
        with logs.command(self.host, argv, self.lab) as logged:
            result = self._run(argv, stdin, timeout)
            logged.status = result.status
        return result if not ok else result.expect(ok)

    def _run(self, argv: Sequence[str], stdin: str | None, timeout: float) -> Completed:
        began = time.monotonic()
        bound = timeout * patience()
        arguments = {**self.system.command(argv, bound), "capture-output": True}
        if stdin is not None:
            arguments["input-data"] = base64.b64encode(stdin.encode()).decode()
        held = self._held_seconds
        pid = self.call("guest-exec", arguments)["pid"]
        deadline = Deadline.after(timeout + _ANSWER_SECONDS, f"the end of '{argv[0]}' in {self.host}")
        pause = 0.02
        while not (status := self.call("guest-exec-status", {"pid": pid}))["exited"]:
            at = deadline.at + self._held_seconds - held
            try:
                time.sleep(min(pause, Deadline(deadline.what, at, deadline.seconds).left()))
            except DeadlineError:
                if (end := self.system.end(pid)) is not None:
                    self.call("guest-exec", {"path": end[0], "arg": list(end[1:])})
                raise
            pause = min(pause * 2, 1.0)
        if status.get("out-truncated") or status.get("err-truncated"):
            raise InfrastructureError(f"'{argv[0]}' in {self.host} printed more than its agent keeps")
        code = self.system.status(status)
        seconds = time.monotonic() - began
        if code in (124, 137) and seconds >= bound:
            raise DeadlineError(f"'{' '.join(argv)}' in {self.host} did not end within {bound:.0f} s")
        return Completed(
            self.host, tuple(argv), code, _decoded(status.get("out-data")), _decoded(status.get("err-data")), seconds
        )

    def write(self, path: str, text: str) -> None:
        """Make the file at ``path`` hold exactly ``text``."""
        data = text.encode()
        with logs.command(self.host, ["guest-file-write", path], self.lab) as logged:
            handle = self.call("guest-file-open", {"path": path, "mode": "w"})
            try:
                for at in range(0, len(data), _CHUNK_BYTES):
                    piece = base64.b64encode(data[at : at + _CHUNK_BYTES]).decode()
                    self.call("guest-file-write", {"handle": handle, "buf-b64": piece})
            finally:
                self.call("guest-file-close", {"handle": handle})
            logged.status = 0


def _decoded(data: str | None) -> str:
    return base64.b64decode(data).decode(errors="replace") if data else ""
