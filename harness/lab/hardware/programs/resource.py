"""What a machine says of one of its DRBD resources and of whoever uses it, printed as one JSON object.

It writes nothing, asks no daemon and leaves no trace: it reads /proc, /sys, /run and what ``drbdsetup`` prints.  Runs
on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument is
JSON: ``resource`` and ``nic`` (empty: the one with DRBD's own address).  DRBD's shared secret and passwords of guests
stay on the machine.
"""

import errno
import fcntl
import glob
import json
import os
import re
import stat
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

BLKGETSIZE64 = 0x80081272
SECRET = re.compile(r'(shared-secret\s+)("(?:[^"\\]|\\.)*"|[^\s;]+)')
#: Of a QEMU's command line, what tells of its name and its disks.
OPTIONS = ("-name", "-drive", "-blockdev", "-device", "-id", "-machine", "-M", "-hda", "-hdb", "-hdc", "-hdd")
PATH = re.compile(r'/[^\s,"\\]+')


def run(argv):
    """Status, output and errors of a command; status None where it is not there or does not end."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30
        )
    except OSError as error:
        return {"status": None, "out": "", "err": "not installed" if error.errno == errno.ENOENT else str(error)}
    except subprocess.TimeoutExpired:
        return {"status": None, "out": "", "err": "did not end within 30 s"}
    return {
        "status": done.returncode,
        "out": done.stdout.decode(errors="replace"),
        "err": done.stderr.decode(errors="replace"),
    }


def read(path):
    """The text of a small file, stripped; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(4194304).decode(errors="replace").strip()
    except OSError:
        return ""


def names(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def number(device):
    return "%d:%d" % (os.major(device), os.minor(device))


def size(path):
    """Bytes of a block device; None where it cannot be asked."""
    try:
        with open(path, "rb") as device:
            got = bytearray(8)
            fcntl.ioctl(device, BLKGETSIZE64, got)
            return struct.unpack("=Q", got)[0]
    except OSError:
        return None


def above(name):
    """What lies on the block device ``name``, whatever lies on that, and so on: kernel's name to its number."""
    found, left = {}, [name]
    while left:
        one = left.pop()
        if one not in found:
            found[one] = {
                "number": read("/sys/class/block/" + one + "/dev"),
                "dm_name": read("/sys/class/block/" + one + "/dm/name"),
                "dm_uuid": read("/sys/class/block/" + one + "/dm/uuid"),
            }
            left += names("/sys/class/block/" + one + "/holders")
    return found


def mounts():
    """Number, root, place, options, kind and source of each mount, of every mount namespace."""
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
                if len(fields) > 5 and len(last) > 1:
                    found.add((fields[2], fields[4], fields[5], last[0], last[1]))
    return sorted(found)


def flags(process, descriptor):
    for line in read("/proc/%s/fdinfo/%s" % (process, descriptor)).splitlines():
        if line.startswith("flags:"):
            return line
    return ""


def opened(numbers, places):
    """Which descriptors of which processes lead to one of the devices, or to a file in one of the mounted ``places``."""
    found = []
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        _, _, process, _, descriptor = path.split("/")
        if int(process) == os.getpid():
            continue
        try:
            status, leads = os.stat(path), os.readlink(path)
        except OSError:
            continue
        device = number(status.st_rdev) if stat.S_ISBLK(status.st_mode) else ""
        if device in numbers:
            found.append({"pid": int(process), "device": device, "path": leads, "flags": flags(process, descriptor)})
        elif stat.S_ISREG(status.st_mode):
            own = number(status.st_dev)
            # btrfs gives its files another number than its mount has.
            for place in places:
                inside = leads == place["where"] or leads.startswith(place["where"].rstrip("/") + "/")
                if own == place["number"] or (place["kind"] == "btrfs" and inside):
                    found.append({
                        "pid": int(process), "device": place["number"], "path": leads, "file": True,
                        "flags": flags(process, descriptor),
                    })  # fmt: skip
                    break
    return found


def process(pid):
    """One process; of a QEMU its version, and of its command line what tells of its name and disks."""
    here = "/proc/%d" % pid
    try:
        program = os.readlink(here + "/exe")
    except OSError:
        program = ""
    found = {"comm": read(here + "/comm"), "program": program, "options": [], "version": ""}
    name = os.path.basename(program.replace(" (deleted)", ""))
    if not (name.startswith("qemu") or name == "kvm"):
        return found
    found["qemu"] = True
    # The program that runs, which may have been replaced on the disk since.
    found["version"] = run([here + "/exe", "--version"])["out"].split("\n")[0]
    try:
        with open(here + "/cmdline", "rb") as file:
            words = file.read().decode(errors="replace").split("\0")
    except OSError:
        words = []
    for at, word in enumerate(words[:-1]):
        option = "-" + word.lstrip("-") if word.startswith("-") else ""
        if option in OPTIONS:
            found["options"].append([option, words[at + 1]])
    return found


def domains():
    """The domains that libvirt has running here, by what it keeps of them: no daemon is asked."""
    found = []
    for path in sorted(glob.glob("/run/libvirt/qemu/*.xml")):
        try:
            status = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError):
            continue
        domain = status if status.tag == "domain" else status.find("domain")
        if domain is None:
            continue
        disks = []
        for disk in domain.iterfind("devices/disk"):
            for holder in list(disk.iter()):
                for one in list(holder):
                    if one.tag in ("auth", "encryption", "cookies"):
                        holder.remove(one)
            disks.append(ElementTree.tostring(disk, encoding="unicode"))
        found.append({"name": domain.findtext("name") or "", "pid": int(status.get("pid") or 0), "disks": disks})
    return found


def volume(minor):
    device = "/dev/drbd%d" % minor
    own = above("drbd%d" % minor)
    numbers = {one["number"] for one in own.values() if one["number"]}
    paths = {os.path.realpath("/dev/" + name) for name in own}
    places = [
        {"number": dev, "where": where, "options": options, "kind": kind}
        for dev, where, options, kind, source in mounts()
        if dev in numbers or os.path.realpath(source) in paths
    ]
    swaps = [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]]
    return {
        "minor": minor,
        "device": device,
        "bytes": size(device) if os.path.exists(device) else None,
        "sectors": read("/sys/block/drbd%d/size" % minor),
        "stable_writes": read("/sys/block/drbd%d/queue/stable_writes" % minor),
        "links": [one for one in glob.glob("/dev/drbd/by-*/*") + glob.glob("/dev/drbd/by-*/*/*")
                  if os.path.realpath(one) == os.path.realpath(device)],
        "above": own,
        "mounts": places,
        "swaps": [one for one in swaps if os.path.realpath(one) in paths],
        "opened": opened(numbers, places),
    }  # fmt: skip


def main():
    asked = json.loads(sys.argv[1])
    name = asked["resource"]
    # Asked without its module, drbdsetup would load it.
    nothing = None if os.path.exists("/proc/drbd") else {"status": 1, "out": "", "err": "DRBD's module is not loaded"}
    show = nothing or run(["drbdsetup", "show", "--show-defaults", name])
    show["out"] = SECRET.sub(r"\1(hidden)", show["out"])
    minors = sorted({int(one) for one in re.findall(r"\bdevice\s+minor\s+(\d+)", show["out"])})
    disks = sorted(set(re.findall(r'\bdisk\s+"(/[^"]*)"', show["out"])))
    volumes = {str(minor): volume(minor) for minor in minors}
    pids = {one["pid"] for found in volumes.values() for one in found["opened"]}
    found = {
        "show": show,
        "proc_drbd": read("/proc/drbd"),
        "status": nothing or run(["drbdsetup", "status", "--json", "--statistics", name]),
        "disable_sendpage": read("/sys/module/drbd/parameters/disable_sendpage"),
        "host": os.uname()[1],
        "volumes": volumes,
        "lower": {path: {"real": os.path.realpath(path), "bytes": size(path)} for path in disks},
        "processes": {str(pid): process(pid) for pid in sorted(pids)},
        "domains": [one for one in domains() if one["pid"] in pids],
        "addresses": run(["ip", "-o", "address", "show"])["out"],
        "offloads": {},
    }
    texts = [value for one in found["processes"].values() for _, value in one["options"]]
    texts += [disk for one in found["domains"] for disk in one["disks"]]
    found["real"] = {path: os.path.realpath(path) for text in texts for path in PATH.findall(text.replace("\\/", "/"))}
    links = {line.split()[1] for line in found["addresses"].splitlines() if len(line.split()) > 3}
    wanted = asked.get("nic")
    for link in sorted({wanted} if wanted else links - {"lo"}):
        found["offloads"][link] = run(["ethtool", "-k", link])["out"]
    print(json.dumps(found))


main()
