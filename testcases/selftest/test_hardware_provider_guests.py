"""The lab over two machines whose cells are in a guest: what is noted, asked of libvirt and refused for it."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from played_machines import Played, machines, nothing_written, stories
from test_inventory_command import Two
from test_taken import answer

from harness.config import inventory
from harness.config.lab_spec import GuestSpec, LabSpec
from harness.errors import ProtectedError, UsageError
from harness.lab.base import GuestImage
from harness.lab.hardware import provider
from harness.lab.hardware.guest_image import BroughtImage
from harness.lab.hardware.guests import GuestParts
from harness.lab.hardware.provider import hardware_lab
from harness.model import ImageLock

__all__ = ["machines"]

LOCK = ImageLock("guest", "trixie", "d" * 64)
BOOTS = GuestImage("/k", "/i", "root=/dev/vda", "/r", root_is_file=True, kvm=False, cpu="<cpu/>", uuid="1-2")


@pytest.fixture
def guests(machines: Two, monkeypatch: pytest.MonkeyPatch) -> Two:
    """The machines with QEMU and libvirt, which say that they have the guest's image already."""

    def parts(inventory: Any, spec: GuestSpec, found: Any, image: Any, uris: Any) -> GuestParts:
        assert all(uri.startswith("qemu+ssh://drbd-harness-") for uri in uris)
        named = spec.model_copy(
            update={"name": "drbd-harness-test-guest", "log_directory": "/var/lib/drbd-harness/guest"}
        )
        return GuestParts(named, uris, BroughtImage("d" * 64, {}), BOOTS, LOCK, {"fio": "3.39"}, ((), ()))

    monkeypatch.setattr(provider, "ensure", lambda role, suite, cache: SimpleNamespace(role=role))
    monkeypatch.setattr(provider, "guest_parts", parts)
    for machine in machines.machines:
        machine.facts += "qemu=10.0.3\nlibvirt=11.3.0\nmachine=x86_64\napparmor=yes\n"
    return machines


def test_hardware_lab_with_guests_notes_them_before_it_makes_what_they_print_to(guests: Two) -> None:
    with hardware_lab(inventory.load(guests.path), LabSpec(device_mib=32), guests=True) as made:
        assert made.carries_guests and made.guest_image is BOOTS
        assert made.guest_spec.console == "/var/lib/drbd-harness/guest/drbd-harness-test-guest.log"
        assert made.a.libvirt_uri != made.b.libvirt_uri and made.a.somebodys
        assert made.lock.guest == LOCK and made.provenance().images == {"guest": "d" * 64}
        assert made.provenance().packages == {"guest": {"fio": "3.39"}}
        wrapper = made.a.libvirt_uri.partition("command=")[2].partition("&")[0]
        assert Path(unquote(wrapper)).exists()
        folder = Path(unquote(wrapper)).parent
    assert not folder.exists()
    for machine, story in zip(guests.machines, stories(guests), strict=True):
        noted = [one for one in story if re.match("note (programs|domain|file)", one)]
        assert noted[-4:] == [
            "note programs /var/lib/drbd-harness/guest", "note file /etc/apparmor.d/libvirt/libvirt-1-2",
            "note file /etc/apparmor.d/libvirt/libvirt-1-2.files", "note domain drbd-harness-test-guest",
        ]  # fmt: skip
        logs = [argv for argv in machine.ran if argv[0] == "sh" and "chmod 711" in argv[2]]
        assert [argv[4:] for argv in logs] == [
            ("/var/lib/drbd-harness/guest", made.guest_spec.console, made.guest_spec.canary_log)
        ]


def test_libvirt_is_asked_for_its_domains_only_where_a_cell_is_in_a_guest(guests: Two) -> None:
    with hardware_lab(inventory.load(guests.path), LabSpec(device_mib=32)):
        pass
    assert not any("libvirt is asked" in story for story in stories(guests))
    with hardware_lab(inventory.load(guests.path), LabSpec(device_mib=32), guests=True):
        pass
    assert all("libvirt is asked" in story for story in stories(guests))


def test_hardware_lab_beside_a_domain_of_that_name_is_refused(guests: Two) -> None:
    (one, _) = guests.machines
    assert isinstance(one, Played)
    one.taken = answer(domains={"status": 0, "out": "theirs\ndrbd-harness-test-guest\n", "err": ""})
    with (
        pytest.raises(ProtectedError, match="there is a domain drbd-harness-test-guest already"),
        hardware_lab(inventory.load(guests.path), LabSpec(), guests=True),
    ):
        pytest.fail("there is a lab")
    assert nothing_written(guests)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            "drbd_resources=data drbd-harness-test \n",
            "the run cuts the power of beta, and the resource data is up there",
        ),
        ("domains=mail web \n", "and the guest mail and 1 more are up there; nothing was changed"),
    ],
)
def test_hardware_lab_whose_power_is_somebody_elses_too_is_refused_where_a_cell_cuts_it(
    guests: Two, facts: str, words: str
) -> None:
    guests.machines[1].facts += facts
    with (
        pytest.raises(UsageError, match=words),
        hardware_lab(inventory.load(guests.path), LabSpec(), guests=True, cuts=True),
    ):
        pytest.fail("there is a lab")
    assert nothing_written(guests)
    with hardware_lab(inventory.load(guests.path), LabSpec(device_mib=32), guests=True):
        pass


def test_guest_that_a_killed_run_left_is_put_back_by_clean_and_not_said_to_be_somebody_elses(guests: Two) -> None:
    (_, other) = guests.machines
    assert isinstance(other, Played)
    left = {"number": 9, "kind": "domain", "what": "drbd-harness-test-guest", "how": "", "holder": {}, "at": 0}
    other.entries = [left | {"boot": "two"}]
    other.facts += "domains=drbd-harness-test-guest\n"
    with (
        pytest.raises(ProtectedError, match=r"the last of them domain drbd-harness-test-guest; '.*' puts them back"),
        hardware_lab(inventory.load(guests.path), LabSpec(), guests=True, cuts=True),
    ):
        pytest.fail("there is a lab")
    assert nothing_written(guests)


def test_hardware_lab_with_guests_on_a_machine_without_libvirt_is_one_sentence(guests: Two) -> None:
    guests.machines[1].facts = guests.machines[1].facts.replace("libvirt=11.3.0\n", "")
    with (
        pytest.raises(UsageError, match=r"beta lacks libvirt \(package libvirt-daemon-system\), which a guest needs"),
        hardware_lab(inventory.load(guests.path), LabSpec(), guests=True),
    ):
        pytest.fail("there is a lab")
    assert nothing_written(guests)
