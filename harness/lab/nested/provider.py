"""The nested lab: two libvirt domains on this machine, loopback only.

:func:`nested_lab` is what everybody else uses: it finds a lab that is up, or makes one and takes it down again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import libvirt

from harness.config.recipe import suites
from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.images import Image, ensure
from harness.lab import backing_compare
from harness.lab.nested import boot
from harness.lab.nested import record as records
from harness.lab.nested.accel import probe
from harness.lab.nested.keys import known_hosts, new_key_pair, ssh_config, write_private
from harness.lab.nested.lease import lease
from harness.lab.nested.libvirt_daemon import Libvirt, ensure_libvirt
from harness.lab.nested.power import Power
from harness.lab.nested.record import LabRecord, NodeRecord
from harness.lab.node import Node
from harness.lab.stack import read_stack
from harness.model import Comparison, Sample, Stack
from harness.remote.local import LocalRunner
from harness.remote.ssh import SshRunner
from harness.render.domain import NodeDomain, node_xml
from harness.util import paths
from harness.util.paths import cache_dir, make, state_dir

Progress = Callable[[str], None]

LOWER_DEVICE = "/dev/disk/by-id/virtio-backing"
GUEST_ROOT_DEVICE = "/dev/disk/by-id/virtio-guestroot"
MIB = 1024 * 1024


@dataclass(frozen=True)
class LabOptions:
    """What kind of nested lab is wanted.

    ``vcpus`` of a node, 0 for what is best: more than one each on two cores made emulated nodes slower.
    ``keep``: leave it up afterwards (``drbd-harness lab up``).
    """

    suite: str = "trixie"
    guest_suite: str = ""
    memory_mib: int = 2560
    vcpus: int = 0
    device_mib: int = 128
    keep: bool = False

    def __post_init__(self) -> None:
        for role, suite in (("node", self.suite), ("guest", self.guest)):
            known = suites(role)
            if suite not in known:
                raise UsageError(f"there is no {role} image of '{suite}'; there is one of {', '.join(known)}")
        for what, least in (("memory_mib", 64), ("device_mib", 16)):
            if getattr(self, what) < least:
                raise UsageError(f"{what} is {getattr(self, what)}; the least is {least}")

    @property
    def guest(self) -> str:
        """The suite of the guest image: the nodes' unless said otherwise."""
        return self.guest_suite or self.suite


class NestedLab:
    """Two virtual nodes that are up; see :class:`harness.lab.base.Lab`."""

    guest_kernel = "/seed/guest/vmlinuz"
    guest_initrd = "/seed/guest/initrd.img"
    guest_root_device = GUEST_ROOT_DEVICE

    def __init__(
        self, record: LabRecord, directory: Path, a: Node, b: Node, stack: Stack, power: Power, *, fresh: bool
    ) -> None:
        self.fresh = fresh
        self._power = power
        self.record = record
        self.directory = directory
        self.id = record.id
        self.a = a
        self.b = b
        self.stack = stack
        self.guest_kernel_args = record.guest_kernel_args

    def compare(self, blocks: int) -> Comparison:
        """Compare the two backing files here on the controller."""
        return backing_compare.compare_files(self._image(self.a), self._image(self.b), blocks)

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        """A piece of both sides of each of ``blocks``."""
        return backing_compare.sample_files(self._image(self.a), self._image(self.b), blocks)

    def kill(self, node: Node) -> None:
        """Take the node's power away: nothing in it gets to finish."""
        self._power.off(self._domain(node))
        node.forget()

    def revive(self, node: Node) -> None:
        """Give it back: the node boots from its own disks and is connected to."""
        self._power.on(self._domain(node))
        _reach(node)

    def _domain(self, node: Node) -> str:
        return next(known.domain for known in self.record.nodes if known.name == node.name)

    def close(self) -> None:
        """End the connections to the nodes; the nodes go on."""
        for node in (self.a, self.b):
            with contextlib.suppress(HarnessError, OSError):
                node.close()

    @staticmethod
    def _image(node: Node) -> Path:
        assert node.image is not None
        return node.image


def collect_consoles(directory: Path, into: Path) -> None:
    """Copy the serial consoles of the lab in ``directory``."""
    into.mkdir(parents=True, exist_ok=True)
    for console in directory.glob("console-*.log"):
        with contextlib.suppress(OSError):
            shutil.copyfile(console, into / console.name)


@contextlib.contextmanager
def nested_lab(options: LabOptions, progress: Progress, evidence: Path | None = None) -> Iterator[NestedLab]:
    """A lab that is up: the one ``lab up`` left, else a new one that ends with the context.

    While it is held no other process of this user can use or take down a lab.  ``evidence`` is where the consoles go
    when the lab ends, well or badly.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(lease("a lab"))
        daemon = stack.enter_context(ensure_libvirt(keep=options.keep))
        fresh = False
        found = find(daemon, options, progress)
        directory = records.labs_dir() / found.id if found else None
        if found is None or directory is None:
            with contextlib.ExitStack() as undo:
                directory = bring_up(daemon, options, progress, undo, evidence)
                stack.push(undo.pop_all())
            fresh = True
            found = records.read(directory)
            assert found is not None
        connection = stack.enter_context(opened(daemon))
        power = Power(connection, directory, progress, autodestroy=not found.keep)
        yield stack.enter_context(contextlib.closing(attach(found, directory, power, fresh=fresh)))


def find(daemon: Libvirt, options: LabOptions, progress: Progress) -> LabRecord | None:
    """The lab that is up already, of the same suite and images; one that is up and differs is an error."""
    with opened(daemon) as connection:
        active = {domain.name() for domain in connection.listAllDomains()}
    for directory in records.directories():
        record = records.read(directory)
        if record is None or not record.keep or not {node.domain for node in record.nodes} <= active:
            continue
        if record.suite != options.suite:
            raise InfrastructureError(
                f"a lab of {record.suite} is up and one of {options.suite} was asked for; "
                "take it down with 'drbd-harness lab down'"
            )
        progress(f"lab {record.id} is up already")
        return record
    return None


def bring_up(
    daemon: Libvirt, options: LabOptions, progress: Progress, undo: contextlib.ExitStack, evidence: Path | None
) -> Path:
    """Make the two nodes and wait until both answer; ``undo`` gets whatever has to be taken back.

    Returns the lab's folder, its record written.
    """
    cache = cache_dir()
    node_image = ensure("node", options.suite, cache, progress)
    guest_image = ensure("guest", options.guest, cache, progress)
    accelerator = probe(guest_image.kernel, guest_image.initrd, cache)
    progress(f"accelerator: {accelerator.kind} ({accelerator.why})")
    hardware = accelerator.kind == "kvm" and accelerator.nested
    if accelerator.kind == "kvm" and not hardware:
        progress("KVM works here without nesting; the nodes are emulated, so that their guests can have KVM")

    lab_id = secrets.token_hex(3)
    directory = make(records.labs_dir() / lab_id)
    with contextlib.ExitStack() as made:
        made.callback(records.forget, directory)
        made.callback(collect_consoles, directory, evidence or state_dir() / "last-failure")
        domains = _prepare(lab_id, directory, options, node_image, guest_image, hardware)
        connection = made.enter_context(opened(daemon))
        for domain in domains:
            # With AUTODESTROY libvirt ends the domain when our connection ends, even after a kill -9.
            flags = 0 if options.keep else libvirt.VIR_DOMAIN_START_AUTODESTROY
            made.callback(destroy, _create(connection, domain, flags))
        boot.wait(connection, {domain.name: domain.console for domain in domains}, progress)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        nodes = tuple(
            NodeRecord(f"node{letter}", domain.name, domain.ssh_port, f"192.168.77.{number}")
            for number, (letter, domain) in enumerate(zip("ab", domains, strict=True), 1)
        )
        records.write(
            LabRecord(
                lab_id,
                daemon.uri,
                options.suite,
                node_image.digest,
                guest_image.digest,
                "kvm" if hardware else "tcg",
                _arguments(guest_image),
                options.keep,
                os.getpid(),
                now,
                (nodes[0], nodes[1]),
            )
        )
        finished = made.pop_all()
    if options.keep:
        connection.close()
    else:
        undo.push(finished)
    return directory


@contextlib.contextmanager
def opened(daemon: Libvirt) -> Iterator[libvirt.virConnect]:
    """A connection to the controller's libvirt; domains made with AUTODESTROY end with it."""
    connection = libvirt.open(daemon.uri)
    try:
        yield connection
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def destroy(domain: libvirt.virDomain) -> None:
    """End a domain that may have ended by itself."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.destroy()


def attach(record: LabRecord, directory: Path, power: Power, *, fresh: bool = False) -> NestedLab:
    """Connect to a lab whose nodes are up; ``fresh``: nothing has touched its disks yet."""
    a, b = (_connect(record, node, directory) for node in record.nodes)
    stack = read_stack(a, b, record.suite, record.accelerator)
    return NestedLab(record, directory, a, b, stack, power, fresh=fresh)


def _connect(record: LabRecord, node: NodeRecord, directory: Path) -> Node:
    runner = SshRunner(
        "127.0.0.1", node.ssh_port, key=directory / "user_key", known_hosts=directory / "known_hosts", name=node.name
    )
    uri = f"qemu+ssh://{node.name}/system?command={directory}/ssh&no_tty=1"
    image = directory / f"backing-{node.name[-1]}.raw"
    found = Node(node.name, runner, "repl0", node.address, LOWER_DEVICE, uri, image)
    _reach(found)
    return found


def _reach(node: Node) -> None:
    node.runner.connect(60)
    # Hundreds of out-of-sync lines on an emulated serial line take longer than the verify; an oops still gets there.
    node.runner.run(["dmesg", "--console-level", "2"])


# ------------------------------------------------------------------------------------------- the pieces of a bring-up


def _prepare(
    lab_id: str, directory: Path, options: LabOptions, node: Image, guest: Image, hardware: bool
) -> list[NodeDomain]:
    ports = _free_ports()
    user = new_key_pair(f"drbd-harness {lab_id}")
    hosts = {letter: new_key_pair(f"node{letter} {lab_id}") for letter in "ab"}
    write_private(directory / "user_key", user.private)
    pinned = known_hosts(ports["ssh_a"], hosts["a"].public, ports["ssh_b"], hosts["b"].public)
    (directory / "known_hosts").write_text(pinned)
    (directory / "ssh_config").write_text(ssh_config(directory, ports["ssh_a"], ports["ssh_b"]))
    wrapper = directory / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -F "{directory}/ssh_config" "$@"\n')
    wrapper.chmod(0o755)
    domains = []
    for number, letter in enumerate("ab", 1):
        management, replication = (f"52:54:00:{kind}:{lab_id[:2]}:{number:02x}" for kind in ("10", "77"))
        seed = {
            "HOSTNAME": f"node{letter}",
            "MGMT_MAC": management,
            "MGMT_ADDR": "10.0.2.15/24",
            "REPL_MAC": replication,
            "REPL_ADDR": f"192.168.77.{number}/24",
            "PEERS": '"192.168.77.1=nodea 192.168.77.2=nodeb"',
        }
        domain = NodeDomain(
            name=f"drbd-harness-{lab_id}-{letter}",
            lab=lab_id,
            state=str(state_dir()),
            uuid=str(uuid.uuid4()),
            hardware=hardware,
            vcpus=options.vcpus or (2 if hardware and (os.cpu_count() or 1) >= 4 else 1),
            memory_mib=options.memory_mib,
            kernel=node.kernel,
            initrd=node.initrd,
            kernel_args=_arguments(node),
            root=directory / f"root-{letter}.qcow2",
            seed=directory / f"seed-{letter}.img",
            backing=directory / f"backing-{letter}.raw",
            guest_root=guest.root,
            console=directory / f"console-{letter}.log",
            ssh_port=ports[f"ssh_{letter}"],
            mgmt_mac=management,
            repl_mac=replication,
            repl_ports=(ports["repl_a"], ports["repl_b"]) if letter == "a" else (ports["repl_b"], ports["repl_a"]),
        )
        _make_disks(domain, directory, node, options)
        _make_seed(domain.seed, directory / f"seed-{letter}", seed, hosts[letter].private, hosts[letter].public,
                   user.public, guest)  # fmt: skip
        domains.append(domain)
    return domains


def _make_disks(domain: NodeDomain, directory: Path, image: Image, options: LabOptions) -> None:
    LocalRunner().run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image.root), str(domain.root)])
    with domain.backing.open("wb") as backing:
        backing.truncate(options.device_mib * MIB)


def _make_seed(
    path: Path, folder: Path, config: dict[str, str], host_key: str, host_public: str, user_public: str, guest: Image
) -> None:
    (folder / "guest").mkdir(parents=True, mode=0o700)
    (folder / "node.conf").write_text("".join(f"{key}={value}\n" for key, value in config.items()))
    write_private(folder / "ssh_host_ed25519_key", host_key)
    (folder / "ssh_host_ed25519_key.pub").write_text(host_public)
    (folder / "authorized_keys").write_text(user_public)
    shutil.copyfile(guest.kernel, folder / "guest" / "vmlinuz")
    shutil.copyfile(guest.initrd, folder / "guest" / "initrd.img")
    size_mib = 16 + sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // MIB
    path.touch(mode=0o600)
    make = ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "SEED", "-E", "root_owner=0:0", "-d", str(folder)]
    LocalRunner().run(["env", f"PATH={paths.programs()}", *make, str(path), f"{size_mib}M"])
    shutil.rmtree(folder)


def _free_ports() -> dict[str, int]:
    """Two TCP ports for ssh and two UDP ports for the link, free on loopback right now."""
    with contextlib.ExitStack() as held:
        ports = {}
        for name, kind in (("ssh_a", socket.SOCK_STREAM), ("ssh_b", socket.SOCK_STREAM),
                           ("repl_a", socket.SOCK_DGRAM), ("repl_b", socket.SOCK_DGRAM)):  # fmt: skip
            holder = held.enter_context(socket.socket(socket.AF_INET, kind))
            holder.bind(("127.0.0.1", 0))
            ports[name] = holder.getsockname()[1]
    return ports


def _create(connection: libvirt.virConnect, domain: NodeDomain, flags: int) -> libvirt.virDomain:
    try:
        return connection.createXML(node_xml(domain), flags)
    except libvirt.libvirtError as error:
        raise InfrastructureError(f"libvirt did not start {domain.name}: {error}") from None


def _arguments(image: Image) -> str:
    return " ".join(["root=/dev/vda", *image.kernel_args])
