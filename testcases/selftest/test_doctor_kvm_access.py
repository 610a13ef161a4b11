"""The doctor: whether libvirt's QEMU can open /dev/kvm, and what mends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from good_machine import GOOD, only

from harness.doctor import kvm_access
from harness.doctor.kvm_access import KvmAccess


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
