"""apt on the controller for an image that is not there yet: its sources, its preferences, and what it answers."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from threading import Event

import pytest
from test_stack_images import Deb, deb

from harness.config.recipe import ImageError
from harness.images import apt, sources
from harness.images.apt import Apt, UnresolvedError
from harness.images.process import Step
from harness.images.sources import Mirrors

__all__ = ["deb"]

SOURCES = """
deb http://mirror/debian trixie main
deb http://mirror/debian trixie-updates main
deb [signed-by=/x y=z] http://mirror/security trixie-security main
"""
STATUS = b"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12\nMaintainer: n <n@n>\n\n"


def test_mirrors_are_those_that_the_image_was_made_from() -> None:
    mirrors = Mirrors.of(SOURCES)
    assert mirrors == Mirrors("http://mirror/debian", "http://mirror/security", "main")
    assert mirrors.lines(["trixie", "trixie-backports", "sid"], "/keyring").splitlines() == [
        "deb [signed-by=/keyring] http://mirror/debian trixie main",
        "deb [signed-by=/keyring] http://mirror/debian trixie-updates main",
        "deb [signed-by=/keyring] http://mirror/security trixie-security main",
        "deb [signed-by=/keyring] http://mirror/debian trixie-backports main",
        "deb [signed-by=/keyring] http://mirror/debian sid main",
    ]
    with pytest.raises(ImageError, match="names no mirror"):
        Mirrors.of("# nothing\n")


def test_preferences_bring_a_component_from_its_suite_and_nothing_else() -> None:
    rules = sources.preferences("trixie", {"qemu": "sid"}, alone=True).split("\n\n")
    assert [rule.split("\n")[:3] for rule in rules] == [
        ["Package: src:qemu", "Pin: release n=/^sid(-updates|-security)?$/", "Pin-Priority: 1001"],
        ["Package: *", "Pin: release n=/^sid(-updates|-security)?$/", "Pin-Priority: 100"],
    ]
    assert "Pin-Priority: 990" in sources.preferences("trixie", {"qemu": "sid"}, alone=False)
    of_another = sources.preferences("bookworm", {"kernel": "trixie-backports"}, alone=True)
    assert "n=/^trixie(" in of_another, "backports need the release below them, which is not the image's"
    assert "n=/^trixie(" not in sources.preferences("trixie", {"kernel": "trixie-backports"}, alone=True)


def test_packages_of_a_component_are_called_as_its_suite_calls_them() -> None:
    recipe = ["linux-image-cloud-amd64", "kmod", "libvirt-daemon-system"]
    assert sources.packages_of("kernel", "sid", recipe) == ["linux-image-cloud-amd64"]
    assert "libvirt-daemon-system" in sources.packages_of("libvirt", "bookworm", recipe)
    assert "libvirt-daemon-driver-qemu" in sources.packages_of("libvirt", "trixie-backports", recipe)
    assert sources.packages_of("qemu", "sid", recipe) == ["qemu-system-x86", "qemu-utils"]


def download(tmp_path: Path, *wanted: Path) -> apt.Download:
    if shutil.which("apt-get") is None:
        pytest.skip("needs apt")
    made = Apt(tmp_path / "cache", "", STATUS, "trixie")
    step = Step("node image", time.monotonic(), Event())
    words = [str(path) for path in wanted]
    return made.download(words, ["", ""], "apt cannot install it", tmp_path / "scratch", tmp_path / "log", step)


def test_download_of_own_packages_needs_no_network(deb: Deb, tmp_path: Path) -> None:
    one, other = deb("one", depends="libc6, other"), deb("other")
    assert sorted(download(tmp_path, one, other).files) == sorted([one, other])


def test_download_of_what_cannot_be_resolved_has_apts_own_words(deb: Deb, tmp_path: Path) -> None:
    with pytest.raises(UnresolvedError) as caught:
        download(tmp_path, deb("one", depends="libc6 (>= 3), nonsense"))
    message = str(caught.value)
    assert (
        message.startswith(
            "apt cannot install it: one : Depends: libc6 (>= 3) but 2.41-12 is to be installed, Depends: "
        )
        and "\n" not in message
    )
    assert "Depends: nonsense but it is not installable" in message
    assert message.endswith(f"(whole log: {tmp_path / 'log'})")
    assert "unmet dependencies" in (tmp_path / "log").read_text()


def test_words_of_an_unknown_package_are_apts_error() -> None:
    said = "Reading package lists...\n"
    assert apt.words(said, "E: Unable to locate package nonsense\n") == "Unable to locate package nonsense"
    assert apt.words("", "") == "apt does not say why"
