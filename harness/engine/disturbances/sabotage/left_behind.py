"""What somebody left on the lab before the cell, and what a failed test leaves in its guest."""

from __future__ import annotations

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.sabotage.undo import DIRECTORY, undo
from harness.lab.node import Node
from harness.model import Sabotage

DELAY_MS = 20

# A guest that starts finds no place for its folder.  The file grows by whatever there is, without being written.
_FILL_DISK = """
virsh destroy "$2" >/dev/null 2>&1 || true
mkdir -p "$1"
sync
at=0 size=$(($(stat -f -c '%f * %S' "$1")))
while [ "$size" -ge 4096 ]; do
    if fallocate -o "$at" -l "$size" "$1/full" 2>/dev/null; then at=$((at + size)); else size=$((size / 2)); fi
done
echo $((at / 1048576))
"""


def leave_behind(run: CellRun) -> None:
    """What somebody left on the lab before the cell, or nothing; before anything that is in force is read."""
    a, b = run.context.nodes
    match run.cell.sabotage:
        case Sabotage.DELAY_LEFT_A:
            _leave_delay(run, a)
        case Sabotage.DELAY_LEFT_B:
            _leave_delay(run, b)
        case Sabotage.SCATTER_GATHER_OFF_A:
            _switch_scatter_gather_off(run, a)
        case Sabotage.SCATTER_GATHER_OFF_B:
            _switch_scatter_gather_off(run, b)
        case Sabotage.FULL_DISK:
            _fill_disk(run, a)


def leave_in_guest(run: CellRun) -> None:
    """Nothing is taken out of use in the guest, as by a test that failed; its disk is detached all the same."""
    what = "swap was left on" if run.cell.sabotage is Sabotage.SWAP_LEFT_ON else "a mount was left"
    run.context.log_event(f"sabotage: {what} in the guest whose disk is detached")


def _leave_delay(run: CellRun, node: Node) -> None:
    # It may have been taken off by the cell meanwhile, which is no error.
    undo(run, node.runner, ["sh", "-c", 'tc qdisc del dev "$1" root 2>/dev/null || true', "sh", node.link])
    node.runner.run(["tc", "qdisc", "replace", "dev", node.link, "root", "netem", "delay", f"{DELAY_MS}ms"])
    run.context.log_event(f"sabotage: a delay of {DELAY_MS} ms was left on the link of {node.name}")


def _switch_scatter_gather_off(run: CellRun, node: Node) -> None:
    undo(run, node.runner, ["ethtool", "-K", node.link, "sg", "on"])
    node.runner.run(["ethtool", "-K", node.link, "sg", "off"])
    run.context.log_event(f"sabotage: scatter-gather was switched off on the link of {node.name}")


def _fill_disk(run: CellRun, node: Node) -> None:
    """The disk that ``node`` boots from has no block left, and the guest has to be started."""
    undo(run, node.runner, ["rm", "-rf", DIRECTORY])
    argv = ["sh", "-ec", _FILL_DISK, "sh", DIRECTORY, run.context.lab.guest_spec.name]
    mebibytes = node.runner.run(argv, timeout=120).stdout.strip()
    run.context.log_event(f"sabotage: the guest was ended, and {mebibytes} MiB more filled the disk of {node.name}")
