"""What a guest of a user's image has that our own has not: a boot loader, an overlay, what Windows asks for."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree
from lxml.builder import ElementMaker

# By which a guest from a user's image knows the disk with the harness's programs.
PROGRAMS_SERIAL = "programs"

#: XSAVE and what needs it (Linux' ``arch/x86/kernel/cpu/cpuid-deps.c``), as far as TCG has it.  QEMU leaves the rest on
#: where XSAVE alone is off, and aesni_intel takes AVX for usable then: "Oops: invalid opcode" while the guest boots.
NEED_XSAVE = (
    "xsave", "xsaveopt", "xsavec", "xsaves", "xgetbv1", "pku", "avx", "avx2", "f16c", "fma", "vaes", "vpclmulqdq",
)  # fmt: skip

_E = ElementMaker()


@dataclass(frozen=True)
class UserGuestDisk:
    """How a user's image is booted: the ``overlay`` on the read-only ``base``, both block devices on the node.

    ``firmware`` and ``variables`` are the files for UEFI, with the file ``nvram`` for what is made of them; all empty
    for a BIOS.  ``xsave``: whether the processor has XSAVE and what needs it, as the node has.
    """

    overlay: str
    base: str
    bus: str
    windows: bool
    xsave: bool
    firmware: str = ""
    variables: str = ""
    nvram: str = ""


def processor_without(user: UserGuestDisk) -> list[etree._Element]:
    """The features that its processor must not have."""
    return [] if user.xsave else [_E.feature(policy="disable", name=name) for name in NEED_XSAVE]


def firmware_boot(user: UserGuestDisk, machine: str) -> etree._Element:
    """A BIOS, or UEFI with variables of its own."""
    found: etree._Element = _E.os(_E.type("hvm", arch="x86_64", machine=machine))
    if user.firmware:
        found.append(_E.loader(user.firmware, readonly="yes", type="pflash"))
        found.append(_E.nvram(user.nvram, template=user.variables))
    else:
        # What the BIOS and a boot loader print is then on the serial console too, where one sees why nothing boots.
        found.append(_E.bios(useserial="yes"))
    return found


def hyperv() -> tuple[etree._Element, ...]:
    """What Windows asks its hypervisor for: without ``relaxed`` it takes a slow machine for one that hangs."""
    return (
        _E.hyperv(_E.relaxed(state="on"), _E.vapic(state="on"), _E.spinlocks(state="on", retries="8191")),
    )  # fmt: skip


def user_disks(programs: str, user: UserGuestDisk) -> list[etree._Element]:
    """The overlay that it boots from, and for a Linux the disk ``programs`` with the harness's."""
    disk = _E.disk(
        _E.driver(name="qemu", type="qcow2", cache="none", io="threads"),
        _E.source(dev=user.overlay),
        _E.backingStore(_E.format(type="raw"), _E.source(dev=user.base), _E.backingStore(), type="block"),
        _E.target(dev="vda" if user.bus == "virtio" else "sda", bus=user.bus),
        _E.boot(order="1"),
        type="block",
        device="disk",
    )
    # Linux programs are of no use to Windows.
    return [disk] if user.windows else [disk, readonly_disk(programs, "vdb", serial=PROGRAMS_SERIAL)]


def readonly_disk(path: str, target: str, serial: str = "", *, is_file: bool = False) -> etree._Element:
    """A raw disk that several guests may have, since none writes to it."""
    found: etree._Element = _E.disk(
        _E.driver(name="qemu", type="raw", cache="none", io="threads"),
        _E.source(**{"file" if is_file else "dev": path}),
        _E.target(dev=target, bus="virtio"),
        *([_E.serial(serial)] if serial else []),
        _E.readonly(),
        _E.shareable(),
        type="file" if is_file else "block",
        device="disk",
    )
    return found
