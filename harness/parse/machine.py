"""What a machine of somebody's says of itself: distribution, kernel, DRBD, QEMU, libvirt, programs, addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Prints one ``name=value`` a line; nothing of it needs more than a POSIX shell, and nothing is changed by it: asked
#: without its module, drbdsetup would load it.
SCRIPT = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
[ -r /etc/os-release ] && say distribution "$(. /etc/os-release; printf %s "$PRETTY_NAME")"
[ -r /etc/os-release ] && say family "$(. /etc/os-release; printf '%s %s' "$ID" "$ID_LIKE")"
say user "$(id -u)"
say host "$(uname -n)"
say boot "$(cat /proc/sys/kernel/random/boot_id)"
say kernel "$(uname -r)"
say machine "$(uname -m)"
say memory_kib "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
say processor "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
say kvm "$([ -c /dev/kvm ] && echo yes)"
say selinux "$(cat /sys/fs/selinux/enforce 2> /dev/null)"
say apparmor "$([ -d /etc/apparmor.d/libvirt ] && echo yes)"
say drbd_loaded "$(sed -n 's/^version: \([^ ]*\).*/\1/p' /proc/drbd 2> /dev/null)"
say drbd "$(modinfo -F version drbd 2> /dev/null)"
say drbd_srcversion "$(modinfo -F srcversion drbd 2> /dev/null)"
say drbd_file "$(modinfo -F filename drbd 2> /dev/null)"
say drbd_utils "$(drbdadm --version 2> /dev/null | sed -n 's/^DRBDADM_VERSION=//p')"
[ ! -e /proc/drbd ] || say drbd_resources \
    "$(drbdsetup show 2> /dev/null | sed -n 's/^resource "\{0,1\}\([^" ]*\).*/\1/p' | tr '\n' ' ')"
# Whoever started them: libvirt, Proxmox VE, a shell; and the containers of LXC.
guests() {
    ls /run/libvirt/qemu 2> /dev/null | sed -n 's/[.]xml$//p'
    for process in /proc/[0-9]*; do
        case "$(cat "$process/comm" 2> /dev/null)" in
            qemu-system-*|qemu-kvm|kvm) option=-name ;;
            lxc-start) option=-n ;;
            *) continue ;;
        esac
        tr '\0' '\n' 2> /dev/null < "$process/cmdline" |
            sed -n "/^$option\$/{n;s/^guest=//;s/,.*//;s/ /_/g;p;q}; \${s/.*/process_${process#/proc/}/;p}"
    done
}
say domains "$(guests | sort -u | tr '\n' ' ')"
for qemu in qemu-system-x86_64 qemu-kvm /usr/libexec/qemu-kvm; do
    command -v $qemu > /dev/null && say qemu "$($qemu --version | sed -n '1s/.*version \([^ ]*\).*/\1/p')" && break
done
for daemon in libvirtd virtqemud; do
    command -v $daemon > /dev/null && say libvirt "$($daemon --version | sed 's/.* //')" && break
done
for python in python3 /usr/libexec/platform-python; do
    command -v $python > /dev/null && say python $python && break
done
for tool in $tools; do command -v $tool > /dev/null || say missing $tool; done
ip -o -4 address show dev "$nic" 2> /dev/null | sed 's/.* inet \([^ ]*\).*/address=\1/'
link=/sys/class/net/$nic
[ -e "$link" ] && say nic "$(basename "$(readlink -f "$link/device/driver" 2> /dev/null)") $(cat "$link/operstate")"
say sg "$(ethtool -k "$nic" 2> /dev/null | sed -n 's/^scatter-gather: //p')"
say nic_model "$(udevadm info -q property -p "$link" 2> /dev/null | sed -n 's/^ID_MODEL_FROM_DATABASE=//p')"
exit 0
"""


@dataclass(frozen=True)
class MachineFacts:
    """What :data:`SCRIPT` printed; empty where the machine did not say.  ``missing`` and ``addresses`` may repeat."""

    facts: Mapping[str, str]
    missing: tuple[str, ...]
    addresses: tuple[str, ...]

    def __getitem__(self, name: str) -> str:
        return self.facts.get(name, "")


def machine_facts(text: str) -> MachineFacts:
    """The facts in what the script printed."""
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    return MachineFacts(
        facts={name: value.strip() for name, value in pairs if name not in ("missing", "address")},
        missing=tuple(value for name, value in pairs if name == "missing"),
        addresses=tuple(value.partition("/")[0] for name, value in pairs if name == "address"),
    )
