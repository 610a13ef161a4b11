"""The commands ``status`` and ``clean``: what the harness left on this machine, or on those of an inventory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.inventory import GroupOption, command_of, pin_command
from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.util import logs
from harness.util.paths import log_dir

if TYPE_CHECKING:
    from harness.config.inventory import Inventory
    from harness.lab.hardware.journal import Journal
    from harness.lab.hardware.lease import Holder
    from harness.lab.hardware.machines import FoundMachine


def status() -> None:
    """What the harness has on this machine: labs, domains, runs that hold the lease.  0 when there is nothing."""
    from harness.lab.nested.leftovers import leftovers

    found = leftovers()
    for what in found:
        print(what.sentence)
    if not found:
        print("nothing is left running")
    raise typer.Exit(0 if not found else 1)


def clean(
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="put back what this lab changed on the two machines of an inventory"),
    ] = None,
    group: GroupOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="with --inventory: only list what was changed")] = False,
) -> None:
    """End and remove every lab of this user on this machine, found by its label; with --inventory, put back there."""
    if inventory is not None:
        with logs.kept_below(log_dir(), "clean"):
            raise typer.Exit(_clean_machines(inventory, group, dry_run=dry_run))
    if group or dry_run:
        raise UsageError("--group and --dry-run belong to --inventory")
    from harness.lab.nested.leftovers import clean as remove

    with logs.kept_below(log_dir(), "clean"):
        gone = remove()
    for what in gone:
        print(f"removed {what}")
    if not gone:
        print("nothing was left")


def _clean_machines(file: Path, group: str | None, *, dry_run: bool) -> int:
    """Put back what the journals of both machines say of the lab, or list it; the exit code."""
    from harness.config.inventory import load
    from harness.lab.hardware.lease import Holder, held
    from harness.lab.hardware.machines import reachable
    from harness.lab.hardware.storage import lease_seconds

    found = load(file, group)
    with reachable(found, pin_command(file, group)) as (machines, errors):
        for error in errors:
            print(f"not reached: {error}; what was changed there stays as it is, and noted there")
        if errors and any(host.power for host in found.hosts):
            # A run that was killed may have cut it.
            print(f"'{command_of(file, group)} --power-status' says whether they have power")
        good = not errors
        if dry_run:
            for machine in machines:
                good &= _told(machine, found)
            return 0 if good else InfrastructureError.exit_code
        leases = [(machine.facts["boot"], machine.guard.machine) for machine in machines]
        holder = Holder.of_this_process(f"clean of {found.name}")
        with held(leases, holder, lease_seconds([machine.guard for machine in machines])):
            for machine in machines:
                good &= _put_back(machine, _journals(machine, found, holder), found.name)
    return 0 if good else InfrastructureError.exit_code


def _journals(machine: FoundMachine, found: Inventory, holder: Holder | None = None) -> tuple[Journal, Journal]:
    """That of what runs changed, and that of the guest's image, which stays between them."""
    from harness.lab.hardware.guest_image import images_journal
    from harness.lab.hardware.journal import Journal

    on = machine.guard.machine
    return Journal(on, found.name, holder), images_journal(on, found.name, holder)


def _told(machine: FoundMachine, found: Inventory) -> bool:
    """Print what is noted on one machine; whether it could be read."""
    name = machine.host.name
    try:
        entries = [entry for journal in _journals(machine, found) for entry in journal.entries()]
    except HarnessError as error:
        print(f"{name}: {error}")
        return False
    for entry in reversed(entries):
        print(f"{name}: {entry.words}")
    if not entries:
        print(f"{name}: nothing of the lab {found.name} is noted")
    return True


def _put_back(machine: FoundMachine, journals: tuple[Journal, Journal], lab: str) -> bool:
    """Put back what is noted on one machine and print it; whether all of it is as it was, or somebody else's."""
    from harness.lab.hardware.compare import remove_programs

    name = machine.host.name
    try:
        stays = journals[0].end_commands()
        remove_programs(machine.guard.machine)
        noted = [journal for journal in journals if journal.entries()]
        if not noted:
            print(f"{name}: nothing of the lab {lab} is noted")
            return not stays
        # What a guest boots from goes only when the guest has.
        back = [journal.put_back(machine.guard) for journal in noted]
    except HarnessError as error:
        print(f"{name}: {error}")
        return False
    for sentence in (*(one for each in back for one in (*each.done, *each.left, *each.failed)), *stays):
        print(f"{name}: {sentence}")
    return not (stays or any(one.failed for one in back))
