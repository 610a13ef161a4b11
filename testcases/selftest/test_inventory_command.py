"""``drbd-harness inventory`` with two machines that answer over ssh what was recorded: keys, root, plan, doing it."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
import pytest
from sshd import Sshd

from harness.cli import main as cli
from harness.lab.nested.keys import new_key_pair, write_private

FOREIGN = Path(__file__).parent / "recordings" / "foreign-trixie"
FACTS = """\
distribution=Debian GNU/Linux 13 (trixie)
family=debian
user=0
boot=BOOT
kernel=6.12.118+deb13-amd64
drbd=8.4.11
drbd_srcversion=211FB288A383ED945B83420
python=python3
missing=tc
nic=virtio_net up
address=10.20.0.1/24
"""


def volume_group(*, made: bool = False) -> dict[str, Any]:
    """What a machine with a volume group said, with more free room in it, and with the harness's volume if ``made``."""
    look: dict[str, Any] = json.loads((FOREIGN / "free-before-make-volume.json").read_text())["look"]
    groups, volumes = (json.loads(look["commands"][name]["out"]) for name in ("vgs", "lvs"))
    groups["report"][0]["vg"][0]["vg_free"] = str(2**30)
    if made:
        tags = "drbd-harness,drbd-harness.lab=test"
        (theirs, *_) = volumes["report"][0]["lv"]
        ours = dict(theirs, lv_name="drbd-harness-test", lv_uuid="ours", lv_tags=tags, lv_attr="-wi-a-----")
        volumes["report"][0]["lv"].append(ours | {"lv_kernel_major": "252", "lv_kernel_minor": "9"})
        uuid = f"LVM-{groups['report'][0]['vg'][0]['vg_uuid']}ours".replace("-", "").replace("LVM", "LVM-")
        of_theirs = next(one for one in look["sysfs"].values() if one["dm_name"] == "theirs-data")
        look["sysfs"]["252:9"] = dict(of_theirs, name="dm-9", dm_name="theirs-drbd--harness--test", dm_uuid=uuid)
    look["commands"]["vgs"]["out"], look["commands"]["lvs"]["out"] = json.dumps(groups), json.dumps(volumes)
    return look


@dataclass
class OneMachine(Sshd):
    """A machine with a volume group: it looks as it was recorded, with the volume from lvcreate until lvremove."""

    boot: str = "one"
    facts: str = FACTS
    look: str = ""
    made: str = ""
    ran: list[tuple[str, ...]] = field(default_factory=list)
    before: tuple[str, ...] = ()
    leases: list[str] = field(default_factory=list)
    lease: dict[str, object] = field(default_factory=dict)

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return super().check_auth_publickey("root", key)

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        argv = tuple(shlex.split(command.decode()))
        at = argv.index("timeout")
        self.before, argv = argv[:at], argv[at + 4 :]
        self.ran.append(argv)
        status, out, err = self._answer(argv)
        while channel.recv(65536):
            pass
        channel.sendall(out.encode())
        channel.sendall_stderr(err.encode())
        channel.send_exit_status(status)
        channel.close()

    def _answer(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        if argv[0] == "sh":
            return 0, self.facts.replace("BOOT", self.boot), ""
        if argv[0] in ("lvcreate", "lvremove"):
            self.look, self.made = self.made, self.look
        if argv[0] == "python3" and "folder" in (asked := json.loads(argv[-1])):
            self.leases.append(asked["act"])
            return (4, json.dumps(self.lease), "") if self.lease and asked["act"] == "take" else (0, "{}", "")
        return 0, self.look if argv[0] == "python3" else "", ""


@dataclass
class Two:
    """Two machines and the inventory that names them."""

    machines: tuple[OneMachine, OneMachine]
    path: Path

    def run(self, *options: str, command: str = "inventory") -> int:
        """What the command ends with."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["drbd-harness", command, str(self.path), *options])
            with pytest.raises(SystemExit) as caught:
                cli.main()
        return int(caught.value.code or 0)

    def pin(self) -> None:
        for name, machine in zip(("alpha", "beta"), self.machines, strict=True):
            assert self.run("--pin", f"{name}={fingerprint(machine)}") == 0


def write_inventory(path: Path, machines: Sequence[OneMachine], users: tuple[str, str] = ("root", "root")) -> None:
    """An inventory of both ``machines``, whose private key is the file ``key`` beside it."""
    hosts = "".join(
        f"""
[hosts.{name}]
ansible_host = "127.0.0.1"
ansible_port = {machine.port}
ansible_user = "{user}"
ansible_ssh_private_key_file = "key"
replication_address = "10.20.0.{number}"
replication_nic = "eno2"
storage = {{ volume_group = "theirs" }}
"""
        for number, name, user, machine in zip((1, 2), ("alpha", "beta"), users, machines, strict=True)
    )
    path.write_text(f'schema = 1\nname = "test"\nsize_mib = 64\n{hosts}')


def fingerprint(machine: OneMachine) -> str:
    key = paramiko.Ed25519Key(data=paramiko.Message(_wire(machine)).asbytes())
    return str(key.fingerprint)


def _wire(machine: OneMachine) -> bytes:
    return base64.b64decode(machine.host_key.public.split()[1])


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    user = new_key_pair("user")
    write_private(tmp_path / "key", user.private)
    free, made, other = json.dumps(volume_group()), json.dumps(volume_group(made=True)), volume_group()
    other["commands"]["vgs"]["out"] = other["commands"]["vgs"]["out"].replace('"vg_uuid": "', '"vg_uuid": "other')
    machines = (
        OneMachine(new_key_pair("a"), user.public, look=free, made=made),
        OneMachine(new_key_pair("b"), user.public, look=json.dumps(other), made=made, boot="two"),
    )
    path = tmp_path / "machines.toml"
    write_inventory(path, machines, ("root", "admin"))
    yield Two(machines, path)
    for machine in machines:
        machine.close()


def test_inventory_with_a_host_key_that_nobody_pinned_says_how_and_logs_in_nowhere(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    assert two.run() == 2
    sentence = capsys.readouterr().err
    assert f"alpha (127.0.0.1 port {two.machines[0].port}) shows a host key that nobody pinned, ssh-ed25519" in sentence
    assert f"inventory {two.path} --pin alpha={fingerprint(two.machines[0])}\n" in sentence
    assert sentence.count("\n") == 1 and not two.machines[0].ran
    assert not two.path.with_name("machines.toml.known_hosts").exists()


def test_inventory_pins_only_the_key_whose_fingerprint_was_given(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = fingerprint(two.machines[1])
    assert two.run("--pin", f"alpha={wrong}") == 2
    assert f"not {wrong}: nothing was pinned" in capsys.readouterr().err
    assert two.run("--pin", "gamma=SHA256:x") == 4
    assert two.run("--pin", "alpha=MD5:x") == 4
    two.pin()
    lines = two.path.with_name("machines.toml.known_hosts").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [f"[127.0.0.1]:{machine.port}" for machine in two.machines]


def test_inventory_with_a_changed_host_key_has_a_sentence_of_its_own(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    two.pin()
    path = two.path.with_name("machines.toml.known_hosts")
    # As if the machine had been pinned with the other one's key.
    keys = [machine.host_key.public.split()[1] for machine in two.machines]
    path.write_text(path.read_text().replace(*keys))
    capsys.readouterr()
    assert two.run() == 2
    sentence = capsys.readouterr().err
    assert (
        f"shows another host key, ssh-ed25519 {fingerprint(two.machines[0])}, than the one that was pinned" in sentence
    )
    assert fingerprint(two.machines[1]) in sentence and not two.machines[0].ran
    assert two.run("--pin", f"alpha={fingerprint(two.machines[0])}") == 2
    assert "another host key of alpha is pinned in" in capsys.readouterr().err


def test_inventory_says_what_the_machines_are_and_what_would_be_done_and_does_nothing(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    two.pin()
    capsys.readouterr()
    assert two.run() == two.run("--dry-run") == two.run("--dry-run", "--make-storage") == 0
    said = capsys.readouterr().out
    assert "alpha: Debian GNU/Linux 13 (trixie), kernel 6.12.118+deb13-amd64" in said
    assert "DRBD 8.4.11 (not loaded, 211FB288A383ED945B83420), drbd-utils not there, resources of yours: none" in said
    assert (
        "missing: tc (package iproute2), qemu (package qemu-system-x86), libvirt (package libvirt-daemon-system)"
        in said
    )
    assert "replication by eno2 (virtio_net up); 10.20.0.1 is on it" in said and "10.20.0.2 is not on it" in said
    assert "would be done: makes the volume theirs/drbd-harness-test of 64 MiB of free room, with the tags" in said
    assert {argv[0] for machine in two.machines for argv in machine.ran} == {"sh", "python3"}
    assert two.machines[0].before[0] == "env" and two.machines[1].before[:4] == ("sudo", "-n", "--", "env")


def test_inventory_makes_and_takes_back_the_volumes_of_both(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    assert two.run("--make-storage") == 0
    assert "beta: the lower device is /dev/theirs/drbd-harness-test" in capsys.readouterr().out
    assert two.run("--remove-storage") == 0
    assert "beta: taken back" in capsys.readouterr().out
    for machine in two.machines:
        asked = [json.loads(argv[-1]) if argv[0] == "python3" else argv[0] for argv in machine.ran if argv[0] != "sh"]
        done = [one for one in asked if isinstance(one, str) or one.get("act") == "zero"]
        zero = {"act": "zero", "number": "252:9", "size": 2**24, "uuid": done[1]["uuid"]}
        assert done == ["lvcreate", zero, "lvremove"] and zero["uuid"].endswith("ours")
    assert two.run("--make-storage", "--remove-storage") == 4
    assert two.machines[0].leases == two.machines[1].leases == ["take", "give", "take", "give"]


def test_machine_that_another_harness_uses_is_not_written_to(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    two.machines[0].lease = {"owner": "bob on shelf", "what": "run 7", "until": 1800000000, "id": "x"}
    assert two.run("--make-storage") == 2
    assert (
        "alpha is in use: bob on shelf holds its lease for 'run 7' until 2027-01-15 08:00 UTC; nothing was written"
        in capsys.readouterr().err
    )
    assert not any(argv[0] == "lvcreate" for machine in two.machines for argv in machine.ran)


def test_inventory_of_one_machine_under_two_addresses_is_refused(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    two.machines[1].boot = "one"
    assert two.run("--make-storage") == 4
    assert "alpha and beta are one machine: both addresses lead to it" in capsys.readouterr().err
    assert not any(argv[0] == "lvcreate" for machine in two.machines for argv in machine.ran)


def test_inventory_with_one_machine_that_refuses_writes_to_none(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    two.machines[1].look = two.machines[1].look.replace("wz--n-", "wzx-n-")
    capsys.readouterr()
    assert two.run() == 2
    assert (
        "refused: the volume theirs/drbd-harness-test: the volume group theirs is exported" in capsys.readouterr().out
    )
    assert two.run("--make-storage") == 2
    assert "on beta, the volume theirs/drbd-harness-test stays as it is" in capsys.readouterr().err
    assert not any(argv[0] == "lvcreate" for machine in two.machines for argv in machine.ran)


def test_user_who_may_not_become_root_is_one_sentence(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    two.machines[1]._answer = lambda argv: (1, "", "sudo: a password is required")  # type: ignore[method-assign]
    assert two.run() == 2
    assert "admin on beta cannot become root by 'sudo -n': sudo: a password is required" in capsys.readouterr().err
    two.machines[0].facts = FACTS.replace("user=0", "user=1000")
    assert two.run() == 2
    assert "root on alpha is not root there, but has the number 1000" in capsys.readouterr().err


def test_locks_with_one_machine_out_of_reach_shows_and_breaks_the_other_one_s(
    two: Two, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.lab.hardware.machines.CONNECT_SECONDS", 1.0)
    two.pin()
    two.machines[0].close()
    capsys.readouterr()
    assert two.run("--break", "beta", command="locks") == 2
    said = capsys.readouterr().out
    assert said.startswith("not reached: ") and "beta: broken; before, nobody holds its lease\n" in said
    assert two.machines[1].leases == ["show", "break"]


def test_locks_shows_and_breaks_by_name(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    two.pin()
    capsys.readouterr()
    assert two.run(command="locks") == 0
    assert capsys.readouterr().out == "alpha: nobody holds its lease\nbeta: nobody holds its lease\n"
    assert two.run("--break", "gamma", command="locks") == 4
    assert two.run("--break", "beta", command="locks") == 0
    assert two.machines[0].leases == ["show", "show"] and two.machines[1].leases == ["show", "show", "break"]
