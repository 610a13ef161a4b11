"""The axes of a cell and the kinds of verdicts: enumerations whose values are what a user writes."""

from __future__ import annotations

from enum import StrEnum


class CacheMode(StrEnum):
    """QEMU's cache modes of a disk."""

    NONE = "none"
    DIRECTSYNC = "directsync"
    WRITETHROUGH = "writethrough"
    WRITEBACK = "writeback"
    UNSAFE = "unsafe"

    @property
    def direct(self) -> bool:
        """Whether QEMU opens the disk with O_DIRECT, so that DRBD reads the guest's own pages."""
        return self in (CacheMode.NONE, CacheMode.DIRECTSYNC)

    @property
    def guest_write_cache(self) -> str:
        """What the guest then reads in ``/sys/block/*/queue/write_cache``."""
        return "write through" if self in (CacheMode.DIRECTSYNC, CacheMode.WRITETHROUGH) else "write back"

    @property
    def no_flush(self) -> bool:
        """Whether QEMU ignores the guest's flushes."""
        return self is CacheMode.UNSAFE


class AioMode(StrEnum):
    """How QEMU submits the I/O of a disk."""

    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


class DiskBus(StrEnum):
    """The bus the guest sees its disk on."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    NVME = "nvme"

    @property
    def hot_plugged(self) -> bool:
        """Whether libvirt attaches a disk on it to a guest that runs; else the guest is started with the disk."""
        return self in (DiskBus.VIRTIO, DiskBus.SCSI)


class DetectZeroes(StrEnum):
    """What QEMU makes of a write of zeroes: ``on`` a request to write zeroes, ``unmap`` one that may discard."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class Discard(StrEnum):
    """Whether QEMU passes the guest's discards on."""

    IGNORE = "ignore"
    UNMAP = "unmap"


class SwapOn(StrEnum):
    """Where a guest swaps to."""

    DRBD = "drbd"  # to the disk under test
    GUEST_DISK = "guest-disk"  # to a disk of the guest's own, which is not on DRBD
    ZRAM = "zram"  # to compressed memory


class FilesystemKind(StrEnum):
    """What is made on the device before the workload writes; ``raw``: nothing, the workload writes to the device."""

    RAW = "raw"
    SWAP = "swap"
    SWAPFILE = "swapfile"
    EXT4 = "ext4"
    EXT4_NOBARRIER = "ext4-nobarrier"
    EXT4_JOURNAL = "ext4-journal"
    EXT3 = "ext3"
    XFS = "xfs"
    BTRFS = "btrfs"
    BTRFS_NODATACOW = "btrfs-nodatacow"
    NTFS3 = "ntfs3"
    NTFS_3G = "ntfs-3g"
    VFAT = "vfat"
    EXFAT = "exfat"
    F2FS = "f2fs"
    NTFS = "ntfs"  # by Windows itself, in a guest of a user's image
    PAGEFILE = "pagefile"  # that of Windows, on such an NTFS

    @property
    def boots(self) -> int:
        """How often a guest is booted again to take it into use and out of use."""
        return 2 if self is FilesystemKind.PAGEFILE else 0

    @property
    def damaged_by_crash(self) -> bool:
        """Whether a crash may leave it broken, on any disk: it writes no journal."""
        return self in (FilesystemKind.NTFS3, FilesystemKind.NTFS_3G, FilesystemKind.VFAT, FilesystemKind.EXFAT)

    @property
    def mounted(self) -> bool:
        """Whether it is mounted when a workload uses it."""
        return self not in (FilesystemKind.RAW, FilesystemKind.SWAP)

    @property
    def prefix(self) -> str:
        """The part of a cell's id that names it; empty for ``raw``."""
        return "" if self is FilesystemKind.RAW else f"{self}-"


class Layout(StrEnum):
    """What lies between the device and its filesystem."""

    RAW = "raw"  # the filesystem is made on the device itself
    PARTITIONED = "partitioned"  # a GPT: the filesystem on partition 1, swap on partition 2
    LVM = "lvm"  # a logical volume, in the client
    CRYPT = "crypt"  # dm-crypt in the client
    CRYPT_NODE = "crypt-node"  # dm-crypt above DRBD on the node
    CRYPT_QEMU = "crypt-qemu"  # LUKS in QEMU, above DRBD on the node
    RAW_ON_XFS = "raw-on-xfs"  # an image file on a filesystem on the node's DRBD device
    RAW_ON_EXT4 = "raw-on-ext4"
    QCOW2_ON_XFS = "qcow2-on-xfs"
    QCOW2_ON_EXT4 = "qcow2-on-ext4"

    @property
    def on_node(self) -> bool:
        """Whether it lies between DRBD and QEMU on the node; else it is in the client."""
        return self in (Layout.CRYPT_NODE, Layout.CRYPT_QEMU) or self.image_file

    @property
    def image_file(self) -> bool:
        """Whether QEMU opens a file."""
        return self in (Layout.RAW_ON_XFS, Layout.RAW_ON_EXT4, Layout.QCOW2_ON_XFS, Layout.QCOW2_ON_EXT4)

    @property
    def prefix(self) -> str:
        """The part of a cell's id that names it; empty for ``raw``."""
        return "" if self is Layout.RAW else f"{self}-"


class ClientKind(StrEnum):
    """Who writes: a guest through QEMU, or the node itself on /dev/drbdN."""

    GUEST = "guest"
    HOST = "host"


class Control(StrEnum):
    """A cell that proves the lab could have seen what it did not see."""

    PLANTED = "planted"
    IN_FLIGHT = "in-flight"  # buffers changed in flight on the node
    IDLE = "idle"
    STEADY = "steady"  # the same load from buffers that nobody changes
    IN_FLIGHT_GUEST = "in-flight-guest"  # buffers changed in flight in a guest

    def demanded(self, schema: int, client: ClientKind) -> bool:
        """Whether no cell whose evidence is of ``schema`` is CLEAN without it, where ``client`` writes.

        Before schema 3 a run played three.  What a guest's control shows is about cells in a guest; where it is not
        demanded it counts where it was played.
        """
        if schema < 3:
            return self in (Control.PLANTED, Control.IN_FLIGHT, Control.IDLE)
        return self is not Control.IN_FLIGHT_GUEST or client is ClientKind.GUEST

    @property
    def clean(self) -> bool:
        """Whether it holds by being CLEAN; the others hold by being DIVERGED."""
        return self in (Control.IDLE, Control.STEADY)


class Protocol(StrEnum):
    """When DRBD calls a write done: sent (A), received by the peer (B), written by the peer (C)."""

    A = "A"
    B = "B"
    C = "C"


class Transport(StrEnum):
    """What carries DRBD 9's packets to the peer: one TCP connection, or several that share the load."""

    TCP = "tcp"
    LB_TCP = "lb-tcp"


class Quorum(StrEnum):
    """How many nodes DRBD 9 has to see before it writes; of two that is both, whichever it is."""

    OFF = "off"
    MAJORITY = "majority"
    ALL = "all"


class Crash(StrEnum):
    """What dies in the middle of the work."""

    NODE = "node"  # the Primary loses its power; the peer is promoted and runs the guest
    QEMU = "qemu"  # the guest's QEMU is killed; the guest starts again on the same node
    RESET = "reset"  # the guest is reset; its QEMU goes on


class Fault(StrEnum):
    """What goes wrong around the guest, on purpose."""

    LINK_CUT = "link-cut"  # the replication link carries nothing any more, in mid-migration
    TARGET_KILL = "target-kill"  # the target node loses its power in mid-migration
    LIBVIRTD_RESTART = "libvirtd-restart"  # the source's libvirtd is restarted in mid-migration
    STALL = "stall"  # the migration gets so little bandwidth that it cannot end
    IO_ERROR = "io-error"  # both lower devices fail, so that the guest's writes do
    STANDALONE = "standalone"  # both nodes are StandAlone when the cell begins

    @property
    def needs_migration(self) -> bool:
        """Whether it strikes in the middle of a migration."""
        return self not in (Fault.IO_ERROR, Fault.STANDALONE)


class Sabotage(StrEnum):
    """What is done to the instrument itself, behind the back of what it guards.

    Such a cell is never CLEAN, but for those that are about the next cell (:attr:`spares_the_cell`).
    """

    DELAY_LEFT_A = "delay-left-a"  # a delay on the link of node a that nobody asked for
    DELAY_LEFT_B = "delay-left-b"  # the same on node b
    SCATTER_GATHER_OFF_A = "scatter-gather-off-a"  # scatter-gather switched off on the replication NIC of node a
    SCATTER_GATHER_OFF_B = "scatter-gather-off-b"  # the same on node b
    FLIP_FILE = "flip-file"  # one byte of a file is inverted below DRBD
    FLIP_FREE = "flip-free"  # one byte of free space
    FLIP_OWNERS = "flip-owners"  # one byte in a block of each class that the filesystem has
    FLIP_SWAP_SLOT = "flip-swap-slot"  # one byte of a swap slot that holds a page of a process just then
    SILENT_VERIFY = "silent-verify"  # drbdadm verify does nothing and ends well, while a block differs
    PARTIAL_VERIFY = "partial-verify"  # drbdadm verify leaves out the part of the device in which a block differs
    BLIND_VERIFY = "blind-verify"  # drbdadm verify looks everywhere and does not report a block that differs
    IDLE_WORKLOAD = "idle-workload"  # the swap storm gets next to no memory, so that nothing is swapped
    STOPPED_NODE = "stopped-node"  # node b stops where it is in the middle of the work, and answers nothing
    STOPPED_GUEST = "stopped-guest"  # the same of the guest's QEMU
    STOPPED_LIBVIRTD = "stopped-libvirtd"  # libvirtd on node a is stopped in the middle of the work
    KILLED_LIBVIRTD = "killed-libvirtd"  # the controller's libvirtd is killed in the middle of the work
    FULL_DISK = "full-disk"  # the disk that node a boots from is full when the guest has to be started
    LOST_EVENTS = "lost-events"  # whoever reads DRBD's events on node a is killed in the middle of the work
    LOST_KERNEL_MESSAGES = "lost-kernel-messages"  # node a's kernel log overwrites what nobody has read yet
    DAMAGE_SUPERBLOCK = "damage-superblock"  # after the crash, before the mount: it fails
    DAMAGE_DIRECTORY = "damage-directory"  # after the crash, before fsck: it finds errors
    SWAP_LEFT_ON = "swap-left-on"  # the disk is detached from a guest that swaps to it
    MOUNT_LEFT = "mount-left"  # the disk is detached from a guest that has it mounted

    @property
    def after_crash(self) -> bool:
        """Whether it is done to what a crash left behind."""
        return self in (Sabotage.DAMAGE_SUPERBLOCK, Sabotage.DAMAGE_DIRECTORY)

    @property
    def spares_the_cell(self) -> bool:
        """Whether the cell itself may well have its answer: what is asked is that the next one is played."""
        return self in (Sabotage.SWAP_LEFT_ON, Sabotage.MOUNT_LEFT, Sabotage.FULL_DISK, Sabotage.KILLED_LIBVIRTD)


class Hazard(StrEnum):
    """What became of the writes whose data changed in flight."""

    NONE = "no hazard"  # none changed, as far as anybody watched
    HEALED = "healed"  # some changed, and at the end no block differs
    PERSISTED = "persisted"  # blocks differ


class Potency(StrEnum):
    """How much it is worth that nothing was found."""

    STRONG = "strong"  # writes changed in flight here, or the same work diverged elsewhere in this run
    WEAK = "weak"  # nothing anywhere shows that this work could have diverged


class VerdictKind(StrEnum):
    """The opinion about one cell; see :mod:`harness.judgement.judge`."""

    CLEAN = "CLEAN"
    TRANSIENT = "TRANSIENT"
    DIVERGED = "DIVERGED"
    CORRUPT = "CORRUPT"
    REFUSED = "REFUSED"
    INCONCLUSIVE = "INCONCLUSIVE"

    @property
    def finds_harm(self) -> bool:
        """Whether something was found that lasts: replicas that differ, or data that is wrong or lost."""
        return self in (VerdictKind.DIVERGED, VerdictKind.CORRUPT)
