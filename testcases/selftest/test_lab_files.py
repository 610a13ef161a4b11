"""What a lab keeps in files: the lease, the record, the keys, the disks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import libvirt
import paramiko
import pytest

from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.errors import InfrastructureError
from harness.lab.nested import record as records
from harness.lab.nested.keys import (
    SshPort,
    known_hosts,
    libvirt_uri,
    new_key_pair,
    ssh_config,
    ssh_wrapper,
    write_private,
)
from harness.lab.nested.lease import holder, lease
from harness.lab.nested.record import LabRecord, NodeRecord
from harness.model import LabProvenance


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "state"
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(directory))
    return directory


# --------------------------------------------------------------------------- the lease

HOLD = """
from harness.lab.nested.lease import lease
with lease("a lab"):
    print("held", flush=True)
    input()
"""


@contextmanager
def another_process() -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_lease_held_by_another_process_is_refused_with_its_pid() -> None:
    with another_process() as process:
        sentence = f"^another harness process \\(pid {process.pid}\\) works with a lab; wait until it ends, or end it$"
        with pytest.raises(InfrastructureError, match=sentence), lease("a lab"):
            pytest.fail("two at once")
        assert holder() == str(process.pid)
    # It was killed, so nobody tidied up behind it.
    assert holder() is None
    with lease("a lab"):
        assert holder() == str(os.getpid())


def test_lease_ends_with_its_block_however_that_ends() -> None:
    assert holder() is None, "also before there was any"
    with pytest.raises(KeyboardInterrupt), lease("a lab"):
        raise KeyboardInterrupt
    assert holder() is None
    with lease("a lab"):
        pass
    with lease("a lab"):
        pass


def test_lease_within_a_lease_is_refused_and_keeps_the_outer_one() -> None:
    with lease("a lab"):
        with pytest.raises(InfrastructureError, match=f"pid {os.getpid()}"), lease("the lab"):
            pytest.fail("two at once")
        assert holder() == str(os.getpid())


def test_holder_that_left_no_pid_is_unknown(state: Path) -> None:
    with lease("a lab"):
        (state / "lease.pid").unlink()
        assert holder() == "unknown"


# --------------------------------------------------------------------------- the record

RECORD = LabRecord(
    id="1a2b3c",
    uri="qemu:///session",
    spec=LabSpec(),
    stack=StackSpec(),
    provenance=LabProvenance({"node": "digest-n", "guest": "digest-g"}, {"node": {"drbd-utils": "9.22"}}, 1),
    accelerator="tcg",
    guest_kernel_args="root=/dev/vda",
    keep=True,
    pid=4711,
    created_at="2026-11-23T01:50:10Z",
    nodes=(
        NodeRecord("a", "nodea", "drbd-harness-1a2b3c-a", 2201, "10.0.0.1"),
        NodeRecord("b", "nodeb", "drbd-harness-1a2b3c-b", 2202, "10.0.0.2"),
    ),
)


def kept(record: LabRecord) -> Path:
    directory = records.labs_dir() / record.id
    directory.mkdir(parents=True)
    records.write(record)
    return directory


def test_record_written_and_read_is_equal() -> None:
    assert records.read(kept(RECORD)) == RECORD
    other = replace(RECORD, id="ffffff", keep=False)
    assert records.read(kept(other)) == other


def test_directories_of_labs_are_found_with_or_without_a_record(state: Path) -> None:
    assert records.directories() == []
    half = state / "labs" / "000000"
    half.mkdir(parents=True)
    (state / "labs" / "stray.txt").write_text("no lab")
    directory = kept(RECORD)
    assert records.directories() == [half, directory]
    assert records.read(half) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "1a2b3c"}', "\xff", "null"])
def test_read_of_a_damaged_record_is_none(text: str) -> None:
    directory = kept(RECORD)
    (directory / "lab.json").write_bytes(text.encode("latin-1"))
    assert records.read(directory) is None


def test_forget_a_lab_leaves_nothing() -> None:
    directory = kept(RECORD)
    (directory / "user_key").write_text("secret")
    records.forget(directory)
    assert not directory.exists()
    records.forget(directory)


# --------------------------------------------------------------------------- keys


def test_write_private_whatever_the_umask_is_for_the_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert (tmp_path / "key").read_text() == "secret"


def test_new_key_pair_belongs_together_and_is_new_each_time(tmp_path: Path) -> None:
    pair, other = new_key_pair("drbd-harness 1a2b3c"), new_key_pair("x")
    write_private(tmp_path / "key", pair.private)
    loaded = paramiko.Ed25519Key.from_private_key_file(str(tmp_path / "key"))
    assert pair.public == f"ssh-ed25519 {loaded.get_base64()} drbd-harness 1a2b3c\n"
    assert pair.private != other.private and pair.public.split()[1] != other.public.split()[1]
    printed = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(tmp_path / "key")], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert printed.split()[:2] == pair.public.split()[:2]


def test_known_hosts_pins_each_node_to_its_key_under_both_names(tmp_path: Path) -> None:
    a, b = new_key_pair("a"), new_key_pair("b")
    path = tmp_path / "known_hosts"
    path.write_text(known_hosts({SshPort("nodea", 2201): a.public, SshPort("nodeb", 2202): b.public}))
    pinned = paramiko.HostKeys(str(path))
    for names, pair, other in ((("nodea", "[127.0.0.1]:2201"), a, b), (("nodeb", "[127.0.0.1]:2202"), b, a)):
        for name in names:
            assert pinned.lookup(name)["ssh-ed25519"].get_base64() == pair.public.split()[1] != other.public.split()[1]
        found = subprocess.run(
            ["ssh-keygen", "-F", names[0], "-f", str(path)], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert found.returncode == 0 and pair.public.split()[1] in found.stdout
    assert pinned.lookup("[127.0.0.1]:22") is None


def as_ssh_reads_it(config: Path, host: str) -> dict[str, str]:
    argv = ["ssh", "-G", "-F", str(config), host]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


AWKWARD = ["plain", "with a space", "Prüf 'stand' & 100%h $x"]


@pytest.mark.parametrize("name", AWKWARD)
def test_ssh_config_is_read_by_ssh_for_the_nodes_only(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    config = folder / "ssh_config"
    config.write_text(ssh_config(folder, [SshPort("nodea", 2201), SshPort("nodeb", 2202)]))
    for host, port in (("nodea", "2201"), ("nodeb", "2202")):
        read = as_ssh_reads_it(config, host)
        wanted = {
            "hostname": "127.0.0.1",
            "port": port,
            "user": "root",
            "hostkeyalias": host,
            "identityfile": f"{folder}/user_key",
            "userknownhostsfile": f"{folder}/known_hosts",
            "globalknownhostsfile": "/dev/null",
            "stricthostkeychecking": "true",
            "passwordauthentication": "no",
            "identitiesonly": "yes",
            "batchmode": "yes",
        }
        # Which tokens are still to be expanded in what -G prints differs from version to version.
        assert {key: read[key].replace("%%", "%") for key in wanted} == wanted
    assert as_ssh_reads_it(config, "elsewhere")["hostname"] == "elsewhere", "only for the nodes"


@pytest.mark.parametrize("name", AWKWARD)
def test_libvirt_uri_starts_the_wrapper_wherever_the_lab_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    wrapper = folder / "ssh"
    wrapper.write_text(ssh_wrapper(folder).replace("exec ssh", f"exec printf '%s\\n' > '{tmp_path}/asked'"))
    wrapper.chmod(0o755)
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(libvirt_uri("nodea", wrapper))
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:2] == ["-F", f"{folder}/ssh_config"]
    assert "nodea" in asked
