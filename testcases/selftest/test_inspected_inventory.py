"""Inventories as ``inspect`` reads them: two machines and how they are reached, or a whole inventory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.config.inspected import load_cluster
from harness.errors import UsageError

SHORT = 'schema = 1\n[hosts.alpha]\nansible_host = "192.0.2.11"\nansible_user = "admin"\n[hosts.beta]\n'
WHOLE = """schema = 1
name = "lab"
owner = "alice@desk"
size_mib = 128
[hosts.alpha]
replication_address = "10.20.0.1"
replication_nic = "eno2"
storage = { volume_group = "vg0" }
[hosts.beta]
ansible_port = 2222
replication_address = "10.20.0.2"
replication_nic = "eno2"
storage = { volume_group = "vg0" }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "machines"
    path.write_text(text)
    return path


def test_load_cluster_of_two_hosts_alone_needs_nothing_else(tmp_path: Path) -> None:
    found = load_cluster(written(tmp_path, SHORT))
    one, other = found.hosts
    assert (one.name, one.address, one.port, one.user, one.nic) == ("alpha", "192.0.2.11", 22, "admin", "")
    assert (other.address, other.user, other.key) == ("beta", "root", None)
    assert found.known_hosts == tmp_path / "machines.known_hosts"


def test_load_cluster_of_a_whole_inventory_takes_the_interface_from_it(tmp_path: Path) -> None:
    one, other = load_cluster(written(tmp_path, WHOLE)).hosts
    assert (one.nic, other.port) == ("eno2", 2222)


def test_load_cluster_of_ansibles_hosts_needs_no_variable(tmp_path: Path) -> None:
    hosts = {"alpha": {"ansible_host": "192.0.2.11", "ansible_port": "2222"}, "beta": {}}
    found = {"_meta": {"hostvars": hosts}, "storage": {"hosts": ["alpha", "beta"]}}
    one, _ = load_cluster(written(tmp_path, json.dumps(found))).hosts
    assert (one.address, one.port) == ("192.0.2.11", 2222)


@pytest.mark.parametrize(
    "text, why",
    [
        ("schema = 1\n[hosts.alpha]\n", "'hosts' names 1: alpha"),
        (SHORT + 'storag = "x"\n', "storag"),
        (SHORT + 'ansible_host = "192.0.2.11"\n', "are the same machine"),
        (SHORT + 'ansible_ssh_private_key_file = "nowhere"\n', "private key .*nowhere of beta is not there"),
        (SHORT + "storage = { kind = 'disk' }\n", "'disk' is missing"),
    ],
)
def test_load_cluster_of_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        load_cluster(written(tmp_path, text))
