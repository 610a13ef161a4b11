"""What a run is locked to: what its images hold, and that a lock that is kept with a run refuses another lab."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from locked_stack import IMAGE, NINE, RUNS, lock
from test_software_parse import BANNER, BUILD

from harness.errors import StackError, UsageError
from harness.images import Image
from harness.images.held import lock_of
from harness.model import ImageLock, LabProvenance, Run, Software, Stack, StackLock
from harness.model.stack_lock import not_as_it_began
from harness.store import Store, keep_lock, keep_protocol, keep_provenance, read_lock
from harness.util import paths

# --------------------------------------------------------------------------- what an image holds


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A node image with a small filesystem, QEMU behind a link in it."""
    tool = shutil.which("mke2fs", path=paths.programs())
    if tool is None or shutil.which("debugfs", path=paths.programs()) is None:
        pytest.skip("e2fsprogs is not installed")
    root, directory = tmp_path / "root", tmp_path / "image"
    tree = root / "usr/lib/modules/6.12.118+deb13-amd64"
    (tree / "updates").mkdir(parents=True)
    (tree / "modules.dep").write_text("updates/drbd.ko: kernel/lib/lru_cache.ko\n")
    (tree / "updates/drbd.ko").write_bytes(b"\x7fELF\0version=9.3.3\0srcversion=E0634C2B893C65C232A8771\0")
    (root / "opt/qemu").mkdir(parents=True)
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "opt/qemu/qemu-11").write_bytes(b"\x7fELF\0QEMU emulator version 11.1.0\n\0")
    (root / "usr/local/bin/qemu-system-x86_64").symlink_to("../../../opt/qemu/qemu-11")
    directory.mkdir()
    subprocess.run(
        [tool, "-q", "-F", "-t", "ext4", "-d", str(root), str(directory / "root.img"), "8M"], check=True
    )  # fmt: skip
    (directory / "vmlinuz").write_bytes(f"\x7fELF\0{BANNER} {BUILD}\n\0".encode())
    (directory / "initrd.img").write_bytes(b"initrd")
    manifest = {
        "kernel": "6.12.118+deb13-amd64",
        "packages": {"drbd-utils": "9.22"},
        "built_at": "now",
        "kernel_args": [],
    }
    return Image("node", "trixie", "7" * 64, directory, manifest)


def test_lock_of_an_image_is_what_its_files_hold(image: Image) -> None:
    found = lock_of(image)
    assert (found.role, found.suite, found.digest, found.built_at) == ("node", "trixie", "7" * 64, "now")
    assert found.initrd_sha256 == hashlib.sha256(b"initrd").hexdigest() and len(found.kernel_sha256) == 64
    holds = found.holds
    assert (holds.kernel, holds.kernel_build) == ("6.12.118+deb13-amd64", BUILD)
    assert (holds.drbd, holds.drbd_srcversion, len(holds.drbd_sha256)) == ("9.3.3", NINE["drbd_srcversion"], 64)
    assert (holds.qemu, holds.qemu_path) == ("11.1.0", "/usr/local/bin/qemu-system-x86_64")
    program = b"\x7fELF\0QEMU emulator version 11.1.0\n\0"
    assert holds.qemu_sha256 == hashlib.sha256(program).hexdigest() and holds.drbd_utils == "9.22"


def test_lock_of_an_image_of_a_stack_has_the_module_and_the_qemu_that_the_stack_put_in(image: Image) -> None:
    module = {"version": "9.3.4", "srcversion": "MINE", "sha256": "c" * 64, "kernel": "6.12.118+deb13-amd64"}
    image.manifest["stack"] = {"modules": {"drbd.ko": module}, "qemu": {"folder": "/mine", "sha256": "d" * 64}}
    holds = lock_of(image).holds
    assert (holds.drbd, holds.drbd_srcversion, holds.drbd_sha256) == ("9.3.4", "MINE", "c" * 64)
    assert (holds.qemu, holds.qemu_sha256) == ("11.1.0", "d" * 64)
    image.manifest["stack"] = {"modules": {}, "qemu": {}}
    image.manifest["built_at"] = "later"
    assert lock_of(image).holds.drbd == "9.3.3"


def test_lock_of_an_image_without_module_and_qemu_leaves_them_empty(image: Image) -> None:
    subprocess.run(
        ["debugfs", "-w", "-R", "rm /usr/lib/modules/6.12.118+deb13-amd64/modules.dep", str(image.root)],
        check=True, capture_output=True, env={"PATH": paths.programs()},
    )  # fmt: skip
    subprocess.run(
        ["debugfs", "-w", "-R", "rm /opt/qemu/qemu-11", str(image.root)],
        check=True, capture_output=True, env={"PATH": paths.programs()},
    )  # fmt: skip
    holds = lock_of(image).holds
    assert (holds.drbd, holds.drbd_srcversion, holds.qemu, holds.qemu_path) == ("", "", "", "")
    assert holds.kernel_build == BUILD


# --------------------------------------------------------------------------- kept with the run

LAB = LabProvenance({"node": "a" * 64}, {"node": {"qemu": "10.0"}}, 2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path, Run("20261129T000000Z-aaaa", "quick", "2026-11-29T00:00:00+00:00", ()))


def test_keep_lock_of_a_lab_is_beside_the_run_and_names_its_packages(store: Store) -> None:
    keep_lock(store, lock(), LAB)
    keep_provenance(store, LAB)
    kept = json.loads((store.directory / "stack.lock.json").read_bytes())
    assert kept["a"]["runs"]["drbd_srcversion"] == RUNS.drbd_srcversion and kept["machine"] == "pc-q35-10.0"
    assert kept["packages_sha256"] == store.run().provenance.packages_digest != ""
    assert read_lock(store) == replace(lock(), packages_sha256=kept["packages_sha256"])


def test_keep_lock_of_the_same_lab_again_keeps_the_first(store: Store) -> None:
    keep_lock(store, lock(), LAB)
    before = (store.directory / "stack.lock.json").read_bytes()
    built_again = replace(lock(), a=replace(lock().a, image=replace(IMAGE, built_at="later")))
    keep_lock(store, built_again, LAB)
    assert (store.directory / "stack.lock.json").read_bytes() == before


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            lock(qemu="10.0.14", qemu_sha256="e" * 64),
            "the run began with QEMU 10.0.13 (SHA-256 d3c1a558ad22) on nodeb, where QEMU 10.0.14 (SHA-256 eeeeeeeeeeee)"
            " runs now",
        ),
        (
            lock(**NINE),
            "the run began with DRBD 8.4.11 (srcversion 637677C4EAFCF5D1D5446B0) on nodeb, where DRBD 9.3.3"
            " (srcversion E0634C2B893C65C232A8771) runs now",
        ),
        (
            replace(lock(), machine="pc-q35-9.0"),
            "the run began with a guest of machine type pc-q35-10.0, which is pc-q35-9.0 now",
        ),
    ],
)
def test_keep_lock_of_another_lab_is_refused_and_leaves_the_first(store: Store, now: StackLock, sentence: str) -> None:
    keep_lock(store, lock(), LAB)
    with pytest.raises(StackError) as caught:
        keep_lock(store, now, LAB)
    assert str(caught.value) == f"{sentence}; what is played now would not belong to it: begin a new run"
    assert read_lock(store) is not None and not_as_it_began(cast(StackLock, read_lock(store)), lock()) is None


def test_keep_lock_with_another_guest_kernel_is_refused(store: Store) -> None:
    guest = ImageLock("guest", holds=Software(kernel="6.12", kernel_build="#1"))
    keep_lock(store, replace(lock(), guest=guest), LAB)
    other = replace(guest, holds=Software(kernel="6.1", kernel_build="#1"))
    with pytest.raises(StackError, match=r"Linux 6\.12 \(#1\) in the guest, which has Linux 6\.1 \(#1\) now"):
        keep_lock(store, replace(lock(), guest=other), LAB)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 3}', '{"schema": 99}'])
def test_read_lock_of_a_damaged_or_later_file_is_one_sentence(store: Store, content: str) -> None:
    (store.directory / "stack.lock.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        read_lock(store)
    assert "stack.lock.json" in str(caught.value) and "\n" not in str(caught.value)


def test_read_lock_of_an_older_run_is_none(store: Store) -> None:
    assert read_lock(store) is None


def test_keep_protocol_is_in_the_run_and_in_its_lock(store: Store) -> None:
    keep_lock(store, lock(), LAB)
    keep_protocol(store, "")
    assert store.run().stack == Stack()
    keep_protocol(store, "101")
    assert store.run().stack.drbd_protocol == "101" and cast(StackLock, read_lock(store)).drbd_protocol == "101"
