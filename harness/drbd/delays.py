"""What makes the in-flight window longer: netem on the replication link, dm-delay below DRBD; also a disk that fails.

All of it is in the kernel of one node and gone after its boot.  Each function is one round trip to the node, blocks
for at most 60 s and raises :class:`~harness.errors.CommandError` when a command there fails, and
:class:`~harness.errors.InfrastructureError` where the lower device cannot be delayed.  Two threads may work on two
nodes at the same time, but not on the same one.
"""

from __future__ import annotations

from harness.drbd import changes
from harness.errors import InfrastructureError
from harness.lab.node import Node
from harness.model import DelayProfile
from harness.parse.delays import dm_delays_ms, netem_delay_ms
from harness.render.drbd_conf import ResourceSpec

# Only DRBD is delayed: TCP sends little more than a millisecond's worth into a queue on its own machine, so that a
# migration over the same link would crawl (1.7 MB/s with 20 ms).
_APPLY = """
set -e
link=$1 link_ms=$2 disk_ms=$3 flush_ms=$4 lower=$5 port=$6 mapping=$7
[ -z "$link" ] || require_own_qdisc "$link"
[ -z "$link" ] || tc qdisc del dev "$link" root 2>/dev/null || true
if [ "$link_ms" -gt 0 ]; then
    tc qdisc add dev "$link" root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
    tc qdisc add dev "$link" parent 1:3 handle 30: netem delay "$link_ms"ms limit 20000
    for side in sport dport; do
        tc filter add dev "$link" parent 1: protocol ip u32 match ip "$side" "$port" 0xffff flowid 1:3
    done
fi
[ -n "$mapping" ] || exit 0
lower=$(readlink -f "$lower"); sectors=$(blockdev --getsz "/dev/mapper/$mapping")
case "$(dmsetup table "$mapping")" in *" linear "*) plain=1;; *) plain=0;; esac
if [ "$flush_ms" -gt 0 ]; then
    table="0 $sectors delay $lower 0 0 $lower 0 $disk_ms $lower 0 $flush_ms"
elif [ "$disk_ms" -gt 0 ]; then table="0 $sectors delay $lower 0 0 $lower 0 $disk_ms"
elif [ "$plain" = 0 ]; then table="0 $sectors linear $lower 0"
else exit 0; fi
dmsetup load "$mapping" --table "$table"
dmsetup suspend "$mapping"
dmsetup resume "$mapping"
"""
_OBSERVE = 'tc -j qdisc show dev "$1"; echo ==; [ -z "$2" ] || dmsetup table "$2"'
_BREAK = """
set -e
sectors=$(blockdev --getsz "/dev/mapper/$1")
dmsetup load "$1" --table "0 $sectors error"
dmsetup suspend --noflush --nolockfs "$1"
dmsetup resume "$1"
"""


def apply(node: Node, spec: ResourceSpec, profile: DelayProfile) -> None:
    """Delay what ``node`` sends for ``spec``'s resource, and what it writes to the lower device and flushes there.

    An empty ``profile`` clears all of it.  A delay of the disk alone delays flushes by as much too.  Of a link that is
    not the lab's nothing is changed: :class:`~harness.errors.RefusedError` where it is to be delayed.
    """
    if profile.link_delay_ms:
        changes.note_delay(node)
    if profile.disk_delay_ms or profile.flush_delay_ms:
        _needs_mapping(node, spec)
    milliseconds = (profile.link_delay_ms, profile.disk_delay_ms, profile.flush_delay_ms)
    argv = [
        "sh",
        "-c",
        changes.REQUIRE_OWN_QDISC + _APPLY,
        "sh",
        node.link if changes.touches_link(node) else "",
        *map(str, milliseconds),
        node.lower,
    ]
    node.runner.run([*argv, str(spec.port), spec.mapping])


def observed(node: Node, spec: ResourceSpec) -> DelayProfile:
    """The delays that are on right now on ``node``, read back from tc and device-mapper.

    Whoever put them on, and whether or not :func:`apply` was to take them off; what cannot be read is an error, not 0.
    """
    answer = node.runner.run(["sh", "-c", _OBSERVE, "sh", node.link, spec.mapping]).stdout
    link, _, table = answer.partition("==")
    try:
        return DelayProfile(netem_delay_ms(link), *(dm_delays_ms(table) if spec.mapping else (0, 0)))
    except ValueError as error:
        raise InfrastructureError(f"the delays on {node.name} cannot be read back: {error}") from None


def break_disk(node: Node, spec: ResourceSpec) -> None:
    """Let every request to the lower device of ``node`` fail from now on; :func:`apply` ends it."""
    _needs_mapping(node, spec)
    node.runner.run(["sh", "-c", _BREAK, "sh", spec.mapping])


def _needs_mapping(node: Node, spec: ResourceSpec) -> None:
    if not spec.mapping:
        raise InfrastructureError(
            f"the lower device of {spec.name} on {node.name} is no device-mapper table of the harness, so that it can "
            "be neither delayed nor broken"
        )
    node.require_lower("another table of the mapping on it")
