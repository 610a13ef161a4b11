"""Images of stacks that are really built: a package for dkms, and ready modules out of a kernel's package.

Before a release; no lab, but the network, and minutes.  What dkms builds here is a package of Debian's that has nothing
to do with DRBD: that it builds against the image's kernel is the point.
"""

from __future__ import annotations

import lzma
import re
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from harness.config import recipe
from harness.config.recipe import ImageError
from harness.config.stack_spec import NodeStack, NodeTable, StackSpec
from harness.images import DEFAULT_SUITE, Image, debs, dkms, ensure, ensure_stack, modules, sources
from harness.images.apt import KEYRING, Apt
from harness.images.debs import UserDebError
from harness.images.parts import Parts
from harness.images.process import Step
from harness.images.stack_builder import SOURCES, STATUS
from harness.images.system import System
from harness.remote.local import LocalRunner
from harness.util.paths import cache_dir

DKMS_PACKAGE = "acpi-call-dkms"


@dataclass(frozen=True)
class Base:
    """The image of the default suite, and apt as for it."""

    image: Image
    system: System
    apt: Apt
    scratch: Path
    step: Step

    def fetch(self, package: str) -> Path:
        """The file of ``package``, as the image's suite has it."""
        names = [package]
        found = self.apt.download(names, [""], "the test", self.scratch / "apt", self.scratch / "log", self.step)
        return next(path for path in found.files if path.name.startswith(f"{package}_"))


@pytest.fixture
def base(tmp_path: Path) -> Base:
    image = ensure("node", DEFAULT_SUITE, cache_dir())
    system = System(image.root)
    lines = sources.Mirrors.of(system.read(SOURCES).decode()).lines([DEFAULT_SUITE], KEYRING)
    # As if its kernel were not installed, so that apt fetches the package.
    status = re.sub(rb"(?m)^Package: linux-image-(.+\n)+\n", b"", system.read(STATUS))
    (tmp_path / "log").touch()
    apt = Apt(cache_dir(), lines, status, DEFAULT_SUITE)
    return Base(image, system, apt, tmp_path, Step("the test", time.monotonic(), Event()))


def build(base: Base, package: debs.Deb, kernel: str) -> list[modules.Module]:
    wanted, parts = recipe.load("node", DEFAULT_SUITE), Parts("node", NodeStack(DEFAULT_SUITE))
    log, step = base.scratch / "log", base.step
    return dkms.dkms_modules(package, kernel, parts, wanted, base.system, base.apt, base.scratch, log, step)


def test_dkms_builds_a_package_for_the_kernel_of_the_image(base: Base) -> None:
    found = build(base, debs.read(base.fetch(DKMS_PACKAGE)), base.image.kernel_version)
    assert [module.kernel for module in found] == [base.image.kernel_version]
    with pytest.raises(UserDebError, match=r"there is no drbd\.ko in "):
        modules.check(found, base.image.kernel_version, DKMS_PACKAGE)


def test_dkms_for_a_kernel_without_headers_is_said_in_apts_words(base: Base) -> None:
    with pytest.raises(
        ImageError, match=r"apt cannot install the headers of the kernel 1\.2\.3, .*linux-headers-1\.2\.3"
    ):
        build(base, debs.read(base.fetch(DKMS_PACKAGE)), "1.2.3")


def test_ready_modules_of_a_kernels_package_are_in_the_image(base: Base, tmp_path: Path) -> None:
    package = debs.read(base.fetch(f"linux-image-{base.image.kernel_version}"))
    (tree := tmp_path / "tree").mkdir()
    (mine := tmp_path / "mine").mkdir()
    (found,) = debs.unpack(package, tree).rglob("drbd.ko*")
    (mine / "drbd.ko").write_bytes(lzma.decompress(found.read_bytes()) if found.suffix == ".xz" else found.read_bytes())
    built = ensure_stack(StackSpec(node=NodeTable(drbd=(str(mine),))), cache_dir()).a
    assert built.kernel_version == base.image.kernel_version and built.packages == base.image.packages
    facts = built.manifest["stack"]["modules"]["drbd.ko"]
    assert facts["srcversion"] == modules.read(mine / "drbd.ko").srcversion
    updates = f"/usr/lib/modules/{built.kernel_version}/updates/drbd.ko"
    assert System(built.root).read(updates) == (mine / "drbd.ko").read_bytes()
    needed = System(built.root).read(f"/usr/lib/modules/{built.kernel_version}/modules.dep").decode()
    assert "updates/drbd.ko: " in needed, "depmod has seen it"


def test_qemu_of_debian_s_in_a_folder_has_its_own_modules_and_firmware_in_the_image(base: Base, tmp_path: Path) -> None:
    # It is not relocatable: it looks for both below /usr, wherever it lies.
    def debugfs(request: str, root: Path) -> str:
        return LocalRunner().run(["/usr/sbin/debugfs", "-R", request, str(root)]).stdout

    folder = tmp_path / "qemu"
    for name in ("bin/qemu-system-x86_64", "lib/x86_64-linux-gnu/qemu", "share/qemu", "share/seabios"):
        (above := (folder / name).parent).mkdir(parents=True, exist_ok=True)
        debugfs(f"rdump /usr/{name} {above}", base.image.root)
    root = ensure_stack(StackSpec(node=NodeTable(qemu=(str(folder),))), cache_dir()).a.root
    for name in ("lib/x86_64-linux-gnu/qemu", "share/qemu"):
        assert f'Fast link dest: "/opt/drbd-harness/qemu/{name}"' in debugfs(f"stat /usr/{name}", root)
    assert System(root).read("/opt/drbd-harness/qemu/lib/x86_64-linux-gnu/qemu/hw-display-virtio-gpu.so")
