"""The programs that a machine of somebody's needs, and which package of its distribution has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Kinds of distributions, by the words of ID and ID_LIKE in /etc/os-release.
_FAMILIES = {
    "apt": ("debian", "ubuntu"),
    "dnf": ("fedora", "rhel", "centos"),
    "zypper": ("suse", "opensuse", "sles"),
}
# Program to its package by family; a path stands for "whatever provides it".
_PACKAGES: Mapping[str, Mapping[str, str]] = {
    "python3": {"apt": "python3", "dnf": "python3", "zypper": "python3"},
    "lsblk": {"apt": "util-linux", "dnf": "util-linux", "zypper": "util-linux"},
    "wipefs": {"apt": "util-linux", "dnf": "util-linux", "zypper": "util-linux"},
    "losetup": {"apt": "mount", "dnf": "util-linux", "zypper": "util-linux"},
    "udevadm": {"apt": "udev", "dnf": "systemd-udev", "zypper": "udev"},
    "lvcreate": {"apt": "lvm2", "dnf": "lvm2", "zypper": "lvm2"},
    "zfs": {"apt": "zfsutils-linux", "dnf": "zfs", "zypper": "zfs"},
    "zpool": {"apt": "zfsutils-linux", "dnf": "zfs", "zypper": "zfs"},
    "dmsetup": {"apt": "dmsetup", "dnf": "device-mapper", "zypper": "device-mapper"},
    "drbdadm": {"apt": "drbd-utils", "dnf": "drbd-utils", "zypper": "drbd-utils"},
    "drbdsetup": {"apt": "drbd-utils", "dnf": "drbd-utils", "zypper": "drbd-utils"},
    "ip": {"apt": "iproute2", "dnf": "iproute", "zypper": "iproute2"},
    "tc": {"apt": "iproute2", "dnf": "iproute-tc", "zypper": "iproute2"},
    "ethtool": {"apt": "ethtool", "dnf": "ethtool", "zypper": "ethtool"},
    "qemu": {"apt": "qemu-system-x86", "dnf": "qemu-kvm", "zypper": "qemu-x86"},
    "libvirt": {"apt": "libvirt-daemon-system", "dnf": "libvirt-daemon-driver-qemu", "zypper": "libvirt-daemon-qemu"},
    "virsh": {"apt": "libvirt-clients", "dnf": "libvirt-client", "zypper": "libvirt-client"},
    "fio": {"apt": "fio", "dnf": "fio", "zypper": "fio"},
}
_ALWAYS = ("lsblk", "wipefs", "udevadm", "drbdadm", "dmsetup", "ip", "tc", "ethtool", "fio")
_OF_STORAGE = {
    "volume-group": ("lvcreate",),
    "thin": ("lvcreate",),
    "zfs": ("zfs", "zpool"),
    "disk": (),
    "loop": ("losetup",),
}


def needed(storage_kind: str) -> tuple[str, ...]:
    """The programs that are looked for by their names; python3, QEMU and libvirt have several and are not in it."""
    return (*_ALWAYS, *_OF_STORAGE[storage_kind])


def family(os_release_ids: str) -> str:
    """The kind of distribution from the words of ID and ID_LIKE; empty where it is none that is known."""
    for word in os_release_ids.lower().split():
        for name, members in _FAMILIES.items():
            if word in members or word.split("-")[0] in members:
                return name
    return ""


def named(family_name: str, missing: Iterable[str]) -> str:
    """The missing programs in a sentence, each with its package as far as that is known."""
    tools = tuple(missing)
    known = packages(family_name, tools)
    return ", ".join(f"{tool} (package {known[tool]})" if tool in known else tool for tool in tools)


def packages(family_name: str, missing: Iterable[str]) -> Mapping[str, str]:
    """Missing program to its package, as far as that is known for the family."""
    return {tool: known[family_name] for tool in missing if family_name in (known := _PACKAGES.get(tool, {}))}
