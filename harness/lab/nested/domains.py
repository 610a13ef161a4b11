"""What the two domains of a nested lab are made of: images, disks, keys, ports and addresses, in the lab's folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from harness.config.lab_spec import LabSpec
from harness.errors import InfrastructureError
from harness.images import Image
from harness.lab.nested.keys import SshPort, known_hosts, new_key_pair, ssh_config, ssh_wrapper, write_private
from harness.lab.nested.seed import Seed, make_seed
from harness.remote.local import LocalRunner
from harness.render.domain import NodeDomain, UserGuestFiles
from harness.util.paths import state_dir

#: What the two nodes are called in the names of domains and files, and by ``lab ssh`` and ``lab console``.
SIDES = ("a", "b")
_MIB = 1024 * 1024
# The least that is free where the overlay of a user's guest image grows, when a lab begins.
_OVERLAY_FREE_MIB = 1024
# Locally administered; the lab's id and the node's number complete them.
_MANAGEMENT_MAC = "52:54:00:10"
_LINK_MAC = "52:54:00:77"


@dataclass(frozen=True)
class Parts:
    """What all domains of one lab are made from.  ``hardware``: with KVM, else emulated.

    ``a`` and ``b`` are the images of the two nodes, which may be one.  ``user_image`` is a user's guest image,
    ``firmware`` what it needs of UEFI's: the code, the variables' template.
    """

    lab_id: str
    directory: Path
    spec: LabSpec
    a: Image
    b: Image
    guest: Image
    hardware: bool
    user_image: Path | None = None
    firmware: tuple[Path, Path] | None = None

    @property
    def images(self) -> tuple[Image, Image]:
        """What each node boots, in the order of :data:`SIDES`."""
        return self.a, self.b

    @property
    def domain_names(self) -> tuple[str, ...]:
        """What libvirt knows the two nodes by."""
        return tuple(f"drbd-harness-{self.lab_id}-{side}" for side in SIDES)

    @property
    def vcpus(self) -> int:
        """How many each node gets."""
        return self.spec.vcpus or (2 if self.hardware and (os.cpu_count() or 1) >= 4 else 1)


def make_domains(parts: Parts) -> list[NodeDomain]:
    """Keys, disks and seeds of both nodes, in the lab's folder, and the domains that use them; takes seconds."""
    directory, spec = parts.directory, parts.spec
    ssh_ports = free_ports(socket.SOCK_STREAM)
    link_ports = free_ports(socket.SOCK_DGRAM)
    user = new_key_pair(f"drbd-harness {parts.lab_id}")
    host_keys = [new_key_pair(f"{name} {parts.lab_id}") for name in spec.node_names]
    write_private(directory / "user_key", user.private)
    ports = [SshPort(name, port) for name, port in zip(spec.node_names, ssh_ports, strict=True)]
    pinned = known_hosts({port: key.public for port, key in zip(ports, host_keys, strict=True)})
    (directory / "known_hosts").write_text(pinned)
    (directory / "ssh_config").write_text(ssh_config(directory, ports))
    wrapper = directory / "ssh"
    wrapper.write_text(ssh_wrapper(directory))
    wrapper.chmod(0o755)
    if parts.user_image is not None:
        _make_overlay(overlay_file(directory), spec.guest.image.disk_mib)
    domains = []
    for number, name in enumerate(spec.node_names):
        domain = _domain(parts, number, ssh_ports[number], (link_ports[number], link_ports[1 - number]))
        seed = Seed(
            host_name=name,
            management_mac=domain.mgmt_mac,
            management_address=str(spec.management),
            link_mac=domain.repl_mac,
            link_address=f"{spec.link.addresses[number]}/{spec.link.network.prefixlen}",
            peers=dict(zip(spec.node_names, spec.link.addresses, strict=True)),
            host_key=host_keys[number],
            user_public_key=user.public,
        )
        _make_disks(domain, parts.images[number], spec.lower_mib)
        make_seed(domain.seed, seed, parts.guest, parts.lab_id, parts.firmware or ())
        domains.append(domain)
    return domains


def console_file(directory: Path, side: str) -> Path:
    """The serial console of one node of the lab in ``directory``."""
    return directory / f"console-{side}.log"


def backing_file(directory: Path, side: str) -> Path:
    """The file behind the lower device of one node of the lab in ``directory``."""
    return directory / f"backing-{side}.raw"


def overlay_file(directory: Path) -> Path:
    """The file that takes what the guest of a user's image writes, in the lab in ``directory``; both nodes have it."""
    return directory / "guest-overlay.raw"


def free_ports(kind: socket.SocketKind) -> tuple[int, int]:
    """Two ports of ``kind`` (TCP or UDP) that are free on loopback right now."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in SIDES:
            holder = held.enter_context(socket.socket(socket.AF_INET, kind))
            holder.bind(("127.0.0.1", 0))
            ports.append(int(holder.getsockname()[1]))
        return ports[0], ports[1]


def _domain(parts: Parts, number: int, ssh_port: int, link_ports: tuple[int, int]) -> NodeDomain:
    spec, directory, side, image = parts.spec, parts.directory, SIDES[number], parts.images[number]
    suffix = f"{parts.lab_id[:2]}:{number + 1:02x}"
    return NodeDomain(
        name=parts.domain_names[number],
        lab=parts.lab_id,
        state=str(state_dir()),
        uuid=str(uuid.uuid4()),
        hardware=parts.hardware,
        vcpus=parts.vcpus,
        memory_mib=spec.memory_mib,
        kernel=image.kernel,
        initrd=image.initrd,
        kernel_args=image.command_line,
        root=directory / f"root-{side}.qcow2",
        seed=directory / f"seed-{side}.img",
        backing=backing_file(directory, side),
        backing_serial=spec.backing_serial,
        guest_root=parts.guest.root,
        guest_root_serial=spec.guest.root_serial,
        console=console_file(directory, side),
        ssh_port=ssh_port,
        mgmt_mac=f"{_MANAGEMENT_MAC}:{suffix}",
        repl_mac=f"{_LINK_MAC}:{suffix}",
        repl_ports=link_ports,
        user_guest=None if parts.user_image is None else UserGuestFiles(
            parts.user_image, spec.guest.image.serial, overlay_file(directory), spec.guest.image.overlay_serial
        ),
    )  # fmt: skip


def _make_disks(domain: NodeDomain, image: Image, lower_mib: int) -> None:
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.root), str(domain.root)]
    LocalRunner(domain.lab).run(argv)
    with domain.backing.open("wb") as backing:
        backing.truncate(lower_mib * _MIB)


def _make_overlay(path: Path, disk_mib: int) -> None:
    """A sparse file with room for a qcow2 of a disk of ``disk_mib`` MiB in which every byte was written."""
    if (free := shutil.disk_usage(path.parent).free // _MIB) < _OVERLAY_FREE_MIB:
        raise InfrastructureError(
            f"there is no room for what a guest writes to its own disk: {free} MiB are free in {path.parent}, and "
            f"{_OVERLAY_FREE_MIB} MiB are the least"
        )
    with path.open("wb") as overlay:
        # Its tables take less than a thousandth.
        overlay.truncate((disk_mib + disk_mib // 1000 + 64) * _MIB)
