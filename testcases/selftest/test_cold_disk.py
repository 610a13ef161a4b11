"""A disk on a bus that takes none while the guest runs: another guest is started with it, and ends with it."""

from __future__ import annotations

from typing import Any, cast

import libvirt
import pytest
from fake_lab import FakeLab
from fake_libvirt import LibvirtSaid
from lxml import etree
from test_hotplug import Domain, Stage

from harness.errors import RefusedError
from harness.guest import domain as module
from harness.guest import ending
from harness.guest.domain import Guest
from harness.lab.base import GuestImage
from harness.model import CacheMode, Cell, DiskBus, DiskSource, FilesystemKind

CELL = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, bus=DiskBus.SATA)
SOURCE = DiskSource("/dev/drbd0")


class Starting(Domain):
    """A libvirt that starts a guest from a definition, or refuses to."""

    def createXML(self, xml: str, flags: int) -> Domain:  # noqa: N802 - libvirt's name
        self._called("create")
        if self.refuses:
            raise LibvirtSaid(self.refuses, libvirt.VIR_ERR_XML_ERROR)
        self.xml = xml
        self.serial = str(etree.fromstring(xml.encode()).findtext("devices/disk[last()]/serial"))
        return self


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> tuple[Starting, Any]:
    """What starts guests, and the lab it belongs to; no guest was there before."""
    monkeypatch.setattr(module, "HOTPLUG_SECONDS", 0.05)
    monkeypatch.setattr(ending, "end", lambda node, name: None)
    lab, world = FakeLab(), Starting()
    cast(Any, lab).guest_image = GuestImage("/kernel", "/initrd", "ro", "/dev/vdd")
    cast(Any, lab.a).libvirt = world
    cast(Any, lab.a).monitor_connection = world
    return world, lab


def test_start_with_a_disk_has_it_in_the_definition(starting: tuple[Starting, Any]) -> None:
    world, lab = starting
    _, disk = Guest.start_with(lab, lab.a, SOURCE, CELL)
    assert disk.path == "/dev/vdb" and disk.serial == world.serial and "attach" not in world.calls
    target = etree.fromstring(world.xml.encode()).find("devices/disk[last()]/target")
    assert target.get("bus") == "sata"


def test_start_with_a_disk_that_libvirt_does_not_take_is_the_stacks_answer(starting: tuple[Starting, Any]) -> None:
    world, lab = starting
    # As libvirt 11.3 says it.
    world.refuses = "XML error: Invalid value for attribute 'bus' in element 'target': 'nvme'."
    with pytest.raises(RefusedError) as caught:
        Guest.start_with(lab, lab.a, SOURCE, CELL)
    assert str(caught.value) == f"libvirt or QEMU refused: {world.refuses}"


def test_buses_that_take_a_disk_are_those_that_the_stage_plugs_one_into() -> None:
    assert [bus for bus in DiskBus if bus.hot_plugged] == [DiskBus.VIRTIO, DiskBus.SCSI]
    assert Stage().attach().path == "/dev/vdb"
