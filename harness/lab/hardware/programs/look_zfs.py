"""What a machine says of a dataset of ZFS and of one volume below it, printed as one JSON object; it writes nothing.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument
is JSON: ``dataset`` and ``volume``, the whole name of a volume that may be below it.
"""

import fcntl
import json
import os
import stat
import subprocess
import sys

# include/sys/zvol.h and linux/fs.h: the name of the dataset whose volume a device is.
BLKZNAME = 0x8100127D
NAME_BYTES = 256
PROPERTIES = "type,guid,volsize,available,readonly,drbd-harness:lab,drbd-harness:owner"


def run(argv):
    """Status, output and errors of a command; status None where it is not there or does not end."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60
        )
    except FileNotFoundError:
        return {"status": None, "out": "", "err": "not installed"}
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"status": None, "out": "", "err": str(error)}
    return {
        "status": done.returncode,
        "out": done.stdout.decode(errors="replace"),
        "err": done.stderr.decode(errors="replace"),
    }


def number(volume):
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
        return "%d:%d" % (os.major(status.st_rdev), os.minor(status.st_rdev))
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def main():
    asked = json.loads(sys.argv[1])
    run(["udevadm", "settle", "--timeout=10"])
    dataset, volume = asked["dataset"], asked["volume"]
    below = run(["zfs", "list", "-H", "-o", "name", "-t", "filesystem,volume", "-d", "1", dataset])
    there = [one for one in (dataset, volume) if one in below["out"].splitlines()]
    found = {
        "pools": run(["zpool", "list", "-H", "-p", "-o", "name,guid,health,readonly"]),
        "below": below,
        "properties": run(["zfs", "get", "-H", "-p", "-o", "name,property,value,source", PROPERTIES, *there])
        if there
        else None,
        "number": number(volume),
    }
    print(json.dumps({"zfs": found}))


main()
