"""A node's seed: the small read-only disk that makes this copy of the image one certain node.

It carries names, addresses and keys, and kernel and initrd of the guest.  The node's side is
``vm_images/files/node/usr/lib/drbd-harness/seed``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images import Image
from harness.lab.nested.keys import KeyPair, write_private
from harness.remote.local import LocalRunner
from harness.util import paths

LABEL = "SEED"
MOUNTED_AT = "/seed"
# Where the guest's kernel and initrd are on a node.
GUEST_KERNEL = f"{MOUNTED_AT}/guest/vmlinuz"
GUEST_INITRD = f"{MOUNTED_AT}/guest/initrd.img"
# And the firmware of a user's guest image that needs UEFI, with the template of its variables.
GUEST_FIRMWARE = (f"{MOUNTED_AT}/guest/uefi-code.fd", f"{MOUNTED_AT}/guest/uefi-variables.fd")
_FREE_MIB = 16
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Seed:
    """What is on one node's seed.  Addresses have a prefix length; ``peers`` maps each node's name to its address."""

    host_name: str
    management_mac: str
    management_address: str
    link_mac: str
    link_address: str
    peers: Mapping[str, str]
    host_key: KeyPair
    user_public_key: str

    @property
    def settings(self) -> str:
        """``node.conf``, which the node's shell reads."""
        peers = " ".join(f"{address}={name}" for name, address in self.peers.items())
        settings = {
            "HOSTNAME": self.host_name,
            "MGMT_MAC": self.management_mac,
            "MGMT_ADDR": self.management_address,
            "REPL_MAC": self.link_mac,
            "REPL_ADDR": self.link_address,
            "PEERS": f'"{peers}"',
        }
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def make_seed(path: Path, seed: Seed, guest: Image, lab: str = "", firmware: Sequence[Path] = ()) -> None:
    """Make the disk at ``path``, readable for its owner only; takes a second or two.  ``lab`` is for the log.

    ``firmware`` is what goes to :data:`GUEST_FIRMWARE`, where a guest needs it.

    :class:`~harness.errors.CommandError` where mke2fs fails.  The folder that it is made from, keys and all, is gone
    afterwards.
    """
    folder = path.with_suffix("")
    try:
        _fill(folder, seed, guest, firmware)
        size_mib = _FREE_MIB + sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // _MIB
        path.touch(mode=0o600)
        make = ["mke2fs", "-q", "-F", "-t", "ext2", "-L", LABEL, "-E", "root_owner=0:0", "-d", str(folder)]
        LocalRunner(lab).run(["env", f"PATH={paths.programs()}", *make, str(path), f"{size_mib}M"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, seed: Seed, guest: Image, firmware: Sequence[Path]) -> None:
    folder.mkdir(mode=0o700)
    (folder / "node.conf").write_text(seed.settings)
    write_private(folder / "ssh_host_ed25519_key", seed.host_key.private)
    (folder / "ssh_host_ed25519_key.pub").write_text(seed.host_key.public)
    (folder / "authorized_keys").write_text(seed.user_public_key)
    uefi = zip(firmware, GUEST_FIRMWARE, strict=False)
    for source, on_node in ((guest.kernel, GUEST_KERNEL), (guest.initrd, GUEST_INITRD), *uefi):
        target = folder / Path(on_node).relative_to(MOUNTED_AT)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
