"""What the domains of a nested lab are made of: sizes, names, addresses, disks, and where the private keys are."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from nested_parts import SPEC, image, state

from harness.config.lab_spec import LOWER_MIB, LabSpec
from harness.lab.nested import domains
from harness.lab.nested import record as records
from harness.lab.nested.domains import Parts, make_domains
from harness.util import paths

__all__ = ["state"]


def parts(tmp_path: Path, spec: LabSpec = SPEC) -> Parts:
    directory = paths.make(records.labs_dir() / "1a2b3c")
    node = image(tmp_path, "node")
    return Parts("1a2b3c", directory, spec, node, node, image(tmp_path, "guest"), hardware=False)


@pytest.fixture
def tools() -> None:
    for tool in ("qemu-img", "mke2fs", "debugfs"):
        if shutil.which(tool, path=paths.programs()) is None:
            pytest.skip(f"{tool} is not installed")


def on_seed(disk: Path, command: str) -> str:
    debugfs = shutil.which("debugfs", path=paths.programs())
    assert debugfs is not None
    return subprocess.run([debugfs, "-R", command, str(disk)], capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("tools")
def test_make_domains_of_a_spec_use_its_sizes_names_and_addresses(tmp_path: Path) -> None:
    made = parts(tmp_path)
    a, b = make_domains(made)
    assert (a.name, b.name) == ("drbd-harness-1a2b3c-a", "drbd-harness-1a2b3c-b")
    assert (a.memory_mib, a.vcpus, a.kernel_args) == (900, 1, "root=/dev/vda node-argument")
    assert a.backing.stat().st_size == b.backing.stat().st_size == LOWER_MIB << 20
    assert a.backing.stat().st_blocks == 0, "what no cell needs takes no room"
    assert a.repl_ports == (b.repl_ports[1], b.repl_ports[0]) and a.ssh_port != b.ssh_port
    assert len({a.mgmt_mac, a.repl_mac, b.mgmt_mac, b.repl_mac}) == 4
    for domain, name, address in ((a, "left", "10.9.8.1"), (b, "right", "10.9.8.2")):
        settings = dict(line.split("=", 1) for line in on_seed(domain.seed, "cat /node.conf").splitlines())
        assert settings == {
            "HOSTNAME": name, "MGMT_MAC": domain.mgmt_mac, "MGMT_ADDR": "10.0.2.15/24", "REPL_MAC": domain.repl_mac,
            "REPL_ADDR": f"{address}/29", "PEERS": '"10.9.8.1=left 10.9.8.2=right"',
        }  # fmt: skip
        assert f"[127.0.0.1]:{domain.ssh_port} ssh-ed25519" in (made.directory / "known_hosts").read_text()


@pytest.mark.usefixtures("tools")
def test_make_domains_leaves_private_keys_on_the_seeds_only(tmp_path: Path) -> None:
    made = parts(tmp_path)
    a, b = make_domains(made)
    assert "PRIVATE KEY" in on_seed(a.seed, "cat /ssh_host_ed25519_key")
    assert on_seed(a.seed, "cat /ssh_host_ed25519_key") != on_seed(b.seed, "cat /ssh_host_ed25519_key")
    assert on_seed(a.seed, "cat /guest/vmlinuz") == "guest vmlinuz"
    assert on_seed(a.seed, "cat /guest/initrd.img") == "guest initrd.img"
    assert a.seed.stat().st_mode & 0o777 == 0o600
    assert not [path for path in made.directory.iterdir() if path.is_dir()]


def test_vcpus_of_a_spec_without_a_choice_fit_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domains.os, "cpu_count", lambda: 4)
    emulated = parts(tmp_path)
    assert (emulated.vcpus, replace(emulated, hardware=True).vcpus) == (1, 2)
    monkeypatch.setattr(domains.os, "cpu_count", lambda: 2)
    assert replace(emulated, hardware=True).vcpus == 1
    assert replace(emulated, spec=LabSpec(vcpus=3)).vcpus == 3


@pytest.mark.usefixtures("tools")
def test_make_domains_of_two_images_give_each_node_a_disk_over_its_own(tmp_path: Path) -> None:
    made = replace(parts(tmp_path), b=image(tmp_path, "newer"))
    for domain, role in zip(make_domains(made), ("node", "newer"), strict=True):
        argv = ["qemu-img", "info", "-U", str(domain.root)]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert f"{role}-image/root.img" in told
