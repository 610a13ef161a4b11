"""The doctor's opinion of made-up machines, what it reads of this one, and how it says both."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from good_machine import GOOD, NEEDS, only

from harness import doctor
from harness.doctor import cpu_weight, packages
from harness.doctor import facts as looking
from harness.doctor.facts_model import Answer, Facts, Place
from harness.doctor.packages import Family
from harness.doctor.rules import judge
from harness.lab.nested.accel import Accelerator
from harness.util import paths, subids


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
