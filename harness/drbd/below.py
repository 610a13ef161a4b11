"""Changes on a node's lower device below DRBD, on purpose: what an oracle has to find."""

from __future__ import annotations

from collections.abc import Iterable

from harness.lab.node import Node
from harness.model import PlantedChange, PlantedKind

_OVERWRITE = """
set -e
lower=$(readlink -f "$lower")
for run in "$@"; do
    start=${run%+*}; size=${run#*+}
    head -c $((size * 512)) /dev/urandom |
        dd of="$lower" bs=512 seek="$start" oflag=direct conv=notrunc iflag=fullblock status=none
done
"""
_INVERT = r"""
set -e
lower=$(readlink -f "$lower")
sector=$(mktemp)
trap 'rm -f "$sector"' EXIT
for place in "$@"; do
    start=${place%+*}; byte=${place#*+}
    dd if="$lower" of="$sector" bs=512 skip="$start" count=1 iflag=direct status=none
    old=$(od -An -tu1 -j "$byte" -N1 "$sector")
    printf "\\$(printf %03o $((255 - old)))" | dd of="$sector" bs=1 seek="$byte" conv=notrunc status=none
    dd if="$sector" of="$lower" bs=512 seek="$start" oflag=direct conv=notrunc status=none
done
"""


def plant(node: Node, changes: Iterable[PlantedChange]) -> None:
    """Make exactly ``changes`` on ``node``, around every cache: sectors become random, a byte is inverted.

    Nobody else may write there meanwhile.  Blocks until it is written; :class:`~harness.errors.CommandError` when the
    device does not take it.
    """
    changes = list(changes)
    if changes:
        node.require_lower("changes below DRBD")
    sectors = [f"{one.start}+{one.size}" for one in changes if one.kind is PlantedKind.SECTORS]
    inverted = [f"{one.start}+{one.byte}" for one in changes if one.kind is PlantedKind.BYTE]
    for script, places in ((_OVERWRITE, sectors), (_INVERT, inverted)):
        if places:
            node.runner.run(["env", f"lower={node.lower}", "sh", "-c", script, "sh", *places])
