"""A guest image that a user brings: what is refused, how it is kept, what a lab and a guest are made of with it."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_libvirt import LibvirtSaid
from lxml import etree
from scripted_libvirt import bounded
from test_render import GUEST, NODE

from harness.config.lab_spec import GuestSpec, LabSpec, UserImageSpec
from harness.config.recipe import ImageError
from harness.config.run_specs import specs_from_options
from harness.engine.context import CellContext
from harness.errors import GuestImageError, HarnessError, UsageError
from harness.guest import user_guest
from harness.images import user_image
from harness.images.user_image import Choices, keep, kept, look_at, prune_kept, require_kept, table
from harness.model import CacheMode, Cell, FilesystemKind
from harness.parse.boot_disk import BEGINNING_BYTES, BootFacts, boot_facts, image_file
from harness.parse.guest_console import last_lines
from harness.parse.guest_facts import NEEDED, forbidden, guest_facts
from harness.remote.guest_agent import GuestAgent
from harness.render.domain import UserGuestFiles, guest_xml, node_xml
from harness.render.user_guest import NEED_XSAVE, UserGuestDisk
from harness.store import Attempt

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
ESP, BIOS = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "21686148-6449-6e6f-744e-656564454649"
RESERVED, LINUX = "e3c9e316-0b5c-4db8-817d-f92df00215ae", "0fc63daf-8483-4772-8e79-3d69d8477de4"


def mbr(*entries: tuple[int, int]) -> bytes:
    """An MBR with partitions of (flag, type)."""
    table = b"".join(bytes([flag, 0, 0, 0, kind]) + bytes(11) for flag, kind in entries)
    sector = bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"
    return sector.ljust(BEGINNING_BYTES, b"\0")


def gpt(*types: str) -> bytes:
    header = (b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 128, 128)).ljust(512, b"\0")
    entries = b"".join(uuid.UUID(one).bytes_le.ljust(128, b"\1") for one in types)
    return mbr((0, 0xEE))[:512] + header + entries.ljust(32 * 512, b"\0")


def qcow2(path: Path, beginning: bytes, mebibytes: int = 64) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes(beginning)
    with raw.open("r+b") as file:
        file.truncate(mebibytes << 20)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    raw.unlink()
    return path


# --------------------------------------------------------------------------- what an image says of itself


@pytest.mark.parametrize(
    ("beginning", "facts"),
    [
        (mbr((0x80, 0x83)), BootFacts(uefi=False, windows=False)),
        (mbr((0x80, 0x07), (0, 0x07)), BootFacts(uefi=False, windows=True)),
        (mbr((0, 0xEF), (0, 0x83)), BootFacts(uefi=True, windows=False)),
        (gpt(BIOS, ESP, LINUX), BootFacts(uefi=False, windows=False)),
        (gpt(ESP, LINUX), BootFacts(uefi=True, windows=False)),
        (gpt(ESP, RESERVED), BootFacts(uefi=True, windows=True)),
    ],
)
def test_boot_facts_by_the_partition_table(beginning: bytes, facts: BootFacts) -> None:
    assert boot_facts(beginning) == facts


@pytest.mark.parametrize("beginning", [b"", bytes(BEGINNING_BYTES), mbr(), mbr((0, 0xEE))])
def test_boot_facts_of_no_partition_table_is_an_error(beginning: bytes) -> None:
    with pytest.raises(ValueError, match="partition table"):
        boot_facts(beginning)


@pytest.mark.parametrize("text", ["[]", "{}", '{"virtual-size": null}', "x"])
def test_image_file_of_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        image_file(text)


def created(path: Path, *options: str) -> None:
    """An empty qcow2.  qemu-img measures how long its work on a key takes, and gives up where a busy machine's count of
    its processor time stood still meanwhile.
    """
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "1M"]
    for _ in range(20):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if "Unable to get accurate CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr


@needs_qemu_img
def test_look_at_image_that_cannot_be_used_one_sentence(tmp_path: Path) -> None:
    good = qcow2(tmp_path / "good.qcow2", gpt(BIOS, ESP, LINUX))
    assert look_at(good, "--guest-image").virtual_bytes == 64 << 20
    (tmp_path / "text.qcow2").write_text("hello")
    (tmp_path / "torn.qcow2").write_bytes(b"QFI\xfb" + b"x" * 60)
    empty = qcow2(tmp_path / "empty.qcow2", b"\0")
    child = tmp_path / "child.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", good, child], check=True)
    outside, locked = tmp_path / "outside.qcow2", tmp_path / "locked.qcow2"
    for path, *options in (
        (outside, "-o", f"data_file={tmp_path / 'data'}"),
        (locked, "--object", "secret,id=key,data=abc", "-o", "encrypt.format=luks,encrypt.key-secret=key"),
    ):
        created(path, *options)
    wrong = {
        outside: "has an external data file",
        locked: "is encrypted; 'qemu-img convert'",
        tmp_path / "none.qcow2": "cannot be read: No such file",
        tmp_path: "cannot be read: Is a directory",
        tmp_path / "text.qcow2": "is no qcow2 image; 'qemu-img convert",
        tmp_path / "torn.qcow2": "that qemu-img can read",
        empty: "nothing can boot from",
        child: "has a backing file",
    }
    for path, sentence in wrong.items():
        with pytest.raises(UsageError, match=sentence) as caught:
            look_at(path, "--guest-image")
        assert str(caught.value).startswith("--guest-image: ") and "\n" not in str(caught.value)


# --------------------------------------------------------------------------- the copy


@needs_qemu_img
def test_keep_image_once_by_its_digest_the_file_is_only_read(tmp_path: Path) -> None:
    path, cache = qcow2(tmp_path / "mine.qcow2", mbr((0x80, 0x83))), tmp_path / "cache"
    before = path.read_bytes()
    digest = keep(look_at(path, "x"), cache)
    copy = kept(digest, cache)
    assert copy.read_bytes() == before == path.read_bytes()
    stamp = copy.stat().st_mtime_ns
    assert keep(look_at(path, "x"), cache) == digest and copy.stat().st_mtime_ns == stamp
    path.unlink()
    assert require_kept(digest, cache) == copy
    assert prune_kept(cache, dry_run=True) == [copy] and copy.exists()
    assert prune_kept(cache, dry_run=False) == [copy]
    with pytest.raises(ImageError, match=f"{digest[:12]} is not in the cache"):
        require_kept(digest, cache)


@needs_qemu_img
def test_keep_image_without_room_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qcow2(tmp_path / "mine.qcow2", mbr((0x80, 0x83)))
    monkeypatch.setattr(user_image.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2**40, 2**40, 2**20))
    with pytest.raises(ImageError, match=r"no room for the guest image .*: its copy needs 102\d MiB .* 1 MiB are free"):
        keep(look_at(path, "x"), tmp_path / "cache")
    assert not list((tmp_path / "cache/guest-images").iterdir())


@needs_qemu_img
def test_keep_image_that_changes_meanwhile_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = qcow2(tmp_path / "mine.qcow2", mbr((0x80, 0x83))), tmp_path / "cache"
    image, digest_of = look_at(path, "x"), user_image._digest

    def then_written(one: Path) -> str:
        found = digest_of(one)
        if one == path:
            with path.open("ab") as file:
                file.write(b"a machine runs from it")
        return found

    monkeypatch.setattr(user_image, "_digest", then_written)
    with pytest.raises(ImageError, match=r"mine\.qcow2 changed while it was copied; is a machine running from it\?"):
        keep(image, cache)
    assert not list((cache / "guest-images").iterdir())


# --------------------------------------------------------------------------- what a lab and a guest are made of


def test_table_of_an_image_is_a_lab_spec_and_survives_its_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    image = user_image.UserImage(Path("/x/mine.qcow2"), 3 << 30, 1, BootFacts(uefi=False, windows=False))
    spec, _ = specs_from_options({}, table(image, Choices(memory_mib=3000), "ab" * 32))
    made = spec.guest.image
    assert (made.name, made.firmware, made.bus, made.disk_mib, made.memory_mib) == (
        "mine.qcow2", "bios", "virtio", 3072, 3000,
    )  # fmt: skip
    assert spec.memory_mib == 4024, "a node has room for it"
    assert LabSpec.from_table(spec.as_table()) == spec
    with pytest.raises(UsageError, match="no room for a guest of 3000 MiB"):
        specs_from_options({"memory_mib": 2560}, table(image, Choices(memory_mib=3000), "ab" * 32))
    windows = user_image.UserImage(Path("w.qcow2"), 1, 1, BootFacts(uefi=True, windows=True))
    monkeypatch.setattr(user_image, "uefi_firmware", lambda: (Path("code"), Path("variables")))
    made = UserImageSpec.from_table(table(windows, Choices(), "ab" * 32))
    assert (made.firmware, made.bus, made.memory_mib) == ("uefi", "sata", 2048)


def test_uefi_firmware_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_image, "_UEFI", ())
    with pytest.raises(ImageError, match="apt-get install --no-remove ovmf"):
        user_image.uefi_firmware()


def test_node_xml_with_a_user_image_has_it_read_only_and_the_overlay_shared() -> None:
    from dataclasses import replace

    files = UserGuestFiles(Path("/c/image.qcow2"), "guestimage", Path("/l/overlay.raw"), "guestoverlay")
    disks = {
        disk.findtext("serial"): disk
        for disk in etree.fromstring(node_xml(replace(NODE, user_guest=files)).encode()).iterfind("devices/disk")
    }
    image, overlay = disks["guestimage"], disks["guestoverlay"]
    assert image.find("readonly") is not None and image.find("driver").get("type") == "qcow2"
    assert overlay.find("readonly") is None and overlay.find("shareable") is not None
    assert overlay.find("driver").get("type") == "raw", "libvirt shares no other format"


@pytest.mark.parametrize("windows", [False, True])
def test_guest_xml_of_a_user_image_boots_by_itself(windows: bool) -> None:
    from dataclasses import replace

    firmware = {"firmware": "/c.fd", "variables": "/v.fd", "nvram": "/n.fd"} if windows else {}
    bus = "sata" if windows else "virtio"
    user = UserGuestDisk("/overlay", "/base", bus, windows, xsave=windows, **firmware)
    domain = etree.fromstring(guest_xml(replace(GUEST, user=user)).encode())
    assert domain.find("os/kernel") is None and domain.findtext("os/loader") == ("/c.fd" if windows else None)
    disks = domain.findall("devices/disk")
    assert [disk.find("source").get("dev") for disk in disks] == ["/overlay"] + ([] if windows else ["/dev/by-id/x"])
    assert disks[0].find("backingStore/source").get("dev") == "/base" and disks[0].find("boot").get("order") == "1"
    assert disks[0].find("target").get("bus") == bus
    lacks = {feature.get("name") for feature in domain.findall("cpu/feature[@policy='disable']")}
    assert lacks == (set() if windows else set(NEED_XSAVE)), "with AVX and without XSAVE a kernel dies while it boots"
    assert (domain.find("features/hyperv") is not None) == windows


# --------------------------------------------------------------------------- the agent's dialogue


class Agent:
    """The agent of a guest: what it answers, and the programs that were run."""

    def __init__(self, osinfo: dict[str, Any], disabled: str = "", fails: str = "") -> None:
        self.osinfo, self.disabled, self.fails = osinfo, disabled, fails
        self.ran: list[list[str]] = []

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def qemuAgentCommand(self, request: str, timeout: int, flags: int) -> str:  # noqa: N802 - libvirt's name
        asked = json.loads(request)
        answers: dict[str, Any] = {
            "guest-ping": {},
            "guest-info": {
                "version": "10.0.13",
                "supported_commands": [{"name": one, "enabled": one != self.disabled} for one in NEEDED],
            },
            "guest-get-osinfo": self.osinfo,
        }
        if asked["execute"] == "guest-exec":
            self.ran.append([asked["arguments"]["path"], *asked["arguments"]["arg"]])
            return json.dumps({"return": {"pid": 1}})
        if asked["execute"] == "guest-exec-status":
            script = " ".join(self.ran[-1])
            failed = bool(self.fails) and self.fails in script
            said = "left on: the device-mapper device root" if "left on" in script else ""
            status: dict[str, Any] = {"exited": True, "exitcode": int(failed)}
            status["out-data"] = base64.b64encode(said.encode()).decode()
            status["err-data"] = base64.b64encode(b"mount: no such disk" if failed else b"").decode()
            return json.dumps({"return": status})
        if asked["execute"] not in answers:
            raise LibvirtSaid(f"the command {asked['execute']} has not been found")
        return json.dumps({"return": answers[asked["execute"]]})


DEBIAN = {
    "name": "Debian GNU/Linux", "kernel-release": "6.12.117+deb13-cloud-amd64", "version": "13 (trixie)",
    "pretty-name": "Debian GNU/Linux 13 (trixie)", "version-id": "13", "machine": "x86_64", "id": "debian",
}  # fmt: skip
IMAGE = UserImageSpec(name="mine.qcow2", digest="ab" * 32)


def ready(agent: Agent) -> user_guest.Ready:
    return user_guest.make_ready(GuestAgent(lambda: bounded(agent)), IMAGE)


def test_make_ready_linux_prepares_it_and_knows_what_is_its_own() -> None:
    agent = Agent(DEBIAN)
    found = ready(agent)
    assert str(found.facts) == "6.12.117+deb13-cloud-amd64 (Debian GNU/Linux 13 (trixie))"
    assert found.own == ("the device-mapper device root",)
    assert any("swapoff -a" in " ".join(argv) for argv in agent.ran)


@pytest.mark.parametrize(
    ("agent", "sentence"),
    [
        (Agent(DEBIAN, disabled="guest-exec"), "its agent does not do guest-exec, which"),
        (Agent(DEBIAN, fails="swapoff"), "could not be prepared for cells: .*no such disk"),
    ],
)
def test_make_ready_guest_that_cannot_be_used_is_the_images_fault(agent: Agent, sentence: str) -> None:
    with pytest.raises(GuestImageError, match=sentence):
        ready(agent)


def test_make_ready_agent_never_answers_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Agent):
        def qemuAgentCommand(self, request: str, timeout: int, flags: int) -> str:  # noqa: N802 - libvirt's name
            raise LibvirtSaid("Guest agent is not responding: QEMU guest agent is not connected")

    monkeypatch.setattr(user_guest, "_REPORTED_SECONDS", 0.1)
    image = IMAGE.model_copy(update={"boot_seconds": 0.4})
    with pytest.raises(HarnessError, match="did not happen within 0 s") as late:
        user_guest.make_ready(GuestAgent(lambda: bounded(Silent(DEBIAN))), image)
    said = user_guest.failed(IMAGE, late.value, "Booting from Hard Disk... / No bootable device.")
    assert said.startswith("no guest came up by the guest image mine.qcow2, booted by a BIOS from a virtio disk: ")
    assert said.endswith("the end of its serial console: Booting from Hard Disk... / No bootable device.")
    assert "console=ttyS0" in user_guest.failed(IMAGE, late.value, "nothing")


def test_forbidden_of_another_answer_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        forbidden({"version": "10"})


def test_guest_facts_of_windows_names_its_build() -> None:
    # As an agent of Windows Server 2022 was reported to answer (qemu-devel, 2022).
    told = {
        "name": "Microsoft Windows", "kernel-release": "20344", "version": "N/A", "variant": "server",
        "pretty-name": "Windows Server 2022 Datacenter", "version-id": "N/A", "variant-id": "server",
        "kernel-version": "10.0", "machine": "x86_64", "id": "mswindows",
    }  # fmt: skip
    facts = guest_facts(told)
    assert facts.windows and str(facts) == "Windows 10.0 build 20344 (Windows Server 2022 Datacenter)"


def test_last_lines_of_a_console_are_without_a_terminals_sequences() -> None:
    console = (
        "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\n\n\nBooting from Hard Disk...\r\nNo bootable device.\r"
    )
    assert last_lines(console, 2) == ("Booting from Hard Disk...", "No bootable device.")
    assert last_lines("", 3) == ()


def test_migrations_of_a_larger_guest_have_more_time(tmp_path: Path) -> None:
    moved = Cell("buffered", filesystem=FilesystemKind.EXT4, cache=CacheMode.NONE, migrations=2)

    def context(cell: Cell, image: UserImageSpec) -> CellContext:
        lab = SimpleNamespace(id="lab", guest_spec=GuestSpec(image=image), boot_seconds=0.0)
        attempt = Attempt(cell, 1, tmp_path)
        return CellContext(cast(Any, lab), cast(Any, SimpleNamespace(blocks=1)), attempt)

    own, large = UserImageSpec(), IMAGE.model_copy(update={"memory_mib": 512})
    assert context(moved, own).migration_seconds == moved.migration_deadline
    assert context(moved, large).migration_seconds == 2 * moved.migration_deadline
    more = context(moved, large).deadline.seconds - context(moved, own).deadline.seconds
    assert more == 3 * moved.migration_deadline, "two, and that of the read-back"
    still = replace(moved, migrations=0)
    assert context(still, large).deadline.seconds == context(still, own).deadline.seconds
