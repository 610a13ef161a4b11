"""How a nested lab comes up and is found: its disks and domains, what is undone, what is refused; without a boot."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest
from fakes import LibvirtSaid
from lxml import etree

from harness.config.lab_spec import LOWER_MIB, GuestSpec, LabSpec
from harness.config.stack_spec import NodeTable, StackSpec
from harness.errors import InfrastructureError, LostNodeError
from harness.images import Image, StackDigests, StackImages
from harness.lab.base import FullLab
from harness.lab.nested import boot, domains, provider
from harness.lab.nested import record as records
from harness.lab.nested.accel import Accelerator
from harness.lab.nested.domains import Parts, make_domains
from harness.lab.nested.lab import NestedLab
from harness.lab.nested.record import LabRecord
from harness.lab.node import Node
from harness.model import Stack
from harness.render.domain import NodeDomain
from harness.util import paths

SPEC = LabSpec.from_table({
    "node_names": ["left", "right"], "device_mib": 32, "memory_mib": 900, "link": {"network": "10.9.8.0/29"},
})  # fmt: skip
STACK = StackSpec(suite="bookworm", guest_suite="trixie")
TODAY = StackDigests("node-digest", "node-digest", "guest-digest")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def image(tmp_path: Path, role: str) -> Image:
    directory = tmp_path / f"{role}-image"
    directory.mkdir(exist_ok=True)
    for name in ("vmlinuz", "initrd.img", "root.img"):
        (directory / name).write_bytes(f"{role} {name}".encode())
    manifest = {"kernel_args": [f"{role}-argument"], "packages": {f"{role}-package": "1.0"}}
    return Image(role, "trixie", f"{role}-digest", directory, manifest)


def parts(tmp_path: Path, spec: LabSpec = SPEC) -> Parts:
    directory = paths.make(records.labs_dir() / "1a2b3c")
    node = image(tmp_path, "node")
    return Parts("1a2b3c", directory, spec, node, node, image(tmp_path, "guest"), hardware=False)


# --------------------------------------------------------------------------- what the domains are made of


@pytest.fixture
def tools() -> None:
    for tool in ("qemu-img", "mke2fs", "debugfs"):
        if shutil.which(tool, path=paths.programs()) is None:
            pytest.skip(f"{tool} is not installed")


def on_seed(disk: Path, command: str) -> str:
    debugfs = shutil.which("debugfs", path=paths.programs())
    assert debugfs is not None
    return subprocess.run([debugfs, "-R", command, str(disk)], capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("tools")
def test_make_domains_of_a_spec_use_its_sizes_names_and_addresses(tmp_path: Path) -> None:
    made = parts(tmp_path)
    a, b = make_domains(made)
    assert (a.name, b.name) == ("drbd-harness-1a2b3c-a", "drbd-harness-1a2b3c-b")
    assert (a.memory_mib, a.vcpus, a.kernel_args) == (900, 1, "root=/dev/vda node-argument")
    assert a.backing.stat().st_size == b.backing.stat().st_size == LOWER_MIB << 20
    assert a.backing.stat().st_blocks == 0, "what no cell needs takes no room"
    assert a.repl_ports == (b.repl_ports[1], b.repl_ports[0]) and a.ssh_port != b.ssh_port
    assert len({a.mgmt_mac, a.repl_mac, b.mgmt_mac, b.repl_mac}) == 4
    for domain, name, address in ((a, "left", "10.9.8.1"), (b, "right", "10.9.8.2")):
        settings = dict(line.split("=", 1) for line in on_seed(domain.seed, "cat /node.conf").splitlines())
        assert settings == {
            "HOSTNAME": name, "MGMT_MAC": domain.mgmt_mac, "MGMT_ADDR": "10.0.2.15/24", "REPL_MAC": domain.repl_mac,
            "REPL_ADDR": f"{address}/29", "PEERS": '"10.9.8.1=left 10.9.8.2=right"',
        }  # fmt: skip
        assert f"[127.0.0.1]:{domain.ssh_port} ssh-ed25519" in (made.directory / "known_hosts").read_text()


@pytest.mark.usefixtures("tools")
def test_make_domains_leaves_private_keys_on_the_seeds_only(tmp_path: Path) -> None:
    made = parts(tmp_path)
    a, b = make_domains(made)
    assert "PRIVATE KEY" in on_seed(a.seed, "cat /ssh_host_ed25519_key")
    assert on_seed(a.seed, "cat /ssh_host_ed25519_key") != on_seed(b.seed, "cat /ssh_host_ed25519_key")
    assert on_seed(a.seed, "cat /guest/vmlinuz") == "guest vmlinuz"
    assert on_seed(a.seed, "cat /guest/initrd.img") == "guest initrd.img"
    assert a.seed.stat().st_mode & 0o777 == 0o600
    assert not [path for path in made.directory.iterdir() if path.is_dir()]


def test_vcpus_of_a_spec_without_a_choice_fit_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains.os, "cpu_count", lambda: 4)
    emulated = parts(tmp_path)
    assert (emulated.vcpus, replace(emulated, hardware=True).vcpus) == (1, 2)
    monkeypatch.setattr(domains.os, "cpu_count", lambda: 2)
    assert replace(emulated, hardware=True).vcpus == 1
    assert replace(emulated, spec=LabSpec(vcpus=3)).vcpus == 3


# --------------------------------------------------------------------------- coming up


@dataclass
class Connection:
    """The controller's libvirt: which domains were created, with which flags, and which were destroyed."""

    running: list[str] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    refuses: str = ""

    def createXML(self, xml: str, flags: int) -> Any:  # noqa: N802 - libvirt's name
        name = str(etree.fromstring(xml.encode()).findtext("name"))
        if self.refuses and name.endswith(self.refuses):
            raise LibvirtSaid("internal error: no memory")
        self.running.append(name)
        self.flags.append(flags)
        return Domain(name, self)

    def lookupByName(self, name: str) -> Any:  # noqa: N802 - libvirt's name
        if name not in self.running:
            raise LibvirtSaid("Domain not found", libvirt.VIR_ERR_NO_DOMAIN)
        return Domain(name, self)

    def listAllDomains(self) -> list[Any]:  # noqa: N802 - libvirt's name
        return [Domain(name, self) for name in self.running]


@dataclass
class Domain:
    known_as: str
    connection: Connection

    def name(self) -> str:
        return self.known_as

    def destroy(self) -> None:
        self.connection.running.remove(self.known_as)


@dataclass
class Controller:
    """This machine as bring_up finds it; nothing boots."""

    connection: Connection = field(default_factory=Connection)
    boots: bool = True
    images: list[tuple[str, str]] = field(default_factory=list)

    def wait(self, connection: Any, consoles: dict[str, Path]) -> None:
        for name, console in consoles.items():
            console.write_text(f"{name} boots\n")
        if not self.boots:
            raise LostNodeError("a node failed to boot")


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller()

    def ensure(stack: StackSpec, cache: Path) -> StackImages:
        made.images += [("node", stack.suite), ("guest", stack.guest_base)]
        node = image(tmp_path, "node")
        return StackImages(node, node, image(tmp_path, "guest"))

    monkeypatch.setattr(provider, "ensure_stack", ensure)
    monkeypatch.setattr(provider, "stack_digests", lambda stack: TODAY)
    monkeypatch.setattr(provider, "probe", lambda kernel, initrd, cache: Accelerator("tcg", True, "no KVM here", 0.0))
    monkeypatch.setattr(provider, "make_domains", fake_domains)
    monkeypatch.setattr(boot, "wait", made.wait)
    return made


def fake_domains(made: Parts) -> list[NodeDomain]:
    (made.directory / "user_key").write_text("secret")
    return [domains._domain(made, number, 2200 + number, (1, 2)) for number in (0, 1)]


def bring_up(made: Controller, undo: contextlib.ExitStack, evidence: Path, *, keep: bool = False) -> LabRecord:
    return provider.bring_up(
        "test:///default", lambda: cast(Any, made.connection), SPEC, STACK, undo, evidence, keep=keep
    )


def test_bring_up_records_what_the_lab_was_made_of(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        record = bring_up(controller, undo, tmp_path / "consoles")
        assert records.read(records.labs_dir() / record.id) == record
        assert (record.spec, record.stack, record.accelerator) == (SPEC, STACK, "tcg")
        assert record.provenance.images == {"node": "node-digest", "guest": "guest-digest"}
        assert {side: (one.role, one.digest) for side, one in record.images.items()} == {
            "a": ("node", "node-digest"), "b": ("node", "node-digest"), "guest": ("guest", "guest-digest"),
        }  # fmt: skip
        assert record.provenance.packages == {"node": {"node-package": "1.0"}, "guest": {"guest-package": "1.0"}}
        assert [(node.side, node.name, node.address) for node in record.nodes] == [
            ("a", "left", "10.9.8.1"), ("b", "right", "10.9.8.2"),
        ]  # fmt: skip
        assert controller.images == [("node", "bookworm"), ("guest", "trixie")]
        assert controller.connection.flags == [libvirt.VIR_DOMAIN_START_AUTODESTROY] * 2
        assert len(controller.connection.running) == 2
    assert controller.connection.running == [] and records.directories() == []
    assert {path.name for path in (tmp_path / "consoles" / record.id).iterdir()} == {"console-a.log", "console-b.log"}


def test_bring_up_of_a_lab_to_keep_does_not_tie_it_to_the_connection(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        bring_up(controller, undo, tmp_path / "consoles", keep=True)
        assert len(controller.connection.running) == 2 and controller.connection.flags == [0, 0]
    assert controller.connection.running == [], "the caller keeps it, once somebody can use it"


@pytest.mark.parametrize("keep", [False, True])
def test_bring_up_of_a_node_that_fails_to_boot_undoes_itself(
    controller: Controller, tmp_path: Path, keep: bool
) -> None:
    controller.boots = False
    with contextlib.ExitStack() as undo:
        with pytest.raises(LostNodeError, match="a node failed to boot"):
            bring_up(controller, undo, tmp_path / "consoles", keep=keep)
        assert controller.connection.running == [] and records.directories() == []
        (console,) = (tmp_path / "consoles").glob("*/console-a.log")
        assert console.read_text().endswith("boots\n"), "why is kept"


def test_bring_up_where_libvirt_refuses_the_second_node_ends_the_first(controller: Controller, tmp_path: Path) -> None:
    controller.connection.refuses = "-b"
    with contextlib.ExitStack() as undo, pytest.raises(InfrastructureError, match=r"did not start .*-b: .*no memory"):
        bring_up(controller, undo, tmp_path / "consoles")
    assert len(controller.connection.flags) == 1 and controller.connection.running == []
    assert records.directories() == []


def test_bring_up_twice_in_one_run_keeps_the_consoles_of_both(controller: Controller, tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        with contextlib.ExitStack() as undo:
            ids.append(bring_up(controller, undo, tmp_path / "consoles").id)
    assert sorted(path.name for path in (tmp_path / "consoles").iterdir()) == sorted(ids)


def test_collect_logs_keeps_what_qemu_and_the_daemons_printed(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "qemu_log_folders", lambda: (tmp_path / "none", tmp_path))
    monkeypatch.setattr(provider, "_LOG_BYTES", 8)
    paths.make(state)
    (tmp_path / "lab-a.log").write_text("char device redirected")
    (state / "libvirtd.log").write_text("long before; error")
    (tmp_path / "console-a.log").write_text("all that it printed")
    provider.collect_logs(tmp_path, ("lab-a", "lab-b"), tmp_path / "kept")
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {
        "console-a.log": "all that it printed", "qemu-lab-a.log": "directed", "libvirtd.log": "e; error",
    }  # fmt: skip


def two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack gives the second node another image."""
    a, b, guest = (image(tmp_path, role) for role in ("node", "newer", "guest"))
    monkeypatch.setattr(provider, "ensure_stack", lambda stack, cache: StackImages(a, replace(b, role="node"), guest))
    monkeypatch.setattr(provider, "stack_digests", lambda stack: replace(TODAY, b="newer-digest"))


def test_bring_up_of_two_nodes_that_differ_boots_each_from_its_own_image(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_images(tmp_path, monkeypatch)
    made: list[NodeDomain] = []
    monkeypatch.setattr(provider, "make_domains", lambda of: made.extend(fake_domains(of)) or made)
    with contextlib.ExitStack() as undo:
        record = bring_up(controller, undo, tmp_path / "consoles", keep=True)
        assert [domain.kernel.read_text() for domain in made] == ["node vmlinuz", "newer vmlinuz"]
        assert [domain.initrd.parent.name for domain in made] == ["node-image", "newer-image"]
        assert [domain.kernel_args for domain in made] == [f"root=/dev/vda {one}-argument" for one in ("node", "newer")]
        images = {"node": "node-digest", "node-b": "newer-digest", "guest": "guest-digest"}
        assert record.provenance.images == images and record.provenance.packages["node-b"] == {"newer-package": "1.0"}
        assert [record.images[side].digest for side in ("a", "b", "guest")] == list(images.values())
        assert find(controller) == record
        monkeypatch.setattr(provider, "stack_digests", lambda stack: replace(TODAY, b="of today"))
        with pytest.raises(InfrastructureError, match="before the recipe of its node-b image changed"):
            find(controller)


@pytest.mark.usefixtures("tools")
def test_make_domains_of_two_images_give_each_node_a_disk_over_its_own(tmp_path: Path) -> None:
    made = replace(parts(tmp_path), b=image(tmp_path, "newer"))
    for domain, role in zip(make_domains(made), ("node", "newer"), strict=True):
        argv = ["qemu-img", "info", "-U", str(domain.root)]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert f"{role}-image/root.img" in told


# --------------------------------------------------------------------------- being found


@pytest.fixture
def kept(controller: Controller, tmp_path: Path) -> LabRecord:
    """A lab that 'lab up' left."""
    return bring_up(controller, contextlib.ExitStack(), tmp_path / "consoles", keep=True)


def find(made: Controller, spec: LabSpec = SPEC, stack: StackSpec = STACK) -> LabRecord | None:
    return provider.find(cast(Any, made.connection), spec, stack)


def test_find_of_a_lab_that_is_up_with_the_same_specs_is_its_record(kept: LabRecord, controller: Controller) -> None:
    assert find(controller) == kept


@pytest.mark.parametrize(
    ("spec", "stack", "difference"),
    [
        (SPEC.model_copy(update={"device_mib": 64}), STACK, "its device_mib is 32 instead of 64"),
        (SPEC, StackSpec(suite="trixie"), "its suite is bookworm instead of trixie, its guest_suite is trixie"),
        (SPEC.model_copy(update={"guest": GuestSpec(memory_mib=512)}), STACK, "its guest.memory_mib is 256 instead of"),
    ],
)
def test_find_of_a_lab_that_is_up_with_another_spec_is_refused_naming_it(
    kept: LabRecord, controller: Controller, spec: LabSpec, stack: StackSpec, difference: str
) -> None:
    with pytest.raises(InfrastructureError) as caught:
        find(controller, spec, stack)
    message = str(caught.value)
    assert message.startswith(f"the lab that is up is not the one that was asked for: {difference}")
    assert message.endswith("; take it down with 'drbd-harness lab down', or ask for the same")


def test_find_of_a_lab_of_the_same_software_by_another_name_is_its_record(
    kept: LabRecord, controller: Controller
) -> None:
    named = StackSpec(name="mine", suite="bookworm", guest_suite="trixie", node=NodeTable(kernel=("bookworm",)))
    assert find(controller, stack=named) == kept
    with pytest.raises(InfrastructureError, match=r"its b\.qemu is empty instead of trixie"):
        find(controller, stack=StackSpec(suite="bookworm", guest_suite="trixie", b=NodeTable(qemu=("trixie",))))


@pytest.mark.parametrize("role", ["node", "guest"])
def test_find_of_a_lab_of_older_images_is_refused_naming_them(
    kept: LabRecord, controller: Controller, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    changed = replace(TODAY, **dict.fromkeys(("a", "b") if role == "node" else ("guest",), f"{role}-of today"))
    monkeypatch.setattr(provider, "stack_digests", lambda stack: changed)
    with pytest.raises(InfrastructureError) as caught:
        find(controller)
    assert str(caught.value) == (
        f"the lab that is up was made before the recipe of its {role} image changed; "
        "take it down with 'drbd-harness lab down'"
    )


def test_find_of_a_lab_whose_node_ended_is_none(kept: LabRecord, controller: Controller) -> None:
    controller.connection.running.pop()
    assert find(controller) is None


def test_find_of_a_lab_that_a_run_made_for_itself_is_none(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        bring_up(controller, undo, tmp_path / "consoles")
        assert find(controller) is None


# --------------------------------------------------------------------------- what it can do


class PowerSwitch:
    """Remembers what was switched."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def off(self, name: str) -> None:
        self.calls.append(f"off {name}")

    def on(self, name: str) -> None:
        self.calls.append(f"on {name}")


class Runner:
    silent = None

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def connect(self, patience: float) -> None:
        self.calls.append("connect")

    def run(self, argv: list[str]) -> None:
        self.calls.append(" ".join(argv))

    def close(self) -> None:
        self.calls.append("close")


def test_power_off_and_on_of_a_node_end_and_renew_its_connections(kept: LabRecord, tmp_path: Path) -> None:
    switch = PowerSwitch()
    nodes = [
        Node(known.name, cast(Any, Runner(switch.calls)), "repl0", known.address, "/dev/vdb", "test:///default")
        for known in kept.nodes
    ]
    lab: FullLab = NestedLab(kept, tmp_path, *nodes, Stack(), cast(Any, switch), fresh=True)
    domain = kept.nodes[1].domain
    lab.power_off(lab.b)
    assert switch.calls == [f"off {domain}", "close"]
    lab.power_on(lab.b)
    assert switch.calls[2:] == [f"on {domain}", "close", "connect", "dmesg --console-level 2"]


def test_lab_of_a_record_offers_its_resource_its_guest_and_its_provenance(kept: LabRecord, tmp_path: Path) -> None:
    nobody = cast(Any, None)
    lab: FullLab = NestedLab(kept, tmp_path, nobody, nobody, Stack(), nobody, fresh=True)
    assert [node.name for node in lab.resource_spec.nodes] == ["left", "right"]
    assert lab.guest_spec == SPEC.guest and lab.provenance() == kept.provenance
    image = lab.guest_image
    assert (image.kernel, image.initrd) == ("/seed/guest/vmlinuz", "/seed/guest/initrd.img")
    assert image.kernel_args == "root=/dev/vda guest-argument"
    assert image.root_device == "/dev/disk/by-id/virtio-guestroot"
