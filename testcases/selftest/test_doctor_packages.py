"""The doctor: packages and commands of the distribution that a machine has."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from good_machine import GOOD, NEEDS, only

from harness.doctor import packages
from harness.doctor.packages import Family, Need


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
