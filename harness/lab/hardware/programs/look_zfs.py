"""What a machine says of a dataset of ZFS and of one volume below it; it writes nothing.

Runs on the machine before ``look.py``, as one program with it.  It is asked for ``dataset``, for ``volume``, the whole
name of a volume that may be below it, and for their ``properties``.
"""

import fcntl
import os
import stat

# include/sys/zvol.h and linux/fs.h: the name of the dataset whose volume a device is.
BLKZNAME = 0x8100127D
NAME_BYTES = 256


def volume_number(volume):
    """``major:minor`` of the device that the kernel itself calls so; empty where there is none."""
    path = "/dev/zvol/" + volume
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISBLK(status.st_mode):
            return ""
        name = bytearray(NAME_BYTES)
        fcntl.ioctl(descriptor, BLKZNAME, name)
        if name.split(b"\0")[0].decode(errors="replace") != volume:
            return ""
        return number(status.st_rdev)
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def look_below(dataset, volume, properties):
    below = run(["zfs", "list", "-H", "-o", "name", "-t", "filesystem,volume", "-d", "1", dataset])
    there = [one for one in (dataset, volume) if one in below["out"].splitlines()]
    found = {
        "pools": run(["zpool", "list", "-H", "-p", "-o", "name,guid,health,readonly"]),
        "below": below,
        "properties": None,
        "number": volume_number(volume),
    }
    if there:
        found["properties"] = run(["zfs", "get", "-H", "-p", "-o", "name,property,value,source", properties, *there])
    return {"zfs": found}
