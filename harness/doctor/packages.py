"""Which package of this distribution brings what is missing, and the one command that installs it."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path

from harness.remote.local import LocalRunner
from harness.util import paths


class Family(StrEnum):
    """Distributions by how packages are installed there."""

    APT = "apt"
    DNF = "dnf"
    PACMAN = "pacman"
    ZYPPER = "zypper"
    UNKNOWN = "unknown"


_INSTALL = {
    Family.APT: "apt-get install -y --no-remove --no-install-recommends",
    Family.DNF: "dnf install -y",
    Family.PACMAN: "pacman -S --needed --noconfirm",
    Family.ZYPPER: "zypper --non-interactive install",
}
_RELATIVES = {
    Family.APT: {"debian", "ubuntu"},
    Family.DNF: {"fedora", "rhel", "centos"},
    Family.PACMAN: {"arch", "archlinux"},
    Family.ZYPPER: {"suse", "opensuse", "sles"},
}


@dataclass(frozen=True)
class Need:
    """One row of ``packages.txt``."""

    name: str
    wanted_for: str
    kind: str
    alternatives: tuple[str, ...]
    packages: Mapping[Family, str]


def needs() -> tuple[Need, ...]:
    """The whole table."""
    return parse((files("harness.doctor") / "packages.txt").read_text())


def parse(table: str) -> tuple[Need, ...]:
    """Rows of the table; comments and empty lines do not count."""
    rows = [line.split() for line in table.splitlines() if line.strip() and not line.startswith("#")]
    return tuple(_row(*row) for row in rows)


def _row(name: str, wanted_for: str, check: str, apt: str, dnf: str, pacman: str, zypper: str) -> Need:
    kind, _, what = check.partition(":")
    packages = {Family.APT: apt, Family.DNF: dnf, Family.PACMAN: pacman, Family.ZYPPER: zypper}
    known = {family: package for family, package in packages.items() if package != "-"}
    return Need(name, wanted_for, kind, tuple(what.split(",")), known)


def family_of(os_release: str) -> Family:
    """The family, from the text of ``/etc/os-release``."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    names = [name for key in ("ID", "ID_LIKE") for name in fields.get(key, "").strip("\"'").lower().split()]
    for name in names:
        for family, relatives in _RELATIVES.items():
            if name in relatives or name.split("-")[0] in relatives:
                return family
    return Family.UNKNOWN


def this_family() -> Family:
    """The family of this machine; its package manager decides where ``/etc/os-release`` does not."""
    for place in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if place.is_file() and (family := family_of(place.read_text())) is not Family.UNKNOWN:
            return family
    for family, command in _INSTALL.items():
        if find(command.split()[0]):
            return family
    return Family.UNKNOWN


def is_there(need: Need) -> bool:
    """Whether this machine has it."""
    present: dict[str, Callable[[str], bool]] = {
        "command": lambda name: find(name) is not None,
        "file": lambda pattern: any(Path("/").glob(pattern.lstrip("/"))),
        "pkgconfig": _pkgconfig_knows,
    }
    return any(present[need.kind](alternative) for alternative in need.alternatives)


def find(program: str) -> str | None:
    """A program, also where an ordinary user's path does not lead."""
    return shutil.which(program, path=paths.programs())


def install_command(family: Family, missing: Iterable[Need], *, root: bool) -> str | None:
    """The one command that installs what is missing; None where no package is known."""
    packages = sorted({need.packages[family] for need in missing if family in need.packages})
    if not packages or family not in _INSTALL:
        return None
    return as_root(f"{_INSTALL[family]} {shlex.join(packages)}", root=root)


def as_root(command: str, *, root: bool) -> str:
    """``command`` as this user has to type it; what takes several commands becomes one."""
    if root:
        return command
    return f"sudo sh -c {shlex.quote(command)}" if "&&" in command else f"sudo {command}"


def _pkgconfig_knows(name: str) -> bool:
    program = find("pkg-config")
    return bool(program) and LocalRunner().run([str(program), "--exists", name], ok=()).status == 0
