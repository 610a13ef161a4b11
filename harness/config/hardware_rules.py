"""What cannot be played on the machines of an inventory: said before anything on them is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from harness.config.inventory import Inventory
from harness.errors import UsageError
from harness.model import Cell, ClientKind, Fault, FilesystemKind, Layout, SwapOn
from harness.model.changes import ASKED_FOR, ChangeKind

_QDISC, _PARAMETER = ASKED_FOR[ChangeKind.QDISC], ASKED_FOR[ChangeKind.MODULE_PARAMETER]
_FEATURE = ASKED_FOR[ChangeKind.NIC_FEATURE]
# Workloads whose program only the harness's own images have, and those that are for a guest or a QEMU.
_PROGRAMS = ("mmap", "truncate", "pressure", "reclaim")
_NOT_OF_A_NODE = ("guest-script", "flush-probe", "flush-probe-raw-layer")


def require_playable(cells: Iterable[Cell], inventory: Inventory) -> None:
    """:class:`~harness.errors.UsageError` with the first of ``cells`` that the machines' lab cannot play, and why."""
    without = [host.name for host in inventory.hosts if host.power is None]
    for cell in cells:
        if why := unplayable(cell, inventory.may_change, without):
            raise UsageError(
                f"{cell.id} cannot be played on the machines of {inventory.path.name}: {why}; leave it out with -k, or "
                "play it on a lab of virtual machines"
            )


def unplayable(cell: Cell, may_change: Collection[str] = (), without_power: Sequence[str] = ()) -> str | None:
    """Why ``cell`` is not for two real machines, as an end of a sentence; None where it is.

    ``may_change``: what the inventory lets it change of what resources of the machines' owner feel too;
    ``without_power``: the machines for which it has no ``power``.
    """
    if cell.cuts_power and without_power:
        return f"it cuts the power of one, and the inventory has no 'power' for {' and '.join(without_power)}"
    if cell.sabotage is not None:
        return "what sabotages the instrument would change their settings"
    delayed, cut = bool(cell.delays.link_delay_ms), cell.fault is Fault.LINK_CUT
    if (delayed or cut) and _QDISC not in may_change:
        what = "cut" if cut else "delayed"
        return f'their replication link is not {what}, for it may be somebody\'s, without may_change = ["{_QDISC}"]'
    if cell.fault is Fault.LIBVIRTD_RESTART:
        return "their libvirt is not started anew, for it may have guests of somebody's"
    wanted = [*([_PARAMETER] if cell.replication.disable_sendpage else [])]
    wanted += [] if cell.replication.scatter_gather else [_FEATURE]
    if missing := [one for one in wanted if one not in may_change]:
        return (
            "a parameter of DRBD's module or a feature of their NIC would change for every resource on them, without "
            f'may_change = ["{missing[0]}"]'
        )
    if cell.layout is not Layout.RAW:
        return f"the layout '{cell.layout}' would make volume groups or mappings of its own on them"
    return _unplayable_by_node(cell) if cell.client is ClientKind.HOST else _unplayable_in_guest(cell)


def _unplayable_by_node(cell: Cell) -> str | None:
    if cell.crash is not None or cell.fault not in (None, Fault.STANDALONE):
        return f"'{cell.crash or cell.fault}' happens to a guest, and the client is the node itself"
    if cell.filesystem in (FilesystemKind.SWAP, FilesystemKind.SWAPFILE):
        return "swap of theirs would lie on DRBD"
    if cell.workload in _PROGRAMS:
        return f"the program of the workload '{cell.workload}' is in the harness's own images only"
    if cell.workload in _NOT_OF_A_NODE or cell.cache is not None:
        return f"the workload '{cell.workload}' is not for a node"
    return None


def _unplayable_in_guest(cell: Cell) -> str | None:
    if cell.guest_options.swap_on is SwapOn.GUEST_DISK:
        return "a disk of the guest's own would be a file on them that nothing puts back"
    return None
