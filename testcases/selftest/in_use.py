"""What the program ``resource`` prints on two machines that use a resource.  Nothing here is a test."""

from __future__ import annotations

from typing import Any

from recorded_nodes import DRBD_9, DRBD_84, SHOW_9, SHOW_84, mirrored, mirrored_status

ADDRESSES = "2: enp1s0    inet 192.168.77.{}/24 brd 192.168.77.255 scope global enp1s0\\n"
ETHTOOL = "Features for enp1s0:\nscatter-gather: on\n\ttx-scatter-gather: on\n"
O_DIRECT, BUFFERED = "flags:\t02140002", "flags:\t02100002"
PVE = "file=/dev/drbd/by-res/r0/0,if=none,id=drive-scsi0,cache=none,format=raw,aio=io_uring,detect-zeroes=on"


def answered(which: str = "8.4", number: int = 1, flags: str | None = O_DIRECT, **changed: Any) -> dict[str, Any]:
    """What the program prints on one of the two machines, around what DRBD was recorded to print.

    ``flags``: of a QEMU that was started as Proxmox VE starts one, with the volume open; None: there is none.
    """
    nine = which == "9"
    show = SHOW_9 if nine else SHOW_84
    status = (DRBD_9 / "status-after-verify.json").read_text()
    proc = ((DRBD_9 / "proc-drbd.txt") if nine else (DRBD_84 / "proc-drbd-after-verify.txt")).read_text()
    if number == 2:
        proc = proc.replace("ro:Primary/Secondary", "ro:Secondary/Primary")
    opened = [{"pid": 77, "device": "147:0", "path": "/dev/drbd0", "flags": flags}] if flags else []
    return {
        "show": {"status": 0, "out": show if number == 1 else mirrored(show), "err": ""},
        "proc_drbd": proc,
        "status": {"status": 0, "out": status if number == 1 else mirrored_status(status), "err": ""}
        if nine
        else {"status": 20, "out": "", "err": "drbdsetup status: unrecognized option '--json'"},
        "disable_sendpage": "N",
        "host": "stor17",
        "volumes": {
            "0": {
                "minor": 0,
                "sectors": "262064",
                "stable_writes": "1",
                "above": {"drbd0": {"number": "147:0", "dm_name": "", "dm_uuid": ""}},
                "mounts": [],
                "swaps": [],
                "opened": opened,
            }
        },
        "lower": {"/dev/mapper/drbd-lower": {"real": "/dev/dm-0", "bytes": 134217728}},
        "processes": {
            "77": {
                "comm": "kvm",
                "qemu": True,
                "program": "/usr/bin/qemu-system-x86_64",
                "version": "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)",
                "options": [["-name", "payroll-vm"], ["-drive", PVE], ["-device", "scsi-hd,drive=drive-scsi0"]],
            }
        },
        "domains": [],
        "addresses": ADDRESSES.format(number),
        "offloads": {"enp1s0": ETHTOOL},
        "real": {"/dev/drbd/by-res/r0/0": "/dev/drbd0"},
        **changed,
    }
