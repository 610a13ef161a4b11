"""Looking at a machine changes nothing there: what is asked of its programs is what does not load or start anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.parse.machine import SCRIPT, machine_facts

PROGRAMS = Path(__file__).parents[2] / "harness" / "lab" / "hardware" / "programs"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which a drbdsetup says that it was asked, on a machine whose DRBD is not loaded."""
    if Path("/proc/drbd").exists():
        pytest.skip("needs a machine on which DRBD is not loaded")
    program, asked = tmp_path / "drbdsetup", tmp_path / "asked"
    # The real one would run 'modprobe drbd' first.
    program.write_text(f'#!/bin/sh\necho "$*" >> {asked}\necho "resource r0 {{"\n')
    program.chmod(0o755)
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
