"""Sabotages of the instrument: the power stops one domain, and kills libvirt only where it is the lab's alone."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from qemu_process import process

from harness.errors import InfrastructureError
from harness.lab.nested.libvirt_daemon import MAIN_DAEMONS, Libvirt, Started
from harness.lab.nested.power import Power
from harness.remote.libvirt_calls import LibvirtConnection
from harness.util.deadline import Deadline, poll


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def nobody() -> LibvirtConnection:
    """libvirt is not told."""
    raise AssertionError("asked libvirt")


def test_power_stop_is_of_that_domain_only_until_it_goes_on(tmp_path: Path) -> None:
    power = Power(nobody, tmp_path, autodestroy=True)
    name = f"drbd-harness-test-{os.getpid()}"
    with process(f"{name}-ab") as other, process(f"{name}-a") as one:
        power.stop(f"{name}-a")
        deadline = Deadline.after(60, "the process to stop or go on")
        poll(lambda: stopped(one.pid) or None, deadline, every=0.01)
        assert not stopped(other.pid)
        power.go_on()
        poll(lambda: not stopped(one.pid) or None, deadline, every=0.01)
        power.stop(f"{name}-a")
        one.kill()
        one.wait()
        power.go_on()


class Domains:
    """A connection that knows the names of some domains."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def listAllDomains(self) -> list[SimpleNamespace]:  # noqa: N802 - libvirt's name
        return [SimpleNamespace(name=lambda name=name: name) for name in self._names]


@pytest.mark.parametrize(
    ("ours", "others", "killed"), [(True, (), True), (True, ("somebody's",), False), (False, (), False)]
)
def test_power_kills_libvirt_only_where_it_is_ours_alone(
    tmp_path: Path, ours: bool, others: tuple[str, ...], killed: bool
) -> None:
    with process("daemon") as daemon:
        started = Started(MAIN_DAEMONS[0], daemon, tmp_path / "log", ("libvirtd",), 0.0)
        libvirt = Libvirt("test:///default", [started] if ours else [])
        power = Power(lambda: Domains("one-a", "one-b", *others), tmp_path, autodestroy=True, daemon=libvirt)
        assert power.kill_libvirt({"one-a", "one-b"}) is killed
        assert (daemon.poll() == -9) is killed


def test_power_stop_of_no_domain_is_infrastructure_error(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="there is no QEMU of drbd-harness-nowhere"):
        Power(nobody, tmp_path, autodestroy=True).stop("drbd-harness-nowhere")
