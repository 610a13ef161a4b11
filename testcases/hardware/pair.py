"""Two foreign machines with a link between them, as an inventory names them; nothing here is a test.

They are made of one image of ``ci/foreign-machine`` and keep their root and their disks when their power is cut.
Beside the replication link each has a volume group ``theirs`` with a volume of its owner's.

    python testcases/hardware/pair.py DIR LINK alpha on|off|status     # the ``power`` of the inventory

``LINK`` is the folder of the file that names the ports of their link, that of alpha's image.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from difflib import ndiff
from pathlib import Path

from foreign import BOOT_SECONDS, MIB, Foreign, link_of

HARNESS = Path(sys.executable).parent / "drbd-harness"
NAMES = ("alpha", "beta")
GROUP_MIB = 512
SIZE_MIB = 128
_GROUP = '{ volume_group = "theirs" }'
# A resource of the owner's on the volume theirs/used, up on the machine where this runs.
OWNERS_RESOURCE = r"""
cat > /etc/drbd.d/used.res <<'END'
resource used {
    device minor 100; disk /dev/theirs/used; meta-disk internal;
    on alpha { address 10.99.0.1:7900; }
    on beta { address 10.99.0.2:7900; }
}
END
modprobe drbd
drbdadm create-md --force used > /dev/null 2>&1
drbdadm up used
"""
# What a lab may change on a machine, and what belongs to the machine's owner; nothing in it changes by itself, as the
# module that libvirt loads when it likes and the folder of a user who is logged in do, nor with a boot.
_STATE = r"""
section() { echo "== $1"; shift; "$@" 2>&1 || :; }
section modules sh -c 'lsmod | cut -d " " -f 1 | grep -v ^nf_tables | sort'
section files sh -c 'find /etc/drbd.d /run/udev/rules.d /mnt /etc/apparmor.d/libvirt -printf "%p %m %u %g\n" | sort'
section configuration sh -c 'cat /etc/drbd.conf /etc/drbd.d/*'
section resources sh -c 'test ! -e /proc/drbd || drbdsetup show'
section states sh -c 'test ! -e /proc/drbd || drbdadm cstate all; test ! -e /proc/drbd || drbdadm dstate all'
section parameters sh -c 'grep -s . /sys/module/drbd/parameters/*'
section mappings sh -c 'dmsetup ls | sort'
section volumes lvs --noheadings -o lv_name,lv_uuid,lv_tags theirs
section loops losetup -a
section mounts sh -c 'grep -vE " /run/user/| autofs " /proc/mounts | sort; cat /proc/swaps'
section qdiscs tc qdisc show
section addresses sh -c 'ip -o -4 addr show | sed "s/valid_lft.*//"'
section features ethtool -k {nic}
section settings sh -c 'sysctl -a | grep -E "^(vm|net\.core|net\.ipv4\.tcp)[._]" | grep -vE "pdflush|tcp_mem|rss_key"'
section guests sh -c 'test ! -e /usr/bin/virsh || virsh -q list --all'
section data sha256sum /dev/theirs/data
section everything sh -c 'find / -xdev \( {changing} \) -prune -o -type f -printf "%p %m %U %G %s\n" -o \
    -printf "%p %m %U %G %l\n" | sort'
"""
# What the machine itself writes as it runs, what LVM notes of each change, and what the harness says that it keeps.
_CHANGING = (
    "/var/log", "/var/cache", "/var/tmp", "/tmp", "/var/lib/systemd", "/var/lib/logrotate", "/var/lib/apt",
    "/etc/lvm/archive", "/etc/lvm/backup", "/var/lib/drbd-harness",
)  # fmt: skip


class Paired(Foreign):
    """One of the two; its QEMU may be ended and started again by anybody."""

    # What the machine flushed is in its files when QEMU is killed.
    root_cache = "writeback"

    def __init__(self, directory: Path, link: Path, name: str) -> None:
        super().__init__(directory, name, name)
        self.link = link.absolute()
        self.number = NAMES.index(name) + 1
        self.mac = f"52:54:00:00:99:{self.number:02x}"
        self.address = f"10.99.0.{self.number}"
        self.command_line = f"{Foreign.command_line} systemd.hostname={name}"
        self.data = self.run / "data.img"

    def _prepare(self) -> Path:
        """As long as it was not thrown away, the root and the disk that it had."""
        overlay = self.run / "root.qcow2"
        if not overlay.exists():
            overlay = super()._prepare()
            with self.data.open("wb") as file:
                file.truncate(GROUP_MIB * MIB)
        own, other = link_ports(self.link)[:: 1 if self.number == 1 else -1]
        self.more = (
            "-netdev", f"socket,id=l,udp=127.0.0.1:{other},localaddr=127.0.0.1:{own}",
            # Not virtio, which has no scatter-gather where what lies behind it takes no checksums over.
            "-device", f"e1000e,netdev=l,mac={self.mac},romfile=",
            "-drive", f"file={self.data},format=raw,if=none,id=data,cache=writeback",
            "-device", f"scsi-hd,bus=scsi0.0,drive=data,serial=DATA{self.number}",
        )  # fmt: skip
        return overlay

    def settle(self) -> None:
        """Wait until it has booted to its end; the address of its link and its owner's volume group are there then."""
        self.sh("systemctl is-system-running --wait || :", timeout=BOOT_SECONDS)
        network = f"[Match]\\nMACAddress={self.mac}\\n[Network]\\nAddress={self.address}/24\\n"
        disk = link_of(f"DATA{self.number}")
        self.sh(
            f"grep -q ' {self.name}$' /etc/hosts || echo '127.0.1.1 {self.name}' >> /etc/hosts; "
            f"printf '{network}' > /etc/systemd/network/10-link.network; "
            "networkctl reload || systemctl restart systemd-networkd; "
            f"n=0; until ip -o addr show | grep -q '{self.address}/'; do n=$((n + 1)); test $n -lt 60; sleep 1; done; "
            f"vgs theirs > /dev/null 2>&1 || {{ vgcreate -q theirs {disk}; lvcreate -q -y -n data -L 32m theirs; "
            "dd if=/dev/urandom of=/dev/theirs/data bs=1M count=32 conv=fsync status=none; }"
        )

    @property
    def nic(self) -> str:
        """The link's name there."""
        return self.sh(f"ip -o link show | sed -n 's/^[0-9]*: \\([^:@]*\\).*{self.mac}.*/\\1/p'").strip()

    def state(self) -> dict[str, str]:
        """What a lab may change there, and what belongs to its owner, by its heading."""
        changing = " -o ".join(f"-path {path}" for path in _CHANGING)
        found = self.sh(_STATE.replace("{nic}", self.nic).replace("{changing}", changing))
        sections = (one.partition("\n") for one in found.split("== ")[1:])
        return {heading: text for heading, _, text in sections}

    def cut(self) -> None:
        """End its QEMU at once, whoever started it; nothing where it has ended already."""
        noted = self.run / "pid"
        pid = int(noted.read_text())
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return
        # The number may be another program's by now.
        if os.fsencode(noted) not in words:
            return
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while self.runs() and time.monotonic() < deadline:
            time.sleep(0.2)


def link_ports(directory: Path) -> list[str]:
    """The two ports of loopback between which the link is, chosen once."""
    chosen = directory / "link"
    if not chosen.exists():
        with contextlib.ExitStack() as both:
            sockets = [both.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in NAMES]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            chosen.write_text(" ".join(str(one.getsockname()[1]) for one in sockets))
    return chosen.read_text().split()


class Pair:
    """Both, and an inventory of them; ``close`` ends those that this process started.  ``peer``: beta's own image."""

    def __init__(self, directory: Path, folder: Path, peer: Path | None = None) -> None:
        self.folder = folder
        self.alpha, self.beta = (
            Paired(one, directory, name) for one, name in zip((directory, peer or directory), NAMES, strict=True)
        )
        self._started: list[Paired] = []

    @property
    def both(self) -> tuple[Paired, Paired]:
        """Alpha and beta."""
        return self.alpha, self.beta

    def start(self) -> None:
        """Boot those that do not run, and wait until both can be used; minutes under emulation."""
        for one in self.both:
            one.run.mkdir(exist_ok=True)
            if not one.runs():
                one.boot()
                self._started.append(one)
        for one in self.both:
            one.port = int((one.run / "port").read_text())
            one.wait()
            one.settle()

    def close(self) -> None:
        """End what this process started; roots and disks stay for another time."""
        for one in self._started:
            one.cut()

    def inventory(self, user: str = "root", storage: str = _GROUP, **more: str) -> Path:
        """An inventory of both in a file of its own, their host keys pinned; ``storage`` of both and ``more``, further
        keys, as TOML.
        """
        path = self.folder / f"{user}.toml"
        program = (sys.executable, str(Path(__file__).resolve()))
        lines = ["schema = 1", 'name = "tried"', f"size_mib = {SIZE_MIB}", *(f"{k} = {v}" for k, v in more.items())]
        for one in self.both:
            command = ", ".join(f'"{word}"' for word in (*program, str(one.directory), str(one.link), one.name))
            lines += [
                f"[hosts.{one.name}]", 'ansible_host = "127.0.0.1"', f"ansible_port = {one.port}",
                f'ansible_user = "{user}"', f'ansible_ssh_private_key_file = "{one.directory / "user_key"}"',
                f'replication_address = "{one.address}"', f'replication_nic = "{one.nic}"',
                f"storage = {storage}", f"power = {{ command = [{command}] }}",
            ]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
        Path(f"{path}.known_hosts").write_text("".join((one.run / "known_hosts").read_text() for one in self.both))
        return path

    def states(self) -> list[dict[str, str]]:
        """Of both machines."""
        return [one.state() for one in self.both]

    def harness(self, *arguments: str | Path, timeout: float = 3600) -> subprocess.CompletedProcess[str]:
        """A command of the harness to its end."""
        with self.started(*arguments) as process:
            printed, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, printed)

    def played(self, inventory: Path, matrix: str | Path, *more: str) -> str:
        """What a run of the cells printed; all ended as expected."""
        done = self.harness("run", "--inventory", inventory, "--matrix", matrix, *more)
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    @contextlib.contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command of the harness in a group of its own, which has ended afterwards."""
        argv: Sequence[str] = [str(HARNESS), *map(str, arguments)]
        process = subprocess.Popen(
            argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def differences(was: dict[str, str], now: dict[str, str]) -> dict[str, list[str]]:
    """By their heading, the lines that are gone and those that are new."""
    changed = {heading: ndiff(text.splitlines(), now[heading].splitlines()) for heading, text in was.items()}
    found = {heading: [line for line in lines if line[0] in "+-"] for heading, lines in changed.items()}
    return {heading: lines for heading, lines in found.items() if lines}


def main(directory: str, link: str, name: str, what: str) -> int:
    """Switch the power of one, or say whether it has any."""
    one = Paired(Path(directory), Path(link), name)
    if what == "off" and one.runs():
        one.cut()
    if what == "on" and not one.runs():
        one.boot()
    print("on" if one.runs() else "off")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
