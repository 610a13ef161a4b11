"""What a machine says of its disks, printed as one JSON object; it writes nothing.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument
is JSON: ``disks`` and ``directories`` (paths), ``allow`` (the file in which root allows disks), and ``dataset``,
``volume`` and ``properties`` (for ``look_zfs.py``, which stands before it).  Everything is
handed on as the machine printed it; what it means is for the harness to say.
"""

import errno
import fcntl
import glob
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
import struct
import subprocess
import sys

MIB = 1048576
BLKGETSIZE64 = 0x80081272
LOOP_GET_STATUS64 = 0x4C05
# Character devices that lead to the same disk.
WAYS = ("scsi_generic/*", "bsg/*", "nvme-generic/*", "ng[0-9]*")
MAGIC = b"DRBD-HARNESS-DISK"
LSBLK = ["lsblk", "-J", "-b", "-a", "-o"]
COLUMNS = "NAME,MAJ:MIN,TYPE,SIZE,FSTYPE,"
LVM = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o"]
VOLUMES = "vg_name,lv_name,lv_uuid,lv_attr,lv_size,lv_tags,pool_lv,data_percent,metadata_percent,lv_kernel_"
COMMANDS = {
    "pvs": ["pvs", *LVM, "pv_name,vg_name,pv_missing,pv_duplicate"],
    "vgs": ["vgs", *LVM, "vg_name,vg_uuid,vg_attr,vg_free,vg_extent_size,vg_missing_pv_count"],
    "lvs": ["lvs", "-a", *LVM, VOLUMES + "major,lv_kernel_minor"],
    "zpool": ["zpool", "status", "-L", "-P"],
}


def run(argv):
    """Status, output and errors of a command; status None where it is not there or does not end."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60
        )
    except OSError as error:
        return {"status": None, "out": "", "err": "not installed" if error.errno == errno.ENOENT else str(error)}
    except subprocess.TimeoutExpired:
        return {"status": None, "out": "", "err": "did not end within 60 s"}
    return {
        "status": done.returncode,
        "out": done.stdout.decode(errors="replace"),
        "err": done.stderr.decode(errors="replace"),
    }


def read(path):
    """The text of a small file, stripped; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(4 * MIB).decode(errors="replace").strip()
    except OSError:
        return ""


def names(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def number(device):
    return "%d:%d" % (os.major(device), os.minor(device))


def sysfs():
    """Every block device by its number, as the kernel itself describes it."""
    found = {}
    for path in glob.glob("/sys/dev/block/*"):
        own = os.path.realpath(path)
        # What a partition does not have, its disk has.
        disk = os.path.dirname(own) if os.path.exists(own + "/partition") else own
        page = b""
        try:
            with open(disk + "/device/vpd_pg80", "rb") as file:
                page = file.read(256)
        except OSError:
            pass
        found[os.path.basename(path)] = {
            "name": os.path.basename(own),
            "bytes": int(read(own + "/size") or -1) * 512,
            "read_only": read(own + "/ro"),
            "parent": read(disk + "/dev") if disk != own else "",
            "partitions": [name for name in names(own) if os.path.exists(own + "/" + name + "/partition")],
            "holders": names(own + "/holders"),
            "slaves": names(own + "/slaves"),
            "dm_name": read(own + "/dm/name"),
            "dm_uuid": read(own + "/dm/uuid"),
            "md_level": read(own + "/md/level"),
            "loop": read(own + "/loop/backing_file"),
            "serial": read(disk + "/device/serial") or read(disk + "/serial"),
            "vpd_serial": page[4:].decode(errors="replace").strip(" \0"),
            "wwid": read(disk + "/device/wwid") or read(disk + "/wwid"),
            "sequence": read(disk + "/diskseq"),
            "model": read(disk + "/device/model"),
            "passthrough": [read(one + "/dev") for way in WAYS for one in glob.glob(disk + "/device/" + way)],
        }
    return found


def mounts():
    """Number, place, kind and source of each mount, of every mount namespace: a container's are somebody's too."""
    found, seen = set(), set()
    for path in glob.glob("/proc/[0-9]*/mountinfo"):
        try:
            space = os.readlink(os.path.dirname(path) + "/ns/mnt")
        except OSError:
            continue
        if space not in seen:
            seen.add(space)
            for line in read(path).splitlines():
                before, _, behind = line.partition(" - ")
                fields, last = before.split(), behind.split()
                if len(fields) > 4 and len(last) > 1:
                    found.add((fields[2], fields[4], last[0], last[1]))
    return sorted(found)


def loops():
    """Loop device by its name, and the number of the block device that is its file, where that is one."""
    found = {}
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        name = path.split("/")[3]
        try:
            with open("/dev/" + name, "rb") as device:
                status = bytearray(232)
                fcntl.ioctl(device, LOOP_GET_STATUS64, status)
                behind = struct.unpack_from("=QQQ", status)[2]
                if behind:
                    found[name] = number(behind)
        except OSError:
            found[name] = "unknown"
    return found


def physical(pvs):
    """LVM's name of each physical volume, which may be any of a device's, and the device's number."""
    found = {}
    try:
        rows = json.loads(pvs["out"])["report"][0]["pv"] if pvs and pvs["status"] == 0 else []
        for name in {row["pv_name"] for row in rows}:
            if name.startswith("/") and os.path.exists(name):
                found[name] = number(os.stat(name).st_rdev)
    except (ValueError, KeyError, IndexError, OSError):
        pass
    return found


def exported():
    """What the kernel hands to other machines: path in configfs, and the number of the device."""
    found = []
    for path in glob.glob("/sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path") + glob.glob(
        "/sys/kernel/config/target/core/*/*/udev_path"
    ):
        try:
            status = os.stat(read(path))
            if stat.S_ISBLK(status.st_mode):
                found.append([path, number(status.st_rdev)])
        except OSError:
            pass
    # A file of LIO's may be a block device too, which it has open in the kernel and does not claim.
    for path in glob.glob("/sys/kernel/config/target/core/fileio_*/*/info"):
        behind = re.search(r"File: (\S+)", read(path))
        try:
            status = os.stat(behind.group(1)) if behind else None
        except OSError:
            continue
        if status and stat.S_ISBLK(status.st_mode):
            found.append([path, number(status.st_rdev)])
    return found


def registered(process, name):
    """Numbers of the block devices that an io_uring has, whose descriptors may be closed."""
    found, within = [], False
    for line in read("/proc/" + process + "/fdinfo/" + name).splitlines():
        entry = re.match(r"\s*\d+: (\S+)$", line)
        within = line.startswith("UserFiles:") or (within and entry is not None)
        if within and entry:
            found.append(read("/sys/class/block/" + os.path.basename(entry.group(1)) + "/dev"))
    return [one for one in found if one]


def in_memory():
    """Block devices that a process has mapped into its memory; the descriptor may be closed."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/maps"):
        process = path.split("/")[2]
        for line in read(path).splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5].startswith("/dev/"):
                try:
                    status = os.stat("/proc/" + process + "/map_files/" + fields[0])
                except OSError:
                    continue
                if stat.S_ISBLK(status.st_mode):
                    found.add(("b", number(status.st_rdev), int(process), read("/proc/" + process + "/comm")))
    return found


def opened():
    """Which processes have which block and character devices open."""
    found = in_memory()
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        process = path.split("/")[2]
        if int(process) == os.getpid():
            continue
        try:
            status = os.stat(path)
            if not stat.S_IFMT(status.st_mode) and "io_uring" in os.readlink(path):
                for one in registered(process, os.path.basename(path)):
                    found.add(("b", one, int(process), read("/proc/" + process + "/comm")))
        except OSError:
            continue
        kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
        # Terminals, null and the like: no driver of disks has these numbers.
        if kind and not (kind == "c" and os.major(status.st_rdev) in (1, 4, 5, 10, 13, 29, 136, 226)):
            found.add((kind, number(status.st_rdev), int(process), read("/proc/" + process + "/comm")))
    return sorted(found)


def piece(descriptor, offset):
    """A MiB of a device past the page cache, which may be older than the disk."""
    with mmap.mmap(-1, MIB) as buffer:
        with os.fdopen(os.dup(descriptor), "rb", 0) as file:
            file.seek(offset)
            got = file.readinto(buffer)
        if got != MIB:
            # What could not be read is not zero.
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return bytes(buffer)


def content(data):
    if not data.strip(b"\0"):
        return "zero" if data else "nothing"
    return "label" if data.startswith(MAGIC) else "data"


def disk(path):
    """One disk: where its name leads, what is at both its ends, and whether anybody has a claim on it."""
    found = {
        "path": path,
        "real": os.path.realpath(path),
        "udev": run(["udevadm", "info", "--query=property", "--name", path])["out"],
    }
    try:
        status = os.stat(path)
    except OSError as error:
        found["error"] = os.strerror(error.errno)
        return found
    if not stat.S_ISBLK(status.st_mode):
        found["error"] = "it is no block device"
        return found
    found["number"] = number(status.st_rdev)
    found["exclusive"] = "yes"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        found["exclusive"] = errno.errorcode.get(error.errno, str(error.errno))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as why:
            found["error"] = os.strerror(why.errno)
            return found
    try:
        now = os.fstat(descriptor)
        if now.st_rdev != status.st_rdev:
            found["error"] = "its name led to another device a moment later"
            return found
        size = bytearray(8)
        fcntl.ioctl(descriptor, BLKGETSIZE64, size)
        found["bytes"] = struct.unpack("=Q", size)[0]
        direct = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
        try:
            if os.fstat(direct).st_rdev != status.st_rdev:
                found["error"] = "its name led to another device a moment later"
                return found
            head = piece(direct, 0)
            found["head"] = content(head)
            found["label"] = head[:4096].rstrip(b"\0").decode(errors="replace") if found["head"] == "label" else ""
            found["label_sha256"] = hashlib.sha256(head).hexdigest()
            tail = piece(direct, max(0, found["bytes"] - MIB))
            found["tail"] = content(tail)
            found["tail_sha256"] = hashlib.sha256(tail).hexdigest()
        finally:
            os.close(direct)
    except OSError as error:
        found["error"] = "it cannot be read: " + os.strerror(error.errno)
        return found
    finally:
        os.close(descriptor)
    found["wipefs"] = run(["wipefs", "--no-act", "-J", path])
    return found


def labelled(path):
    """The label at the beginning of a file, the digest of its first MiB, its size, and whether it is plain and root's."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            plain = stat.S_ISREG(status.st_mode) and status.st_uid == 0 and status.st_nlink == 1
            data = file.read(MIB) if plain else b""
    except OSError as error:
        return {"plain": False, "error": os.strerror(error.errno), "bytes": 0, "label": "", "sha256": ""}
    text = data[:4096].rstrip(b"\0").decode(errors="replace") if data.startswith(MAGIC) else ""
    return {"plain": plain, "bytes": status.st_size, "label": text, "sha256": hashlib.sha256(data).hexdigest()}


def ancestors(path):
    """Path, owner and mode of each directory above a path."""
    found = []
    while path != "/":
        path = os.path.dirname(path)
        status = os.lstat(path)
        found.append([path, status.st_uid, stat.S_IMODE(status.st_mode)])
    return found


def directory(path):
    found = {"path": path, "real": os.path.realpath(path)}
    try:
        status = os.lstat(path)
        room = os.statvfs(path)
    except OSError as error:
        found["error"] = os.strerror(error.errno)
        return found
    found.update(
        uid=status.st_uid,
        mode=stat.S_IMODE(status.st_mode),
        directory=stat.S_ISDIR(status.st_mode),
        device=number(status.st_dev),
        free=room.f_bavail * room.f_frsize,
        above=ancestors(path),
        names=[name for name in names(path) if name.startswith("drbd-harness-")],
    )
    found["files"] = {name: labelled(path + "/" + name) for name in found["names"]}
    found["kind"] = run(["stat", "-f", "-c", "%T", path])["out"].strip()
    return found


def allowed(path):
    """The file in which root allows disks, and whether somebody else could have written it."""
    found = {"path": path, "text": ""}
    try:
        status, above = os.lstat(path), os.lstat(os.path.dirname(path))
        found.update(
            uid=status.st_uid,
            mode=stat.S_IMODE(status.st_mode),
            regular=stat.S_ISREG(status.st_mode),
            above_uid=above.st_uid,
            above_mode=stat.S_IMODE(above.st_mode),
            above_directory=stat.S_ISDIR(above.st_mode),
        )
    except OSError as error:
        found["error"] = os.strerror(error.errno)
        return found
    found["text"] = read(path)
    return found


def main():
    asked = json.loads(sys.argv[1])
    run(["udevadm", "settle", "--timeout=10"])
    commands = {name: run(argv) for name, argv in COMMANDS.items() if shutil.which(argv[0])}
    commands["lsblk"] = run([*LSBLK, COLUMNS + "MOUNTPOINTS"])
    if commands["lsblk"]["status"] != 0:
        # As those before 2021 know it.
        commands["lsblk"] = run([*LSBLK, COLUMNS + "MOUNTPOINT"])
    found = {"commands": commands, "mounts": mounts(), "swaps": read("/proc/swaps"), "mdstat": read("/proc/mdstat")}
    found["links"] = {
        path: number(os.stat(path).st_rdev) for path in glob.glob("/dev/disk/by-id/*") if os.path.exists(path)
    }
    found["sysfs"] = sysfs()
    found["loops"] = loops()
    found["physical"] = physical(commands.get("pvs"))
    found["exported"] = exported()
    found["opened"] = opened()
    found["disks"] = [disk(path) for path in asked.get("disks", [])]
    found["directories"] = [directory(path) for path in asked.get("directories", [])]
    if asked.get("allow"):
        found["allow"] = allowed(asked["allow"])
    if asked.get("dataset"):
        found.update(look_below(asked["dataset"], asked["volume"], asked["properties"]))
    print(json.dumps(found))


main()
