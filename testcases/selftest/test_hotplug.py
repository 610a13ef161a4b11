"""The real guest over a scripted domain: its disk comes, is refused, is never seen, never goes; a call that hangs."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import libvirt
import pytest
from fake_lab import FakeLab
from fake_libvirt import LibvirtSaid
from lxml import etree
from scripted_libvirt import HangingLibvirt, bounded

from harness.errors import DeadlineError, HungCallError, LostGuestError, RefusedError
from harness.guest import domain as module
from harness.guest.disk import AttachedDisk
from harness.guest.domain import Guest
from harness.lab.node import Node
from harness.model import CacheMode, Cell, DiskSource, FilesystemKind
from harness.remote import libvirt_calls

CELL = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)


@dataclass
class Domain:
    """A domain into which one disk can be plugged.

    ``refuses`` is what libvirt says to an attach; ``sees``: whether the guest's kernel finds the disk; ``lets_go``:
    whether it ever answers to a request to unplug it.
    """

    refuses: str = ""
    sees: bool = True
    lets_go: bool = True
    dies_at: str = ""
    running: bool = True
    serial: str = ""
    calls: list[str] = field(default_factory=list)

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what == self.dies_at:
            self.running = False
        if not self.running:
            raise LibvirtSaid("Domain not found: no domain with matching name 'guest'", libvirt.VIR_ERR_NO_DOMAIN)

    def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802 - libvirt's name
        self._called("attach")
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        if self.refuses:
            raise LibvirtSaid(self.refuses, libvirt.VIR_ERR_CONFIG_UNSUPPORTED)
        self.serial = str(etree.fromstring(xml.encode()).findtext("serial"))

    def detachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802 - libvirt's name
        self._called("detach")
        if self.lets_go:
            self.serial = ""

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        self._called("describe")
        return f"<domain><devices><disk><serial>{self.serial}</serial></disk></devices></domain>"

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.running)

    def destroy(self) -> None:
        self._called("destroy")
        self.running, self.serial = False, ""

    def qemuAgentCommand(self, request: str, timeout: int, flags: int) -> str:  # noqa: N802 - libvirt's name
        """Its agent."""
        if not self.running:
            raise LibvirtSaid("Guest agent is not responding: QEMU guest agent is not connected")
        command = json.loads(request)["execute"]
        path = base64.b64encode(b"/dev/vdb\n" if self.sees and self.serial else b"").decode()
        said: dict[str, Any] = {"guest-exec": {"pid": 7},
                                "guest-exec-status": {"exited": True, "exitcode": 0, "out-data": path}}  # fmt: skip
        return json.dumps({"return": said.get(command, {})})


@dataclass
class Connection:
    domain: Domain
    looked_up: int = 0

    def lookupByName(self, name: str) -> Domain:  # noqa: N802 - libvirt's name
        self.looked_up += 1
        return self.domain


class Stage:
    """A guest on a node; with ``libvirt`` the node has real connections to that, else the calls go straight through."""

    def __init__(self, libvirt: HangingLibvirt | None = None) -> None:
        lab = FakeLab()
        self.domain = Domain()
        # On the node, over ssh.
        self.ran: list[list[str]] = []
        node = cast(Any, lab.a)
        handle = bounded(self.domain)
        if libvirt is not None:
            self.libvirt, libvirt.domain = libvirt, self.domain
            runner = SimpleNamespace(lab="lab1", silent=None, run=lambda argv, **_: self.ran.append(argv))
            node = Node("nodea", cast(Any, runner), "repl0", "192.0.2.1", "/dev/vdb", "qemu+ssh://nodea/system")
            handle = node.libvirt.lookupByName("guest")
        else:
            node.monitor_connection = Connection(self.domain)
        self.guest = Guest(cast(Any, lab), node, handle)

    def attach(self) -> AttachedDisk:
        return self.guest.attach(DiskSource("/dev/drbd0"), CELL)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(module, "HOTPLUG_SECONDS", 0.05)
    return Stage()


@pytest.fixture
def hanging(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """The same where libvirt's calls may hang."""
    world = HangingLibvirt(tmp_path / "sock")
    monkeypatch.setattr(libvirt_calls, "_seconds", lambda name, arguments: 0.2 if name in world.hangs else 60.0)
    monkeypatch.setattr(libvirt, "open", world.open)
    yield Stage(world)
    world.stop()


def test_attach_and_detach_of_a_disk_that_comes_and_goes(stage: Stage) -> None:
    disk = stage.attach()
    assert disk.path == "/dev/vdb" and disk.serial == stage.domain.serial
    stage.guest.detach(disk)
    assert stage.domain.serial == "" and stage.domain.running and not stage.guest.ended


def test_attach_that_is_refused_is_the_stacks_answer(stage: Stage) -> None:
    stage.domain.refuses = "unsupported configuration: native I/O needs either no disk cache or directsync cache mode"
    with pytest.raises(RefusedError) as caught:
        stage.attach()
    assert str(caught.value) == f"libvirt or QEMU refused: {stage.domain.refuses}"
    assert stage.domain.running


class Secrets:
    """As much of a libvirt as keeps secrets; ``refuses``: what it says where it keeps none."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.values: list[bytes] = []
        self.kept = 0

    def secretDefineXML(self, xml: str, flags: int) -> Secrets:  # noqa: N802 - libvirt's name
        if self.refuses:
            raise LibvirtSaid(self.refuses, libvirt.VIR_ERR_NO_SUPPORT)
        self.kept += 1
        return self

    def setValue(self, value: bytes, flags: int) -> None:  # noqa: N802 - libvirt's name
        self.values.append(value)

    def undefine(self) -> None:
        self.kept -= 1


def test_attach_of_an_encrypted_disk_gives_libvirt_the_key_and_takes_it_back(stage: Stage) -> None:
    secrets = cast(Any, stage.guest.node).libvirt = Secrets()
    disk = stage.guest.attach(DiskSource("/dev/drbd0", luks_key="abc"), CELL)
    assert secrets.values == [b"abc"] and secrets.kept == 0
    assert "abc" not in disk.xml and "encryption" in disk.xml


def test_attach_of_an_encrypted_disk_to_a_libvirt_without_secrets_is_the_stacks_answer(stage: Stage) -> None:
    cast(Any, stage.guest.node).libvirt = Secrets("this function is not supported by the connection driver")
    with pytest.raises(RefusedError, match="libvirt on nodea refused: this function is not supported"):
        stage.guest.attach(DiskSource("/dev/drbd0", luks_key="abc"), CELL)
    assert stage.domain.serial == ""


def test_attach_to_a_guest_that_ended_is_a_lost_guest(stage: Stage) -> None:
    stage.domain.dies_at = "attach"
    with pytest.raises(LostGuestError, match="the guest was lost while its disk was attached: Domain not found"):
        stage.attach()


def test_attach_of_a_disk_that_the_guest_never_sees_is_undone(stage: Stage) -> None:
    stage.domain.sees = False
    with pytest.raises(DeadlineError, match="the disk's appearance in the guest did not happen within 0 s"):
        stage.attach()
    assert stage.domain.serial == "" and stage.domain.running and not stage.guest.ended


def test_attach_of_a_disk_that_is_never_seen_and_never_goes_ends_the_guest(stage: Stage) -> None:
    stage.domain.sees = stage.domain.lets_go = False
    with pytest.raises(DeadlineError, match="the disk's appearance in the guest did not happen within 0 s"):
        stage.attach()
    assert not stage.domain.running and stage.guest.ended, "it would hold DRBD's device open"


def test_detach_that_never_ends_is_a_deadline_error(stage: Stage) -> None:
    disk = stage.attach()
    stage.domain.lets_go = False
    began = time.monotonic()
    with pytest.raises(DeadlineError) as caught:
        stage.guest.detach(disk)
    assert str(caught.value) == "the disk's removal from the guest did not happen within 0 s"
    assert time.monotonic() - began < 10
    stage.guest.destroy()
    assert not stage.domain.running and stage.domain.serial == ""


@pytest.mark.parametrize("step", ["detach", "describe"])
def test_detach_from_a_guest_that_ends_meanwhile_is_a_lost_guest(stage: Stage, step: str) -> None:
    disk = stage.attach()
    stage.domain.dies_at = step
    words = "the disk was not detached" if step == "detach" else "the guest was lost while its disk was detached"
    with pytest.raises(LostGuestError, match=f"{words}: Domain not found"):
        stage.guest.detach(disk)


def test_detach_that_libvirt_never_answers_is_a_deadline_error_and_the_guest_can_be_ended(hanging: Stage) -> None:
    disk = hanging.attach()
    hanging.libvirt.hangs = {"detachDeviceFlags"}
    began = time.monotonic()
    with pytest.raises(HungCallError) as caught:
        hanging.guest.detach(disk)
    assert str(caught.value) == "libvirt on nodea did not answer detachDeviceFlags within 0 s"
    hanging.guest.destroy()
    assert time.monotonic() - began < 10
    assert not hanging.domain.running, "over another connection than the one that hung"
    assert not hanging.libvirt.crashed


def test_attach_that_libvirt_never_answers_is_a_deadline_error_and_ends_the_guest(hanging: Stage) -> None:
    hanging.libvirt.hangs = {"attachDeviceFlags"}
    with pytest.raises(HungCallError, match=r"libvirt on nodea did not answer attachDeviceFlags within 0 s"):
        hanging.attach()
    assert hanging.guest.ended and not hanging.domain.running, "the disk may yet be attached"


def test_destroy_that_libvirt_never_answers_returns(hanging: Stage) -> None:
    hanging.libvirt.hangs = {"destroy"}
    began = time.monotonic()
    hanging.guest.destroy()
    assert time.monotonic() - began < 10 and hanging.guest.ended
    (killed,) = hanging.ran
    assert "kill -9" in killed[2] and killed[-1] == hanging.guest.spec.name


@pytest.mark.parametrize("call", ["qemuAgentCommand", "isActive", "lookupByName", "getLibVersion"])
def test_guest_whose_libvirt_never_answers_is_not_alive_and_can_be_ended(hanging: Stage, call: str) -> None:
    hanging.libvirt.hangs = {call}
    began = time.monotonic()
    assert hanging.guest.alive() is (call in ("lookupByName", "getLibVersion"))
    hanging.guest.destroy()
    assert time.monotonic() - began < 10 and hanging.guest.ended
