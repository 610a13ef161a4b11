"""The power of two real machines: a ``fence_*`` agent, or a command of the user's, switches it from the controller.

An agent gets all it is told by standard input, as cluster managers do it, so that no password stands on a command line.
What either of them prints is shown without the password, and the log of commands has no more than their name and what
they were asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lxml import etree

from harness.config.inventory import Host, PowerEntry
from harness.errors import DeadlineError, HarnessError, InfrastructureError, RefusedError, UsageError
from harness.remote.base import Completed
from harness.remote.local import ENGLISH
from harness.util import logs
from harness.util.deadline import Deadline, patience
from harness.util.paths import programs
from harness.util.redact import HIDDEN

#: How long one call of an agent or a command may take; an agent itself waits until the power is as it was asked for.
CALL_SECONDS = 120.0
#: How long the power may take to be as it was asked for, and how often it is asked for meanwhile.
SETTLE_SECONDS = 60.0
POLL_SECONDS = 2.0
_ENDED_SECONDS = 5.0
ON, OFF, STATUS = "on", "off", "status"
# What an agent's status ends with: on, off.  Anything else is an error.
_AGENT_ON, _AGENT_OFF = 0, 2
# What agents write around what they have to say.
_NOISE = re.compile(
    r"^(\S+ \S+ ERROR: )?Please use '-h' for usage$|^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+: ", re.MULTILINE
)
# Shorter arguments of a user's command are no secret, and would stand in any sentence.
_SECRET_CHARACTERS = 4


@dataclass(frozen=True)
class _Call:
    """How a machine's power is asked for something: what is run, what it is told, and what nobody may see of it."""

    shown: str
    argv: tuple[str, ...]
    stdin: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


class MachinePower:
    """Switches the power of the machines of an inventory, by their names there.  ``lab`` is for the log."""

    def __init__(self, hosts: Sequence[Host], lab: str = "") -> None:
        self._entries: Mapping[str, PowerEntry | None] = {host.name: host.power for host in hosts}
        self._lab = lab
        self._parameters: dict[str, frozenset[str]] = {}

    def require(self, *names: str) -> None:
        """:class:`~harness.errors.RefusedError` where one of the machines (all of them without ``names``) has no power
        that can be switched.
        """
        lacking = [name for name in names or self._entries if self._entries[name] is None]
        if lacking:
            raise RefusedError(
                "the inventory",
                f"it has no 'power' for {' and '.join(lacking)}, so that nothing can cut it or give it back",
            )

    def way(self, name: str) -> str:
        """By what its power is switched, as a user knows it; empty where it cannot be."""
        entry = self._entries[name]
        return "" if entry is None else entry.agent or Path(entry.command[0]).name

    def status(self, name: str) -> bool:
        """Whether it has power.

        Blocks for at most two minutes.  :class:`~harness.errors.InfrastructureError` where that cannot be said,
        :class:`~harness.errors.RefusedError` as :meth:`require`, :class:`~harness.errors.UsageError` where the password
        file is not as it has to be.
        """
        done = self._do(name, STATUS)
        if self._entry(name).agent:
            if done.status in (_AGENT_ON, _AGENT_OFF):
                return done.status == _AGENT_ON
        elif not done.status:
            word = (done.stdout.split() or [""])[-1].strip(".").lower()
            if word in (ON, OFF):
                return word == ON
            raise InfrastructureError(
                f"the command for the power of {name} says neither 'on' nor 'off' when it is asked for its status, but "
                f"'{' '.join(done.stdout.split())[-80:]}'"
            )
        raise InfrastructureError(f"the power of {name} cannot be asked for its status: {done.message}")

    def off(self, name: str) -> None:
        """Cut its power at once, and see that it is off.

        Blocks for some minutes at most.  :class:`~harness.errors.InfrastructureError` when it stays on, or is off
        already; else as :meth:`status`.
        """
        if not self.status(name):
            raise InfrastructureError(f"the power of {name} is off already")
        done = self._do(name, OFF)
        if done.status:
            raise InfrastructureError(f"the power of {name} was not cut: {done.message}")
        self._wait(name, on=False)

    def on(self, name: str) -> None:
        """Give its power back, and see that it is on; it boots after that.

        A controller that has just cut the power may refuse to give it back for a moment, so it is asked more than once.
        Blocks for some minutes at most; errors as :meth:`status`.
        """
        deadline = Deadline.after(SETTLE_SECONDS, f"switching on {name}")
        while (done := self._do(name, ON)).status:
            if time.monotonic() + POLL_SECONDS > deadline.at:
                raise InfrastructureError(f"{name} stays without power, switch it on by hand: {done.message}")
            time.sleep(POLL_SECONDS)
        self._wait(name, on=True)

    def _wait(self, name: str, *, on: bool) -> None:
        deadline = Deadline.after(SETTLE_SECONDS, f"the power of {name}")
        while self.status(name) != on:
            if time.monotonic() + POLL_SECONDS > deadline.at:
                asked, still = (ON, OFF) if on else (OFF, ON)
                by_hand = "; switch it on by hand" if on else ""
                raise InfrastructureError(
                    f"the power of {name} was switched {asked} by {self.way(name)}, and is still {still} after "
                    f"{deadline.seconds:.0f} s{by_hand}"
                )
            time.sleep(POLL_SECONDS)

    # ------------------------------------------------------------------------------------------ agents and commands

    def _entry(self, name: str) -> PowerEntry:
        self.require(name)
        entry = self._entries[name]
        assert entry is not None
        return entry

    def _do(self, name: str, action: str) -> Completed:
        """Ask for ``action`` and return how that ended; nothing of a secret is in what it printed."""
        entry = self._entry(name)
        if not entry.agent:
            program, *arguments = entry.command
            secrets = tuple(one for one in arguments if len(one) >= _SECRET_CHARACTERS)
            return self._run(name, _Call(f"{Path(program).name} {action}", (*entry.command, action), "", secrets))
        known = self._known(name, entry.agent)
        for option in entry.options:
            if option not in known:
                raise UsageError(f"{entry.agent}, which switches the power of {name}, knows no option '{option}'")
        told = {"action": action, **entry.options}
        secret = ""
        if entry.password_file is not None:
            # An agent that does not know an option writes all of it to the system's log.
            key = next((one for one in ("password", "passwd") if one in known), None)
            if key is None:
                raise UsageError(f"{entry.agent}, which switches the power of {name}, takes no password")
            secret = read_password(Path(entry.password_file))
            told[key] = secret
        text = "".join(f"{key}={_quoted(value)}\n" for key, value in told.items())
        return self._run(name, _Call(f"{entry.agent} action={action}", (entry.agent,), text, (secret,)))

    def _known(self, name: str, agent: str) -> frozenset[str]:
        """The options of an agent, which it prints as XML."""
        if agent not in self._parameters:
            done = self._run(name, _Call(f"{agent} action=metadata", (agent,), "action=metadata\n"))
            try:
                found = etree.fromstring(done.stdout.encode(), etree.XMLParser(resolve_entities=False))
            except (etree.XMLSyntaxError, ValueError):
                raise InfrastructureError(f"{agent} does not say which options it has: {done.message[:200]}") from None
            names = (str(one.get("name")) for one in found.iter("parameter"))
            self._parameters[agent] = frozenset(names)
        return self._parameters[agent]

    def _run(self, name: str, call: _Call) -> Completed:
        with logs.timed("command", logs.CONTROLLER, f"{call.shown} (the power of {name})", self._lab) as logged:
            done = _run(name, call)
            logged.status = done.status
        return done


def read_password(path: Path) -> str:
    """The password that is the one line of a file; :class:`UsageError` where others may read that, or it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"the password file {path} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"the password file {path} is no file")
        if found.st_uid not in (0, os.geteuid()):
            raise UsageError(f"the password file {path} belongs to another user")
        if found.st_mode & 0o077:
            raise UsageError(f"the password file {path} can be read by others than its owner; chmod 600 {path}")
        lines = file.read(4096).split(b"\n")
    try:
        first, rest = lines[0].removesuffix(b"\r").decode("utf-8"), b"".join(lines[1:])
    except UnicodeDecodeError:
        raise UsageError(f"the password file {path} is no text in UTF-8") from None
    if not first or rest.strip() or not first.isprintable():
        raise UsageError(f"the password file {path} has to have one line, the password")
    return first


def _quoted(value: str) -> str:
    """As an agent reads it: blanks around a value are lost, and so is a pair of quotes, unless it stands in a pair."""
    plain = value == value.strip() and not (value[:1] == value[-1:] == '"')
    return value if plain else f'"{value}"'


def _run(name: str, call: _Call) -> Completed:
    """Run it in a session of its own, which ends as a whole when it takes too long."""
    began, seconds = time.monotonic(), CALL_SECONDS * patience()
    program = shutil.which(call.argv[0], path=programs())
    if program is None:
        raise InfrastructureError(
            f"the power of {name} is switched by {call.argv[0]}, which is not on this machine{_package(call.argv[0])}"
        )
    # In memory alone, as a secret may be in it.  Not by pipes: what a command leaves running would hold them open.
    with os.fdopen(os.memfd_create("out"), "w+b") as out, os.fdopen(os.memfd_create("err"), "w+b") as err:
        try:
            process = subprocess.Popen(
                [program, *call.argv[1:]], stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True,
                env=os.environ | ENGLISH | {"PATH": programs()},
            )  # fmt: skip
        except OSError as error:
            raise InfrastructureError(f"the power of {name}: {call.argv[0]} cannot be run: {error.strerror}") from None
        try:
            process.communicate(call.stdin.encode(), timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            raise DeadlineError(
                f"'{call.shown}' for the power of {name} did not end within {seconds:.0f} s, and was ended"
            ) from None
        except BaseException:
            _end(process)
            raise
        said, errors = (_NOISE.sub("", _hidden(_read(file), call.secrets)) for file in (out, err))
    return Completed(logs.CONTROLLER, (call.shown,), process.returncode, said, errors, time.monotonic() - began)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started; what is another user's (by sudo) cannot be, and is not waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_ENDED_SECONDS)


def _hidden(text: str, secrets: Collection[str]) -> str:
    # The longest first: one may be a part of another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _package(agent: str) -> str:
    if not agent.startswith("fence_"):
        return ""
    split = agent.replace("_", "-", 1).replace("fence-", "fence-agents-")
    return f" (package fence-agents or {split}, of Debian and Ubuntu as of Fedora, RHEL and SUSE)"


def power_lines(power: MachinePower, names: Sequence[str]) -> tuple[list[str], bool]:
    """What to say of each machine's power, and whether the status of all is known."""
    lines, known = [], True
    for name in names:
        try:
            if not power.way(name):
                lines.append(f"{name}: no 'power' in the inventory; cells that cut it are REFUSED")
                continue
            lines.append(f"{name}: {ON if power.status(name) else OFF}, by {power.way(name)}")
        except HarnessError as error:
            lines.append(f"{name}: {error}")
            known = False
    return lines, known
