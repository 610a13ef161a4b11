"""Whether a node answers, and what libvirt and QEMU printed on it."""

from __future__ import annotations

from harness.errors import LostNodeError
from harness.lab.node import Node
from harness.util.logs import progress

# At most 1 MiB of each; what there is none of is left out.
_LIBVIRT_LOGS = r"""
for log in /var/log/libvirt/qemu/*.log; do
    [ -e "$log" ] && echo "== $log" && tail -c 1048576 "$log"
done
journalctl --boot --no-pager --unit libvirtd --unit virtqemud --unit virtlogd --unit ssh --unit sshd 2> /dev/null |
    tail -c 1048576
true
"""
_OWN_LOG = 'tail -c 1048576 "/var/log/libvirt/qemu/$1.log"'
_LOGS_SECONDS = 20.0


def libvirt_logs(node: Node, guest: str) -> str:
    """What QEMU, libvirt's daemons and sshd printed on ``node`` since it booted; takes at most 100 s.

    On a machine that is somebody's, what the QEMU of ``guest`` printed, and of nobody else.
    """
    require_shell(node)
    if node.somebodys:
        return node.runner.run(["sh", "-c", _OWN_LOG, "sh", guest], timeout=_LOGS_SECONDS, ok=()).stdout
    return node.runner.run(["sh", "-c", _LIBVIRT_LOGS], timeout=_LOGS_SECONDS, ok=()).stdout


def require_shell(node: Node) -> None:
    """``node`` runs commands, if need be over a new connection; :class:`HarnessError` where that is no help."""
    try:
        node.runner.run(["true"], timeout=20)
    except LostNodeError as error:
        if not node.connect_again():
            raise
        progress(f"connected to {node.name} anew: {error}")
        node.runner.run(["true"], timeout=20)
