"""A nested lab without a boot: its specs and images, and the controller that makes it.  Nothing here is a test."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest
from fake_libvirt import LibvirtSaid
from lxml import etree

from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.errors import LostNodeError
from harness.images import Image, StackDigests, StackImages
from harness.lab.nested import boot, domains, provider
from harness.lab.nested.accel import Accelerator
from harness.lab.nested.domains import Parts
from harness.lab.nested.record import LabRecord
from harness.render.domain import NodeDomain

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


def find(made: Controller, spec: LabSpec = SPEC, stack: StackSpec = STACK) -> LabRecord | None:
    return provider.find(cast(Any, made.connection), spec, stack)
