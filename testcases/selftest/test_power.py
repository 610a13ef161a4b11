"""The power of a lab's nodes, over a libvirt that only remembers."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import libvirt
import pytest
from fake_libvirt import LibvirtSaid
from qemu_process import process

from harness.errors import (
    DeadlineError,
    HarnessError,
    HungCallError,
    InfrastructureError,
    LostLibvirtError,
    LostNodeError,
)
from harness.lab.nested import boot
from harness.lab.nested.boot import READY
from harness.lab.nested.power import Power, destroy

NAME = "drbd-harness-1a2b3c-a"


class Connection:
    """The controller's libvirt: what it was asked, and what the node then prints on its console."""

    def __init__(self, console: Path) -> None:
        self.console = console
        self.calls: list[tuple[str, object, int]] = []
        self.running = {NAME}
        self.prints = b"booting\n" + READY + b"\n"
        self.xml = (
            f"<domain><name>{NAME}</name><devices><serial type='pty'><log file='{console}' append='off'/></serial>"
            "</devices></domain>"
        )
        self.error: BaseException | None = None

    def lookupByName(self, name: str) -> Connection:  # noqa: N802 - libvirt's name
        if name not in self.running:
            raise LibvirtSaid(f"Domain not found: {name}")
        return self

    def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's name
        self.calls.append(("describe", None, flags))
        return self.xml

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(NAME in self.running)

    def destroy(self) -> None:
        self.calls.append(("destroy", None, 0))
        if self.error is not None:
            raise self.error
        self.running.discard(NAME)

    def createXML(self, xml: str, flags: int) -> Connection:  # noqa: N802 - libvirt's name
        self.calls.append(("create", xml, flags))
        if self.error is not None:
            raise self.error
        assert not self.console.exists(), "libvirt would begin it anew, and what was printed before would be gone"
        self.console.write_bytes(self.prints)
        self.running.add(NAME)
        return self

    def steps(self) -> list[str]:
        return [what for what, _, _ in self.calls]


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    console = tmp_path / "console-a.log"
    console.write_bytes(b"first boot\n" + READY + b"\n")
    return Connection(console)


Switch = Callable[..., Power]


@pytest.fixture
def switch(connection: Connection, tmp_path: Path) -> Switch:
    return lambda autodestroy=True: Power(lambda: cast(Any, connection), tmp_path, autodestroy=autodestroy)


def test_off_ends_the_domain_at_once_and_remembers_it(connection: Connection, switch: Switch) -> None:
    switch().off(NAME)
    assert connection.steps() == ["describe", "destroy"], "a shutdown would let the node finish what it is doing"
    assert connection.calls[0][2] & libvirt.VIR_DOMAIN_XML_SECURE


@pytest.mark.parametrize("autodestroy", [True, False])
def test_on_starts_the_same_domain_again(connection: Connection, switch: Switch, autodestroy: bool) -> None:
    power = switch(autodestroy)
    power.off(NAME)
    power.on(NAME)
    assert connection.calls[-1] == (
        "create", connection.xml, libvirt.VIR_DOMAIN_START_AUTODESTROY if autodestroy else 0
    ), "one that is kept outlives us, any other ends with us"  # fmt: skip


def test_on_keeps_the_console_of_each_boot(connection: Connection, switch: Switch, tmp_path: Path) -> None:
    power = switch()
    for number in (1, 2):
        connection.prints = f"boot {number}\n".encode() + READY
        power.off(NAME)
        power.on(NAME)
    kept = {path.name: path.read_bytes().split(b"\n")[0] for path in tmp_path.iterdir()}
    assert kept == {"console-a.1.log": b"first boot", "console-a.2.log": b"boot 1", "console-a.log": b"boot 2"}


def test_on_without_a_console_file_starts_the_node(connection: Connection, switch: Switch) -> None:
    connection.console.unlink()
    power = switch()
    power.off(NAME)
    power.on(NAME)
    assert connection.isActive()


def test_on_does_not_take_the_boot_before_for_this_one(
    connection: Connection, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "BOOT_SECONDS", 0.02)
    connection.prints = b"still booting\n"
    power = switch()
    power.off(NAME)
    with pytest.raises(DeadlineError, match=f"{NAME}: still booting"):
        power.on(NAME)


def test_on_of_a_node_that_fails_to_boot_raises_its_reason(connection: Connection, switch: Switch) -> None:
    connection.prints = b"Kernel panic - not syncing: no root\nrebooting\n"
    power = switch()
    power.off(NAME)
    with pytest.raises(LostNodeError, match="failed to boot: Kernel panic - not syncing: no root"):
        power.on(NAME)


@pytest.mark.parametrize("step", ["off", "on"])
def test_off_and_on_refused_by_libvirt_are_infrastructure_errors(
    connection: Connection, switch: Switch, step: str
) -> None:
    power = switch()
    if step == "on":
        power.off(NAME)
    connection.error = LibvirtSaid("internal error: no memory")
    with pytest.raises(InfrastructureError, match=f"{NAME} was not switched {step}.*no memory"):
        getattr(power, step)(NAME)


def test_off_of_a_node_that_is_off_is_an_infrastructure_error(connection: Connection, switch: Switch) -> None:
    power = switch()
    power.off(NAME)
    with pytest.raises(InfrastructureError, match="was not switched off: Domain not found"):
        power.off(NAME)


def test_on_without_a_kept_console_is_an_infrastructure_error(connection: Connection, switch: Switch) -> None:
    connection.xml = f"<domain><name>{NAME}</name><devices/></domain>"
    power = switch()
    power.off(NAME)
    with pytest.raises(InfrastructureError, match="no console file"):
        power.on(NAME)


def test_wait_is_for_every_domain(connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "harness.progress")
    boot.wait(cast(Any, connection), {NAME: connection.console})
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(f"{NAME} is up after")
    connection.running.clear()
    with pytest.raises(LostNodeError, match="ended while it was booting: its console is empty"):
        boot.wait(cast(Any, connection), {NAME: connection.console, "other": tmp_path / "none.log"})


def test_power_logs_each_switch_with_the_lab_and_what_libvirt_reported(
    connection: Connection, switch: Switch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "harness.libvirt")
    power = switch()
    power.off(NAME)
    power.on(NAME)
    connection.error = LibvirtSaid("no such thing")
    with pytest.raises(InfrastructureError):
        power.off(NAME)
    columns = [message.split("\t") for message in caplog.messages]
    assert [column[:2] + column[4:] for column in columns] == [
        [tmp_path.name, "controller", f"destroy {NAME}"],
        [tmp_path.name, "controller", f"createXML {NAME}"],
        [tmp_path.name, "controller", f"destroy {NAME}", "no such thing"],
    ]
    assert [column[2] == "ok" for column in columns] == [True, True, False]


@pytest.mark.parametrize("error", [LostLibvirtError("libvirt is lost"), HungCallError("libvirt hangs")])
def test_destroy_where_libvirt_is_lost_ends_the_process_and_that_of_no_other(error: HarnessError) -> None:
    def lost() -> Any:
        raise error

    name = f"drbd-harness-test-{os.getpid()}"
    with process(f"{name}-ab") as other, process(f"{name}-a") as one:
        os.kill(one.pid, signal.SIGSTOP)
        destroy(lost, f"{name}-a", "1a2b3c")
        assert one.wait(20) == -signal.SIGKILL and other.poll() is None


def test_destroy_of_a_domain_that_is_not_there_is_none_of_anybody(connection: Connection) -> None:
    destroy(lambda: cast(Any, connection), "drbd-harness-1a2b3c-b", "1a2b3c")
    assert connection.running == {NAME}
    destroy(lambda: cast(Any, connection), NAME, "1a2b3c")
    assert connection.running == set()
