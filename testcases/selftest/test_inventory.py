"""Inventories: what a user writes about two real machines, and what Ansible prints of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.config.inventory import Inventory, ReachedEntry, key_of, load
from harness.config.machine_tools import family, needed, packages
from harness.errors import UsageError
from harness.parse.machine import machine_facts

OF_ANSIBLE = Path(__file__).parent / "recordings" / "ansible-core-2.19" / "inventory-list.json"
MINE = """
schema = 1
name = "ours"

[hosts.alpha]
ansible_host = "192.0.2.11"
replication_address = "10.20.0.1"
replication_nic = "eno2"
storage = { volume_group = "vg0" }

[hosts.beta]
ansible_host = "192.0.2.12"
ansible_user = "admin"
replication_address = "10.20.0.2"
replication_nic = "eno2"

[hosts.beta.storage]
kind = "disk"
disk = "/dev/disk/by-id/ata-WDC_WD10-1234"
serial = "WD-1234"
size_bytes = 1000204886016
"""


def written(folder: Path, text: str) -> Inventory:
    path = folder / "machines.toml"
    path.write_text(text)
    return load(path)


def sentence(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        written(folder, text)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(folder / "machines.toml"))


def test_inventory_of_our_own_has_two_machines_and_what_may_be_written(tmp_path: Path) -> None:
    found = written(tmp_path, MINE)
    assert (found.a.name, found.a.address, found.a.port, found.a.user, found.a.key) == (
        "alpha", "192.0.2.11", 22, "root", None,
    )  # fmt: skip
    assert (found.a.storage.kind, found.a.storage.volume_group) == ("volume-group", "vg0")
    assert (found.b.user, found.b.storage.kind, found.b.storage.size_bytes) == ("admin", "disk", 1000204886016)
    assert found.known_hosts == tmp_path / "machines.toml.known_hosts"


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("[hosts.beta]", "[hosts.gamma]\n[hosts.beta]", "[hosts.gamma]: 'replication_address' is missing"),
        ('volume_group = "vg0"', 'volume_group = "vg0", disk = "/dev/disk/by-id/x"',
         "'disk' does not belong to storage of the kind 'volume-group'; allowed: volume_group"),
        ('volume_group = "vg0"', "", "'volume_group' is missing, which storage of the kind 'volume-group' needs"),
        ('volume_group = "vg0"', 'volume_group = "-f"', "it has to be a name as LVM has it"),
        ('serial = "WD-1234"', "", "a disk is named twice: 'serial' or 'wwn' is missing"),
        ("size_bytes = 1000204886016", "", "'size_bytes' is missing, which storage of the kind 'disk' needs"),
        ("/dev/disk/by-id/ata-WDC_WD10-1234", "/dev/sdb", "it has to be a name below /dev/disk/by-id"),
        ("/dev/disk/by-id/ata-WDC_WD10-1234", "/dev/disk/by-id/../sda", "it has to be a name below /dev/disk/by-id"),
        ("10.20.0.2", "10.20.0.1", "alpha and beta have the same replication_address 10.20.0.1"),
        ("10.20.0.2", "127.0.0.1", "two machines cannot reach each other by it"),
        ("192.0.2.12", "192.0.2.11", "alpha and beta are the same machine: 192.0.2.11 port 22"),
        ('name = "ours"', 'name = "a b"', "it has to be up to 31 small letters, digits and '-'"),
        ('ansible_user = "admin"', 'ansible_user = "-oProxyCommand=x"', "it has to be the name of a user"),
        ('ansible_user = "admin"', 'ansible_password = "x"', "'ansible_password' is no key"),
        ('ansible_user = "admin"', 'ansible_ssh_private_key_file = "no-key"', "of beta is not there"),
        ('kind = "disk"', 'kind = "dissk"', "did you mean 'disk'? allowed: volume-group, thin, zfs, disk, loop"),
        ("schema = 1", "schema = 2", "this program reads schema = 1"),
        ('[hosts.beta.storage]',
         '[hosts.beta.power]\nagent = "fence_x"\noptions = {password = "x"}\n[hosts.beta.storage]',
         "'password' is no place for a password"),
        ('[hosts.beta.storage]', '[hosts.beta.power]\n[hosts.beta.storage]', "either by an 'agent' or by a 'command'"),
        *(
            ('[hosts.beta.storage]', f'[hosts.beta.power]\n{written}\n[hosts.beta.storage]', part)
            for written, part in (
                ('command = [""]', "[hosts.beta.power]: 'command' begins with '', which is no program"),
                ('command = ["/"]', "[hosts.beta.power]: 'command' begins with '/', which is no program"),
                ('command = ["sw\\nitch"]', "'command' begins with 'sw\\nitch', which is no program"),
                ('command = ["switch", "a\\u0000"]', "a NUL is in 'command' or 'password_file'"),
                ('agent = "fence_x"\npassword_file = "\\u0000"', "a NUL is in 'command' or 'password_file'"),
            )
        ),
        ('name = "ours"', f'size_mib = {2**30 + 1}', "'size_mib' is 1073741825; the most it may be is 1073741824"),
    ],
)  # fmt: skip
def test_inventory_that_is_wrong_is_one_sentence(tmp_path: Path, old: str, new: str, part: str) -> None:
    assert old in MINE
    assert part in sentence(tmp_path, MINE.replace(old, new, 1))


def test_inventory_of_one_machine_or_none_is_refused(tmp_path: Path) -> None:
    assert "a lab has two machines, and 'hosts' names 1: alpha" in sentence(
        tmp_path, MINE[: MINE.index("[hosts.beta]")]
    )
    assert "'hosts' is missing" in sentence(tmp_path, "schema = 1")
    assert "neither valid TOML nor what 'ansible-inventory --list' prints" in sentence(tmp_path, "= [")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml")


def of_ansible(folder: Path, change: object = None) -> Path:
    """The recorded inventory, with a key that is there; ``change`` is called with its JSON."""
    found = json.loads(OF_ANSIBLE.read_text())
    (folder / "lab_key").touch()
    for host in ("alpha.example.com", "beta.example.com"):
        found["_meta"]["hostvars"][host]["ansible_ssh_private_key_file"] = "lab_key"
    if callable(change):
        change(found)
    path = folder / "list.json"
    path.write_text(json.dumps(found))
    return path


def test_inventory_of_ansible_is_read_by_its_names(tmp_path: Path) -> None:
    found = load(of_ansible(tmp_path))
    assert [(host.name, host.address, host.port, host.user, host.key) for host in found.hosts] == [
        ("alpha.example.com", "192.0.2.11", 22, "admin", tmp_path / "lab_key"),
        ("beta.example.com", "192.0.2.12", 2222, "admin", tmp_path / "lab_key"),
    ]
    assert (found.name, found.a.storage.volume_group, found.b.storage.wwn) == ("ours", "vg0", "eui.0025385b71b0a7f1")
    assert load(of_ansible(tmp_path), "drbd_harness") == found


def _template(found: dict) -> None:
    found["_meta"]["hostvars"]["beta.example.com"]["ansible_host"] = "{{ lab_net }}.12"


def _third(found: dict) -> None:
    found["drbd_harness"]["hosts"].append("web1.example.com")


def _without_variable(found: dict) -> None:
    del found["_meta"]["hostvars"]["beta.example.com"]["drbd_harness"]


def _another_name(found: dict) -> None:
    found["_meta"]["hostvars"]["beta.example.com"]["drbd_harness"]["name"] = "other"


@pytest.mark.parametrize(
    ("change", "group", "part"),
    [
        (_template, None, "beta.example.com has the template '{{ lab_net }}.12'; only Ansible can fill it in"),
        (_third, None, "the group 'drbd_harness' has the hosts"),
        (_without_variable, None, "the host beta.example.com has no variable drbd_harness"),
        (_another_name, None, "drbd_harness.name is not the same on"),
        (None, "webservers", "the group 'webservers' has the hosts"),
        (None, "drbd_hraness", "did you mean 'drbd_harness'?"),
    ],
)
def test_inventory_of_ansible_that_is_no_lab_is_one_sentence(
    tmp_path: Path, change: object, group: str | None, part: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(of_ansible(tmp_path, change), group)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_json_that_is_no_inventory_of_ansible_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text, part in (
        ("{}", "it has no _meta.hostvars"),
        ("{", "no valid JSON"),
        (f'{{"_meta": {{"hostvars": {{"a": {"[" * 9**5}', "no valid JSON: its values are nested too deeply$"),
        (f'{{"_meta": {{"hostvars": {{"a": {"[" * 400}{"]" * 400}}}}}}}', "no valid JSON: its values are nested too"),
        (f'{{"_meta": {{"hostvars": {"9" * 6000}}}}}', "no valid JSON: it has a number of thousands of digits$"),
        ('{"_meta": {"hostvars": {}}}', "has no group of two hosts; a lab needs one$"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=part):
            load(path)


def test_inventory_with_a_key_where_nobody_may_look_is_one_sentence(tmp_path: Path) -> None:
    long = f'ansible_user = "admin"\nansible_ssh_private_key_file = "{"k" * 300}"'
    assert sentence(tmp_path, MINE.replace('ansible_user = "admin"', long)).endswith(
        " of beta cannot be looked at: File name too long"
    )
    closed, user = tmp_path / "closed", os.geteuid()
    closed.mkdir(mode=0)
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match=r"^the private key '.*' of beta cannot be looked at: Permission denied$"):
            key_of("beta", ReachedEntry(ansible_ssh_private_key_file=str(closed / "id")), tmp_path)
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        ("debian ", "apt"), ("ubuntu debian", "apt"), ("rocky rhel centos fedora", "dnf"), ("sles suse", "zypper"),
        ("opensuse-leap suse opensuse", "zypper"), ("gentoo", ""),
    ],
)  # fmt: skip
def test_missing_programs_are_named_with_the_package_of_the_distribution(ids: str, name: str) -> None:
    assert family(ids) == name
    known = packages(name, ["tc", "no-such-program"])
    assert known == {"apt": {"tc": "iproute2"}, "dnf": {"tc": "iproute-tc"}, "zypper": {"tc": "iproute2"}}.get(name, {})


@pytest.mark.parametrize("kind", ["volume-group", "thin", "disk", "loop"])
def test_every_program_that_is_looked_for_has_a_package_in_each_family(kind: str) -> None:
    for name in ("apt", "dnf", "zypper"):
        looked_for = (*needed(kind), "python3", "qemu", "libvirt")
        assert set(packages(name, looked_for)) == set(looked_for)


def test_machine_facts_repeat_what_may_repeat() -> None:
    found = machine_facts("kernel=6.12\nmissing=tc\nmissing=fio\naddress=10.20.0.1/24\naddress=10.0.0.1/8\nnoise\n")
    assert (found["kernel"], found["qemu"]) == ("6.12", "")
    assert (found.missing, found.addresses) == (("tc", "fio"), ("10.20.0.1", "10.0.0.1"))
