"""The end of a guest's QEMU on a node: by libvirt, or by its process where libvirt does not do it."""

from __future__ import annotations

import libvirt

from harness.errors import HarnessError
from harness.lab.node import Node
from harness.util import logs

KILL_SECONDS = 20.0
#: In a shell on the node: libvirt's file with the process of the QEMU of domain ``$1``.
PID_FILE = "/run/libvirt/qemu/$1.pid"
_NO_PROCESS = 3
# One that was stopped ends too; it is waited for, since it has the disk open until it is gone.
_KILL = f"""
pid=$(cat "{PID_FILE}" 2>/dev/null) || {{ echo "no QEMU of $1 runs" >&2; exit {_NO_PROCESS}; }}
kill -9 "$pid" 2>/dev/null
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
"""


def kill(node: Node, name: str) -> None:
    """Kill the guest's QEMU with SIGKILL and wait until it is gone, 20 s at most: nothing in it gets to finish.

    :class:`~harness.errors.CommandError` where there is none, :class:`~harness.errors.DeadlineError` where it stays.
    """
    node.runner.run(["sh", "-c", _KILL, "sh", name], timeout=KILL_SECONDS)


def end(node: Node, name: str, *, by_libvirt: bool = True) -> bool:
    """End the guest on ``node``, by libvirt or else by its process; whether it has ended.

    Otherwise it would hold the disk and write on, unseen.  ``by_libvirt``: whether libvirt is asked at all, which takes
    a minute where it does not answer.
    """
    if by_libvirt:
        try:
            # Over the guest's own connection a call of somebody else's may be under way.
            with logs.timed("libvirt", node.name, f"destroy {name}", node.runner.lab):
                node.monitor_connection.lookupByName(name).destroy()
            return True
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return True
        except HarnessError:
            pass
    try:
        node.runner.run(["sh", "-c", _KILL, "sh", name], timeout=KILL_SECONDS, ok=(0, _NO_PROCESS))
    except HarnessError:
        return False
    return True
