"""Small ssh servers in this process, on loopback.  Nothing here is a test."""

from __future__ import annotations

import contextlib
import functools
import io
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import paramiko
from paramiko.common import cMSG_CHANNEL_SUCCESS

from harness.lab.nested.keys import KeyPair
from harness.remote.scripted import Answer


class SshdTransport(paramiko.Transport):
    """A connection that starts a command once its client was told that it starts, as sshd does.

    A quick command would else be over before the answer to the request for it, and its client's channel closed.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.accepted: list[threading.Thread] = []
        self.is_silent: Callable[[], bool] = lambda: False

    def _send_message(self, data: paramiko.Message) -> None:
        if not self.is_silent():
            super()._send_message(data)

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)
        if data.asbytes()[:1] == cMSG_CHANNEL_SUCCESS:
            while self.accepted:
                self.accepted.pop().start()


@dataclass
class Sshd(paramiko.ServerInterface):
    """A small ssh server in this process that runs what it is asked to run, on this machine, as itself."""

    host_key: KeyPair
    allowed: str
    wanted_port: int = 0
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    #: The connections over which nothing is answered any more.
    silent: list[SshdTransport] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.wanted_port))
        self.port = int(self._listener.getsockname()[1])
        self.transports: list[SshdTransport] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        key = paramiko.Ed25519Key.from_private_key(io.StringIO(self.host_key.private))
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            transport = SshdTransport(connection)
            transport.add_server_key(key)
            transport.is_silent = functools.partial(self.silent.__contains__, transport)
            self.transports.append(transport)
            try:
                transport.start_server(server=self)
            except (paramiko.SSHException, EOFError, OSError):
                continue

    def close(self) -> None:
        """Accept no more, and end what was accepted."""
        # A close alone would leave the thread that waits in accept() one more connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for transport in self.transports:
            transport.close()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and key.get_base64() == self.allowed.split()[1]
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        runs = threading.Thread(target=self._run, args=(channel, command), daemon=True)
        cast(SshdTransport, channel.get_transport()).accepted.append(runs)
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        # A streaming command writes as it goes, so its output is passed on piece by piece.
        process = subprocess.Popen(
            ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin and process.stdout and process.stderr
        if b"streaming" not in command:
            while piece := channel.recv(65536):
                process.stdin.write(piece)
        process.stdin.close()
        try:
            for piece in process.stdout if b"streaming" in command else [process.stdout.read()]:
                channel.sendall(piece)
            channel.sendall_stderr(process.stderr.read())
            channel.send_exit_status(process.wait())
            channel.close()
        except OSError:
            process.kill()
            process.wait()


@dataclass
class ScriptedSshd(Sshd):
    """One that runs nothing on this machine: ``answer`` maps an argument vector to (status, stdout, stderr).

    A command that streams (a `cat` of the kernel log, `drbdsetup events2`) prints nothing and does not end.
    """

    answer: Callable[[tuple[str, ...]], Answer] = lambda argv: (0, "", "")

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        argv = tuple(shlex.split(command.decode()))
        if argv[0] != "timeout":
            return
        try:
            status, out, err = self.answer(argv[4:])
            while channel.recv(65536):
                pass
            channel.sendall(out.encode())
            channel.sendall_stderr(err.encode())
            channel.send_exit_status(status)
            channel.close()
        except OSError:
            channel.close()
