"""The doctor's opinion of made-up machines, the accelerator's probe with a made-up QEMU, and where things are kept."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness import doctor
from harness.doctor import cpu_weight, kvm_access, packages, session
from harness.doctor import facts as looking
from harness.doctor.facts_model import Answer, Facts, Place
from harness.doctor.kvm_access import KvmAccess
from harness.doctor.packages import Family, Need
from harness.doctor.rules import Check, judge
from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.lab.nested import accel, boot_probe_images, libvirt_daemon
from harness.lab.nested.accel import Accelerator
from harness.util import paths, subids
from harness.util.deadline import Deadline, poll

GOOD = Facts(
    python=(3, 12, 1),
    machine="x86_64",
    root=True,
    user="root",
    family=Family.APT,
    missing=(),
    qemu=Answer("9.2.0", True),
    libvirt=Answer("11.3.0 at qemu:///system", True),
    accelerator=Accelerator("kvm", True, "KVM booted a kernel", 2.0),
    accelerator_error="",
    kvm=KvmAccess(True, True, "libvirt-qemu", True),
    kvm_vendor="intel",
    cache=Place(Path("/var/cache/drbd-harness"), 40.0),
    state=Place(Path("/var/lib/drbd-harness"), 40.0),
    memory_gib=16.0,
    cpus=4,
    namespaces=Answer("root needs none", True),
    keys=frozenset({"bookworm", "trixie"}),
    suite="trixie",
    images=frozenset({"guest", "node"}),
    images_wanted=frozenset({"guest", "node"}),
)
NEEDS = {need.name: need for need in packages.needs()}


def only(facts: Facts, name: str) -> Check:
    return next(check for check in judge(facts) if check.name == name)


def not_ok(facts: Facts) -> dict[str, str]:
    return {check.name: check.status for check in judge(facts) if check.status != "ok"}


# --------------------------------------------------------------------------- the rules


def test_judge_of_a_good_machine_finds_nothing() -> None:
    assert not_ok(GOOD) == {}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (replace(GOOD, python=(3, 10, 9)), {"python": "fail"}),
        (replace(GOOD, memory_gib=6.0), {"memory": "warn"}),
        (replace(GOOD, memory_gib=3.9), {"memory": "fail"}),
        (replace(GOOD, cpus=1), {"cpus": "warn"}),
        (replace(GOOD, sessions_weigh_as_much=True), {"cpu weight": "warn"}),
        (replace(GOOD, accelerator=Accelerator("tcg", True, "no /dev/kvm", 9.0)), {"accelerator": "warn"}),
        (replace(GOOD, accelerator=Accelerator("kvm", False, "KVM booted", 9.0)), {"nested": "fail"}),
        (replace(GOOD, accelerator=None, accelerator_error="no"), {"accelerator": "fail", "nested": "fail"}),
        (replace(GOOD, images=frozenset({"node"})), {"images": "warn"}),
        (replace(GOOD, cache=Place(Path("/c"), 5.0)), {}),
        (replace(GOOD, cache=Place(Path("/c"), 5.0), images=frozenset()), {"cache": "fail", "images": "warn"}),
        (replace(GOOD, state=Place(Path("/s"), 2.9)), {"state": "fail"}),
        (replace(GOOD, state=Place(Path("/root/s"), 99.0, Path("/root"))), {"state": "fail"}),
        (replace(GOOD, keys=frozenset({"bookworm"})), {"debian keys": "warn"}),
        (replace(GOOD, keys=frozenset(), images=frozenset()), {"debian keys": "fail", "images": "warn"}),
        (replace(GOOD, missing=(NEEDS["qemu-img"],)), {"tools": "fail"}),
        (replace(GOOD, missing=(NEEDS["genext2fs"],)), {"tools": "warn"}),
        (replace(GOOD, missing=(NEEDS["genext2fs"],), images=frozenset()), {"tools": "fail", "images": "warn"}),
        (replace(GOOD, libvirt=Answer("does not answer", False)), {"libvirt": "fail"}),
    ],
)
def test_judge_of_one_defect_reports_that_one(machine: Facts, expected: dict[str, str]) -> None:
    assert not_ok(machine) == expected


def test_judge_of_closed_namespaces_fails_for_an_ordinary_user_only() -> None:
    command = "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann"
    closed = Answer("/etc/subuid gives ann no range of ids", False, command)
    assert not_ok(replace(GOOD, namespaces=closed)) == {}
    ann = replace(GOOD, root=False, user="ann", namespaces=closed, images=frozenset())
    check = only(ann, "user namespaces")
    assert (check.status, check.remedy) == ("fail", f"sudo {command}")
    refused = replace(ann, namespaces=Answer("unshare: Operation not permitted", False))
    assert only(refused, "user namespaces").remedy is None


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({}, None),
        ({"user/max_user_namespaces": "95000"}, None),
        ({"user/max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=15000"),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "95000"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"kernel/unprivileged_userns_clone": "0", "kernel/apparmor_restrict_unprivileged_userns": "0"},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
    ],
)
def test_subids_command_for_kernel_names_the_setting_that_refuses(
    tmp_path: Path, settings: dict[str, str], command: str | None
) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert subids.command_for_kernel(tmp_path) == command


@pytest.mark.parametrize(
    ("uids", "gids", "lacking", "ids"),
    [
        (None, None, "uid", "100000-165535"),
        ("", "", "uid", "100000-165535"),
        ("bob:100000:65536\n", "bob:100000:65536\n", "uid", "165536-231071"),
        ("bob:100000:65536\nann:1:5\n", "bob:300000:10\ntorn:line\n# a:b:c\n", "gid", "300010-365545"),
        ("1000:100000:65536\n", "ann:100000:65536\n", None, "165536-231071"),
        ("lxc:1000:10\n", "lxc:1000:10\n", "uid", "100000-165535"),
    ],
)
def test_subids_command_gives_a_range_that_nobody_has(
    tmp_path: Path, uids: str | None, gids: str | None, lacking: str | None, ids: str
) -> None:
    files = (tmp_path / "uid", tmp_path / "gid")
    for file, text in zip(files, (uids, gids), strict=True):
        if text is not None:
            file.write_text(text)
    found = subids.without_range({"ann", "1000"}, files)
    assert (found and found.name) == lacking
    assert subids.command_for_range("ann", files) == f"usermod --add-subuids {ids} --add-subgids {ids} ann"


def test_own_command_outside_of_the_search_path_is_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for started, typed in ((".venv/bin/drbd-harness", ".venv/bin/drbd-harness"), ("/usr/bin/pytest", "drbd-harness")):
        monkeypatch.setattr(sys, "argv", [started, "doctor"])
        assert paths.own_command() == typed


def test_judge_of_missing_images_names_the_suite_unless_it_is_the_usual_one() -> None:
    for suite, command in (("trixie", "drbd-harness images build"),
                           ("bookworm", "drbd-harness images build --suite bookworm")):  # fmt: skip
        assert only(replace(GOOD, images=frozenset(), suite=suite), "images").remedy == command


V1 = "4:memory:/\n3:cpuset:/\n1:{names}:{path}\n0::/\n"


@pytest.mark.parametrize(
    ("autogroup", "groups", "shares", "expected"),
    [
        ("1", V1.format(names="cpu", path="/"), {}, True),
        ("1", V1.format(names="cpu", path="/"), {"cpu/machine": "1024"}, True),
        ("1", V1.format(names="cpu,cpuacct", path="/"), {"cpu,cpuacct/machine": "1024"}, True),
        ("1", V1.format(names="cpu", path="/"), {"cpu/machine": "100000"}, False),
        ("1", V1.format(names="cpu", path="/"), {"cpu/machine.slice": "8192"}, False),
        ("0", V1.format(names="cpu", path="/"), {}, False),
        (None, V1.format(names="cpu", path="/"), {}, False),
        ("1", V1.format(names="cpu", path="/user.slice"), {}, False),
        ("1", V1.format(names="cpuacct", path="/"), {}, False),
        ("1", "0::/user.slice/user-0.slice/session-1.scope\n", {}, False),
        ("1", "0::/\n", {}, False),
        ("1", None, {}, False),
    ],
)
def test_sessions_weigh_as_much_where_autogroup_and_libvirts_group_are_side_by_side(
    tmp_path: Path, autogroup: str | None, groups: str | None, shares: dict[str, str], expected: bool
) -> None:
    files = {"proc/sys/kernel/sched_autogroup_enabled": autogroup and f"{autogroup}\n", "proc/self/cgroup": groups}
    files |= {f"cgroup/{name}/cpu.shares": f"{number}\n" for name, number in shares.items()}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (tmp_path / name).write_text(text)
    assert cpu_weight.sessions_weigh_as_much(tmp_path / "proc", tmp_path / "cgroup") is expected


def test_judge_of_cpu_weight_has_the_command_and_no_failure() -> None:
    (check,) = [one for one in judge(replace(GOOD, root=False, sessions_weigh_as_much=True)) if one.status != "ok"]
    assert (check.name, check.status) == ("cpu weight", "warn")
    assert check.remedy == "sudo sysctl -w kernel.sched_autogroup_enabled=0"


# --------------------------------------------------------------------------- the trap of /dev/kvm


@pytest.mark.parametrize(
    ("access", "trapped", "status"),
    [
        (KvmAccess(False), False, "ok"),
        (KvmAccess(True, True, "libvirt-qemu", True), False, "ok"),
        (KvmAccess(True, True, "libvirt-qemu", False), True, "fail"),
        (KvmAccess(True, True), False, "ok"),
        (KvmAccess(True, False), False, "warn"),
        (KvmAccess(True, False, "libvirt-qemu", False), False, "warn"),
    ],
)
def test_judge_of_kvm_access_fails_where_libvirts_qemu_cannot_open_it(
    access: KvmAccess, trapped: bool, status: str
) -> None:
    assert access.trapped is trapped
    check = only(replace(GOOD, kvm=access), "kvm device")
    assert check.status == status
    assert (check.remedy is None) == (status == "ok")


def test_judge_of_kvm_access_remedy_is_what_udev_would_do() -> None:
    trapped = KvmAccess(True, True, "libvirt-qemu", False)
    command = "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm"
    assert only(replace(GOOD, kvm=trapped), "kvm device").remedy == command
    assert only(replace(GOOD, kvm=trapped, root=False), "kvm device").remedy == f"sudo sh -c '{command}'"


@pytest.mark.parametrize(
    ("conf", "accounts", "account"),
    [
        ('#user = "root"\n', {"libvirt-qemu"}, "libvirt-qemu"),
        ("", {"qemu"}, "qemu"),
        ('user = "tester"\n', {"qemu"}, "tester"),
        ('  user="+107"\n', {"qemu"}, "107"),
        ('remember_owner = 1\nuser = "root"\n', {"libvirt-qemu"}, "root"),
        ("", set(), None),
    ],
)
def test_account_from_qemu_conf_is_its_user_or_the_distributions(
    conf: str, accounts: set[str], account: str | None
) -> None:
    assert kvm_access.account_from(conf, accounts.__contains__) == account


def test_first_closed_of_a_path_is_the_topmost_directory(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    (tmp_path / "a" / "b").mkdir(parents=True)
    closed = {tmp_path / "a", tmp_path / "a" / "b"}
    assert kvm_access.first_closed(deep, lambda path: path not in closed) == tmp_path / "a"
    assert kvm_access.first_closed(deep, lambda path: True) is None


# --------------------------------------------------------------------------- packages and commands


@pytest.mark.parametrize(
    ("os_release", "family"),
    [
        ("ID=debian\n", Family.APT),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', Family.APT),
        ("ID=fedora\n", Family.DNF),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', Family.DNF),
        ("ID=arch\n", Family.PACMAN),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', Family.ZYPPER),
        ("ID=void\n", Family.UNKNOWN),
        ("", Family.UNKNOWN),
    ],
)
def test_family_of_os_release_knows_relatives(os_release: str, family: Family) -> None:
    assert packages.family_of(os_release) is family


@pytest.mark.parametrize(
    ("family", "command"),
    [
        (Family.APT, "apt-get install -y --no-remove --no-install-recommends mmdebstrap qemu-utils"),
        (Family.DNF, "dnf install -y /usr/bin/mmdebstrap qemu-img"),
        (Family.PACMAN, "pacman -S --needed --noconfirm qemu-img"),
        (Family.ZYPPER, "zypper --non-interactive install /usr/bin/mmdebstrap /usr/bin/qemu-img"),
        (Family.UNKNOWN, None),
    ],
)
def test_judge_of_missing_tools_remedy_is_one_command(family: Family, command: str | None) -> None:
    machine = replace(GOOD, family=family, missing=(NEEDS["qemu-img"], NEEDS["mmdebstrap"]))
    assert only(machine, "tools").remedy == command
    remedy = only(replace(machine, root=False), "tools").remedy
    assert remedy == (f"sudo {command}" if command else None)


def test_judge_of_tools_without_a_package_names_them() -> None:
    check = only(replace(GOOD, family=Family.PACMAN, missing=(NEEDS["mmdebstrap"],)), "tools")
    assert check.remedy is None
    assert "no package that is known here for mmdebstrap" in check.detail


def test_needs_have_a_package_on_debian() -> None:
    for need in packages.needs():
        assert need.kind in {"command", "file", "pkgconfig"}
        assert need.wanted_for in {"run", "build", "python"}
        assert Family.APT in need.packages, f"{need.name} cannot be installed on Debian itself"


def test_is_there_of_a_need_tries_each_alternative(tmp_path: Path) -> None:
    (tmp_path / "lib.so").touch()

    def there(kind: str, *alternatives: str) -> bool:
        return packages.is_there(Need("x", "run", kind, alternatives, {}))

    assert there("file", f"{tmp_path}/none", f"{tmp_path}/*.so")
    assert not there("file", f"{tmp_path}/*.a")
    assert there("command", "no-such-command", "sh")
    assert not there("command", "no-such-command")


def test_needs_read_by_the_shell_are_those_of_the_doctor() -> None:
    """ci/lib/packages.sh reads the same table; the two must agree on this machine."""
    root = Path(__file__).parents[2]
    script = f"""
        set -euo pipefail
        ROOT={shlex.quote(str(root))}; FAMILY=apt
        . "$ROOT/ci/lib/packages.sh"
        python_to_build_with() {{ :; }}
        look_for_missing
        printf '%s\\n' "${{MISSING[@]}}"
    """
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=20).stdout
    assert printed.split() == [need.name for need in packages.needs() if not packages.is_there(need)]


# --------------------------------------------------------------------------- reading the machine


def test_keys_in_a_keyring_are_found_by_name() -> None:
    ring = (
        b"\x99\x01IDebian Archive Automatic Signing Key (12/bookworm) <ftpmaster@debian.org>\x89"
        b"RDebian Security Archive Automatic Signing Key (11/bullseye) <ftpmaster@debian.org>"
    )
    assert looking.keys_in(ring) == {"bookworm"}


def test_memory_gib_in_a_control_group_is_what_it_leaves(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n")
    assert looking.memory_gib(meminfo, tmp_path) == 8.0
    (tmp_path / "memory.current").write_text(f"{1 << 30}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert looking.memory_gib(meminfo, tmp_path) == 8.0
    (tmp_path / "memory.max").write_text(f"{4 << 30}\n")
    assert looking.memory_gib(meminfo, tmp_path) == 3.0


@pytest.mark.parametrize(("facts", "status"), [(GOOD, 0), (replace(GOOD, memory_gib=1.0), 2)])
def test_run_doctor_json_has_status_and_checks(
    facts: Facts, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "gather", lambda fresh, suite: facts)
    assert doctor.run_doctor(json_output=True) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is (status == 0)
    failed = {check["name"] for check in printed["checks"] if check["status"] == "fail"}
    assert failed == ({"memory"} if status else set())
    assert all(set(check) == {"name", "status", "detail", "remedy"} for check in printed["checks"])


def test_run_doctor_for_people_keeps_commands_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tuple(packages.needs())
    monkeypatch.setattr(doctor, "gather", lambda fresh, suite: replace(GOOD, missing=missing))
    assert doctor.run_doctor() == 2
    printed = capsys.readouterr().out
    assert str(packages.install_command(Family.APT, missing, root=True)) in printed
    assert "A lab cannot come up here yet: tools." in printed


def test_run_doctor_with_brackets_in_a_detail_prints_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "gather", lambda fresh, suite: replace(GOOD, qemu=Answer("it said [/nonsense]", False)))
    assert doctor.run_doctor() == 2
    assert "it said [/nonsense]" in capsys.readouterr().out


# --------------------------------------------------------------------------- the accelerator's probe


FAKE_QEMU = """#!/bin/sh
[ "$1" = --version ] && echo "QEMU emulator version 9.9.9" && exit
echo $$ >>"$0.pids"
echo "$*" >>"$0.calls"
case "$*" in
    *"-accel kvm"*-kernel*) mode=$KVM_KERNEL ;;
    *"-accel kvm"*) mode=$KVM_SECTOR ;;
    *svm=on*) mode=$TCG_SVM ;;
    *) mode=$TCG ;;
esac
case $mode in
    boots) case "$*" in *-kernel*) echo "[    1.0] Run /init as init process" ;; *) echo "@SENTINEL@" ;; esac ;;
    slowly) for line in 1 2 3 4 5 6 7 8; do echo $line && sleep 0.5; done; echo "[    1.0] Run /init as init process" ;;
    endlessly) while sleep 0.1; do echo more; done ;;
    refuses) echo "qemu: no such thing" && exit 1 ;;
esac
exec sleep 600
"""

Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine whose QEMU boots, refuses or hangs as told."""

    def make(
        kvm_sector: str = "boots", kvm_kernel: str = "boots", tcg_svm: str = "boots", tcg: str = "boots",
        *, nested: bool = True,
    ) -> Path:  # fmt: skip
        qemu = tmp_path / "qemu-system-x86_64"
        qemu.write_text(FAKE_QEMU.replace("@SENTINEL@", boot_probe_images.SECTOR_SENTINEL.decode()))
        qemu.chmod(0o755)
        device = tmp_path / "kvm"
        device.touch()
        (tmp_path / "vmlinuz").touch()
        monkeypatch.setattr(accel, "DEV_KVM", device)
        monkeypatch.setattr(accel, "SECTOR_SECONDS", 240.0)
        monkeypatch.setattr(accel, "kvm_is_nested", lambda: nested)
        monkeypatch.delenv(accel.OVERRIDE, raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for name, mode in {"KVM_SECTOR": kvm_sector, "KVM_KERNEL": kvm_kernel, "TCG_SVM": tcg_svm, "TCG": tcg}.items():
            monkeypatch.setenv(name, mode)
        return tmp_path

    return make


def calls(place: Path) -> int:
    log = place / "qemu-system-x86_64.calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_probe_of_kvm_that_boots_uses_it(machine: Machine) -> None:
    place = machine()
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested, calls(place)) == ("kvm", True, 2)


def test_probe_logs_each_qemu_that_it_starts(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness.command")
    place = machine(kvm_sector="refuses")
    accel.probe(place / "vmlinuz", None, place)
    ran = [message.split("\t")[4] for message in caplog.messages]
    assert len([command for command in ran if command.startswith("timeout --signal=KILL")]) == calls(place)
    assert f"{place}/qemu-system-x86_64 --version" in ran


def test_probe_of_kvm_that_refuses_uses_emulation(machine: Machine) -> None:
    place = machine(kvm_sector="refuses")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested) == ("tcg", True)
    assert "no such thing" in found.why


def test_probe_of_kvm_that_hangs_uses_emulation_and_leaves_no_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_kernel="hangs")
    read = accel._read_until
    booted: list[str] = []

    def read_from_one_that_runs(
        process: subprocess.Popen[bytes], sentinel: bytes, quiet: float, at: float
    ) -> tuple[bytes, bool]:
        # On a busy machine it may take seconds until QEMU begins: only one that runs can hang, and only that one may
        # be short of time.
        poll(lambda: calls(place) > len(booted) or None, Deadline.after(240, "the start of QEMU"), every=0.01)
        booted.append((place / "qemu-system-x86_64.calls").read_text().splitlines()[-1])
        hangs = "-accel kvm" in booted[-1] and "-kernel" in booted[-1]
        return read(process, sentinel, 0.2 if hangs else quiet, at)

    monkeypatch.setattr(accel, "_read_until", read_from_one_that_runs)
    found = accel.probe(place / "vmlinuz", None, place, deadline_seconds=240)
    assert (found.kind, found.kvm_lacks_nesting, len(booted)) == ("tcg", False, 4)
    # The last line of stdout of something that hangs without a word.
    assert found.why.startswith("KVM does not boot: nothing more within 240 s, last output: none at all")
    pids = (place / "qemu-system-x86_64.pids").read_text().split()
    assert len(pids) == 4
    # Killed is not yet gone: a process needs a processor to end, too.  One that was forgotten would sleep 600 s.
    poll(lambda: not any(map(is_running, pids)) or None, Deadline.after(240, "the end of each QEMU"), every=0.01)


def is_running(pid: str) -> bool:
    try:
        return not is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_probe_of_kvm_that_is_slow_waits_while_its_kernel_prints(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_kernel="slowly")
    monkeypatch.setattr(accel, "SLOW_SECONDS", 120.0)
    assert accel.probe(place / "vmlinuz", None, place, deadline_seconds=3).kind == "kvm"


def test_probe_of_kvm_that_prints_for_ever_uses_emulation(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine(kvm_kernel="endlessly")
    monkeypatch.setattr(accel, "SLOW_SECONDS", 5.0)
    found = accel.probe(place / "vmlinuz", None, place, deadline_seconds=5)
    assert found.kind == "tcg"
    assert "KVM does not boot: not done in 5 s, last output: 'more'" in found.why


def is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("kernel", [True, False])
def test_probe_of_kvm_that_does_not_nest_uses_emulation(
    kernel: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(nested=False)
    monkeypatch.setattr(accel, "host_kernel", lambda: None)
    found = accel.probe(place / "vmlinuz" if kernel else None, None, place)
    assert (found.kind, found.nested, found.kvm_lacks_nesting) == ("tcg", True, True)
    assert f"KVM boots {'the kernel' if kernel else 'a boot sector'}" in found.why
    assert accel.probe(place / "vmlinuz" if kernel else None, None, place) == found, "also from the cache"
    check = only(replace(GOOD, accelerator=found, root=False), "accelerator")
    assert (check.status, check.remedy) == ("warn", "sudo sh -c 'modprobe -r kvm_intel && modprobe kvm_intel nested=1'")
    assert only(replace(GOOD, accelerator=found, kvm_vendor=""), "accelerator").remedy is None
    monkeypatch.setattr(accel, "kvm_is_nested", lambda: True)
    now = accel.probe(place / "vmlinuz" if kernel else None, None, place)
    assert (now.kind, now.nested) == ("kvm", True), "it is looked at again once it nests"


def test_probe_of_kvm_that_does_not_nest_and_is_forced_is_kvm(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(nested=False)
    monkeypatch.setenv(accel.OVERRIDE, "kvm")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested, found.kvm_lacks_nesting) == ("kvm", False, False)
    check = only(replace(GOOD, accelerator=found, kvm_vendor=""), "nested")
    assert (check.status, check.remedy) == ("fail", f"unset {accel.OVERRIDE}")


def test_probe_without_a_kernel_announces_the_full_probe(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine()
    monkeypatch.setattr(accel, "host_kernel", lambda: None)
    found = accel.probe(None, None, place)
    assert (found.kind, calls(place)) == ("kvm", 1)
    assert "the full probe follows when images exist" in found.why


def test_probe_without_a_device_does_not_try_kvm(machine: Machine) -> None:
    place = machine(kvm_sector="hangs")
    (place / "kvm").unlink()
    assert accel.probe(place / "vmlinuz", None, place).kind == "tcg"


def test_probe_of_emulation_without_svm_is_not_nested(machine: Machine) -> None:
    place = machine(kvm_sector="refuses", tcg_svm="refuses")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested) == ("tcg", False)


def test_probe_of_a_qemu_that_boots_nothing_is_an_error(machine: Machine) -> None:
    place = machine("refuses", "refuses", "refuses", "refuses")
    with pytest.raises(InfrastructureError, match=r"boots nothing here.*no such thing"):
        accel.probe(place / "vmlinuz", None, place)


def test_probe_again_uses_the_cache_until_an_input_changes(machine: Machine) -> None:
    place = machine()
    kernel = place / "vmlinuz"
    first = accel.probe(kernel, None, place / "cache")
    assert accel.probe(kernel, None, place / "cache") == first
    assert calls(place) == 2
    accel.probe(kernel, None, place / "cache", fresh=True)
    assert calls(place) == 4
    kernel.write_text("another kernel")
    accel.probe(kernel, None, place / "cache")
    assert calls(place) == 6
    (place / "cache" / "probe.json").write_text("{ not json")
    accel.probe(kernel, None, place / "cache")
    assert calls(place) == 8


def test_cache_key_covers_device_kernel_and_choice(machine: Machine) -> None:
    place = machine()
    qemu, subject = place / "qemu-system-x86_64", accel.Subject(place / "vmlinuz")
    keys = {accel.cache_key(qemu, None, subject), accel.cache_key(qemu, "tcg", subject)}
    keys.add(accel.cache_key(qemu, None, None))
    (place / "kvm").chmod(0o640)
    keys.add(accel.cache_key(qemu, None, subject))
    (place / "kvm").unlink()
    keys.add(accel.cache_key(qemu, None, subject))
    assert len(keys) == 5


@pytest.mark.parametrize(("forced", "kvm"), [("kvm", "refuses"), ("tcg", "boots")])
def test_probe_with_a_forced_kind_uses_it(
    forced: str, kvm: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_sector=kvm)
    monkeypatch.setenv(accel.OVERRIDE, forced)
    found = accel.probe(place / "vmlinuz", None, place)
    assert found.kind == forced
    assert "forced by" in found.why


def test_probe_with_an_unknown_forced_kind_is_a_usage_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine()
    monkeypatch.setenv(accel.OVERRIDE, "xen")
    with pytest.raises(UsageError, match="'kvm' or 'tcg', not 'xen'"):
        accel.probe(None, None, place)


@pytest.mark.parametrize(("text", "nested"), [("Y\n", True), ("1\n", True), ("N\n", False), ("0\n", False)])
def test_kvm_is_nested_reads_the_modules_parameter(tmp_path: Path, text: str, nested: bool) -> None:
    (tmp_path / "nested").write_text(text)
    assert accel.kvm_is_nested([tmp_path / "missing", tmp_path / "nested"]) is nested


def test_last_message_drops_control_sequences() -> None:
    assert accel.last_message(b"\x1bc\x1b[?7l\x1b[2JSeaBIOS (1.16)\r\n\r\n") == "'SeaBIOS (1.16)'"
    assert accel.last_message(b"\x1bc\x1b[?7l\r\n") == "none at all"


def test_boot_sector_has_signature_and_sentinel() -> None:
    sector = boot_probe_images.boot_sector()
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")
    where = int.from_bytes(sector[6:8], "little") - 0x7C00
    assert sector[where:].startswith(boot_probe_images.SECTOR_SENTINEL + b"\r\n\0")


def test_tiny_initramfs_has_an_executable_init() -> None:
    archive = boot_probe_images.tiny_initramfs()
    assert len(archive) % 512 == 0
    members = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data = at + 110 + name_size + -(110 + name_size) % 4
        members[name] = (mode, archive[data : data + size])
        at = data + size + -size % 4
    assert members == {"init": (0o100755, b"#!/nowhere\n"), "TRAILER!!!": (0, b"")}


# --------------------------------------------------------------------------- libvirt's daemons, and places


def test_answers_of_a_dead_daemons_socket_is_false(tmp_path: Path) -> None:
    one = libvirt_daemon.Daemon("libvirtd", tmp_path / "sock")
    assert not libvirt_daemon._answers(one)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(one.socket))
        listener.listen()
        assert libvirt_daemon._answers(one)
    assert one.socket.exists()
    assert not libvirt_daemon._answers(one)


def test_wait_for_a_daemon_that_ends_raises_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "libvirtd"
    program.write_text("#!/bin/sh\necho 'error : cannot bind' >&2\nexit 6\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    with ExitStack() as undo:
        started = libvirt_daemon._start(libvirt_daemon.Daemon("libvirtd", tmp_path / "sock"), undo)
        with pytest.raises(InfrastructureError, match="libvirtd ended with status 6: error : cannot bind"):
            libvirt_daemon._wait_for(started, Deadline.after(5, "an answer"))


def test_has_systemd_looks_for_its_directory(tmp_path: Path) -> None:
    assert libvirt_daemon.has_systemd(tmp_path)
    assert not libvirt_daemon.has_systemd(tmp_path / "missing")


def test_default_uri_follows_the_environment_then_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(libvirt_daemon.URI_OVERRIDE, "qemu+ssh://somewhere/system")
    assert libvirt_daemon.default_uri() == "qemu+ssh://somewhere/system"
    monkeypatch.delenv(libvirt_daemon.URI_OVERRIDE)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert libvirt_daemon.default_uri() == "qemu:///session"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert libvirt_daemon.default_uri() == "qemu:///system"


def test_connect_without_a_libvirt_is_a_harness_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="libvirt does not answer"):
        libvirt_daemon.connect(f"qemu+unix:///system?socket={tmp_path}/none")


def test_cache_dir_and_state_dir_follow_environment_and_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DRBD_HARNESS_CACHE", "DRBD_HARNESS_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (paths.cache_dir(), paths.state_dir()) == (
        Path("/var/cache/drbd-harness"),
        Path("/var/lib/drbd-harness"),
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (paths.cache_dir(), paths.state_dir()) == (
        Path("/home/ann/.cache/drbd-harness"),
        Path("/home/ann/.local/state/drbd-harness"),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert paths.cache_dir() == tmp_path / "drbd-harness"
    assert paths.state_dir() == Path("/home/ann/.local/state/drbd-harness")
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "mine"))
    assert paths.state_dir() == tmp_path / "mine"


def test_make_as_root_lets_others_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        made = paths.make(tmp_path / "a" / "b")
        assert [path.stat().st_mode & 0o777 for path in (made, made.parent)] == [0o755, 0o755]
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert paths.make(tmp_path / "c").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


# --------------------------------------------------------------------------- an ordinary user's own libvirt


@pytest.mark.parametrize(
    ("environment", "fits"),
    [
        ({"HOME": "/home/Jürgen Müller"}, True),
        ({"HOME": "/home/EXAMPLE.ORG/firstname.lastname-of-somebody"}, False),
        ({"HOME": "/home/EXAMPLE.ORG/firstname.lastname-of-somebody", "XDG_CONFIG_HOME": "/var/tmp/x"}, True),
        ({"HOME": "/" + "ü" * 18}, True),
        ({"HOME": "/" + "ü" * 19}, False),
    ],
)
def test_monitor_socket_fits_into_a_socket_address_or_says_so(environment: dict[str, str], fits: bool) -> None:
    socket_path = session.monitor_socket(environment)
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect(str(socket_path))
        except FileNotFoundError:
            can_be = True
        except OSError:
            can_be = False
    why = session.why_too_long(socket_path)
    assert (why is None, can_be) == (fits, fits)
    if why:
        assert f"paths of {len(os.fsencode(socket_path))} bytes, and {session.LONGEST_SOCKET} are the most" in why
