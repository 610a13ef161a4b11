"""Swap space that is not on DRBD: on a disk of the guest's own, or in compressed memory."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from harness.filesystems.base import MARGIN_SECONDS, WorkloadTarget
from harness.filesystems.swap import Swap

#: The serial number of the guest's own disk.
OWN_DISK_SERIAL = "drbd-harness-own"
ZRAM_MIB = 64

_OWN_DISK = """
for disk in /sys/block/*; do
    [ "$(cat "$disk/serial" 2>/dev/null)" = "$1" ] && echo "/dev/${disk##*/}" && exit
done
echo "the guest has no disk of its own" >&2
exit 1
"""
_ZRAM = """
modprobe -q zram || true
echo "$1" > /sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon /dev/zram0
"""
_NO_ZRAM = """
if grep -q ^/dev/zram0 /proc/swaps; then swapoff /dev/zram0; fi
echo 1 > /sys/block/zram0/reset
sync
"""


class GuestDiskSwap(Swap):
    """A swap area on a disk of the guest's own; nothing is made on DRBD's."""

    method = "nothing of the guest's swap is on DRBD"

    def make(self, target: WorkloadTarget) -> None:
        """Make the swap area."""
        super().make(self._elsewhere(target))

    def mount(self, target: WorkloadTarget) -> None:
        """Use it."""
        super().mount(self._elsewhere(target))

    def unmount(self, target: WorkloadTarget) -> None:
        """Free every slot."""
        super().unmount(self._elsewhere(target))

    @staticmethod
    def _elsewhere(target: WorkloadTarget) -> WorkloadTarget:
        device = target.sh(_OWN_DISK, OWN_DISK_SERIAL).strip()
        return replace(target, device=device, blocks=0)


class ZramSwap(Swap):
    """Swap space in compressed memory."""

    method = "nothing of the guest's swap is on DRBD"
    modules = ("zram",)
    in_memory: ClassVar[bool] = True

    def make(self, target: WorkloadTarget) -> None:
        """Nothing: it is made when it is used."""

    def mount(self, target: WorkloadTarget) -> None:
        """Make it and use it."""
        target.require_swap()
        target.sh(_ZRAM, f"{ZRAM_MIB}M", timeout=MARGIN_SECONDS)

    def unmount(self, target: WorkloadTarget) -> None:
        """Free every slot, and the memory."""
        target.sh(_NO_ZRAM, timeout=MARGIN_SECONDS)
