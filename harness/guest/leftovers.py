"""What an earlier cell or a test left on in a guest that answers: swap, a mount, a device of device-mapper, a disk."""

from __future__ import annotations

from harness.errors import HarnessError
from harness.remote.base import Runner

_SECONDS = 20.0
_LEFT = "left on: "

# Between two cells a guest has no swap, no disk of a cell's, no device of device-mapper (its own root is none) and no
# mount of a device that is gone.  It says so by a program that it has to start, which one whose memory is on a swap
# device that is gone cannot.  $1 is "" in a guest.
_LOOK = r"""
{ read -r heading; while read -r file rest; do printf 'left on: swap on %s\n' "$file"; done; } < "$1/proc/swaps"
for disk in "$1"/sys/block/*; do
    serial=$(cat "$disk/serial" "$disk/device/vpd_pg80" 2> /dev/null | tr -cd a-z0-9-)
    case $serial in *cell-*) echo "left on: the disk ${disk##*/} of an earlier cell";; esac
done
for name in "$1"/sys/block/dm-*/dm/name; do
    [ ! -e "$name" ] || printf 'left on: the device-mapper device %s\n' "$(cat "$name")"
done
while read -r source point rest; do
    case $source in /dev/root) ;; /dev/mapper/* | /dev/[a-z]*)
        [ -e "$1/sys/class/block/${source##*/}" ] || [ -e "$1$source" ] ||
            printf 'left on: a mount at %s of %s, which is gone\n' "$point" "$source"
    esac
done < "$1/proc/mounts"
true
"""


def leftovers(runner: Runner, root: str = "") -> str | None:
    """Why the guest of ``runner`` cannot take a cell's disk, as half a sentence; None where nothing is in the way.

    Asked while it has no disk of a cell.  One that cannot run the program that looks has a reason too.  Takes at most
    80 s.  ``root`` is where its ``/proc``, ``/sys`` and ``/dev`` are.
    """
    try:
        looked = runner.run(["sh", "-c", _LOOK, "sh", root], timeout=_SECONDS)
    except HarnessError as error:
        return f"it does not run a program: {error}"
    found = [line.removeprefix(_LEFT) for line in looked.stdout.splitlines() if line.startswith(_LEFT)]
    return f"it has {', '.join(found)}" if found else None
