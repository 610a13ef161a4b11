"""What the harness changes on a machine that is somebody's, by kind; each is written down there before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """How a change is recognised and put back: a row each in the table of ``docs/two-machines.md``."""

    FILE = "file"  # made, or replaced: what it held, its owner, mode and extended attributes
    DIRECTORY = "directory"
    PROGRAMS = "programs"  # a folder of the harness's with all that is below it
    MODULE = "module"
    MODULE_PARAMETER = "module-parameter"
    SYSCTL = "sysctl"
    NIC_FEATURE = "nic-feature"
    QDISC = "qdisc"
    RESOURCE = "resource"  # of DRBD's, brought up
    MAPPING = "mapping"  # of device-mapper
    LOOP = "loop"
    MOUNT = "mount"
    DOMAIN = "domain"  # of libvirt's
    FIREWALL = "firewall"
    STORAGE = "storage"  # a volume, a label, a file: the guard makes it and takes it back


@dataclass(frozen=True)
class Change:
    """``what`` is about to be changed, to one of ``ours``.

    Of a file these are ``sha256 HEX``, ``begins FIRST-LINE`` or ``holds WORD``, of a mapping its UUID with the
    harness's prefix, of a domain its UUID, of a mount its device, of a value the value.  ``file`` is where a resource
    of DRBD's is configured.
    """

    kind: ChangeKind
    what: str
    ours: tuple[str, ...] = ()
    file: str = ""


#: What resources of the machine's owner feel too, and by what name the inventory has to ask for it.
ASKED_FOR = {
    ChangeKind.MODULE_PARAMETER: "module-parameters",
    ChangeKind.NIC_FEATURE: "nic-features",
    ChangeKind.SYSCTL: "sysctls",
    ChangeKind.QDISC: "qdisc",
}
