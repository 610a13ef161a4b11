"""libvirt domain XML: the two nodes on the controller, the guest on a node, the disk that is attached to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lxml import etree
from lxml.builder import ElementMaker

from harness.model import AioMode, CacheMode, DetectZeroes, Discard, DiskBus, DiskOptions, DiskSource
from harness.render.user_guest import (
    UserGuestDisk,
    firmware_boot,
    hyperv,
    processor_without,
    readonly_disk,
    user_disks,
)

LABEL_NAMESPACE = "urn:drbd-divergence-harness:lab"
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# libvirt does not know the management NIC, which comes by a QEMU command line; nothing else may get this slot.
MANAGEMENT_SLOT = "0x10"

# The virtio port of the guest that its canary writes its messages to.
CANARY_PORT = "org.drbd-harness.guest.canary.0"

#: The thread of the guest's QEMU that serves a disk with ``iothread``, and on SCSI the controller that it serves.
IOTHREAD = 1
OWN_SCSI_CONTROLLER = 1

_LIBVIRTS_OWN = DiskOptions()
_E = ElementMaker()
_QEMU = ElementMaker(namespace=QEMU_NAMESPACE, nsmap={"qemu": QEMU_NAMESPACE})
_LAB = ElementMaker(namespace=LABEL_NAMESPACE, nsmap={"lab": LABEL_NAMESPACE})


@dataclass(frozen=True)
class NodeDomain:
    """Everything a node's domain is made of.  Memory in MiB; paths are on the controller.

    ``repl_ports`` are (own, peer's) UDP ports on loopback; ``state`` is the folder that the lab is kept in.
    """

    name: str
    lab: str
    state: str
    uuid: str
    hardware: bool
    vcpus: int
    memory_mib: int
    kernel: Path
    initrd: Path
    kernel_args: str
    root: Path
    seed: Path
    backing: Path
    backing_serial: str
    guest_root: Path
    guest_root_serial: str
    console: Path
    ssh_port: int
    mgmt_mac: str
    repl_mac: str
    repl_ports: tuple[int, int]
    user_guest: UserGuestFiles | None = None


@dataclass(frozen=True)
class UserGuestFiles:
    """On the controller: a user's guest image, a qcow2, and the raw file that takes what its guest writes.

    Each has the serial number that a node knows it by.
    """

    image: Path
    image_serial: str
    overlay: Path
    overlay_serial: str


def node_xml(node: NodeDomain) -> str:
    """The domain of one node: KVM where it works (``hardware``), else TCG with emulated SVM."""
    if node.hardware:
        cpu = _E.cpu(mode="host-passthrough", check="none")
    else:
        # cx16: emulated by QEMU 7.2, nodes died of a double fault in about one verify of fifteen, each time where Linux
        # allocates from a slab with cmpxchg16b, and with part of an address in the flags. Without it Linux does not.
        features = (_E.feature(policy="require", name="svm"), _E.feature(policy="disable", name="cx16"))
        cpu = _E.cpu(*features, mode="maximum", check="none")
    own, peer = (str(port) for port in node.repl_ports)
    domain = _E.domain(
        _E.name(node.name),
        _E.uuid(node.uuid),
        _E.metadata(_LAB.lab(id=node.lab, state=node.state)),
        _E.memory(str(node.memory_mib), unit="MiB"),
        _E.vcpu(str(node.vcpus)),
        _E.os(
            _E.type("hvm", arch="x86_64", machine="pc"),
            _E.kernel(str(node.kernel)),
            _E.initrd(str(node.initrd)),
            _E.cmdline(node.kernel_args),
        ),
        _E.features(_E.acpi(), _E.apic()),
        cpu,
        _E.clock(offset="utc"),
        _E.on_poweroff("destroy"),
        _E.on_reboot("destroy"),
        _E.on_crash("destroy"),
        _E.devices(
            _file_disk(node.root, "vda", "root", kind="qcow2"),
            _file_disk(node.backing, "vdb", node.backing_serial),
            _file_disk(node.seed, "vdc", "seed", readonly=True),
            _file_disk(node.guest_root, "vdd", node.guest_root_serial, readonly=True),
            *([] if node.user_guest is None else _user_guest_disks(node.user_guest)),
            _E.interface(
                _E.mac(address=node.repl_mac),
                _E.source(_E.local(address="127.0.0.1", port=own), address="127.0.0.1", port=peer),
                # Not virtio: without a vnet header it has no scatter-gather, TCP copies, and the pitfall hides.
                _E.model(type="e1000"),
                type="udp",
            ),
            _E.serial(_E.log(file=str(node.console), append="off"), _E.target(port="0"), type="pty"),
            _E.console(_E.target(type="serial", port="0"), type="pty"),
            _E.controller(type="usb", model="none"),
            _E.memballoon(model="none"),
            _E.rng(_E.backend("/dev/urandom", model="random"), model="virtio"),
        ),
        _QEMU.commandline(
            _QEMU.arg(value="-netdev"),
            _QEMU.arg(value=f"user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:{node.ssh_port}-:22"),
            _QEMU.arg(value="-device"),
            _QEMU.arg(value=f"virtio-net-pci,netdev=mgmt,mac={node.mgmt_mac},addr={MANAGEMENT_SLOT}"),
        ),
        type="kvm" if node.hardware else "qemu",
    )
    return _text(domain)


def _user_guest_disks(files: UserGuestFiles) -> list[etree._Element]:
    overlay = _file_disk(files.overlay, "vdf", files.overlay_serial)
    # Both nodes have it, and a guest that moves finds there what it wrote: their QEMUs go through one page cache.
    overlay.append(_E.shareable())
    return [_file_disk(files.image, "vde", files.image_serial, kind="qcow2", readonly=True), overlay]


def _file_disk(path: Path, target: str, serial: str, *, kind: str = "raw", readonly: bool = False) -> etree._Element:
    # cache=unsafe: the lab is thrown away, and what the comparison reads is the controller's page cache anyway.
    disk: etree._Element = _E.disk(
        _E.driver(name="qemu", type=kind, cache="unsafe", io="threads", discard="unmap"),
        _E.source(file=str(path)),
        _E.target(dev=target, bus="virtio"),
        _E.serial(serial),
        type="file",
        device="disk",
    )
    if readonly:
        disk.append(_E.readonly())
        if kind == "raw":
            # libvirt shares no other format; QEMU lets any number of processes read one.
            disk.append(_E.shareable())
    return disk


@dataclass(frozen=True)
class GuestDomain:
    """The guest under test.  Memory in MiB; paths are on the node.  ``spare_ports`` take hot-attached disks.

    ``canary_log`` is the file that QEMU appends the messages of the guest's canary to.  ``machine`` is a q35 that the
    QEMUs of both nodes know.  ``disk`` is the description of a disk that it has from its start on (:func:`disk_xml`),
    ``cpu`` that of its processor; empty without one, and for the node's own.  With ``user`` it boots from a user's
    image by itself, and has ``root_device``, where the harness's programs are, as a second disk.
    """

    name: str
    uuid: str
    memory_mib: int
    kernel: str
    initrd: str
    kernel_args: str
    root_device: str
    console: str
    canary_log: str
    machine: str = "q35"
    vcpus: int = 1
    spare_ports: int = 4
    disk: str = ""
    user: UserGuestDisk | None = None
    root_is_file: bool = False
    kvm: bool = True
    cpu: str = ""


def guest_xml(guest: GuestDomain) -> str:
    """The guest's domain on its node: nested KVM, agent channel, a SCSI controller and free PCIe ports."""
    ports = [
        _E.controller(type="pci", index=str(index), model="pcie-root-port")
        for index in range(1, guest.spare_ports + 9)
    ]  # fmt: skip
    user = guest.user
    domain = _E.domain(
        _E.name(guest.name),
        _E.uuid(guest.uuid),
        _E.memory(str(guest.memory_mib), unit="MiB"),
        _E.vcpu(str(guest.vcpus)),
        # Idle but for a disk that is given it.
        _E.iothreads("1"),
        _kernel_boot(guest) if user is None else firmware_boot(user, guest.machine),
        _E.features(_E.acpi(), _E.apic(), *(hyperv() if user is not None and user.windows else ())),
        etree.fromstring(guest.cpu) if guest.cpu else _nodes_processor(user),
        _E.clock(offset="utc"),
        _E.on_poweroff("destroy"),
        # A reset from outside counts as a reboot.
        _E.on_reboot("restart"),
        _E.on_crash("destroy"),
        _E.devices(
            _E.controller(type="pci", index="0", model="pcie-root"),
            *ports,
            _E.controller(type="scsi", index="0", model="virtio-scsi"),
            _E.controller(
                _E.driver(iothread=str(IOTHREAD)),
                type="scsi",
                index=str(OWN_SCSI_CONTROLLER),
                model="virtio-scsi",
            ),
            _E.controller(type="virtio-serial", index="0"),
            _E.controller(type="usb", model="none"),
            *([_root_disk(guest)] if user is None else user_disks(guest.root_device, user)),
            _E.channel(_E.target(type="virtio", name="org.qemu.guest_agent.0"), type="unix"),
            # A file and no socket: it needs no reader to be there first, and each node has its own after a migration.
            _E.channel(
                _E.source(path=guest.canary_log, append="on"),
                _E.target(type="virtio", name=CANARY_PORT),
                type="file",
            ),
            _E.serial(_E.source(path=guest.console, append="on"), _E.target(port="0"), type="file"),
            # A boot loader and Windows expect one; nobody looks at it.
            *([] if user is None else [_E.video(_E.model(type="vga"))]),
            _E.memballoon(model="none"),
            _E.rng(_E.backend("/dev/urandom", model="random"), model="virtio"),
        ),
        type="kvm" if guest.kvm else "qemu",
    )  # fmt: skip
    if guest.disk:
        domain.find("devices").append(etree.fromstring(guest.disk))
    return _text(domain)


def _nodes_processor(user: UserGuestDisk | None) -> etree._Element:
    """That of the node; migratable=on hides what cannot move, and both nodes are alike."""
    without = [] if user is None else processor_without(user)
    found: etree._Element = _E.cpu(*without, mode="host-passthrough", check="none", migratable="on")
    return found


def _kernel_boot(guest: GuestDomain) -> etree._Element:
    found: etree._Element = _E.os(
        _E.type("hvm", arch="x86_64", machine=guest.machine),
        _E.kernel(guest.kernel),
        _E.initrd(guest.initrd),
        _E.cmdline(guest.kernel_args),
    )
    return found


def _root_disk(guest: GuestDomain) -> etree._Element:
    return readonly_disk(guest.root_device, "vda", is_file=guest.root_is_file)


def disk_xml(
    source: DiskSource,
    serial: str,
    cache: CacheMode,
    aio: AioMode,
    bus: DiskBus,
    *,
    options: DiskOptions = _LIBVIRTS_OWN,
    secret: str = "",
    stop_on_error: bool = False,
) -> str:
    """The disk under test: the DRBD device, or what lies on it, with the cell's cache and aio mode on the cell's bus.

    ``secret`` is the UUID of libvirt's secret with the key of a LUKS header that QEMU decrypts; empty without one.
    ``stop_on_error``: an I/O error pauses the guest instead of being reported to it.
    """
    target = {DiskBus.VIRTIO: "vdt", DiskBus.NVME: "nvme0n1"}.get(bus, "sdt")
    attributes = {"error_policy": "stop", "rerror_policy": "stop"} if stop_on_error else {}
    if options.discard is not Discard.IGNORE:
        attributes["discard"] = options.discard.value
    if options.detect_zeroes is not DetectZeroes.OFF:
        attributes["detect_zeroes"] = options.detect_zeroes.value
    if options.iothread and bus is not DiskBus.SCSI:
        attributes["iothread"] = str(IOTHREAD)
    device = _E.source(**{"file" if source.file else "dev": source.path})
    if secret:
        device.append(_E.encryption(_E.secret(type="passphrase", uuid=secret), format="luks"))
    disk = _E.disk(
        _E.driver(name="qemu", type=source.format, cache=cache.value, io=aio.value, **attributes),
        device,
        _E.target(dev=target, bus=bus.value),
        _E.serial(serial),
        type="file" if source.file else "block",
        device="disk",
    )
    if options.iothread and bus is DiskBus.SCSI:
        disk.append(_E.address(type="drive", controller=str(OWN_SCSI_CONTROLLER), bus="0", target="0", unit="0"))
    return _text(disk)


def own_disk_xml(path: str, serial: str) -> str:
    """A disk of the guest's own, which is not on DRBD: the file ``path`` on the node."""
    disk = _E.disk(
        _E.driver(name="qemu", type="raw", cache="none", io="threads"),
        _E.source(file=path),
        _E.target(dev="vdu", bus="virtio"),
        _E.serial(serial),
        type="file",
        device="disk",
    )
    return _text(disk)


def secret_xml(uuid: str) -> str:
    """A secret of libvirt's that is kept in memory only and told to nobody."""
    return _text(_E.secret(_E.uuid(uuid), _E.description("drbd-harness"), ephemeral="yes", private="yes"))


def lab_of(domain_xml: str, state: str) -> str | None:
    """The lab a domain belongs to, by the label in its metadata.

    None for anybody else's domain, also for a lab that is kept in another state folder than ``state``.
    """
    root = etree.fromstring(domain_xml.encode())
    label = root.find(f"metadata/{{{LABEL_NAMESPACE}}}lab")
    return None if label is None or label.get("state") != state else label.get("id")


def _text(element: etree._Element) -> str:
    return etree.tostring(element, pretty_print=True, encoding="unicode")
