"""Commands on a node, over paramiko with a pinned host key."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shlex
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import paramiko
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from harness.errors import DeadlineError, LostNodeError
from harness.remote.base import Completed
from harness.remote.stream import LineStream
from harness.util import logs
from harness.util.background import BackgroundTask
from harness.util.deadline import patience

# On top of the bound the command itself has, for a slow node to deliver the output.
GRACE_SECONDS = 15.0
# A node is asked for a sign of life that often, and lost when none comes for so long: an emulated one that is as busy
# as one gets was never silent for more than a few seconds, and half a minute leaves as much to find it within a minute.
KEEPALIVE_SECONDS = 5.0
SILENT_SECONDS = 30.0
_ERRORS = (paramiko.SSHException, OSError, EOFError)
_CONNECTIONS = itertools.count(1)


class _LastWords(logging.Handler):
    """Why a connection ended.  Paramiko raises nothing where the other side ends one, and says why in its log alone."""

    _BEGIN = ("Disconnect (code", "Exception (", "Socket exception", "Unknown exception")

    def __init__(self, name: str) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""
        # A logger of its own, which nobody else reads: of a whole run it would be a hundred thousand lines.
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line that says why."""
        said = record.getMessage()
        if said.startswith(self._BEGIN):
            self.text = said.splitlines()[0]
        elif said == "EOF in transport thread" and not self.text:
            self.text = "it was closed at the other end"


class SshRunner:
    """A :class:`~harness.remote.base.Runner` on one node.

    The node's host key is known before its first boot; any other key is rejected.  Without a ``key`` those of ssh's
    agent and the user's own are tried.  ``before`` is a command that runs each command: it makes an ordinary ``user``
    root (``sudo -n --``), or sets what a command's output depends on.  ``lab`` is for the log.  A node that once gave
    no answer in all the time that a command has is not asked again over that connection: each command would wait as
    long.  Whether it answers at all is watched in a thread of its own: everything that waits for one that has been
    silent for half a minute ends with :class:`~harness.errors.LostNodeError`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        key: Path | None,
        known_hosts: Path,
        name: str,
        user: str = "root",
        lab: str = "",
        before: Sequence[str] = (),
    ) -> None:
        self.host = name
        self.lab = lab
        self._address = (host, port)
        self._key = key
        self._known_hosts = known_hosts
        self._user = user
        self._before = tuple(before)
        self._client: paramiko.SSHClient | None = None
        self._connecting = threading.Lock()
        self._streams: list[paramiko.Channel] = []
        self._last_words: _LastWords | None = None
        #: Why the node is lost, where it answered nothing for too long; None while it is not, and once connected again.
        self.silent: str | None = None

    @property
    def connected(self) -> bool:
        """Whether it has a connection that works, as far as is known."""
        transport = self._client.get_transport() if self._client is not None else None
        return transport is not None and transport.is_active()

    def connect(self, seconds: float) -> None:
        """Connect, trying again for ``seconds`` while the node refuses or resets."""
        where = f"ssh {self._user}@{self._address[0]}:{self._address[1]}"
        with logs.timed("connection", self.host, where, self.lab):
            self._connect(seconds * patience())

    def _connect(self, seconds: float) -> None:
        client = paramiko.SSHClient()
        client.load_host_keys(str(self._known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        log = f"drbd-harness.ssh.{next(_CONNECTIONS)}"
        client.set_log_channel(log)
        self._last_words = _LastWords(log)
        try:
            for attempt in Retrying(
                retry=retry_if_exception(_passes), stop=stop_after_delay(seconds), wait=wait_fixed(0.5), reraise=True
            ):
                with attempt:
                    client.connect(
                        self._address[0], self._address[1], username=self._user,
                        key_filename=str(self._key) if self._key else None, allow_agent=self._key is None,
                        look_for_keys=self._key is None, timeout=10 * patience(), banner_timeout=30 * patience(),
                        auth_timeout=30 * patience(),
                    )  # fmt: skip
        except _ERRORS as error:
            client.close()
            why = getattr(error, "strerror", None) or error
            raise LostNodeError(f"no ssh to {self.host} at {self._address[0]}:{self._address[1]}: {why}") from None
        self._client, self.silent = client, None
        transport = client.get_transport()
        if transport is not None:
            threading.Thread(
                target=self._watch, args=(transport,), name=f"the watch on {self.host}", daemon=True
            ).start()

    def _watch(self, transport: paramiko.Transport) -> None:
        """Ask for a sign of life until the connection ends, and end it where none comes."""
        while transport.is_active():
            # sshd answers, if only that it does not know of such a request.
            asked = BackgroundTask(lambda: transport.global_request("keepalive@openssh.com"), "a sign of life")
            silent = SILENT_SECONDS * patience()
            if not asked.ended(silent) and transport.is_active():
                self.silent = f"{self.host} has answered nothing for {silent:.0f} s"
                transport.close()
                return
            time.sleep(KEEPALIVE_SECONDS)

    def close(self) -> None:
        """End all streams and the connection."""
        for channel in self._streams:
            with contextlib.suppress(*_ERRORS):
                channel.close()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _channel(self) -> paramiko.Channel:
        with self._connecting:
            if self._client is None:
                raise LostNodeError(f"{self.host} is not connected")
            transport = self._client.get_transport()
            if transport is None or not transport.is_active():
                raise LostNodeError(self.silent or f"the ssh connection to {self.host} was lost{self._why()}")
            try:
                return transport.open_session(timeout=30)
            except _ERRORS as error:
                if not isinstance(error, paramiko.ChannelException):
                    transport.close()
                raise LostNodeError(f"{self.host} does not open an ssh session: {error}{self._why()}") from None

    def _why(self) -> str:
        """What is known of why the connection ended, to be put behind that it did."""
        return f": {self._last_words.text}" if self._last_words is not None and self._last_words.text else ""

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Run ``argv`` on the node; this is the one place where it is quoted for a shell."""
        timeout *= patience()
        with logs.command(self.host, argv, self.lab) as logged:
            result = self._run(argv, stdin, timeout)
            logged.status = result.status
        return result if not ok else result.expect(ok)

    def _run(self, argv: Sequence[str], stdin: str | None, timeout: float) -> Completed:
        began = time.monotonic()
        channel = self._channel()
        # Behind what makes the user root: an ordinary user's timeout(1) could not end what root runs.
        bounded = [*self._before, "timeout", "-k", "2", f"{timeout:.0f}", *argv]
        out, err = bytearray(), bytearray()
        try:
            channel.settimeout(timeout + GRACE_SECONDS)
            channel.exec_command(shlex.join(bounded))
            _feed(channel, stdin)
            errors = threading.Thread(target=_drain_errors, args=(channel, err), daemon=True)
            errors.start()
            _drain(channel.recv, out)
            errors.join(GRACE_SECONDS)
            if not channel.status_event.wait(GRACE_SECONDS):
                raise TimeoutError(f"no status within {timeout:.0f} s")
            status = channel.recv_exit_status()
        except TimeoutError as error:
            channel.get_transport().close()
            raise LostNodeError(f"'{argv[0]}' on {self.host} was not answered: {error or 'nothing came'}") from None
        except _ERRORS as error:
            raise LostNodeError(
                f"'{argv[0]}' on {self.host} was cut off: {self.silent or error or 'no answer'}"
            ) from None
        finally:
            with contextlib.suppress(*_ERRORS):
                channel.close()
        seconds = time.monotonic() - began
        if status in (124, 137) and seconds >= timeout:
            raise DeadlineError(f"'{' '.join(argv)}' on {self.host} did not end within {timeout:.0f} s")
        if status == -1:
            why = f": {self.silent}" if self.silent else self._why()
            raise LostNodeError(f"the connection to {self.host} was lost during '{argv[0]}'{why}")
        return Completed(
            self.host, tuple(argv), status, out.decode(errors="replace"), err.decode(errors="replace"), seconds
        )

    def write(self, path: str, text: str) -> None:
        """Make the file at ``path`` hold exactly ``text``."""
        self.run(["sh", "-c", 'cat > "$1"', "sh", path], stdin=text)

    def stream(self, argv: Sequence[str], name: str, sift: Callable[[str], Iterable[str]] | None = None) -> LineStream:
        """Start ``argv`` and hand out its standard output as a growing stream; it ends with the connection.

        ``sift``: what of a line belongs to the stream; all does without it.
        """
        stream = LineStream(f"{name} on {self.host}", sift)
        began = time.monotonic()
        with logs.command(self.host, argv, self.lab) as logged:
            channel = self._channel()
            try:
                channel.exec_command(shlex.join([*self._before, *argv]))
            except _ERRORS as error:
                raise LostNodeError(f"cannot stream '{argv[0]}' on {self.host}: {error}") from None
            logged.status = "started"

        def follow() -> None:
            error = _pump(channel, stream) or self.silent or ""
            seconds = time.monotonic() - began
            logs.record("command", self.host, logs.quoted(argv), "ended", seconds, self.lab, error)
            stream.end(error or "the command ended")

        self._streams.append(channel)
        threading.Thread(target=follow, name=stream.name, daemon=True).start()
        return stream


def _passes(error: BaseException) -> bool:
    """Whether it may be different in a moment: a wrong key will not become right, a starting sshd will start."""
    final = (paramiko.BadHostKeyException, paramiko.AuthenticationException)
    return isinstance(error, _ERRORS) and not isinstance(error, final)


def _feed(channel: paramiko.Channel, stdin: str | None) -> None:
    """Send ``stdin`` and its end; a command that ended without reading all of it tells why by its status."""
    try:
        if stdin is not None:
            channel.sendall(stdin.encode())
        channel.shutdown_write()
    except OSError:
        if not channel.closed:
            raise


def _drain(receive: Callable[[int], bytes], into: bytearray) -> None:
    while chunk := receive(65536):
        into.extend(chunk)


def _drain_errors(channel: paramiko.Channel, into: bytearray) -> None:
    """In a thread of its own: that the connection was cut off is for the one that waits for the output to say."""
    with contextlib.suppress(*_ERRORS):
        _drain(channel.recv_stderr, into)


def _pump(channel: paramiko.Channel, stream: LineStream) -> str:
    """Append what comes to ``stream`` until it ends; the error that ended it, empty where the command ended."""
    rest = b""
    ended = ""
    try:
        while chunk := channel.recv(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                stream.append(line.decode(errors="replace"))
    except _ERRORS as error:
        ended = str(error) or "the connection broke"
    if rest:
        stream.append(rest.decode(errors="replace"))
    return ended
