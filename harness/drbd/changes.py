"""What this room changes on a machine that is somebody's, in the words of its journal: noted before it is made."""

from __future__ import annotations

from harness.drbd.running import SENDPAGE_PARAMETER
from harness.errors import RefusedError
from harness.lab.node import Node
from harness.model import ReplicationProfile
from harness.model.changes import Change, ChangeKind
from harness.parse.system import offloads
from harness.render.drbd_conf import SIGNATURE, ResourceSpec

# As tc(8) and the journal's program call what harness/drbd/delays.py and faults.py make of a link.
_CUT, _DELAYED, _HALF_DELAYED = "netem loss", "prio 1: + netem 30:", "prio 1:"
#: A function of a shell's: a qdisc that somebody has put on the NIC since is neither replaced nor taken away.
REQUIRE_OWN_QDISC = """
require_own_qdisc() {
    case "$(tc qdisc show dev "$1" | grep ' root ')" in
        '' | *' 0: root '* | 'qdisc prio 1: root '* | 'qdisc netem '*' loss 100%'*) ;;
        *) echo "$1 has a qdisc of somebody else's by now" >&2; exit 1 ;;
    esac
}
"""
_READ = 'cat "$1" 2> /dev/null || echo; ethtool -k "$2"'


def note_module(node: Node) -> None:
    """DRBD's module is about to be loaded on ``node``."""
    node.note(Change(ChangeKind.MODULE, "drbd"))


def note_resource(node: Node, spec: ResourceSpec) -> None:
    """The resource is about to be brought up on ``node``, over its mapping; the guard of the lower device is asked."""
    node.require_lower("a mapping on it")
    signed = (f"begins {SIGNATURE}",)
    modules = [Change(ChangeKind.MODULE, name) for name in ("drbd", "dm-delay")]
    mapping = [Change(ChangeKind.MAPPING, spec.mapping, (spec.mapping_uuid,))] if spec.mapping else []
    # Half of the file is in the second one for a moment.
    files = [Change(ChangeKind.FILE, path, signed) for path in (spec.path, f"{spec.path}.new")]
    node.note(*modules, *mapping, *files, Change(ChangeKind.RESOURCE, spec.name, signed, spec.path))


def note_delay(node: Node) -> None:
    """What ``node`` sends over its link is about to be delayed.  The kernel loads the modules of it by itself.

    :class:`~harness.errors.RefusedError` where the link is not the lab's, and nobody would put it back.
    """
    _require_link(node)
    modules = [Change(ChangeKind.MODULE, name) for name in ("sch_prio", "sch_netem", "cls_u32")]
    node.note(*modules, Change(ChangeKind.QDISC, node.link, (_HALF_DELAYED, _DELAYED)))


def note_cut(node: Node) -> None:
    """The link of ``node`` is about to be cut; what it refuses is as with a delay."""
    _require_link(node)
    node.note(Change(ChangeKind.MODULE, "sch_netem"), Change(ChangeKind.QDISC, node.link, (_CUT,)))


def touches_link(node: Node) -> bool:
    """Whether a qdisc on the link of ``node`` is the harness's, and may be taken away."""
    return node.own_link if node.journal is None else node.journal.has_noted(ChangeKind.QDISC, node.link)


def _require_link(node: Node) -> None:
    if not node.own_link and node.journal is None:
        raise RefusedError(f"the harness on {node.name}", f"{node.link} is not the lab's, and is not delayed")


def note_kernel_settings(node: Node, replication: ReplicationProfile) -> None:
    """The parameter of DRBD's module and the NIC's feature that ``replication`` asks for are about to be set.

    Only what is not so already is a change; nothing is asked on a node of the harness's own.
    """
    if node.journal is None:
        return
    text = node.runner.run(["sh", "-c", _READ, "sh", SENDPAGE_PARAMETER, node.link], ok=()).stdout
    parameter, _, features = text.partition("\n")
    gather, wanted = offloads(features).get("scatter-gather"), replication.scatter_gather
    if parameter.strip() and (parameter.strip() == "Y") != replication.disable_sendpage:
        value = "Y" if replication.disable_sendpage else "N"
        node.note(Change(ChangeKind.MODULE_PARAMETER, SENDPAGE_PARAMETER, (value,)))
    if gather is not None and gather != wanted:
        node.note(Change(ChangeKind.NIC_FEATURE, f"{node.link} sg", ("on" if wanted else "off",)))
