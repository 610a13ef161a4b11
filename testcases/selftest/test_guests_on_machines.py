"""A guest on two machines that are somebody's: its image, its processor, the way to their libvirt, what they lack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import libvirt
import pytest
from journal_machine import ADA
from lxml import etree
from test_lab_files import AWKWARD, as_ssh_reads_it
from test_render import GUEST

from harness.config import inventory
from harness.config.lab_spec import GuestSpec
from harness.engine.lab_keeper import _processor_of
from harness.errors import HarnessError, InfrastructureError, LostNodeError, UsageError
from harness.lab.base import GuestImage
from harness.lab.hardware import guest_image, guests
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.guest_image import BroughtImage, bring, images_journal, missing
from harness.lab.hardware.guests import guest_parts
from harness.lab.hardware.libvirt_ssh import write_libvirt_access
from harness.model import ImageLock
from harness.parse.machine import MachineFacts
from harness.remote.local import LocalRunner
from harness.render.domain import guest_xml
from harness.render.guest_cpu import EMULATED, host_model, processor

RECORDINGS = Path(__file__).parent / "recordings" / "libvirt-9.0"
KVM, EMULATION = ((RECORDINGS / f"domain-capabilities-{kind}.xml").read_text() for kind in ("kvm", "qemu"))
BASELINE = "<cpu mode='custom' match='exact'><model fallback='forbid'>kvm64</model></cpu>"

# --------------------------------------------------------------------------- the domain


def test_guest_xml_on_a_machine_of_somebodys_has_a_file_and_the_processor_that_it_is_told() -> None:
    made = etree.fromstring(guest_xml(replace(GUEST, root_is_file=True, kvm=False, cpu=EMULATED)).encode())
    assert made.get("type") == "qemu" and made.findtext("cpu/model") == "qemu64"
    assert made.find("cpu/feature[@name='cx16'][@policy='disable']") is not None
    (disk,) = made.iterfind("devices/disk")
    assert disk.get("type") == "file" and disk.find("source").attrib == {"file": GUEST.root_device}
    assert disk.find("readonly") is not None and disk.find("shareable") is not None
    plain = etree.fromstring(guest_xml(GUEST).encode())
    assert plain.get("type") == "kvm" and plain.find("cpu").get("mode") == "host-passthrough"
    assert plain.find("devices/disk").get("type") == "block"


@pytest.mark.parametrize(("recorded", "model"), [(KVM, "kvm64"), (EMULATION, "EPYC")])
def test_host_model_is_what_libvirt_takes_for_a_processor(recorded: str, model: str) -> None:
    found = etree.fromstring(host_model(recorded))
    assert (found.tag, dict(found.attrib), found.findtext("model")) == ("cpu", {}, model)
    assert found.findall("feature") and host_model(recorded) == host_model(recorded.replace("\n", "\n  "))


def test_host_model_where_libvirt_has_none_is_empty() -> None:
    none = KVM.replace("name='host-model' supported='yes'", "name='host-model' supported='no'")
    none = none.replace('name="host-model" supported="yes"', 'name="host-model" supported="no"')
    assert none != KVM and host_model(none) == "" and host_model("<domainCapabilities/>") == ""


def test_processor_is_read_back_with_what_is_left_out_of_it() -> None:
    live = "<domain><cpu mode='custom'><model>EPYC</model><feature policy='disable' name='vme'/></cpu></domain>"
    assert processor(live) == "EPYC, without vme"
    assert processor("<domain><cpu mode='host-passthrough'/></domain>") == "host-passthrough"
    assert processor("<domain/>") == ""


@pytest.mark.parametrize(("kvm", "by"), [(True, "KVM"), (False, "emulation")])
def test_processor_of_a_guest_that_is_not_the_machines_own_is_a_note_of_the_run(kvm: bool, by: str) -> None:
    live = "<domain><cpu mode='custom'><model>EPYC</model></cpu></domain>"
    guest = cast(Any, SimpleNamespace(image=None, domain=SimpleNamespace(XMLDesc=lambda flags: live)))
    boots = GuestImage("/k", "/i", "", "/r", kvm=kvm, cpu="<cpu/>")
    on = cast(Any, SimpleNamespace(a=SimpleNamespace(somebodys=True), guest_image=boots))
    assert _processor_of(on, guest) == f"the guest, by {by}, has the processor EPYC"
    own = cast(Any, SimpleNamespace(a=on.a, guest_image=replace(boots, cpu="")))
    virtual = cast(Any, SimpleNamespace(a=SimpleNamespace(somebodys=False)))
    assert _processor_of(own, guest) is None is _processor_of(virtual, guest)


# --------------------------------------------------------------------------- its image


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BroughtImage:
    folder = tmp_path / "image"
    folder.mkdir()
    paths = {name: folder / name for name in ("vmlinuz", "initrd.img", "root.img")}
    paths["vmlinuz"].write_bytes(b"kernel" * 1000)
    paths["initrd.img"].write_bytes(b"")
    with paths["root.img"].open("wb") as root:
        # A piece with data, one that is a hole, and one that ends with a hole.
        root.write(b"\1" * 5000)
        root.seek(40_000)
        root.write(b"\2" * 1000)
        root.truncate(65_536)
    monkeypatch.setattr(guest_image, "_PIECE_BYTES", 16_384)
    monkeypatch.setattr(guest_image, "_FREE_BYTES", 0)
    made = SimpleNamespace(
        kernel=paths["vmlinuz"], initrd=paths["initrd.img"], root=paths["root.img"], directory=folder, manifest={}
    )
    guest_image._described.cache_clear()
    # One that can be hashed, as a cache of what was read needs it.
    return guest_image._described.__wrapped__(folder, "", cast(Any, made))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "own").mkdir(mode=0o700)
    return str(tmp_path / "own")


HERE = Machine("alpha", LocalRunner(), sys.executable)


def test_image_is_brought_once_whole_with_its_holes_and_noted_before(image: BroughtImage, folder: str) -> None:
    assert missing(HERE, image, folder) == ("vmlinuz", "initrd.img", "root.img") and list(Path(folder).iterdir()) == []
    journal = images_journal(HERE, "two", ADA, folder)
    bring(HERE, image, missing(HERE, image, folder), journal)
    assert missing(HERE, image, folder) == ()
    for name, (path, _) in image.files.items():
        brought = Path(image.path(name, folder))
        assert brought.read_bytes() == path.read_bytes() and brought.stat().st_mode & 0o777 == 0o644
    assert Path(image.path("root.img", folder)).stat().st_blocks * 512 < 65_536
    # QEMU, which is not root, gets through to it, and sees nothing else on its way.
    assert [Path(folder, one).stat().st_mode & 0o777 for one in ("", "images", f"images/{image.digest}")] == [0o711] * 3
    (entry,) = journal.entries()
    assert (entry.kind, entry.what) == ("programs", f"{folder}/images")
    back = journal.put_back()
    assert back.done == (f"programs {folder}/images: put back",) and not Path(folder, "images").exists()


def test_image_of_which_a_file_is_not_what_it_was_is_brought_anew(image: BroughtImage, folder: str) -> None:
    journal = images_journal(HERE, "two", ADA, folder)
    bring(HERE, image, missing(HERE, image, folder), journal)
    damaged = Path(image.path("root.img", folder))
    damaged.write_bytes(b"another" + damaged.read_bytes()[7:])
    assert missing(HERE, image, folder) == ("root.img",)
    # What an earlier one, that was cut off, left behind.
    damaged.with_name("root.img.new").write_bytes(b"\3" * 100_000)
    bring(HERE, image, missing(HERE, image, folder), journal)
    assert damaged.read_bytes() == image.files["root.img"][0].read_bytes() and missing(HERE, image, folder) == ()


def test_image_that_does_not_arrive_whole_is_an_error_and_not_there(image: BroughtImage, folder: str) -> None:
    wrong = replace(image, files=image.files | {"vmlinuz": (image.files["vmlinuz"][0], "0" * 64)})
    with pytest.raises(InfrastructureError, match=r"the guest's image on alpha: .*vmlinuz did not arrive whole"):
        bring(HERE, wrong, missing(HERE, wrong, folder), images_journal(HERE, "two", ADA, folder))
    assert not Path(wrong.path("vmlinuz", folder)).exists()


def test_image_for_which_there_is_no_room_is_refused_before_anything_is_written(
    image: BroughtImage, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_image, "_FREE_BYTES", 1 << 60)
    with pytest.raises(UsageError, match=r"alpha has \d+ MiB free for .*, and the guest's image needs"):
        missing(HERE, image, folder)
    assert list(Path(folder).iterdir()) == []


def test_image_in_a_folder_that_somebody_else_may_write_is_an_error(image: BroughtImage, folder: str) -> None:
    Path(folder).chmod(0o777)
    with pytest.raises(HarnessError, match="is no directory that only root may write"):
        bring(HERE, image, ("vmlinuz",), images_journal(HERE, "two", ADA, folder))


# --------------------------------------------------------------------------- the way to their libvirt


def two_machines(folder: Path, user: str = "admin") -> inventory.Inventory:
    path = folder / "machines.toml"
    (folder / "key").touch()
    path.write_text(
        f"""
schema = 1
name = "two"
[hosts.alpha]
ansible_host = "192.0.2.11"
ansible_user = "{user}"
ansible_ssh_private_key_file = "key"
replication_address = "10.20.0.1"
replication_nic = "eno2"
storage = {{ volume_group = "vg0" }}
[hosts.beta]
ansible_host = "192.0.2.12"
ansible_port = 2222
replication_address = "10.20.0.2"
replication_nic = "eno2"
storage = {{ volume_group = "vg0" }}
"""
    )
    return inventory.load(path)


@pytest.mark.parametrize("name", AWKWARD)
def test_ssh_of_libvirt_has_the_keys_and_the_pinned_host_keys_of_the_inventory(tmp_path: Path, name: str) -> None:
    folder, access = tmp_path / name, tmp_path / "access"
    folder.mkdir()
    access.mkdir()
    found = two_machines(folder)
    write_libvirt_access(found, access)
    wanted = {
        "drbd-harness-a": {"hostname": "192.0.2.11", "port": "22", "user": "admin", "identitiesonly": "yes"},
        "drbd-harness-b": {"hostname": "192.0.2.12", "port": "2222", "user": "root", "identitiesonly": "no"},
    }
    for host, its in wanted.items():
        read = as_ssh_reads_it(access / "ssh_config", host)
        more = {"userknownhostsfile": str(found.known_hosts), "stricthostkeychecking": "true", "batchmode": "yes"}
        assert {key: read[key].replace("%%", "%") for key in its | more} == its | more
    of_a = as_ssh_reads_it(access / "ssh_config", "drbd-harness-a")
    assert of_a["identityfile"].replace("%%", "%") == f"{folder}/key"


@pytest.mark.parametrize(("user", "before"), [("root", []), ("admin", ["sudo", "-n", "--"])])
def test_libvirt_is_asked_for_as_root(tmp_path: Path, user: str, before: list[str]) -> None:
    uri, other = write_libvirt_access(two_machines(tmp_path, user), tmp_path)
    assert "drbd-harness-a/system" in uri and "drbd-harness-b/system" in other
    wrapper = tmp_path / "ssh-drbd-harness-a"
    wrapper.write_text(wrapper.read_text().replace("exec ssh", f"exec printf '%s\\n' > '{tmp_path}/asked'"))
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(uri)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:2] == ["-F", f"{tmp_path}/ssh_config"]
    at = asked.index("drbd-harness-a") + 1
    assert asked[at : at + len(before)] == before and asked[at + len(before)].startswith("sh -c")
    assert asked.count("sudo") == len(before[:1])
    # A command that has the machine's name in it is left alone.
    again = subprocess.run(
        [wrapper, "drbd-harness-a", "echo", "drbd-harness-a"], check=True, capture_output=True, text=True
    )
    assert again.returncode == 0
    assert (tmp_path / "asked").read_text().splitlines()[2:] == ["drbd-harness-a", *before, "echo", "drbd-harness-a"]


# --------------------------------------------------------------------------- what they can do

FACTS = {
    "family": "debian", "machine": "x86_64", "qemu": "10.0.3", "libvirt": "11.3.0", "kvm": "yes", "selinux": "",
    "apparmor": "yes", "python": "python3",
}  # fmt: skip


class FakeConnection:
    def __init__(self, capabilities: str, baseline: object = BASELINE, fits: int = 2) -> None:
        self.asked: list[str] = []
        self.capabilities, self.baseline, self.fits = capabilities, baseline, fits

    def getDomainCapabilities(self, *asked: object) -> str:  # noqa: N802 - libvirt's name
        self.asked.append(f"capabilities {asked[3]}")
        return self.capabilities

    def baselineHypervisorCPU(self, *asked: object) -> object:  # noqa: N802
        self.asked.append("baseline")
        assert len(cast("list[str]", asked[4])) == 2 and asked[5] == libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE
        if isinstance(self.baseline, Exception):
            raise self.baseline
        return self.baseline

    def compareHypervisorCPU(self, *asked: object) -> int:  # noqa: N802
        self.asked.append(f"compare {asked[4]}")
        return self.fits

    def close(self) -> None:
        self.asked.append("close")


def machine(name: str, tmp_path: Path, missing: Sequence[str] = (), **facts: str) -> Any:
    on = SimpleNamespace(machine=Machine(name, LocalRunner(), sys.executable), lab="two")
    return SimpleNamespace(
        host=SimpleNamespace(name=name), facts=MachineFacts(FACTS | facts, tuple(missing), ()), guard=on
    )


@pytest.fixture
def parts_of(tmp_path: Path, image: BroughtImage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(guests, "missing", lambda machine, image: ("root.img",))
    monkeypatch.setattr(guests, "lock_of", lambda image: ImageLock("guest", "trixie", "d" * 64))
    monkeypatch.setattr(BroughtImage, "of", lambda of: image)
    connections: dict[str, Any] = {}

    def opened(uri: str, host: str, lab: str) -> Any:
        found = connections[host]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(guests.LibvirtConnection, "open", opened)

    def of(one: Any, other: Any, a: Any, b: Any) -> Any:
        connections.update(alpha=a, beta=b)
        made = SimpleNamespace(command_line="root=/dev/vda ro quiet", packages={"fio": "3.39"})
        return guest_parts(two_machines(tmp_path), GuestSpec(), (one, other), cast(Any, made), ("uri-a", "uri-b"))

    yield of


def test_guest_of_two_like_machines_has_their_own_processor(tmp_path: Path, parts_of: Any) -> None:
    a, b = FakeConnection(KVM), FakeConnection(KVM)
    made = parts_of(machine("alpha", tmp_path), machine("beta", tmp_path), a, b)
    boots: GuestImage = made.boots
    assert (boots.kvm, boots.cpu, boots.root_is_file) == (True, "", True) and boots.uuid
    assert boots.kernel_args == "root=/dev/vda ro quiet"
    assert boots.kernel == f"/var/lib/drbd-harness/images/{made.image.digest}/vmlinuz"
    assert (made.spec.name, made.spec.log_directory) == ("drbd-harness-two-guest", "/var/lib/drbd-harness/guest")
    assert a.asked == ["capabilities kvm", "close"] == b.asked and made.lacking == (("root.img",), ("root.img",))


def test_guest_of_two_unlike_machines_has_what_libvirt_says_both_have(tmp_path: Path, parts_of: Any) -> None:
    a, b = FakeConnection(KVM), FakeConnection(EMULATION)
    made = parts_of(machine("alpha", tmp_path), machine("beta", tmp_path, selinux="1"), a, b)
    assert (made.boots.kvm, made.boots.cpu) == (True, BASELINE)
    assert "baseline" in a.asked and b.asked == ["capabilities kvm", f"compare {BASELINE}", "close"]
    assert made.spec.log_directory == "/var/log/libvirt/drbd-harness-two"


def test_guest_of_two_processors_that_libvirt_does_not_know_is_by_their_name(tmp_path: Path, parts_of: Any) -> None:
    one, other = (machine(name, tmp_path, processor="A Processor") for name in ("alpha", "beta"))
    nothing = "<domainCapabilities/>"
    assert parts_of(one, other, FakeConnection(nothing), FakeConnection(nothing)).boots.cpu == ""
    other = machine("beta", tmp_path, processor="Another")
    said = refused(parts_of, UsageError, one, other, FakeConnection(nothing), FakeConnection(nothing))
    assert "libvirt on alpha and beta does not say which processor a guest may have" in said


def test_guest_where_one_machine_has_no_kvm_is_emulated_on_both(tmp_path: Path, parts_of: Any) -> None:
    a, b = FakeConnection(KVM), FakeConnection(EMULATION)
    made = parts_of(machine("alpha", tmp_path), machine("beta", tmp_path, kvm=""), a, b)
    assert (made.boots.kvm, made.boots.cpu) == (False, EMULATED) and a.asked == ["capabilities qemu", "close"]


def refused(parts_of: Any, kind: type[HarnessError], *arguments: Any) -> str:
    with pytest.raises(kind) as caught:
        parts_of(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("lacking", "facts", "words"),
    [
        ((), {"qemu": ""}, "beta lacks qemu (package qemu-system-x86), which a guest needs; nothing is installed"),
        (
            (),
            {"qemu": "", "libvirt": "", "family": "fedora"},
            "qemu (package qemu-kvm), libvirt (package libvirt-daemon",
        ),
        (("virsh", "fio"), {}, "beta lacks virsh (package libvirt-clients), which"),
        ((), {"machine": "aarch64"}, "beta is a machine of the architecture aarch64; a guest needs x86_64"),
    ],
)
def test_guest_on_a_machine_that_lacks_something_is_one_sentence(
    tmp_path: Path, parts_of: Any, lacking: tuple[str, ...], facts: dict[str, str], words: str
) -> None:
    one, other = machine("alpha", tmp_path), machine("beta", tmp_path, lacking, **facts)
    assert words in refused(parts_of, UsageError, one, other, FakeConnection(KVM), FakeConnection(KVM))


def test_guest_on_machines_whose_libvirt_says_no_is_one_sentence(tmp_path: Path, parts_of: Any) -> None:
    one, other = machine("alpha", tmp_path), machine("beta", tmp_path)
    no = libvirt.libvirtError("no")
    said = refused(parts_of, UsageError, one, other, FakeConnection(KVM, no), FakeConnection(EMULATION))
    assert "the processors of alpha and beta have no model in common" in said
    said = refused(parts_of, UsageError, one, other, FakeConnection(KVM), FakeConnection(EMULATION, fits=0))
    assert "what libvirt takes for the processor of both machines, beta has not" in said
    said = refused(parts_of, UsageError, one, other, FakeConnection(KVM), FakeConnection("<domainCapabilities/>"))
    assert "libvirt on beta does not say which processor a guest may have" in said
    said = refused(parts_of, LostNodeError, one, other, FakeConnection(KVM), no)
    assert "the libvirt of beta is not reached over ssh: " in said
