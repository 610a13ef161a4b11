"""The command ``inventory``: two real machines, what they have, what would be written on them, and doing only that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import InfrastructureError, ProtectedError, UsageError
from harness.util import logs
from harness.util.paths import log_dir, own_command

if TYPE_CHECKING:
    from harness.config.inventory import Inventory
    from harness.lab.hardware.guard import Guard
    from harness.lab.hardware.machines import FoundMachine, ReachedHost
    from harness.model.disks import MachineDisks

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="TOML, or what 'ansible-inventory --list' printed")]
GroupOption = Annotated[str | None, typer.Option(help="the two hosts, in an inventory of Ansible's")]
_EMPTY = "not there"


def inventory(
    file: FileArgument,
    group: GroupOption = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST=SHA256:...", help="pin a machine's host key, which you have compared"),
    ] = None,
    make_storage: Annotated[
        bool, typer.Option("--make-storage", help="make the lower devices, as the plan says")
    ] = False,
    remove_storage: Annotated[bool, typer.Option("--remove-storage", help="take back what was made of them")] = False,
    power_status: Annotated[
        bool, typer.Option("--power-status", help="only ask by 'power' whether each machine has power")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would be written (as without options)")
    ] = False,
) -> None:
    """Look at two real machines and print what would be written there; nothing is, unless it is asked for."""
    from harness.config.inventory import load
    from harness.lab.hardware.lease import Holder, held
    from harness.lab.hardware.machines import connected
    from harness.lab.hardware.storage import lease_seconds

    if make_storage and remove_storage:
        raise UsageError("--make-storage and --remove-storage cannot be asked for together")
    found = load(file, group)
    with logs.kept_below(log_dir(), "inventory"):
        if pin:
            pin_keys(found.hosts, found.path, found.known_hosts, pin)
            return
        if power_status:
            raise typer.Exit(0 if _show_power(found) else InfrastructureError.exit_code)
        with connected(found, pin_command(file, group)) as machines:
            looks = [_show(machine, making=not remove_storage) for machine in machines]
            good = _judged(machines, looks, making=not remove_storage)
            if dry_run or not (make_storage or remove_storage):
                raise typer.Exit(0 if good else ProtectedError.exit_code)
            what = "--make-storage" if make_storage else "--remove-storage"
            guards = [machine.guard for machine in machines]
            leases = [(machine.facts["boot"], machine.guard.machine) for machine in machines]
            with held(leases, Holder.of_this_process(f"inventory {what} of {found.name}"), lease_seconds(guards)):
                _do(guards, making=make_storage)


def locks(
    file: FileArgument,
    group: GroupOption = None,
    break_lease: Annotated[
        list[str] | None, typer.Option("--break", metavar="HOST", help="break a machine's lease, whoever holds it")
    ] = None,
) -> None:
    """Who uses the two machines of an inventory; --break ends a lease that nobody gives back, and keeps who did."""
    from harness.config.inventory import load
    from harness.lab.hardware.lease import Holder, broken, shown
    from harness.lab.hardware.machines import reachable

    found = load(file, group)
    names = [host.name for host in found.hosts]
    for name in break_lease or ():
        if name not in names:
            raise UsageError(f"--break: there is no machine '{name}' in {file}; there are {', '.join(names)}")
    # One that has no power holds nobody off, and keeps no lease of the other from being seen or broken.
    with logs.kept_below(log_dir(), "locks"), reachable(found, pin_command(file, group)) as (machines, errors):
        for error in errors:
            print(f"not reached: {error}")
        for machine in machines:
            if machine.host.name in (break_lease or ()):
                was = broken(machine.guard.machine, Holder.of_this_process("locks --break"))
                print(f"{machine.host.name}: broken; before, {was}")
            else:
                print(f"{machine.host.name}: {shown(machine.guard.machine)}")
    raise typer.Exit(InfrastructureError.exit_code if errors else 0)


def _do(guards: Sequence[Guard], *, making: bool) -> None:
    """Make the lower devices of both machines, or take them back, and say so."""
    from harness.lab.hardware.storage import make, remove

    if making:
        for guard, path in zip(guards, make(guards), strict=True):
            print(f"{guard.machine.name}: the lower device is {path}")
        return
    for guard in guards:
        print(f"{guard.machine.name}: {'taken back' if remove(guard) else 'nothing of the harness was there'}")


def pin_command(file: Path, group: str | None) -> str:
    """The command that pins a host key, up to the machine's name."""
    return f"{command_of(file, group)} --pin"


def command_of(file: Path, group: str | None) -> str:
    """The command ``inventory`` of that file, for the user to go on with."""
    return f"{own_command()} inventory {file}{f' --group {group}' if group else ''}"


def _show_power(found: Inventory) -> bool:
    """Print each machine's power; whether that of all is known, as far as it can be switched."""
    from harness.lab.hardware.power import MachinePower, power_lines

    lines, known = power_lines(MachinePower(found.hosts, found.name), [host.name for host in found.hosts])
    print("\n".join(lines))
    return known


def pin_keys(hosts: Sequence[ReachedHost], path: Path, known_hosts: Path, wanted: Sequence[str]) -> None:
    """Pin the host keys that are ``wanted``, of the machines of the inventory ``path``, and say so."""
    from harness.remote.host_keys import pin

    named = {host.name: host for host in hosts}
    for one in wanted:
        name, _, fingerprint = one.partition("=")
        if name not in named:
            raise UsageError(f"--pin: there is no machine '{name}' in {path}; there are {', '.join(named)}")
        host = named[name]
        pin(name, host.address, host.port, known_hosts, fingerprint)
        print(f"{name}: the host key {fingerprint} is pinned in {known_hosts}")


def _judged(machines: Sequence[FoundMachine], looks: Sequence[MachineDisks], *, making: bool) -> bool:
    """Whether both machines may be written to as planned; what speaks against it was printed, or is here."""
    from harness.lab.hardware.guard import shared
    from harness.lab.hardware.storage import against

    if making and (why := shared((machines[0].guard, looks[0]), (machines[1].guard, looks[1]))):
        print(f"refused: {why}")
        return False
    return not any(against(one.guard, disks, making=making) for one, disks in zip(machines, looks, strict=True))


def _show(machine: FoundMachine, *, making: bool) -> MachineDisks:
    """Print what one machine is and what would be done there."""
    from harness.config.machine_tools import family, packages
    from harness.lab.hardware.storage import caution, plan

    host, facts, guard = machine.host, machine.facts, machine.guard
    print(f"{host.name}: {facts['distribution'] or 'an unknown distribution'}, kernel {facts['kernel']}")
    loaded = "loaded" if facts["drbd_loaded"] else "not loaded"
    drbd = (
        f"{facts['drbd_loaded'] or facts['drbd']} ({loaded}, {facts['drbd_srcversion']})" if facts["drbd"] else _EMPTY
    )
    resources = facts["drbd_resources"] or "none"
    print(f"  DRBD {drbd}, drbd-utils {facts['drbd_utils'] or _EMPTY}, resources of yours: {resources}")
    print(f"  QEMU {facts['qemu'] or _EMPTY}, libvirt {facts['libvirt'] or _EMPTY}, KVM {facts['kvm'] or 'no'}")
    nic = f"{host.replication_nic} ({facts['nic']})" if facts["nic"] else f"{host.replication_nic}, which is not there"
    there = "is on it" if host.replication_address in facts.addresses else "is not on it"
    print(f"  replication by {nic}; {host.replication_address} {there}")
    missing = [*facts.missing, *(name for name in ("qemu", "libvirt") if not facts[name])]
    missing += [] if facts["python"] else ["python3"]
    if missing:
        known = packages(family(facts["family"]), missing)
        print(
            f"  missing: {', '.join(f'{tool} (package {known[tool]})' if tool in known else tool for tool in missing)}"
        )
    disks = guard.look()
    if note := caution(guard):
        print(f"  {note}")
    steps = plan(guard, disks, making=making)
    for one in steps:
        print(f"  would be done: {one.words}")
        for why in one.refusals:
            print(f"    refused: {guard.subject}: {why}")
    if not steps:
        print("  nothing would be done")
    for why in guard.lack_of_room(disks) if making else ():
        print(f"    refused: {guard.subject}: {why}")
    return disks
