"""The two machines of an inventory: reached over ssh with pinned host keys, as root or by way of ``sudo -n``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.config.inventory import Host, Inventory
from harness.config.machine_tools import needed
from harness.errors import HarnessError, InfrastructureError, LostNodeError, UsageError
from harness.lab.hardware.guard import Guard, Machine
from harness.model.disks import MIB
from harness.parse.machine import SCRIPT, MachineFacts, machine_facts
from harness.remote.base import Runner
from harness.remote.host_keys import require_pinned
from harness.remote.ssh import SshRunner

CONNECT_SECONDS = 15.0
# What is read is English, and found where an ordinary user's path does not lead.
_ENVIRONMENT = ("env", "LC_ALL=C", "LANGUAGE=", "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
#: By this the journal finds what commands of a run that was killed still do; ``programs/journal.py`` looks for it.
LAB_VARIABLE = "DRBD_HARNESS_LAB"


class ReachedHost(Protocol):
    """A machine of an inventory, as far as it takes to reach it."""

    @property
    def name(self) -> str:
        """Its name in the inventory."""
        ...

    @property
    def address(self) -> str:
        """Where ssh finds it."""
        ...

    @property
    def port(self) -> int:
        """That of its sshd."""
        ...

    @property
    def user(self) -> str:
        """Root, or somebody who may 'sudo -n'."""
        ...

    @property
    def key(self) -> Path | None:
        """The private key; None for the agent's and the user's own."""
        ...


@dataclass(frozen=True)
class FoundMachine:
    """A machine that answered: what it says of itself, and the guard of its storage."""

    host: Host
    facts: MachineFacts
    guard: Guard


@contextlib.contextmanager
def connected(
    inventory: Inventory, pin_command: str, tools: Sequence[str] = ()
) -> Iterator[tuple[FoundMachine, FoundMachine]]:
    """Both machines, looked at and not changed; the connections end with the context.

    ``tools`` are programs that are looked for beside those that a lab needs.  ``pin_command`` is the command that pins
    a host key, up to the machine's name.  Blocks for at most some minutes.
    :class:`~harness.errors.HostKeyError`, :class:`~harness.errors.LostNodeError`.
    """
    with contextlib.ExitStack() as undo:
        one, other = (_connect(inventory, host, pin_command, undo, tools) for host in inventory.hosts)
        _require_two(one, other)
        yield one, other


@contextlib.contextmanager
def reachable(inventory: Inventory, pin_command: str) -> Iterator[tuple[list[FoundMachine], list[HarnessError]]]:
    """Those of the two that can be reached, as :func:`connected` has them, and why each of the others cannot."""
    with contextlib.ExitStack() as undo:
        found: list[FoundMachine] = []
        errors: list[HarnessError] = []
        for host in inventory.hosts:
            try:
                found.append(_connect(inventory, host, pin_command, undo))
            except InfrastructureError as error:
                errors.append(error)
        if len(found) == 2:
            _require_two(*found)
        yield found, errors


def _require_two(one: FoundMachine, other: FoundMachine) -> None:
    require_two_machines((one.host.name, one.facts), (other.host.name, other.facts))


def require_two_machines(*found: tuple[str, MachineFacts]) -> None:
    """:class:`~harness.errors.UsageError` where both names lead to one machine."""
    (one, its), (other, others) = found
    if its["boot"] and its["boot"] == others["boot"]:
        raise UsageError(f"{one} and {other} are one machine: both addresses lead to it")


def _connect(
    inventory: Inventory, host: Host, pin_command: str, undo: contextlib.ExitStack, more: Sequence[str] = ()
) -> FoundMachine:
    tools = (*needed(host.storage.kind), *more)
    runner, facts = reached(
        host, inventory.known_hosts, inventory.name, pin_command, undo, tools, host.replication_nic
    )  # fmt: skip
    machine = Machine(host.name, runner, facts["python"] or "python3")
    guard = Guard(machine, host.storage, inventory.name, inventory.size_mib * MIB, inventory.owner)
    return FoundMachine(host, facts, guard)


def reached(
    host: ReachedHost, known_hosts: Path, lab: str, pin_command: str, undo: contextlib.ExitStack,
    tools: Sequence[str], nic: str = "",
) -> tuple[SshRunner, MachineFacts]:  # fmt: skip
    """A connection to ``host``, as root, and what the machine says of itself and of ``tools``; ``undo`` ends it.

    ``lab`` may be empty: then no journal takes its commands for those of a lab.
    :class:`~harness.errors.HostKeyError`, :class:`~harness.errors.LostNodeError`.
    """
    require_pinned(host.name, host.address, host.port, known_hosts, f"{pin_command} {host.name}=")
    escalation = () if host.user == "root" else ("sudo", "-n", "--")
    named = (f"{LAB_VARIABLE}={lab}",) if lab else ()
    runner = SshRunner(
        host.address, host.port, key=host.key, known_hosts=known_hosts, name=host.name, user=host.user,
        lab=lab, before=(*escalation, *_ENVIRONMENT, *named),
    )  # fmt: skip
    undo.callback(runner.close)
    runner.connect(CONNECT_SECONDS)
    done = runner.run(_question(tools, nic), ok=())
    if done.status:
        how = "become root by 'sudo -n'" if escalation else "run a command"
        raise LostNodeError(f"{host.user} on {host.name} cannot {how}: {done.message}")
    facts = machine_facts(done.stdout)
    if facts["user"] != "0":
        raise LostNodeError(f"{host.user} on {host.name} is not root there, but has the number {facts['user']}")
    return runner, facts


def facts_now(runner: Runner) -> MachineFacts:
    """What the machine says of itself at this moment; :class:`~harness.errors.CommandError` where it says nothing."""
    return machine_facts(runner.run(_question()).stdout)


def _question(tools: Sequence[str] = (), nic: str = "") -> list[str]:
    return ["sh", "-c", f"tools='{' '.join(tools)}' nic='{nic}'\n{SCRIPT}"]
