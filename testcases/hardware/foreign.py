"""A machine that nobody prepared for the harness, in plain QEMU: reached over ssh alone, disks plugged in and out.

``DIR`` is what ``ci/foreign-machine`` made: ``vmlinuz``, ``initrd.img``, ``root.img`` and the key ``user_key``.  What
one that runs needs is in ``DIR/run``; one that runs already is used, and left running.  Nothing here is a test.
Two of them with a link between them, which keep their disks when their power is cut: ``pair.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InfrastructureError
from harness.lab.hardware.guard import Machine
from harness.remote.host_keys import fingerprint, pin, presented
from harness.remote.ssh import SshRunner

MIB = 2**20
BOOT_SECONDS = 1200
NVME_PORTS = ("port1", "port2")
_COMMAND_LINE = "root=/dev/vda rw console=ttyS0 mitigations=off cryptomgr.notests random.trust_cpu=on"


def link_of(serial: str, wwn: int | None = None) -> str:
    """What udev calls a SCSI disk of QEMU's."""
    name = f"scsi-0QEMU_QEMU_HARDDISK_{serial}" if wwn is None else f"wwn-0x{wwn:016x}"
    return f"/dev/disk/by-id/{name}"


def nvme_link_of(serial: str) -> str:
    """What udev calls an NVMe disk of QEMU's."""
    return f"/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_{serial}"


def digest(path: Path) -> str:
    """The SHA-256 of all that is not zero in a file, and where; what is a hole in it is not read."""
    found = hashlib.sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        at = 0
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // MIB * MIB
            except OSError:
                return found.hexdigest()
            file.seek(at)
            if any(piece := file.read(MIB)):
                found.update(at.to_bytes(8, "big") + piece)
            at += MIB


class Foreign:
    """The machine; ``close`` ends it only where this process started it."""

    #: Further arguments of QEMU's and of the kernel's.
    more: tuple[str, ...] = ()
    command_line = _COMMAND_LINE
    root_cache = "unsafe"

    def __init__(self, directory: Path, name: str = "foreign", folder: str = "run") -> None:
        self.directory = directory.absolute()
        self.name = name
        self.run = self.directory / folder
        self.plugged: dict[str, Path] = {}
        self._started = False
        self.port = 0
        self.runner: SshRunner

    # ------------------------------------------------------------------------------------------ up and down

    def start(self) -> None:
        """Start it unless it runs, and wait until ssh answers; a boot under emulation takes minutes."""
        self.run.mkdir(exist_ok=True)
        if not self.runs():
            self.boot()
        self.port = int((self.run / "port").read_text())
        self.wait()

    def runs(self) -> bool:
        """Whether its QEMU is there."""
        try:
            self.qmp("query-status")
        except OSError:
            return False
        return True

    def wait(self) -> None:
        """Until ssh answers."""
        deadline = time.monotonic() + BOOT_SECONDS
        known_hosts = self.run / "known_hosts"
        while True:
            try:
                known_hosts.unlink(missing_ok=True)
                pin(self.name, "127.0.0.1", self.port, known_hosts, fingerprint(self._presented()))
                self.runner = SshRunner(
                    "127.0.0.1", self.port, key=self.directory / "user_key", known_hosts=known_hosts, name=self.name,
                    before=("env", "LC_ALL=C"),
                )  # fmt: skip
                self.runner.connect(60)
                return
            except HarnessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    def _presented(self) -> Any:
        return presented(self.name, "127.0.0.1", self.port)

    def _prepare(self) -> Path:
        """A port of its own, and a root that nobody has used; the file of the latter."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (self.run / "port").write_text(str(port))
        overlay = self.run / "root.qcow2"
        overlay.unlink(missing_ok=True)
        base = ["-b", str(self.directory / "root.img"), "-F", "raw"]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(overlay)], check=True)
        return overlay

    def boot(self) -> None:
        """Start its QEMU."""
        overlay = self._prepare()
        port = (self.run / "port").read_text()
        # NVMe is plugged into a port of its own.
        ports = [word for one in NVME_PORTS for word in ("-device", f"pcie-root-port,id={one},chassis={one[4:]}")]
        argv = [
            "nice", "-n", "19", "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max,svm=on",
            "-m", "1536", "-display", "none", "-vga", "none", "-parallel", "none", "-nodefaults",
            "-kernel", str(self.directory / "vmlinuz"), "-initrd", str(self.directory / "initrd.img"),
            "-append", self.command_line, "-serial", f"file:{self.run / 'console'}",
            "-drive", f"file={overlay},format=qcow2,if=virtio,cache={self.root_cache}",
            "-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=n",
            "-device", "virtio-scsi-pci,id=scsi0", "-device", "virtio-scsi-pci,id=scsi1", *ports,
            "-object", "rng-random,id=r,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=r",
            "-qmp", f"unix:{self.run / 'qmp'},server=on,wait=off", "-daemonize", "-pidfile", str(self.run / "pid"),
            *self.more,
        ]  # fmt: skip
        subprocess.run(argv, check=True)
        self._started = True

    def close(self) -> None:
        """Unplug what this process plugged in, and end the machine if this process started it."""
        if self._started:
            self.runner.close()
            os.kill(int((self.run / "pid").read_text()), signal.SIGTERM)
            return
        for name in list(self.plugged):
            self.unplug(name)
        self.runner.close()

    def qmp(self, command: str, **arguments: object) -> Any:
        """One command of QEMU's monitor; OSError where there is no QEMU."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(self.run / "qmp"))
            with connection.makefile("rw") as stream:
                stream.readline()
                for one in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(one) + "\n")
                    stream.flush()
                    answer: dict[str, Any] = {}
                    while not answer.keys() & {"return", "error"}:
                        if not (line := stream.readline()):
                            raise ConnectionResetError(f"the QEMU of {self.name} ended")
                        answer = json.loads(line)
        if "error" in answer:
            raise InfrastructureError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    # ------------------------------------------------------------------------------------------ its disks

    @property
    def machine(self) -> Machine:
        """As the guard knows it."""
        return Machine(self.name, self.runner)

    def sh(self, script: str, *, timeout: float = 300, ok: tuple[int, ...] = (0,)) -> str:
        """What a script printed that root runs there."""
        return self.runner.run(["sh", "-ec", script], timeout=timeout, ok=ok).stdout

    def plug(self, name: str, serial: str, wwn: int | None = None, *, mib: int = 64, **more: object) -> str:
        """Plug in an empty disk, and its name in the kernel; ``name`` is ours for it."""
        path = self.run / f"{name}.img"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(mib * MIB)
        return self.plug_again(name, path, serial, wwn, **more)

    def plug_again(self, name: str, path: Path, serial: str, wwn: int | None = None, **more: object) -> str:
        """Plug in a disk whose content ``path`` holds; its name in the kernel.  ``more``: properties of QEMU's device,
        ``driver`` and ``bus`` among them, and ``unreadable``, a sector that cannot be read.
        """
        drive: dict[str, object] = {"driver": "raw", "file": {"driver": "file", "filename": str(path)}}
        if (sector := more.pop("unreadable", None)) is not None:
            error = {"event": "none", "iotype": "read", "sector": sector}
            drive = {"driver": "blkdebug", "image": drive, "inject-error": [error]}
            more |= {"rerror": "report"}
        self.qmp("blockdev-add", **{"node-name": f"n-{name}", **drive})
        device: dict[str, object] = {"driver": "scsi-hd", "bus": "scsi0.0", "id": name, "serial": serial, **more}
        if wwn is not None:
            device |= {"wwn": wwn}
        self.qmp("device_add", drive=f"n-{name}", **device)
        self.plugged[name] = path
        deadline = time.monotonic() + 300
        link = nvme_link_of(serial) if device["driver"] == "nvme" else link_of(serial, wwn)
        while time.monotonic() < deadline:
            found = self.sh(f"udevadm settle; readlink -f {link}; test -e {link}", ok=(0, 1)).strip()
            if found.startswith(("/dev/sd", "/dev/nvme")):
                return found.removeprefix("/dev/")
            time.sleep(1)
        raise InfrastructureError(f"the disk {name} did not appear")

    def unplug(self, name: str) -> Path:
        """Unplug a disk and wait until it is gone; the file with its content."""
        self.qmp("device_del", id=name)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                self.qmp("blockdev-del", **{"node-name": f"n-{name}"})
            except InfrastructureError:
                time.sleep(0.5)
            else:
                self.sh("udevadm settle")
                return self.plugged.pop(name)
        raise InfrastructureError(f"the disk {name} stays plugged in")

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each disk, read from its file here, after all that the machine had to write was written."""
        self.sh("sync")
        return {name: digest(path) for name, path in self.plugged.items()}

    def slow_down(self, name: str, bytes_per_second: int) -> None:
        """Let no more be written to a disk; 0 takes the limit away."""
        others = dict.fromkeys(("bps", "bps_rd", "iops", "iops_rd", "iops_wr"), 0)
        self.qmp("block_set_io_throttle", id=name, bps_wr=bytes_per_second, **others)

    def written(self, name: str) -> int:
        """How many bytes the machine has written to a disk."""
        found = self.qmp("query-blockstats")
        return int(next(one["stats"]["wr_bytes"] for one in found if name in one.get("qdev", "").split("/")))
