"""The power switch of a lab's nodes, over a libvirt that only remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest
from fakes import LibvirtSaid

from harness.errors import DeadlineError, InfrastructureError, LostNodeError
from harness.lab.nested import boot
from harness.lab.nested.boot import READY
from harness.lab.nested.power import Power

NAME = "drbd-harness-1a2b3c-a"


class Connection:
    """The controller's libvirt: what it was told, and what the node then says on its console."""

    def __init__(self, console: Path) -> None:
        self.console = console
        self.told: list[tuple[str, object, int]] = []
        self.running = {NAME}
        self.says = b"booting\n" + READY + b"\n"
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
        self.told.append(("describe", None, flags))
        return self.xml

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(NAME in self.running)

    def destroy(self) -> None:
        self.told.append(("destroy", None, 0))
        if self.error is not None:
            raise self.error
        self.running.discard(NAME)

    def createXML(self, xml: str, flags: int) -> Connection:  # noqa: N802 - libvirt's name
        self.told.append(("create", xml, flags))
        if self.error is not None:
            raise self.error
        assert not self.console.exists(), "libvirt would begin it anew, and what was said before would be gone"
        self.console.write_bytes(self.says)
        self.running.add(NAME)
        return self

    def words(self) -> list[str]:
        return [what for what, _, _ in self.told]


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    console = tmp_path / "console-a.log"
    console.write_bytes(b"first boot\n" + READY + b"\n")
    return Connection(console)


Switch = Callable[..., Power]


@pytest.fixture
def switch(connection: Connection, tmp_path: Path) -> Switch:
    return lambda autodestroy=True: Power(connection, tmp_path, lambda what: None, autodestroy=autodestroy)


def test_off_is_at_once_and_remembers_what_the_node_was(connection: Connection, switch: Switch) -> None:
    switch().off(NAME)
    assert connection.words() == ["describe", "destroy"], "a shutdown would let the node finish what it is doing"
    assert connection.told[0][2] & libvirt.VIR_DOMAIN_XML_SECURE


@pytest.mark.parametrize("autodestroy", [True, False])
def test_on_is_the_same_node_again(connection: Connection, switch: Switch, autodestroy: bool) -> None:
    power = switch(autodestroy)
    power.off(NAME)
    power.on(NAME)
    assert connection.told[-1] == (
        "create", connection.xml, libvirt.VIR_DOMAIN_START_AUTODESTROY if autodestroy else 0
    ), "one that is kept outlives us, any other ends with us"  # fmt: skip


def test_the_words_of_each_boot_are_kept(connection: Connection, switch: Switch, tmp_path: Path) -> None:
    power = switch()
    for number in (1, 2):
        connection.says = f"boot {number}\n".encode() + READY
        power.off(NAME)
        power.on(NAME)
    kept = {path.name: path.read_bytes().split(b"\n")[0] for path in tmp_path.iterdir()}
    assert kept == {"console-a.1.log": b"first boot", "console-a.2.log": b"boot 1", "console-a.log": b"boot 2"}


def test_a_node_that_never_had_a_console_file_starts_too(connection: Connection, switch: Switch) -> None:
    connection.console.unlink()
    power = switch()
    power.off(NAME)
    power.on(NAME)
    assert connection.isActive()


def test_the_boot_before_is_no_proof_of_this_one(
    connection: Connection, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "BOOT_SECONDS", 0.02)
    connection.says = b"still booting\n"
    power = switch()
    power.off(NAME)
    with pytest.raises(DeadlineError, match=f"{NAME}: still booting"):
        power.on(NAME)


def test_a_node_that_gives_its_boot_up_is_lost_with_its_reason(connection: Connection, switch: Switch) -> None:
    connection.says = b"Kernel panic - not syncing: no root\nrebooting\n"
    power = switch()
    power.off(NAME)
    with pytest.raises(LostNodeError, match="gave its boot up: Kernel panic - not syncing: no root"):
        power.on(NAME)


@pytest.mark.parametrize("step", ["off", "on"])
def test_what_libvirt_says_no_to_is_an_error_of_the_lab(connection: Connection, switch: Switch, step: str) -> None:
    power = switch()
    if step == "on":
        power.off(NAME)
    connection.error = LibvirtSaid("internal error: no memory")
    with pytest.raises(InfrastructureError, match=f"{NAME} was not switched {step}.*no memory"):
        getattr(power, step)(NAME)


def test_a_node_that_is_off_already_is_an_error_of_the_lab(connection: Connection, switch: Switch) -> None:
    power = switch()
    power.off(NAME)
    with pytest.raises(InfrastructureError, match="was not switched off: Domain not found"):
        power.off(NAME)


def test_a_node_whose_console_nobody_keeps_is_never_waited_for(connection: Connection, switch: Switch) -> None:
    connection.xml = f"<domain><name>{NAME}</name><devices/></domain>"
    power = switch()
    power.off(NAME)
    with pytest.raises(InfrastructureError, match="no console that is kept"):
        power.on(NAME)


def test_waiting_is_for_all_of_them(connection: Connection, tmp_path: Path) -> None:
    said: list[str] = []
    boot.wait(connection, {NAME: connection.console}, said.append)
    assert len(said) == 1 and said[0].startswith(f"{NAME} is up after")
    connection.running.clear()
    with pytest.raises(LostNodeError, match="ended while it was booting: its console is empty"):
        boot.wait(connection, {NAME: connection.console, "other": tmp_path / "none.log"}, said.append)
