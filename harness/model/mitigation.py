"""What people do against divergence, and products' settings: names for values of the other axes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from harness.model.axes import AioMode, CacheMode, DetectZeroes, Discard, DiskBus, Layout, Protocol, SwapOn


class Mitigation(StrEnum):
    """A remedy that somebody recommends; what it sets is in :data:`SETTINGS`."""

    STABLE_WRITES = "stable-writes"  # the guest's kernel holds pages still while they are written
    CRYPT_GUEST = "crypt-guest"  # dm-crypt in the guest
    CRYPT_QEMU = "crypt-qemu"  # QEMU's LUKS layer
    CRYPT_NODE = "crypt-node"  # dm-crypt above DRBD
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    SWAP_OFF_DRBD = "swap-off-drbd"  # the guest swaps to a disk of its own
    ZRAM = "zram"  # the guest swaps to compressed memory
    IOTHREAD = "iothread"
    BUS_SCSI = "bus-scsi"
    BUS_SATA = "bus-sata"
    BUS_NVME = "bus-nvme"
    DETECT_ZEROES = "detect-zeroes"
    DISCARD = "discard"  # QEMU passes discards on, and the guest discards what it frees at once
    PROTOCOL_A = "protocol-a"
    DISABLE_SENDPAGE = "disable-sendpage"
    NO_SCATTER_GATHER = "no-scatter-gather"
    DIGEST = "digest"  # data-integrity-alg


class Preset(StrEnum):
    """The settings of a product as it comes."""

    PROXMOX_VE = "proxmox-ve"


#: The keys of a cell that each sets, as a matrix writes them.
SETTINGS: Mapping[Mitigation | Preset, Mapping[str, object]] = {
    Mitigation.STABLE_WRITES: {"guest_stable_writes": True},
    Mitigation.CRYPT_GUEST: {"layout": Layout.CRYPT},
    Mitigation.CRYPT_QEMU: {"layout": Layout.CRYPT_QEMU},
    Mitigation.CRYPT_NODE: {"layout": Layout.CRYPT_NODE},
    Mitigation.WRITEBACK: {"cache": CacheMode.WRITEBACK},
    Mitigation.WRITETHROUGH: {"cache": CacheMode.WRITETHROUGH},
    Mitigation.SWAP_OFF_DRBD: {"swap_on": SwapOn.GUEST_DISK},
    Mitigation.ZRAM: {"swap_on": SwapOn.ZRAM},
    Mitigation.IOTHREAD: {"iothread": True},
    Mitigation.BUS_SCSI: {"bus": DiskBus.SCSI},
    Mitigation.BUS_SATA: {"bus": DiskBus.SATA},
    Mitigation.BUS_NVME: {"bus": DiskBus.NVME},
    Mitigation.DETECT_ZEROES: {"detect_zeroes": DetectZeroes.ON},
    Mitigation.DISCARD: {"discard": Discard.UNMAP, "online_discard": True},
    Mitigation.PROTOCOL_A: {"protocol": Protocol.A},
    Mitigation.DISABLE_SENDPAGE: {"disable_sendpage": True},
    Mitigation.NO_SCATTER_GATHER: {"scatter_gather": False},
    Mitigation.DIGEST: {"integrity": "crc32c"},
    # Proxmox VE makes detect-zeroes "unmap" of "on" where discard is on.
    Preset.PROXMOX_VE: {
        "cache": CacheMode.NONE,
        "aio": AioMode.IO_URING,
        "bus": DiskBus.SCSI,
        "iothread": True,
        "detect_zeroes": DetectZeroes.UNMAP,
        "discard": Discard.UNMAP,
        "allow_two_primaries": True,
    },
}


def settings(preset: Preset | None, mitigation: Mitigation | None) -> Mapping[str, object]:
    """What both set together, by key; a mitigation is put on top of the preset."""
    return {key: value for one in (preset, mitigation) if one is not None for key, value in SETTINGS[one].items()}
