"""apt on the controller, for an image that is not there yet: what would be installed, downloaded once, or why not.

It works on a copy of the image's list of installed packages, with lists and packages in the cache, and needs no
privilege.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from harness.config.recipe import ImageError
from harness.images.builder import stale_options
from harness.images.downloads import packages_folder
from harness.images.process import Step, run
from harness.remote.local import LocalRunner

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Debian's keys; mmdebstrap, which every image is built with, looks for them there too."""

LISTS_SECONDS = 3600.0
"""How long lists that were fetched are taken to be today's."""

_APT_SECONDS = 300.0
_INSTALLED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) .*\[(\S+)\]\)", re.MULTILINE)
_REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
_UNMET = re.compile(r"^ *(\S+ : .+(?:\n {3,}.+)*)$", re.MULTILINE)
_TELLING = re.compile(r"^(E: |dpkg: error|Err:)")


class UnresolvedError(ImageError):
    """apt finds no way to install what was asked for; the message has its own words."""


@dataclass(frozen=True)
class Download:
    """Package files that are to be installed together: a user's own, and downloaded ones."""

    files: tuple[Path, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Apt:
    """apt with a set of sources, for an image whose installed packages are ``status`` (dpkg's file, whole)."""

    cache: Path
    sources: str
    status: bytes
    suite: str

    @property
    def _folder(self) -> Path:
        return self.cache / "apt" / hashlib.sha256(self.sources.encode()).hexdigest()[:12]

    @property
    def packages(self) -> Path:
        """Where downloaded packages of all stacks are."""
        return packages_folder(self.cache)

    def download(
        self, wanted: Sequence[str], preferences: Sequence[str], what: str, scratch: Path, log: Path, step: Step
    ) -> Download:
        """The files that have to be installed for ``wanted`` (names, or paths of packages).

        The first of ``preferences`` is taken with which it can be done.  ``what`` begins the sentence of an
        :class:`UnresolvedError`.  With fresh lists this takes seconds, and as long as the download.
        """
        for folder in (self._folder / "lists" / "partial", self.packages / "partial", scratch):
            folder.mkdir(parents=True, exist_ok=True)
        status = scratch / "status"
        status.write_bytes(self.status)
        (self._folder / "sources.list").write_text(self.sources)
        # apt locks its own folders and would give up at once.
        with FileLock(self._folder / "lock"), FileLock(self.packages / "lock"):
            self._update(status, log, step)
            step.report("asking apt what it takes")
            for last, rules in enumerate(preferences, 1 - len(preferences)):
                chosen = scratch / "preferences"
                chosen.write_text(rules)
                options = [*self._options(status), "-o", f"Dir::Etc::preferences={chosen}"]
                try:
                    return self._fetch(options, wanted, log, step)
                except UnresolvedError as error:
                    if not last:
                        raise UnresolvedError(f"{what}: {error} (whole log: {log})") from None
        raise AssertionError("there are no preferences")

    def _update(self, status: Path, log: Path, step: Step) -> None:
        stamp = self._folder / "updated"
        if stamp.is_file() and 0 <= time.time() - stamp.stat().st_mtime < LISTS_SECONDS:
            return
        argv = ["apt-get", *self._options(status), "-o", "APT::Update::Error-Mode=any", "update"]
        run(argv, log, step, "fetching the lists of packages")
        stamp.touch()

    def _fetch(self, options: Sequence[str], wanted: Sequence[str], log: Path, step: Step) -> Download:
        argv = ["apt-get", *options, "-y", "--allow-downgrades", "--allow-change-held-packages", "install", *wanted]
        told = LocalRunner().run([*argv, "--simulate"], timeout=_APT_SECONDS, ok=())
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{told.stdout}{told.stderr}")
        if told.status:
            raise UnresolvedError(words(told.stdout, told.stderr))
        run([*argv, "--download-only"], log, step, "downloading packages")
        own = {path.name: path for path in map(Path, wanted) if path.suffix == ".deb"}
        return Download(
            tuple(self._file(own, *found) for found in _INSTALLED.findall(told.stdout)),
            tuple(_REMOVED.findall(told.stdout)),
        )

    def _file(self, own: dict[str, Path], package: str, version: str, architecture: str) -> Path:
        downloaded = self.packages / f"{package}_{quote(version, safe='+~.-')}_{architecture}.deb".replace("%3A", "%3a")
        if downloaded.is_file():
            return downloaded
        for path in own.values():
            with_fields = LocalRunner().run(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(path)])
            if with_fields.stdout == f"{package} {version}":
                return path
        raise ImageError(f"apt did not leave {package} {version} in {self.packages}")

    def _options(self, status: Path) -> list[str]:
        settings = {
            "Dir::State": self._folder,
            "Dir::State::lists": self._folder / "lists",
            "Dir::State::status": status,
            "Dir::State::extended_states": status.with_name("extended_states"),
            "Dir::Cache": self._folder,
            "Dir::Cache::archives": self.packages,
            "Dir::Etc::sourcelist": self._folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Default-Release": "",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        for option in stale_options():
            name, value = option.split(" ", 1)
            options += ["-o", f"{name}={value.strip(chr(34))}"]
        return options


def words(out: str, err: str) -> str:
    """Why apt would not install something, in its own words and on one line."""
    unmet = out.partition("The following packages have unmet dependencies:\n")[2]
    told = [", ".join(line.strip() for line in found.splitlines()) for found in _UNMET.findall(unmet)][:2]
    errors = [line.removeprefix("E: ") for line in err.splitlines() if line.startswith("E: ")]
    return " / ".join(told or errors[:2]) or "apt does not say why"
