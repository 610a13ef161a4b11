"""The guest's domain: which connection a call takes while the work speaks with the guest over the other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, cast

import libvirt
import libvirt_qemu
import pytest
from fake_lab import FakeLab
from fake_libvirt import LibvirtSaid
from scripted_libvirt import bounded

from harness.config.lab_spec import GuestSpec, LabSpec
from harness.errors import LostGuestError
from harness.guest.domain import Guest
from harness.lab.node import Node

SPEC = LabSpec(guest=GuestSpec(name="guest-of-this-test"))


@dataclass
class Domain:
    """``error`` is what libvirt says to every call."""

    error: BaseException | None = None
    calls: list[str] = field(default_factory=list)

    def _told(self, what: str) -> int:
        if self.error is not None:
            raise self.error
        self.calls.append(what)
        return 1

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return self._told("isActive")

    def reset(self) -> int:
        return self._told("reset")

    def resume(self) -> int:
        return self._told("resume")


@dataclass
class Connection:
    domain: Domain

    def lookupByName(self, name: str) -> Domain:  # noqa: N802 - libvirt's name
        assert name == SPEC.guest.name
        if self.domain.error is not None:
            raise self.domain.error
        return self.domain


class Stage:
    """A guest whose node has two connections, each with its own handle on the domain."""

    def __init__(self) -> None:
        self.working, self.looking_on = Domain(), Domain()
        lab = FakeLab(spec=SPEC)
        node = cast(Any, lab.a)
        node.libvirt, node.monitor_connection = Connection(self.working), Connection(self.looking_on)
        self.guest = Guest(cast(Any, lab), cast(Node, node), bounded(self.working))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage()

    def answer(domain: Domain, request: str, timeout: int, flags: int) -> str:
        domain._told("agent")
        return '{"return": {}}'

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", answer)
    return made


def test_guest_reset_uses_monitor_connection(stage: Stage) -> None:
    stage.guest.reset()
    assert stage.looking_on.calls == ["reset"]
    assert stage.working.calls == ["agent"], "the new boot's agent answered"


def test_guest_reset_libvirt_error_lost_guest(stage: Stage) -> None:
    stage.looking_on.error = LibvirtSaid("Domain not found")
    with pytest.raises(LostGuestError, match="the guest is not known to libvirt on nodea any more: Domain not found"):
        stage.guest.reset()


def test_guest_alive_needs_domain_and_agent(stage: Stage) -> None:
    assert stage.guest.alive()
    assert stage.working.calls == ["isActive", "agent"] and not stage.looking_on.calls
    stage.working.error = LibvirtSaid("Domain not found")
    assert not stage.guest.alive()


def test_libvirt_call_is_logged_with_lab_node_and_what_libvirt_reported(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness.libvirt")
    stage.guest.reset()
    stage.working.error = libvirt.libvirtError("Domain not found")
    stage.working.error.args = ("Domain not found",)
    with pytest.raises(LostGuestError):
        stage.guest.resume()
    columns = [message.split("\t") for message in caplog.messages]
    assert [column[:3] + column[4:] for column in columns] == [
        ["lab1", "nodea", "ok", f"reset {SPEC.guest.name}"],
        ["lab1", "guest", "ok", "guest-ping until the agent answers"],
        ["lab1", "nodea", "libvirt", f"resume {SPEC.guest.name}", "Domain not found"],
    ]
