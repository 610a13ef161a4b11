"""The two machines of an inventory: reached over ssh with pinned host keys, as root or by way of ``sudo -n``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.config.inventory import Host, Inventory
from harness.config.machine_tools import needed
from harness.errors import HarnessError, InfrastructureError, LostNodeError, UsageError
from harness.lab.hardware.guard import Guard, Machine
from harness.model.disks import MIB
from harness.parse.machine import SCRIPT, MachineFacts, machine_facts
from harness.remote.host_keys import require_pinned
from harness.remote.ssh import SshRunner

CONNECT_SECONDS = 15.0
# What is read is English, and found where an ordinary user's path does not lead.
_ENVIRONMENT = ("env", "LC_ALL=C", "LANGUAGE=", "PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
#: By this the journal finds what commands of a run that was killed still do; ``programs/journal.py`` looks for it.
LAB_VARIABLE = "DRBD_HARNESS_LAB"


@dataclass(frozen=True)
class FoundMachine:
    """A machine that answered: what it says of itself, and the guard of its storage."""

    host: Host
    facts: MachineFacts
    guard: Guard


@contextlib.contextmanager
def connected(inventory: Inventory, pin_command: str) -> Iterator[tuple[FoundMachine, FoundMachine]]:
    """Both machines, looked at and not changed; the connections end with the context.

    ``pin_command`` is the command that pins a host key, up to the machine's name.  Blocks for at most some minutes.
    :class:`~harness.errors.HostKeyError`, :class:`~harness.errors.LostNodeError`.
    """
    with contextlib.ExitStack() as undo:
        one, other = (_connect(inventory, host, pin_command, undo) for host in inventory.hosts)
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
    if one.facts["boot"] and one.facts["boot"] == other.facts["boot"]:
        raise UsageError(f"{one.host.name} and {other.host.name} are one machine: both addresses lead to it")


def _connect(inventory: Inventory, host: Host, pin_command: str, undo: contextlib.ExitStack) -> FoundMachine:
    require_pinned(host.name, host.address, host.port, inventory.known_hosts, f"{pin_command} {host.name}=")
    escalation = () if host.user == "root" else ("sudo", "-n", "--")
    runner = SshRunner(
        host.address, host.port, key=host.key, known_hosts=inventory.known_hosts, name=host.name, user=host.user,
        lab=inventory.name, before=(*escalation, *_ENVIRONMENT, f"{LAB_VARIABLE}={inventory.name}"),
    )  # fmt: skip
    undo.callback(runner.close)
    runner.connect(CONNECT_SECONDS)
    settings = f"tools='{' '.join(needed(host.storage.kind))}' nic='{host.replication_nic}'"
    done = runner.run(["sh", "-c", f"{settings}\n{SCRIPT}"], ok=())
    if done.status:
        how = "become root by 'sudo -n'" if escalation else "run a command"
        raise LostNodeError(f"{host.user} on {host.name} cannot {how}: {done.message}")
    facts = machine_facts(done.stdout)
    if facts["user"] != "0":
        raise LostNodeError(f"{host.user} on {host.name} is not root there, but has the number {facts['user']}")
    machine = Machine(host.name, runner, facts["python"] or "python3")
    guard = Guard(machine, host.storage, inventory.name, inventory.size_mib * MIB, inventory.owner)
    return FoundMachine(host, facts, guard)
