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
import time

MIB = 1048576
BLKGETSIZE64 = 0x80081272
BLKZEROOUT = 0x127F
LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
# Whether anything may have been written by now; what goes wrong behind that is never "nothing was written".
began = []


def refuse(why):
    sys.stderr.write(why + "\n")
    sys.exit(3 if began else 1)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(65536).decode(errors="replace").strip()
    except OSError:
        return ""


def number(device):
    return "%d:%d" % (os.major(device), os.minor(device))


def run(argv):
    """Status, output and errors of a command, as text."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


# --------------------------------------------------------------------------- disks


def block_device(path, asked, flags):
    """A descriptor of the block device of the number and size that were looked at before, and of no other."""
    try:
        descriptor = os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC)
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
    return descriptor


def opened(asked, flags):
    """A descriptor of the disk that was looked at before, and of no other: the same names in /sys, and nobody's."""
    descriptor = block_device(asked["path"], asked, flags)
    own = os.path.realpath("/sys/dev/block/" + asked["number"])
    disk = os.path.dirname(own) if os.path.exists(own + "/partition") else own
    names = {
        "serial": read(disk + "/device/serial") or read(disk + "/serial"),
        "wwid": read(disk + "/device/wwid") or read(disk + "/wwid"),
        # A number is given again to the next disk; this never is.
        "sequence": read(disk + "/diskseq"),
    }
    for name, value in names.items():
        if value != asked[name]:
            refuse("its %s is another one by now" % name)
    if os.listdir(own + "/holders") or glob.glob(glob.escape(own) + "/*/partition"):
        refuse("it has holders or partitions by now")
    unused(asked["number"])
    return descriptor


def users(wanted):
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        process = path.split("/")[2]
        try:
            status = os.stat(path)
        except OSError:
            continue
        if int(process) != os.getpid() and stat.S_ISBLK(status.st_mode) and number(status.st_rdev) == wanted:
            return "process %s (%s)" % (process, read("/proc/" + process + "/comm"))
    return ""


def unused(wanted):
    """Refuse where another process has the device open: one that does not claim it is seen by nothing else."""
    # What udev has to look at is over in a moment.
    until = time.time() + 5
    while users(wanted) and time.time() < until:
        time.sleep(0.2)
    who = users(wanted)
    if who:
        refuse("it is open in %s by now" % who)


def piece(descriptor, offset):
    buffer = mmap.mmap(-1, MIB)
    with os.fdopen(os.dup(descriptor), "rb", 0) as file:
        file.seek(offset)
        got = file.readinto(buffer)
    if got != MIB:
        refuse("a MiB at byte %d cannot be read whole" % offset)
    return bytes(buffer)


def check(descriptor, asked):
    """Refuse where either end of the disk is another one than was looked at."""
    for what, offset, digest in (
        ("first", 0, asked["was_sha256"]),
        ("last", max(0, asked["size"] - MIB), asked["tail_sha256"]),
    ):
        if hashlib.sha256(piece(descriptor, offset)).hexdigest() != digest:
            refuse("its %s MiB is another one by now" % what)


def write_head(descriptor, data):
    buffer = mmap.mmap(-1, MIB)
    buffer[:] = data
    began.append("label")
    try:
        with os.fdopen(os.dup(descriptor), "wb", 0) as file:
            file.seek(0)
            if file.write(buffer) != MIB:
                refuse("its first MiB was written in part")
        os.fsync(descriptor)
        after = piece(descriptor, 0)
    except OSError as error:
        refuse("its first MiB was being written: " + os.strerror(error.errno))
    if after != data:
        refuse("its first MiB was written and reads as something else")


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
    status, out, err = run(["dmsetup", "create", asked["mapping"], "--uuid", asked["uuid"], "--table", table])
    if status:
        refuse("dmsetup: " + " ".join((out + err).split()))
    os.close(descriptor)


def zero(asked):
    """Fill a mapping or a volume of the harness's with zeros, under a descriptor that holds it alone.

    That it is ours is said by device-mapper's UUID of it, which no other mapping or volume has, whatever its name.
    """
    path = "/dev/" + os.path.basename(os.path.realpath("/sys/dev/block/" + asked["number"]))
    descriptor = block_device(path, asked, os.O_RDWR | os.O_EXCL)
    if read("/sys/dev/block/" + asked["number"] + "/dm/uuid") != asked["uuid"]:
        refuse("its number is another mapping's by now")
    unused(asked["number"])
    at, size = 0, asked["size"]
    began.append("zeros")
    try:
        while at < size:
            length = min(64 * MIB, size - at)
            fcntl.ioctl(descriptor, BLKZEROOUT, struct.pack("=QQ", at, length))
            at += length
        os.fsync(descriptor)
    except OSError as error:
        refuse("it was filled with zeros up to byte %d: %s" % (at, os.strerror(error.errno)))
    os.close(descriptor)


# --------------------------------------------------------------------------- files


def directory(path):
    """A descriptor of the directory of a file, reached by no symbolic link and by nothing that others could exchange."""
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for word in [""] + os.path.dirname(path).strip("/").split("/"):
        if word:
            inner = os.open(word, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        status = os.fstat(descriptor)
        if status.st_uid or status.st_mode & 0o022:
            refuse("its directory, or one above, can be written by others than root by now")
    return descriptor


def own_file(asked):
    """Descriptors of the directory and of the file whose label was looked at before, and of no other."""
    folder = directory(asked["path"])
    name = os.path.basename(asked["path"])
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        refuse("it cannot be opened: " + os.strerror(error.errno))
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid or status.st_nlink != 1:
        refuse("it is no plain file of root's by now")
    if hashlib.sha256(os.pread(descriptor, MIB, 0)).hexdigest() != asked["was_sha256"]:
        refuse("its first MiB is another one by now")
    return folder, descriptor


def make_file(asked):
    """A new file of root's with a label in its first MiB; a part of it is removed again."""
    folder, name = directory(asked["path"]), os.path.basename(asked["path"])
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=folder)
    began.append("file")
    try:
        # First what says whose it is: one that was cut off in the middle is taken back by that.
        os.write(descriptor, asked["text"].encode().ljust(MIB, b"\0"))
        os.fsync(descriptor)
        os.posix_fallocate(descriptor, 0, asked["size"])
        os.fsync(descriptor)
    except OSError as error:
        os.unlink(name, dir_fd=folder)
        began.clear()
        refuse("it cannot be made: " + os.strerror(error.errno))


def remove_file(asked):
    """Remove the file whose label was looked at before, and no other."""
    folder, descriptor = own_file(asked)
    name = os.path.basename(asked["path"])
    status, there = os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False)
    if (status.st_dev, status.st_ino) != (there.st_dev, there.st_ino):
        refuse("it is another file by now")
    os.unlink(name, dir_fd=folder)


def is_of(loop, status):
    """Whether a loop device has the file of that status."""
    about = bytearray(232)
    fcntl.ioctl(loop, LOOP_GET_STATUS64, about)
    device, inode = struct.unpack_from("=QQ", about)
    minor = os.minor(status.st_dev)
    # As the kernel writes a device's number.
    kernel = (minor & 0xFF) | (os.major(status.st_dev) << 8) | ((minor & ~0xFF) << 12)
    return (device, inode) == (kernel, status.st_ino)


def attach(asked):
    """Give the file, and no other, to a loop device behind its label."""
    _, descriptor = own_file(asked)
    status = os.fstat(descriptor)
    if status.st_size != asked["size"]:
        refuse("its size is not the one that it was made with")
    argv = ["losetup", "--find", "--show", "--direct-io=on", "--offset", str(MIB), asked["path"]]
    code, out, err = run(argv)
    if code:
        refuse("losetup: " + " ".join((out + err).split()))
    with open(out.strip(), "rb", 0) as loop:
        if not is_of(loop, status):
            fcntl.ioctl(loop, LOOP_CLR_FD)
            refuse("its name led to another file by now")


def detach(asked):
    """Take the file from its loop device, unless that has another one by now."""
    _, descriptor = own_file(asked)
    with open("/dev/" + asked["loop"], "rb", 0) as loop:
        unused(number(os.fstat(loop.fileno()).st_rdev))
        if not is_of(loop, os.fstat(descriptor)):
            refuse("%s has another file by now" % asked["loop"])
        fcntl.ioctl(loop, LOOP_CLR_FD)


ACTS = {
    "label": label_disk,
    "map": map_disk,
    "zero": zero,
    "make-file": make_file,
    "remove-file": remove_file,
    "attach": attach,
    "detach": detach,
}


def main():
    asked = json.loads(sys.argv[1])
    try:
        ACTS[asked["act"]](asked)
    except OSError as error:
        refuse(os.strerror(error.errno or errno.EIO))
    except subprocess.TimeoutExpired as error:
        began.append(error.cmd[0])
        refuse(error.cmd[0] + " does not end")
    except Exception as error:  # noqa: BLE001 - a traceback would end with the status of 'nothing was written'
        refuse("%s: %s" % (type(error).__name__, error))
    print("done")


main()
