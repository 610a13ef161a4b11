"""Facts become text that a machine reads: domain XML, drbd.conf, fio job files."""

from __future__ import annotations

import configparser
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from harness.model import (
    AioMode,
    CacheMode,
    DetectZeroes,
    Discard,
    DiskBus,
    DiskOptions,
    DiskSource,
    Protocol,
    ReplicationProfile,
)
from harness.render.domain import (
    CANARY_PORT,
    MANAGEMENT_SLOT,
    QEMU_NAMESPACE,
    GuestDomain,
    NodeDomain,
    disk_xml,
    guest_xml,
    lab_of,
    node_xml,
    secret_xml,
)
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec, profile_options, resource_file
from harness.render.fio_job import Job, job_file

NODE = NodeDomain(
    name="drbd-harness-1a2b3c-a",
    lab="1a2b3c",
    state="/var/lib/labs",
    uuid="5a3f0b6e-0b1a-4c39-9c93-0c9c2f4a1d10",
    hardware=False,
    vcpus=2,
    memory_mib=2560,
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd.img"),
    kernel_args='root=/dev/vda quiet="<&>"',
    root=Path("/lab/root & more.qcow2"),
    seed=Path("/lab/seed.img"),
    backing=Path("/lab/backing.raw"),
    backing_serial="backing",
    guest_root=Path("/images/guest.img"),
    guest_root_serial="guestroot",
    console=Path("/lab/console.log"),
    ssh_port=2201,
    mgmt_mac="52:54:00:10:00:01",
    repl_mac="52:54:00:77:00:01",
    repl_ports=(7001, 7002),
)
GUEST = GuestDomain(
    "guest", NODE.uuid, 384, "/seed/vmlinuz", "/seed/initrd", "root=/dev/vda", "/dev/by-id/x", "/log", "/acks"
)


def tree(xml: str) -> etree._Element:
    return etree.fromstring(xml.encode())


def attributes(element: etree._Element | None) -> dict[str, str]:
    assert element is not None
    return dict(element.items())


# --------------------------------------------------------------------------- the nodes


def test_node_xml_without_hardware_emulates_svm_and_not_cx16() -> None:
    domain = tree(node_xml(NODE))
    assert (domain.get("type"), domain.find("cpu").get("mode")) == ("qemu", "maximum")
    features = {feature.get("name"): feature.get("policy") for feature in domain.findall("cpu/feature")}
    assert features == {"svm": "require", "cx16": "disable"}


def test_node_xml_with_hardware_passes_the_host_cpu_through() -> None:
    domain = tree(node_xml(replace(NODE, hardware=True)))
    assert (domain.get("type"), domain.find("cpu").get("mode")) == ("kvm", "host-passthrough")
    assert domain.find("cpu/feature") is None


def test_node_xml_with_special_characters_escapes_them() -> None:
    domain = tree(node_xml(NODE))
    assert domain.findtext("name") == NODE.name
    assert (domain.findtext("vcpu"), domain.findtext("memory")) == ("2", "2560")
    assert domain.find("memory").get("unit") == "MiB"
    assert domain.findtext("os/cmdline") == NODE.kernel_args
    files = {disk.findtext("serial"): disk.find("source").get("file") for disk in domain.iterfind("devices/disk")}
    assert files == {
        "root": "/lab/root & more.qcow2",
        "backing": "/lab/backing.raw",
        "seed": "/lab/seed.img",
        "guestroot": "/images/guest.img",
    }


def test_node_xml_disks_shared_by_both_nodes_are_readonly() -> None:
    domain = tree(node_xml(NODE))
    readonly = {disk.findtext("serial"): disk.find("readonly") is not None for disk in domain.iterfind("devices/disk")}
    assert readonly == {"root": False, "backing": False, "seed": True, "guestroot": True}
    kinds = {disk.findtext("serial"): disk.find("driver").get("type") for disk in domain.iterfind("devices/disk")}
    assert kinds["root"] == "qcow2" and kinds["backing"] == "raw", "the comparison reads the backing file as it is"


def test_node_xml_link_is_a_pair_of_udp_sockets_on_loopback() -> None:
    one = tree(node_xml(NODE))
    other = tree(node_xml(replace(NODE, repl_ports=(7002, 7001))))
    link, back = one.find("devices/interface"), other.find("devices/interface")
    assert link.get("type") == "udp" and attributes(link.find("model")) == {"type": "e1000"}
    assert attributes(link.find("source")) == {"address": "127.0.0.1", "port": "7002"}
    assert attributes(link.find("source/local")) == {"address": "127.0.0.1", "port": "7001"}
    assert attributes(back.find("source")) == attributes(link.find("source/local"))
    assert attributes(back.find("source/local")) == attributes(link.find("source"))


def test_node_xml_management_is_on_loopback_and_restricted() -> None:
    arguments = [arg.get("value") for arg in tree(node_xml(NODE)).iter(f"{{{QEMU_NAMESPACE}}}arg")]
    assert arguments == [
        "-netdev",
        "user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:2201-:22",
        "-device",
        f"virtio-net-pci,netdev=mgmt,mac=52:54:00:10:00:01,addr={MANAGEMENT_SLOT}",
    ]


def test_node_xml_of_a_node_that_ends_does_not_restart_it() -> None:
    domain = tree(node_xml(NODE))
    assert [domain.findtext(f"on_{what}") for what in ("poweroff", "reboot", "crash")] == ["destroy"] * 3


def test_lab_of_a_domain_is_its_label_and_nothing_else() -> None:
    assert lab_of(node_xml(NODE), NODE.state) == "1a2b3c"
    assert lab_of(node_xml(NODE), "/var/lib/other") is None, "a lab kept elsewhere is somebody else's"
    assert lab_of(guest_xml(GUEST), NODE.state) is None
    assert lab_of(f"<domain><name>{NODE.name}</name></domain>", NODE.state) is None, "a name is no label"
    other = "<domain><metadata><lab id='1a2b3c' state='/var/lib/labs'/></metadata></domain>"
    assert lab_of(other, NODE.state) is None, "nor is another's element"


# --------------------------------------------------------------------------- the guest and its disk


def test_guest_xml_is_migratable_and_has_free_ports() -> None:
    domain = tree(guest_xml(GUEST))
    assert (domain.get("type"), domain.find("os/type").get("machine")) == ("kvm", "q35")
    assert domain.find("cpu").get("migratable") == "on"
    controllers = [attributes(one) for one in domain.iterfind("devices/controller")]
    pci = [(one["index"], one["model"]) for one in controllers if one["type"] == "pci"]
    assert pci[0] == ("0", "pcie-root")
    assert {model for _, model in pci[1:]} == {"pcie-root-port"} and len(pci) > GUEST.spare_ports
    assert [index for index, _ in pci] == [str(number) for number in range(len(pci))]
    assert any(one["type"] == "scsi" and one["model"] == "virtio-scsi" for one in controllers)


def test_guest_xml_has_the_machine_type_that_is_asked_for() -> None:
    versioned = tree(guest_xml(replace(GUEST, machine="pc-q35-7.2")))
    assert versioned.find("os/type").get("machine") == "pc-q35-7.2"


def test_guest_xml_has_agent_console_and_readonly_root() -> None:
    domain = tree(guest_xml(GUEST))
    assert domain.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"
    assert domain.find("devices/serial/source").get("path") == "/log"
    (root,) = domain.findall("devices/disk")
    assert root.find("source").get("dev") == "/dev/by-id/x" and root.find("readonly") is not None
    assert root.find("shareable") is not None, "else the guest could not be moved"


def test_guest_xml_canary_port_appends_to_a_file() -> None:
    for guest, path in ((GUEST, "/acks"), (replace(GUEST, canary_log="/tmp/<acks>"), "/tmp/<acks>")):
        agent, canary = tree(guest_xml(guest)).findall("devices/channel")
        assert agent.find("target").get("name") == "org.qemu.guest_agent.0"
        assert attributes(canary.find("target")) == {"type": "virtio", "name": CANARY_PORT}
        assert canary.get("type") == "file"
        assert attributes(canary.find("source")) == {"path": path, "append": "on"}, (
            "a guest that moves back goes on in it"
        )


@pytest.mark.parametrize("bus", DiskBus)
@pytest.mark.parametrize("aio", AioMode)
@pytest.mark.parametrize("cache", CacheMode)
def test_disk_xml_has_the_cells_cache_aio_and_bus(cache: CacheMode, aio: AioMode, bus: DiskBus) -> None:
    disk = tree(disk_xml(DiskSource("/dev/drbd0"), "cell-7", cache, aio, bus))
    assert disk.get("type") == "block", "a file of that name would be a copy"
    driver = attributes(disk.find("driver"))
    assert driver == {"name": "qemu", "type": "raw", "cache": str(cache), "io": str(aio)}
    assert attributes(disk.find("source")) == {"dev": "/dev/drbd0"}
    assert disk.find("target").get("bus") == str(bus)
    assert disk.findtext("serial") == "cell-7"
    assert disk.find("shareable") is None and disk.find("readonly") is None


@pytest.mark.parametrize("image", ["raw", "qcow2"])
def test_disk_xml_of_an_image_file_names_its_format(image: str) -> None:
    source = DiskSource(f"/mnt/x/disk.{image}", file=True, format=image)
    disk = tree(disk_xml(source, "cell-7", CacheMode.NONE, AioMode.NATIVE, DiskBus.VIRTIO))
    assert disk.get("type") == "file" and attributes(disk.find("source")) == {"file": source.path}
    assert attributes(disk.find("driver")) == {"name": "qemu", "type": image, "cache": "none", "io": "native"}, (
        "never guessed from what a guest wrote to its beginning"
    )


@pytest.mark.parametrize("bus", [DiskBus.VIRTIO, DiskBus.SCSI])
def test_disk_xml_of_options_is_what_the_guest_has_a_thread_for(bus: DiskBus) -> None:
    options = DiskOptions(True, DetectZeroes.UNMAP, Discard.UNMAP)
    disk = tree(disk_xml(DiskSource("/dev/drbd0"), "s", CacheMode.NONE, AioMode.NATIVE, bus, options=options))
    driver = attributes(disk.find("driver"))
    assert (driver["discard"], driver["detect_zeroes"]) == ("unmap", "unmap")
    guest = tree(guest_xml(GUEST))
    assert guest.findtext("iothreads") == "1"
    if bus is DiskBus.VIRTIO:
        assert driver["iothread"] == "1" and disk.find("address") is None
    else:
        # As virtio-scsi-single has it: the thread is the controller's.
        index = disk.find("address").get("controller")
        thread = guest.find(f"devices/controller[@type='scsi'][@index='{index}']/driver").get("iothread")
        assert thread == "1" and "iothread" not in driver
        assert guest.find("devices/controller[@type='scsi'][@index='0']/driver") is None


def test_disk_xml_of_a_luks_header_names_the_secret_and_no_key() -> None:
    source = DiskSource("/dev/drbd0", luks_key="abc")
    text = disk_xml(source, "s", CacheMode.NONE, AioMode.NATIVE, DiskBus.VIRTIO, secret="12")
    assert tree(text).find("source/encryption").get("format") == "luks" and "abc" not in text
    assert attributes(tree(text).find("source/encryption/secret")) == {"type": "passphrase", "uuid": "12"}
    assert attributes(tree(secret_xml("12"))) == {"ephemeral": "yes", "private": "yes"}


def test_guest_xml_with_a_disk_has_it_beside_its_root() -> None:
    disk = disk_xml(DiskSource("/dev/drbd0"), "cell-7", CacheMode.NONE, AioMode.NATIVE, DiskBus.SATA)
    root, other = tree(guest_xml(replace(GUEST, disk=disk))).findall("devices/disk")
    assert root.find("target").get("dev") == "vda" and other.findtext("serial") == "cell-7"


# --------------------------------------------------------------------------- drbd.conf

SPEC = ResourceSpec(
    nodes=(ResourceNode("nodea", "10.0.0.1", "/dev/mapper/x"), ResourceNode("nodeb", "10.0.0.2", "/dev/mapper/y"))
)


def section(text: str, name: str) -> dict[str, str]:
    """The options of the section ``name``."""
    body = re.search(rf"^  {re.escape(name)} {{\n(.*?)^  }}$", text, re.DOTALL | re.MULTILINE)
    assert body, text
    return dict(line.strip().removesuffix(";").split(" ", 1) for line in body[1].splitlines())


def test_resource_file_of_each_generation_has_all_sections() -> None:
    text = resource_file(SPEC, node_ids=False)
    assert text.startswith(f"{SIGNATURE}\nresource r0 {{\n") and text.endswith("}\n")
    assert section(text, "net") == {"protocol": "C", "verify-alg": "crc32c", "max-buffers": "8k"}
    assert section(text, "disk") == {"c-plan-ahead": "0", "c-max-rate": "700M", "resync-rate": "700M"}
    assert section(text, "on nodea") == {
        "device": "/dev/drbd0 minor 0",
        "disk": "/dev/mapper/x",
        "meta-disk": "internal",
        "address": "10.0.0.1:7789",
    }
    assert section(text, "on nodeb")["address"] == "10.0.0.2:7789"
    assert "node-id" not in text, "8.4 does not understand it"
    nine = resource_file(SPEC, node_ids=True)
    assert [section(nine, f"on node{name}")["node-id"] for name in "ab"] == ["0", "1"]


def test_resource_file_own_options_replace_the_defaults() -> None:
    spec = replace(SPEC, net=(("protocol", "A"), ("data-integrity-alg", "crc32c")), disk=(("al-extents", "67"),))
    text = resource_file(spec, node_ids=True)
    assert section(text, "net") == {
        "protocol": "A",
        "verify-alg": "crc32c",
        "max-buffers": "8k",
        "data-integrity-alg": "crc32c",
    }
    assert text.count("protocol ") == 1
    assert section(text, "disk")["al-extents"] == "67"
    assert section(resource_file(replace(SPEC, minor=7), node_ids=True), "on nodea")["device"] == "/dev/drbd7 minor 7"


@pytest.mark.parametrize("nine", [False, True])
def test_resource_file_on_a_machine_of_somebodys_runs_none_of_his_handlers_and_fences_nobody(nine: bool) -> None:
    text = resource_file(replace(SPEC, silenced=("fence-peer", "split-brain")), node_ids=nine)
    assert section(text, "handlers") == {"fence-peer": '"/bin/true"', "split-brain": '"/bin/true"'}
    assert {"wfc-timeout": "1", "degr-wfc-timeout": "1"}.items() <= section(text, "startup").items()
    assert section(text, "net" if nine else "disk")["fencing"] == "dont-care" and text.count("fencing ") == 1
    assert section(text, "disk")["on-io-error"] == "detach"
    assert "handlers" not in resource_file(replace(SPEC, silenced=()), node_ids=nine)
    plain = resource_file(SPEC, node_ids=nine)
    assert not any(word in plain for word in ("handlers", "startup", "fencing", "on-io-error"))


def test_resource_file_without_two_nodes_is_an_error() -> None:
    for nodes in ((), SPEC.nodes[:1], (*SPEC.nodes, SPEC.nodes[0])):
        with pytest.raises(ValueError, match=f"resource 'r0' has {len(nodes)} nodes; a resource file needs two"):
            resource_file(replace(SPEC, nodes=nodes), node_ids=True)


def test_resource_spec_paths_follow_from_its_fields() -> None:
    spec = ResourceSpec("other", minor=3, mapping="slow", directory="/etc/drbd")
    assert (spec.device, spec.path, spec.mapped, spec.volume) == (
        "/dev/drbd3", "/etc/drbd/other.res", "/dev/mapper/slow", "other/0"
    )  # fmt: skip
    assert ResourceSpec(mapping="").mapped == ""


def test_resource_spec_defaults_are_those_every_lab_has_used() -> None:
    spec = ResourceSpec()
    assert (spec.name, spec.minor, spec.port, spec.mapped) == ("r0", 0, 7789, "/dev/mapper/drbd-lower")
    assert (spec.path, spec.device) == ("/etc/drbd.d/r0.res", "/dev/drbd0")
    assert (spec.connect_seconds, spec.verify_seconds, spec.resync_seconds) == (60, 120, 120)


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        (ReplicationProfile(), ()),
        (ReplicationProfile(disable_sendpage=True, scatter_gather=False), ()),
        (
            ReplicationProfile(Protocol.B, "sha1", two_primaries=True),
            (("protocol", "B"), ("data-integrity-alg", "sha1"), ("allow-two-primaries", "yes")),
        ),
    ],
)
def test_profile_options_are_those_of_the_net_section(
    profile: ReplicationProfile, options: tuple[tuple[str, str], ...]
) -> None:
    assert profile_options(profile) == options


@pytest.mark.parametrize("node_ids", [False, True])
def test_resource_file_closes_every_brace_and_option(node_ids: bool) -> None:
    _, *lines = resource_file(SPEC, node_ids=node_ids).splitlines()
    for line in lines:
        assert line.strip() == "}" or line.endswith((" {", ";")), line
    text = "\n".join(lines)
    assert text.count("{") == text.count("}") == 5


# --------------------------------------------------------------------------- fio

NAMES = st.text(st.characters(categories=("Ll", "Nd")), min_size=1, max_size=8)
VALUES = st.integers(-5, 10**12) | st.booleans() | NAMES


def test_job_file_of_jobs_has_fios_syntax() -> None:
    jobs = (Job("writer", {"rw": "randwrite", "direct": True}), Job("reader", {"invalidate": False, "size": "4m"}))
    assert job_file(jobs, {"runtime": 8}) == (
        "[global]\nruntime=8\n\n[writer]\nrw=randwrite\ndirect=1\n\n[reader]\ninvalidate=0\nsize=4m\n"
    )
    assert job_file((Job("alone"),)) == "[alone]\n"
    assert "[global]" not in job_file(jobs, {})


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))
def test_job_file_read_back_has_each_option_in_its_section(
    common: dict[str, str | int], own: dict[str, str | int]
) -> None:
    parsed = configparser.RawConfigParser(strict=True, default_section="none")
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read_string(job_file((Job("one", own), Job("two")), common))
    plain = {name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in own.items()}
    assert dict(parsed["one"]) == plain and dict(parsed["two"]) == {}
    assert parsed.has_section("global") is bool(common)


@pytest.mark.parametrize("name", ["a]", "[a", "a\nb"])
def test_job_file_with_a_name_that_breaks_out_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a fio job"):
        job_file((Job(name),))


def test_job_file_with_a_value_that_breaks_out_is_refused() -> None:
    with pytest.raises(ValueError, match="fio"):
        job_file((Job("one", {"filename": "/dev/vdb\nexec_prerun=touch /tmp/x"}),))
