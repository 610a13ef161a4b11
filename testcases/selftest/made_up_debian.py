"""A Debian that nobody has, with the real apt, for the shell of ``ci/quickstart`` and ``ci/test``."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
APT = shutil.which("apt-get")

IN_NAME_ONLY = """#!/bin/sh
case " $* " in
    *" -s "*) exec {apt} "$@" ;;
    *" install "*) cp {after} {status}; {then} ;;
esac
printf '%s\\n' "$*" >>{log}
"""


@dataclass
class Machine:
    """A checkout, a home and a Debian that nobody has, in one folder."""

    root: Path

    @property
    def checkout(self) -> Path:
        return self.root / "checkout"

    @property
    def for_tests(self) -> Path:
        return self.checkout / "ci" / "lib" / "test-packages.txt"

    @property
    def status(self) -> Path:
        return self.root / "dpkg" / "status"

    @property
    def apt_log(self) -> Path:
        return self.root / "apt.log"

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.root / "home"),
            "DRBD_HARNESS_STATE": str(self.root / "state" / "drbd-harness"),
            "DRBD_HARNESS_CACHE": str(self.root / "cache" / "drbd-harness"),
            "APT_CONFIG": str(self.root / "apt.conf"),
            "DPKG_ADMINDIR": str(self.root / "dpkg"),
            "TMPDIR": str(self.root / "tmp"),
        }

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        prepared = f"set -euo pipefail; ROOT={self.checkout}; LOG={self.root}/log; . $ROOT/ci/lib/setup.sh\n"
        prepared += "PROXMOX_VE_FILES=()\n"
        return self.run("bash", "-c", prepared + script)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, cwd=self.root, env=self.environment(), capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def record(self) -> Path:
        return self.root / "state" / "drbd-harness" / "setup-changes.tsv"

    def offer(self, *stanzas: str) -> None:
        """The archive has these packages, and apt's lists know."""
        archive = self.root / "archive"
        archive.mkdir(exist_ok=True)
        (archive / "Packages").write_text("".join(stanzas))
        (self.root / "sources.list").write_text(f"deb [trusted=yes] file:{archive} ./\n")
        if APT:
            subprocess.run([APT, "-q", "update"], env=self.environment(), check=True, capture_output=True)
        for cached in (self.root / "apt" / "cache").glob("*.bin"):
            cached.unlink()  # so that apt would write it again when it is asked

    def pretend_to_install(self, then: str = ":") -> None:
        """From now on, installing writes ``wanted`` 2.0 and ``library`` 1.5 into dpkg's list."""
        after = self.root / "after"
        after.write_text(installed("wanted", "2.0") + installed("library", "1.5"))
        self.program(
            "apt-get", IN_NAME_ONLY.format(apt=APT, after=after, status=self.status, log=self.apt_log, then=then)
        )

    def content(self) -> dict[str, tuple[int, int, bytes]]:
        """Each file and folder with its mode, time of change and content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            stat = path.lstat()
            found[str(path)] = (stat.st_mode, stat.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One thing is missing: a program of the package ``wanted`` 2.0, which depends on ``library``."""
    made = Machine(tmp_path)
    for name in ("bin", "home", "tmp", "apt/lists/partial", "apt/cache/archives/partial", "dpkg/info", "dpkg/updates"):
        (tmp_path / name).mkdir(parents=True)
    # What Python just compiles in another test has such a name until it is whole, and then no more.
    shutil.copytree(CHECKOUT / "ci", made.checkout / "ci", ignore=shutil.ignore_patterns("*.pyc.*"))
    table = made.checkout / "harness" / "doctor" / "packages.txt"
    table.parent.mkdir(parents=True)
    table.write_text("made-up run command:no-such-program-anywhere wanted wanted wanted wanted\n")
    made.for_tests.write_text("")
    (tmp_path / "apt.conf").write_text(
        f'Dir::State "{tmp_path}/apt"; Dir::Cache "{tmp_path}/apt/cache"; Dir::State::status "{made.status}";\n'
        f'Dir::State::extended_states "{tmp_path}/apt/extended";\n'
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
        'Dir::Etc::preferencesparts "/dev/null"; APT::Architecture "amd64"; APT::Architectures { "amd64"; };\n'
        'APT::Sandbox::User "root"; Acquire::Languages "none";\n'
    )
    made.program("sudo", '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\n[ $# = 0 ] || exec "$@"\n')
    made.status.write_text(installed("library", "1.0"))
    made.offer(available("wanted", "2.0", "Depends: library (>= 1.5)"), available("library", "1.5"))
    return made


def installed(name: str, version: str, *more: str) -> str:
    return _stanza(name, version, "Status: install ok installed", *more)


def available(name: str, version: str, *more: str) -> str:
    return _stanza(name, version, f"Filename: ./{name}.deb", "Size: 1048576", f"SHA256: {'0' * 64}", *more)


def _stanza(name: str, version: str, *more: str) -> str:
    fields = [f"Package: {name}", f"Version: {version}", "Architecture: amd64", "Installed-Size: 2048", *more]
    return "\n".join([*fields, "Maintainer: Nobody <nobody@example.invalid>", "Description: made up", "", ""])
