"""A disk with a Debian on it as somebody has one: an MBR, GRUB for a BIOS, systemd, the agent, a kernel of its own.

Nothing here needs root or a loop device: the filesystem is made of a tar, and GRUB's first sectors are written as
``grub-bios-setup`` writes them (``grub-core/boot/i386/pc/boot.S`` and ``diskboot.S`` have the offsets).
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from harness.images.builder import in_chroot
from harness.images.process import MIRROR_VARIABLE

SUITE = "trixie"
PACKAGES = (
    "systemd-sysv", "udev", "kmod", "linux-image-amd64", "initramfs-tools", "zstd", "grub-pc-bin", "qemu-guest-agent",
    "fio", "python3-minimal", "e2fsprogs", "util-linux", "procps",
)  # fmt: skip
SECTOR = 512
MIB = 1 << 20
#: Where GRUB's core begins, in sectors, and the partition of the system.
CORE, SYSTEM = 1, 2048
_CONFIG = """\
set timeout=0
linux /boot/vmlinuz-$kernel root=LABEL=system ro console=ttyS0 quiet
initrd /boot/initrd.img-$kernel
boot
"""
_IN_IMAGE = (
    "echo user-guest > /etc/hostname",
    "echo 'LABEL=system / ext4 defaults 0 1' > /etc/fstab",
    "passwd --delete root",
    "mkdir -p /boot/grub && kernel=$(ls /boot/vmlinuz-*) && kernel=${kernel#/boot/vmlinuz-}"
    f" && cat > /boot/grub/grub.cfg <<END\n{_CONFIG}END",
    "grub-mkimage -O i386-pc -o /boot/core.img -p '(hd0,msdos1)/boot/grub'"
    " biosdisk part_msdos ext2 linux normal configfile",
    "cp /usr/lib/grub/i386-pc/boot.img /boot/boot.img",
    "rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/locale",
)


def make(folder: Path) -> Path:
    """The disk as a qcow2 in ``folder``, which has room for 3 GiB; takes minutes, and the network."""
    tar, system = folder / "root.tar", folder / "system.img"
    mirror = os.environ.get(MIRROR_VARIABLE)
    _run(
        "mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=minbase", "--format=tar",
        f"--include={','.join(PACKAGES)}", "--aptopt=APT::Install-Recommends false", "--dpkgopt=force-unsafe-io",
        *map(in_chroot, _IN_IMAGE),
        *(f"--customize-hook=copy-out /boot/{name} {folder}" for name in ("boot.img", "core.img")),
        SUITE, str(tar), *([mirror] if mirror else []),
    )  # fmt: skip
    mib = tar.stat().st_size // MIB * 5 // 4 + 256
    _run("genext2fs", "-B", "4096", "-b", str(mib * MIB // 4096), "-N", "80000", "-m", "0", "-z", "-L", "system",
         "-a", str(tar), str(system))  # fmt: skip
    _run("tune2fs", "-j", str(system))
    disk = folder / "disk.img"
    _boot_sectors(disk, mib, (folder / "boot.img").read_bytes(), (folder / "core.img").read_bytes())
    _run("dd", f"if={system}", f"of={disk}", f"bs={MIB}", f"seek={SYSTEM * SECTOR // MIB}", "conv=notrunc,sparse")
    _run("qemu-img", "convert", "-O", "qcow2", str(disk), str(folder / "guest.qcow2"))
    for path in (tar, system, disk):
        path.unlink()
    return folder / "guest.qcow2"


def _boot_sectors(disk: Path, mib: int, boot: bytes, core: bytes) -> None:
    """GRUB, and a table with one partition of ``mib`` MiB, which it boots from."""
    first = bytearray(boot[:SECTOR])
    struct.pack_into("<Q", first, 0x5C, CORE)
    first[0x66:0x68] = b"\x90\x90"  # what the BIOS says of the drive is believed, as for any hard disk
    whole = b"\xfe\xff\xff"  # no cylinders, heads and sectors: the numbers behind them count
    struct.pack_into("<B3sB3sII", first, 446, 0x80, whole, 0x83, whole, SYSTEM, mib * MIB // SECTOR)
    first[462:512] = bytes(48) + b"\x55\xaa"
    sectors = -(-len(core) // SECTOR)
    assert CORE + sectors <= SYSTEM
    chain = bytearray(core.ljust(sectors * SECTOR, b"\0"))
    struct.pack_into("<QHH", chain, SECTOR - 12, CORE + 1, sectors - 1, 0x820)
    with disk.open("wb") as file:
        file.truncate(SYSTEM * SECTOR + mib * MIB)
        file.write(first)
        file.seek(CORE * SECTOR)
        file.write(chain)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, f"{argv[0]} ended with {done.returncode}: {done.stderr[-2000:]}"
