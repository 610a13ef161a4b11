"""Which software something is, read from files of kernels, modules and QEMUs, and from what they print."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model import Software
from harness.parse.kernel_log import KernelLine, parse_dmesg, parse_kmsg
from harness.parse.software import (
    agreed_protocol,
    kernel_of,
    machine_types,
    module_facts,
    module_file,
    protocols,
    qemu_version,
    refused_dialect,
)

RECORDINGS = Path(__file__).parent / "recordings"
BUILD = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.118-1 (2026-11-20)"
BANNER = "Linux version 6.12.118+deb13-amd64 (debian-kernel@lists.debian.org) (gcc-14 14.2.0, GNU ld 2.44)"


def packed_kernel(text: bytes) -> bytes:
    """A bzImage as far as its setup header."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0xA00 - 0x200).to_bytes(2, "little")
    head[0xA00 : 0xA00 + len(text)] = text
    return bytes(head)


def test_kernel_of_an_unpacked_kernel_is_its_banner_and_not_the_template_of_it() -> None:
    template = f"{BANNER} # SMP PREEMPT_DYNAMIC Debian 6.12.118-1 (2026-11-20)\n\0".encode()
    unpacked = b"\x7fELF" + bytes(5000) + template + bytes(64) + f"{BANNER} {BUILD}\n\0rest".encode()
    assert kernel_of(unpacked) == ("6.12.118+deb13-amd64", BUILD)


@pytest.mark.parametrize("swapped", [False, True])
def test_kernel_of_a_build_of_one_s_own_has_the_date_that_its_template_lacks(swapped: bool) -> None:
    # What make bindeb-pkg built of Linux 6.12.118.
    banner = b"Linux version 6.12.118-mine+ (root@vm) (gcc (Debian 14.2.0-19) 14.2.0) #4 SMP PREEMPT_DYNAMIC "
    both = [banner + b"\n\0", banner + b"Tue Dec  1 00:16:21 UTC 2026\n\0"]
    built = "#4 SMP PREEMPT_DYNAMIC Tue Dec  1 00:16:21 UTC 2026"
    assert kernel_of(b"\0".join(reversed(both) if swapped else both)) == ("6.12.118-mine+", built)


def test_kernel_of_a_packed_kernel_is_what_its_header_points_to() -> None:
    packed = packed_kernel(f"6.12.118+deb13-amd64 (debian-kernel@lists.debian.org) {BUILD}\0".encode())
    assert kernel_of(packed) == ("6.12.118+deb13-amd64", BUILD)


@pytest.mark.parametrize("content", [b"", b"\x7fELF" + bytes(100), packed_kernel(b"\0"), b"Linux version 6.1"])
def test_kernel_of_something_else_is_empty(content: bytes) -> None:
    assert kernel_of(content) == ("", "")


def test_module_facts_are_what_the_module_names_itself() -> None:
    commit = "97da76040a6b31aaf9e12f1a167e77ca2b3cb43e"
    module = (
        b"\x7fELF\0srcversion_of_something=no\0version=9.3.3\0author=nobody\0srcversion=E0634C2B893C65C232A8771\0"
        b"vermagic=6.12\0GIT-hash: " + commit.encode() + b" build by @vm\0"
    )
    facts = module_facts(module)
    assert facts == Software(drbd="9.3.3", drbd_srcversion="E0634C2B893C65C232A8771", drbd_git_hash=commit)
    assert module_facts(b"") == Software()


def test_module_file_is_the_one_that_depmod_chose() -> None:
    listed = "kernel/fs/drbd_like.ko:\nupdates/drbd.ko.xz: kernel/lib/lru_cache.ko.xz\nkernel/drivers/md/dm-mod.ko:\n"
    assert module_file(listed, "drbd") == "updates/drbd.ko.xz"
    assert module_file(listed, "dm-mod") == "kernel/drivers/md/dm-mod.ko"
    assert module_file(listed, "drbd_transport_tcp") is None


@pytest.mark.parametrize(
    ("program", "version"),
    [
        (b"\0QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\n\0", "10.0.13"),
        (b"\0QEMU emulator version 11.1.50 (v11.1.0-3-gabc)\n\0", "11.1.50"),
        (b"\0QEMU emulator version %s\n\0", ""),
        (b"", ""),
    ],
)
def test_qemu_version_is_in_its_program(program: bytes, version: str) -> None:
    assert qemu_version(program) == version


PRINTED = """Supported machines are:
microvm              microvm (i386)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-10.0)
pc-q35-9.2           Standard PC (Q35 + ICH9, 2009)
pc-q35-9.0           Standard PC (Q35 + ICH9, 2009)
pc-q35-4.0.1         Standard PC (Q35 + ICH9, 2009) (deprecated)
pc-q35-4.0           Standard PC (Q35 + ICH9, 2009) (deprecated)
pc-q35-10.0          Standard PC (Q35 + ICH9, 2009)
pc-i440fx-10.0       Standard PC (i440FX + PIIX, 1996) (default)
"""


def test_machine_types_are_the_versioned_q35_in_the_order_of_their_versions() -> None:
    assert machine_types(PRINTED) == ("pc-q35-4.0", "pc-q35-4.0.1", "pc-q35-9.0", "pc-q35-9.2", "pc-q35-10.0")
    assert machine_types("") == ()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), unique=True), st.randoms())
def test_machine_types_are_in_the_order_of_numbers_whatever_order_they_are_printed_in(
    versions: list[tuple[int, int]], chance: random.Random
) -> None:
    shuffled = chance.sample(versions, len(versions))
    printed = "".join(f"pc-q35-{major}.{minor}   Standard PC\n" for major, minor in shuffled)
    assert machine_types(printed) == tuple(f"pc-q35-{major}.{minor}" for major, minor in sorted(versions))


# --------------------------------------------------------------------------- network protocols


def test_agreed_protocol_of_recorded_kernel_logs_is_that_of_the_last_handshake() -> None:
    of_8 = parse_kmsg((RECORDINGS / "drbd-8.4.11-linux-6.12/kmsg-digest-nodea.txt").read_text())
    of_9 = parse_dmesg((RECORDINGS / "drbd-9.3.3-linux-6.12/dmesg-integrity-sender.txt").read_text())
    assert (agreed_protocol(of_8), agreed_protocol(of_9)) == ("101", "124")
    assert agreed_protocol([*of_9, *of_8]) == "101" and agreed_protocol([]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "drbd r0: incompatible DRBD dialects: I support 86-101, peer supports 118-124",
        "drbd r0 nodeb: incompatible DRBD dialects: I support 118-124, peer supports 86-101",
    ],
)
def test_refused_dialect_is_what_drbd_logged(text: str) -> None:
    lines = [KernelLine(1, 1.0, "drbd r0: conn( Unconnected -> WFConnection )"), KernelLine(2, 2.0, text)]
    assert refused_dialect(lines) == text
    assert refused_dialect(lines[:1]) is None


def test_protocols_of_a_list_are_all_in_its_ranges() -> None:
    assert protocols("86-101") == frozenset(range(86, 102))
    assert protocols("86-87,118-119, 121") == {86, 87, 118, 119, 121}
    assert protocols("") == protocols("all") == frozenset()
