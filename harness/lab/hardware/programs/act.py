"""The few things that are written to a disk or made of a file by this program itself, each under one open descriptor.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root; only the guard
(``harness/lab/hardware/guard.py``) starts it.  Its one argument is JSON; what was seen before is in it and is checked
again here, between opening and writing, with nobody else able to claim the device.  It prints ``done``; else, on
standard error, why not: with status 1 where nothing was written, with status 3 where something may have been.
"""

import errno
import fcntl
import glob
import hashlib
import json
import mmap
import os
import stat
import struct
import subprocess
import sys

MIB = 1048576
BLKGETSIZE64 = 0x80081272


def refuse(why, status=1):
    sys.stderr.write(why + "\n")
    sys.exit(status)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(65536).decode(errors="replace").strip()
    except OSError:
        return ""


def number(device):
    return "%d:%d" % (os.major(device), os.minor(device))


def opened(asked, flags):
    """A descriptor of the disk that was looked at before, and of no other: same number, size and names in /sys."""
    try:
        descriptor = os.open(asked["path"], flags | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            refuse("somebody has a claim on it by now")
        refuse("it cannot be opened: " + os.strerror(error.errno))
    status = os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode) or number(status.st_rdev) != asked["number"]:
        refuse("its name leads to another device by now")
    size = bytearray(8)
    fcntl.ioctl(descriptor, BLKGETSIZE64, size)
    if struct.unpack("=Q", size)[0] != asked["size"]:
        refuse("its size is another one by now")
    own = os.path.realpath("/sys/dev/block/" + asked["number"])
    disk = os.path.dirname(own) if os.path.exists(own + "/partition") else own
    names = {
        "serial": read(disk + "/device/serial") or read(disk + "/serial"),
        "wwid": read(disk + "/device/wwid") or read(disk + "/wwid"),
    }
    for name, value in names.items():
        if value != asked[name]:
            refuse("its %s is another one by now" % name)
    if os.listdir(own + "/holders") or glob.glob(own + "/*/partition"):
        refuse("it has holders or partitions by now")
    return descriptor


def head(descriptor):
    buffer = mmap.mmap(-1, MIB)
    with os.fdopen(os.dup(descriptor), "rb", 0) as file:
        file.seek(0)
        got = file.readinto(buffer)
    return bytes(buffer[:got])


def check(descriptor, asked):
    if hashlib.sha256(head(descriptor)).hexdigest() != asked["was_sha256"]:
        refuse("its first MiB is another one by now")


def write_head(descriptor, data):
    buffer = mmap.mmap(-1, MIB)
    buffer[:] = data
    try:
        with os.fdopen(os.dup(descriptor), "wb", 0) as file:
            file.seek(0)
            if file.write(buffer) != MIB:
                refuse("its first MiB was written in part", 3)
        os.fsync(descriptor)
        after = head(descriptor)
    except OSError as error:
        refuse("its first MiB was being written: " + os.strerror(error.errno), 3)
    if after != data:
        refuse("its first MiB was written and reads as something else", 3)


def label_disk(asked):
    """Write the first MiB, whose content was looked at before."""
    data = asked["text"].encode().ljust(MIB, b"\0")
    descriptor = opened(asked, os.O_RDWR | os.O_EXCL)
    check(descriptor, asked)
    write_head(descriptor, data)
    os.close(descriptor)


def map_disk(asked):
    """Make the mapping behind the label; while it is made the disk stays open, so that its number stays its own."""
    descriptor = opened(asked, os.O_RDONLY)
    alone = opened(asked, os.O_RDONLY | os.O_EXCL)
    check(alone, asked)
    os.close(alone)
    table = "0 %d linear %s %d" % (asked["sectors"], asked["number"], MIB // 512)
    done = subprocess.run(
        ["dmsetup", "create", asked["mapping"], "--uuid", asked["uuid"], "--table", table],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    if done.returncode:
        refuse("dmsetup: " + " ".join(done.stdout.decode(errors="replace").split()))
    os.close(descriptor)


def make_file(asked):
    """A new file of root's with a label in its first MiB; a part of it is removed again."""
    descriptor = os.open(asked["path"], os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, asked["size"])
        os.write(descriptor, asked["text"].encode().ljust(MIB, b"\0"))
        os.fsync(descriptor)
    except OSError as error:
        os.unlink(asked["path"])
        refuse("it cannot be made: " + os.strerror(error.errno))


def remove_file(asked):
    """Remove the file whose label was looked at before, and no other."""
    try:
        descriptor = os.open(asked["path"], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        refuse("it cannot be opened: " + os.strerror(error.errno))
    status, there = os.fstat(descriptor), os.lstat(asked["path"])
    if (
        not stat.S_ISREG(status.st_mode)
        or status.st_uid
        or status.st_nlink != 1
        or (status.st_dev, status.st_ino) != (there.st_dev, there.st_ino)
    ):
        refuse("it is no plain file of root's by now")
    if hashlib.sha256(os.pread(descriptor, MIB, 0)).hexdigest() != asked["was_sha256"]:
        refuse("its first MiB is another one by now")
    os.unlink(asked["path"])


def main():
    asked = json.loads(sys.argv[1])
    act = {"label": label_disk, "map": map_disk, "make-file": make_file, "remove-file": remove_file}[asked["act"]]
    try:
        act(asked)
    except OSError as error:
        refuse(os.strerror(error.errno))
    except subprocess.TimeoutExpired:
        refuse("dmsetup does not end", 3)
    print("done")


main()
