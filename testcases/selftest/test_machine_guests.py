"""Guests that lose their machine's power with it, whoever started them, as the machine's own script finds them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.parse.machine import SCRIPT, machine_facts


@pytest.fixture
def started(tmp_path: Path) -> Iterator[None]:
    """Processes that are called as Proxmox VE, a shell and LXC call theirs, and one that only has such arguments."""
    with ExitStack() as ended:
        for name, arguments in {
            "kvm": ["-id", "100", "-name", "web one,debug-threads=on"],
            "qemu-system-x86": ["-name", "guest=mail,debug-threads=on"],
            "qemu-kvm": ["-m", "64"],
            "lxc-start": ["-F", "-n", "101"],
            "kvm-nothing": ["-name", "no"],
        }.items():
            program = tmp_path / name
            program.write_text("#!/bin/sh\nread nothing\n")
            program.chmod(0o755)
            process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE)
            ended.callback(process.wait)
            ended.callback(process.kill)
            if name == "qemu-kvm":
                (tmp_path / "pid").write_text(str(process.pid))
        yield


def test_guests_of_every_kind_are_found_by_their_names(started: None, tmp_path: Path) -> None:
    done = subprocess.run(["sh", "-c", f"tools= nic=none\n{SCRIPT}"], capture_output=True, text=True, check=True)
    found = machine_facts(done.stdout)["domains"].split()
    # This machine may have others.
    assert {"web_one", "mail", "101", f"process_{(tmp_path / 'pid').read_text()}"} <= set(found) and "no" not in found
