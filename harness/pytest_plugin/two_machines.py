"""The lab of a run: virtual machines, or the two of an inventory with what is installed there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from harness.config import inventory
from harness.config.hardware_rules import require_playable
from harness.config.inventory import DISK, Inventory
from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.errors import UsageError
from harness.images import check_stack
from harness.lab.base import FullLab
from harness.lab.hardware.provider import HARDWARE, hardware_lab
from harness.lab.nested.accel import likely
from harness.lab.nested.provider import nested_lab
from harness.model import Cell, ClientKind
from harness.pytest_plugin.options import IMAGE_OPTIONS, INVENTORY_OPTIONS, STACK_OPTIONS, flag
from harness.util.paths import cache_dir

# What says what virtual machines are made of.
_OF_VIRTUAL = ("suite", "guest_suite", "memory_mib", *STACK_OPTIONS, *IMAGE_OPTIONS)


def inventory_options(config: pytest.Config) -> dict[str, str]:
    """The inventory that was given and its group as a lab spec has them; empty without one.

    :class:`~harness.errors.UsageError` where it cannot be used, or another option is only for virtual machines.
    """
    given = {name: config.getoption(flag(name)) for name in INVENTORY_OPTIONS}
    if given["inventory"] is None:
        if given["inventory_group"] is not None:
            raise UsageError(f"{flag('inventory_group')} is a group in an inventory: give it with {flag('inventory')}")
        return {}
    for name in _OF_VIRTUAL:
        if config.getoption(flag(name)) is not None:
            raise UsageError(
                f"{flag(name)} is for virtual machines that the harness makes; on those of an inventory what is "
                "installed is what is tested"
            )
    path = Path(given["inventory"]).absolute()
    inventory.load(path, given["inventory_group"])
    return {"inventory": str(path), "inventory_group": given["inventory_group"] or ""}


def inventory_of(spec: LabSpec) -> Inventory | None:
    """The inventory of a run's lab; None where its lab is made of virtual machines."""
    return inventory.load(Path(spec.inventory), spec.inventory_group or None) if spec.inventory else None


def lab_of(spec: LabSpec, stack: StackSpec, directory: Path, cells: Iterable[Cell]) -> AbstractContextManager[FullLab]:
    """The lab that a run asks for; the consoles of virtual machines go below its ``directory``.

    What guests are made of is brought to real machines only where one of ``cells`` is in a guest; who else would lose
    its power is asked only where one of them cuts it, and what their NICs gather where one of them needs it.
    """
    if (found := inventory_of(spec)) is not None:
        cells = list(cells)
        guests = any(cell.client is ClientKind.GUEST for cell in cells)
        gathers = any(cell.replication.scatter_gather for cell in cells)
        cuts = any(cell.cuts_power for cell in cells)
        return hardware_lab(found, spec, guests=guests, cuts=cuts, gathers=gathers)
    return nested_lab(spec, stack, directory / spec.name)


def likely_accelerator(spec: LabSpec) -> str:
    """How the nodes of such a lab are made, as far as is known before it is there."""
    return HARDWARE if spec.inventory else likely(cache_dir())


def require_stack(spec: LabSpec, stack: StackSpec) -> None:
    """What virtual machines are made of can be had (:func:`~harness.images.check_stack`); on real ones it is there."""
    if not spec.inventory:
        check_stack(stack)


def require_playable_on(spec: LabSpec, cells: Iterable[Cell], device_mib: Callable[[Cell], int]) -> None:
    """:class:`~harness.errors.UsageError` where one of ``cells`` cannot be played on the machines of the run, or needs
    a larger device than there will be.
    """
    if (found := inventory_of(spec)) is None:
        return
    cells = list(cells)
    require_playable(cells, found)
    if all(host.storage.kind == DISK for host in found.hosts):
        return
    for cell in cells:
        if (needed := device_mib(cell)) > found.size_mib:
            raise UsageError(
                f"{cell.id} needs a device of {needed} MiB, and {found.path} has size_mib = {found.size_mib}"
            )
