"""Looking at a machine changes nothing there: what is asked of its programs is what does not load or start anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.parse.machine import SCRIPT, machine_facts

PROGRAMS = Path(__file__).parents[2] / "harness" / "lab" / "hardware" / "programs"


def fake(folder: Path, name: str, said: str) -> Path:
    """A program first on the path, which writes down what it is asked; the file of that."""
    program, asked = folder / name, folder / f"asked-{name}"
    program.write_text(f'#!/bin/sh\necho "$*" >> {asked}\necho "{said}"\n')
    program.chmod(0o755)
    return asked


@pytest.mark.parametrize("kind", ["nf_tables", "legacy"])
def test_look_at_what_is_taken_loads_no_module_of_the_firewalls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    names = Path("/proc/net/ip_tables_names")
    if Path("/sys/module/nf_tables").exists() or (names.exists() and "filter" in names.read_text().split()):
        pytest.skip("needs a machine without rules of a firewall")
    iptables, nft = (fake(tmp_path, name, f"iptables v1.8.9 ({kind})") for name in ("iptables", "nft"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    argv = [sys.executable, "-I", str(PROGRAMS / "taken.py"), "{}"]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert found["iptables"]["status"] is found["nft"]["status"] is None
    assert iptables.read_text() == "-V\n" and not nft.exists()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a drbdsetup says that it was asked, on a machine whose DRBD is not loaded."""
    if Path("/proc/drbd").exists():
        pytest.skip("needs a machine on which DRBD is not loaded")
    # The real one would run 'modprobe drbd' first.
    asked = fake(tmp_path, "drbdsetup", "resource r0 {")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return asked


def test_look_at_a_machine_loads_no_module_of_drbds(asked: Path) -> None:
    done = subprocess.run(["sh", "-c", f"tools='sh' nic='lo'\n{SCRIPT}"], capture_output=True, text=True, check=True)
    facts = machine_facts(done.stdout)
    assert facts["kernel"] and facts["drbd_resources"] == "" and facts.missing == ()
    assert not asked.exists()


def test_look_at_a_resource_loads_no_module_of_drbds(asked: Path) -> None:
    argv = [sys.executable, "-I", str(PROGRAMS / "resource.py"), json.dumps({"resource": "r0", "nic": "lo"})]
    found = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert found["show"] == {"status": 1, "out": "", "err": "DRBD's module is not loaded"} == found["status"]
    assert not asked.exists()
