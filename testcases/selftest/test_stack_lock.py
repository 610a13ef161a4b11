"""What a run is locked to: what images hold, what nodes run, the guest's machine type; and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from fakes import FakeNode, Story
from test_software_parse import BANNER, BUILD, PRINTED

from harness.errors import StackError, UsageError
from harness.images import Image
from harness.images.held import lock_of
from harness.lab.machine import guest_machine
from harness.lab.node import Node
from harness.lab.stack import require_as_locked, require_unchanged
from harness.model import ImageLock, LabProvenance, NodeLock, Run, Software, Stack, StackLock
from harness.model.stack_lock import not_as_it_began, not_as_its_image
from harness.remote.scripted import ScriptedRunner
from harness.store import Store, keep_lock, keep_protocol, keep_provenance, read_lock
from harness.util import paths

RUNS = Software(
    kernel="6.12.118+deb13-amd64", kernel_build=BUILD, drbd="8.4.11", drbd_srcversion="637677C4EAFCF5D1D5446B0",
    drbd_protocols="86-101", drbd_utils="9.22.0-1.1", qemu="10.0.13", qemu_path="/usr/bin/qemu-system-x86_64",
    qemu_sha256="d3c1a558ad220e77" + 48 * "0", libvirt="11.3.0",
)  # fmt: skip
#: What can be read of an image.
HOLDS = replace(RUNS, drbd_protocols="", libvirt="", drbd_sha256="5" * 64)
IMAGE = ImageLock("node", "trixie", "7" * 64, "2026-11-29T07:32:16+00:00", "a" * 64, "b" * 64, HOLDS)
NINE = {"drbd": "9.3.3", "drbd_srcversion": "E0634C2B893C65C232A8771", "drbd_protocols": "118-124"}


def lock(**on_b: Any) -> StackLock:
    """Two nodes, of which the second runs, as its image says, something else."""
    image = replace(IMAGE, holds=replace(HOLDS, **{name: on_b[name] for name in on_b if name != "drbd_protocols"}))
    return StackLock(
        "trixie", NodeLock("nodea", IMAGE, RUNS), NodeLock("nodeb", image, replace(RUNS, **on_b)), machine="pc-q35-10.0"
    )


def node(name: str, answers: dict[str, str] | None = None) -> Node:
    """A node that answers a command by the first of the ``answers`` of which the name is in it."""

    def said(argv: tuple[str, ...]) -> tuple[int, str, str]:
        text = " ".join(argv)
        return 0, next((answer for piece, answer in (answers or {}).items() if piece in text), ""), ""

    made = FakeNode(Story(), name)
    made.runner = cast(Any, ScriptedRunner(said, name))
    return cast(Node, cast(Any, made))


# --------------------------------------------------------------------------- what runs is what the image holds


def test_node_that_runs_what_its_image_holds_is_taken() -> None:
    assert all(not_as_its_image(one) is None for one in lock().nodes)
    require_as_locked(lock(), node("nodea"), node("nodeb"))
    assert not_as_its_image(NodeLock("nodea", ImageLock(), RUNS)) is None, "of no image is nothing known"


@pytest.mark.parametrize(
    ("loaded", "sentence"),
    [
        (
            {"drbd_srcversion": "F73C670A7EC572DB9CF3E5B"},
            "nodea runs DRBD 8.4.11 (srcversion F73C670A7EC572DB9CF3E5B), where its image holds DRBD 8.4.11"
            " (srcversion 637677C4EAFCF5D1D5446B0)",
        ),
        (
            {"kernel_build": "#2 SMP own"},
            "nodea runs Linux 6.12.118+deb13-amd64 (#2 SMP own), where its image holds Linux 6.12.118+deb13-amd64"
            f" ({BUILD})",
        ),
        (
            {"qemu_sha256": "f" * 64},
            "nodea runs QEMU 10.0.13 (SHA-256 ffffffffffff), where its image holds QEMU 10.0.13 (SHA-256 d3c1a558ad22)",
        ),
        (
            {"kernel": "7.0.1", "qemu": "11.1.0"},
            f"nodea runs Linux 7.0.1 ({BUILD}), where its image holds Linux 6.12.118+deb13-amd64 ({BUILD}); and"
            " QEMU 11.1.0 (SHA-256 d3c1a558ad22), where its image holds QEMU 10.0.13 (SHA-256 d3c1a558ad22)",
        ),
    ],
)
def test_node_that_runs_something_else_is_refused_with_both(loaded: dict[str, str], sentence: str) -> None:
    wrong = replace(lock(), a=NodeLock("nodea", IMAGE, replace(RUNS, **loaded)))
    with pytest.raises(StackError) as caught:
        require_as_locked(wrong, node("nodea"), node("nodeb"))
    assert str(caught.value) == sentence and caught.value.exit_code == 2


def test_module_that_does_not_load_is_refused_in_the_words_of_the_kernel() -> None:
    gone = replace(lock(), b=NodeLock("nodeb", IMAGE, replace(RUNS, drbd="", drbd_srcversion="", drbd_protocols="")))
    said = {
        "dmesg": "modprobe: ERROR: could not insert 'drbd': Exec format error\n[9.1] drbd: version magic '6.1' wrong\n"
    }
    with pytest.raises(StackError) as caught:
        require_as_locked(gone, node("nodea"), node("nodeb", said))
    assert str(caught.value) == (
        "DRBD 8.4.11 of its image does not load on nodeb: modprobe: ERROR: could not insert 'drbd': Exec format error; "
        "[9.1] drbd: version magic '6.1' wrong"
    )


def test_qemu_that_does_not_start_is_refused_in_its_words() -> None:
    gone = replace(lock(), a=NodeLock("nodea", IMAGE, replace(RUNS, qemu="")))
    with pytest.raises(StackError, match=r"does not start on nodea: .*libfdt.so.1: cannot open shared object file"):
        require_as_locked(
            gone, node("nodea", {"--version": "error: libfdt.so.1: cannot open shared object file"}), node("b")
        )


def test_two_nodes_without_a_common_protocol_are_refused_naming_both() -> None:
    nine = lock(**NINE)
    older = lock(**{**NINE, "drbd": "9.0.19", "drbd_protocols": "110-115"})
    with pytest.raises(StackError) as caught:
        require_as_locked(replace(nine, a=replace(older.b, name="nodea")), node("nodea"), node("nodeb"))
    assert str(caught.value) == (
        "the two nodes cannot speak to each other: DRBD 9.0.19 on nodea has the network protocols 110-115, "
        "and DRBD 9.3.3 on nodeb has 118-124"
    )


# What 9.3.3 lists in /proc/drbd leaves out 86 to 101, which it speaks with DRBD 8.4 all the same.
@pytest.mark.parametrize("nine", [NINE, {"drbd": "9.1.4", "drbd_protocols": "86-121"}])
def test_two_generations_are_refused_for_how_they_are_set_up(nine: dict[str, str]) -> None:
    with pytest.raises(StackError, match=r"DRBD 8\.4\.11 on nodea and 9\.\S+ on nodeb are set up in different ways"):
        require_as_locked(lock(**nine), node("nodea"), node("nodeb"))


@pytest.mark.parametrize(
    ("utils", "fit"), [("9.15.0-1", False), ("1:9.16.9", False), ("9.17.0", True), ("10.0", True), ("", True)]
)
def test_drbd_utils_that_are_too_old_for_drbd_9_are_refused(utils: str, fit: bool) -> None:
    both = lock(**NINE, drbd_utils=utils)
    nine = replace(both, a=replace(both.b, name="nodea"))
    if fit:
        require_as_locked(nine, node("nodea"), node("nodeb"))
        return
    with pytest.raises(StackError) as caught:
        require_as_locked(nine, node("nodea"), node("nodeb"))
    assert str(caught.value) == (
        f"the drbd-utils {utils} of nodea are too old for DRBD 9.3.3: it takes 9.17 or newer, with 'drbd_utils' in the"
        " stack's file"
    )
    require_as_locked(lock(drbd_utils=utils), node("nodea"), node("nodeb"))


def test_two_versions_of_one_generation_are_taken() -> None:
    require_as_locked(lock(drbd="8.4.12", drbd_srcversion="9"), node("nodea"), node("nodeb"))


# --------------------------------------------------------------------------- a node that has booted


def says(**now: str) -> dict[str, str]:
    """What a node answers that runs what it ran, but for ``now``."""
    found = {name: value for name, value in vars(replace(RUNS, **now)).items() if value}
    return {"uname": "".join(f"{name}={value}\n" for name, value in found.items())}


def test_node_that_booted_and_runs_what_it_ran_is_taken() -> None:
    require_unchanged(lock(), node("nodea", says()), node("nodeb", says()))
    require_unchanged(StackLock(), node("nodea", says(kernel="7.1")))
    asked = node("nodea", says())
    require_unchanged(lock(), asked)
    (argv,) = cast(ScriptedRunner, cast(Any, asked.runner)).ran
    assert "sha256sum" not in " ".join(argv), "which takes an emulated node seconds"


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            {"kernel": "6.12.120+deb13-amd64", "kernel_build": "#2 SMP"},
            "nodea has booted and runs Linux 6.12.120+deb13-amd64 (#2 SMP), where it ran Linux 6.12.118+deb13-amd64"
            f" ({BUILD}) before",
        ),
        (
            NINE,
            "nodea has booted and runs DRBD 9.3.3 (srcversion E0634C2B893C65C232A8771), where it ran DRBD 8.4.11"
            " (srcversion 637677C4EAFCF5D1D5446B0) before",
        ),
        (
            {"qemu": "11.1.0", "qemu_sha256": ""},
            "nodea has booted and runs QEMU 11.1.0, where it ran QEMU 10.0.13 (SHA-256 d3c1a558ad22) before",
        ),
    ],
)
def test_node_that_booted_with_another_version_is_refused_with_both(now: dict[str, str], sentence: str) -> None:
    with pytest.raises(StackError) as caught:
        require_unchanged(lock(), node("nodea", says(**now)))
    assert str(caught.value) == sentence


def test_node_that_booted_without_drbd_is_refused_in_the_words_of_the_kernel() -> None:
    answers = {
        "uname": "kernel=6.12.118+deb13-amd64\nqemu=10.0.13\n",
        "dmesg": "modprobe: FATAL: Module drbd not found",
    }
    with pytest.raises(StackError, match=r"^since it has booted: DRBD 8\.4\.11 .* not load on nodea: .*drbd not found"):
        require_unchanged(lock(), node("nodea", answers))


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


# --------------------------------------------------------------------------- the guest's machine type

OLDER = PRINTED.replace("pc-q35-10.0 ", "other ").replace("pc-q35-9.2 ", "other ")


def machine(cache: Path, asked: str = "", on_b: str = OLDER) -> str:
    pairs = [
        (node("nodea", {"-machine help": PRINTED}), RUNS),
        (node("nodeb", {"-machine help": on_b}), replace(RUNS, qemu="9.0.2", qemu_sha256="9" * 64)),
    ]
    return guest_machine(pairs, asked, cache)


def test_guest_machine_is_the_newest_that_both_know(tmp_path: Path) -> None:
    assert machine(tmp_path) == "pc-q35-9.0"
    assert machine(tmp_path / "other", on_b=PRINTED) == "pc-q35-10.0"


def test_guest_machine_is_the_one_that_is_asked_for_where_both_know_it(tmp_path: Path) -> None:
    assert machine(tmp_path, "pc-q35-4.0.1") == "pc-q35-4.0.1"
    with pytest.raises(StackError) as caught:
        machine(tmp_path, "pc-q35-10.0")
    assert str(caught.value) == (
        "the machine type pc-q35-10.0 is not known to QEMU 9.0.2 on nodeb; the newest that all nodes know is pc-q35-9.0"
    )


def test_guest_machine_of_qemus_without_a_common_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError) as caught:
        machine(tmp_path, on_b="pc-q35-3.1   Standard PC\n")
    assert str(caught.value) == (
        "the nodes' QEMUs have no machine type in common: QEMU 10.0.13 on nodea knows pc-q35-10.0 and older; "
        "QEMU 9.0.2 on nodeb knows pc-q35-3.1 and older"
    )


def test_guest_machine_of_one_qemu_that_names_none_is_left_to_it(tmp_path: Path) -> None:
    names_others = [(node(name, {"-machine help": "pc-q35-rhel9.4.0   RHEL\n"}), RUNS) for name in ("nodea", "nodeb")]
    assert guest_machine(names_others, "", tmp_path) == ""
    with pytest.raises(StackError, match="no machine type in common"):
        guest_machine([names_others[0], (names_others[1][0], replace(RUNS, qemu="9"))], "", tmp_path)


def test_guest_machine_asks_a_qemu_only_once(tmp_path: Path) -> None:
    assert machine(tmp_path) == "pc-q35-9.0"
    silent = [(node("nodea"), RUNS), (node("nodeb"), replace(RUNS, qemu_sha256="9" * 64))]
    assert guest_machine(silent, "", tmp_path) == "pc-q35-9.0"
    (kept,) = (tmp_path / "machine-types").glob("9*.json")
    kept.write_text("damaged")
    with pytest.raises(StackError, match="no machine type in common"):
        guest_machine(silent, "", tmp_path)


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
