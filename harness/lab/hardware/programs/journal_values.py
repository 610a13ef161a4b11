"""The first part of the program of the journal (``journal.py`` is the last): files, and values in the kernel.

Of each kind: ``look`` says how it is now, ``is_ours`` whether the harness made it so, ``restore`` makes it as it was,
``words`` tells an administrator how.  ``volatile``: a boot undoes it.
"""

import base64
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess

# What the harness keeps of its own on a machine begins with this, and so do the identities of its mappings.
OWN, OWN_UUID = "/var/lib/drbd-harness", "DRBD-HARNESS-"
FILE_BYTES = 1048576
NOT_PLAIN = "no plain file of at most a MiB with one name"
FEATURES = {
    "sg": "scatter-gather", "tso": "tcp-segmentation-offload", "gso": "generic-segmentation-offload",
    "gro": "generic-receive-offload", "rx": "rx-checksumming", "tx": "tx-checksumming",
}  # fmt: skip


class RefusedError(Exception):
    """Nothing is changed: a sentence why."""


class LeftError(Exception):
    """It is not the harness's any more: a sentence."""


def run(argv, ok=(0,)):
    """What a command printed; None where its status is not in ``ok``."""
    status, out, err = status_of(argv)
    if ok and status not in ok:
        raise RefusedError("%s: %s" % (argv[0], " ".join((err or out).split()) or "status %d" % status))
    return out if status == 0 else None


def status_of(argv):
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=90
        )
    except OSError as error:
        raise RefusedError("%s cannot be run: %s" % (argv[0], os.strerror(error.errno)))
    except subprocess.TimeoutExpired:
        raise RefusedError("%s does not end" % argv[0])
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def read(path):
    try:
        with open(path, "rb") as file:
            return " ".join(file.read(65536).decode(errors="replace").split())
    except OSError:
        return None


def mounted():
    """The words of each mount; its place is the fifth.  Anybody may have named that, in whatever encoding."""
    with open("/proc/self/mountinfo", "rb") as file:
        lines = [line.split(b" ") for line in file.read().split(b"\n")]
    return [[word.decode(errors="replace") for word in words] for words in lines if len(words) > 4]


def matching(what, pattern):
    if not re.match(pattern + r"\Z", what) or ".." in what.split("/"):
        raise RefusedError("'%s' is nothing that the journal keeps" % what)
    return what


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_file(path, data, finish=lambda descriptor: None):
    """Make the file hold exactly ``data``, on the disk, and never a part of it; ``finish`` gives it owner and mode."""
    unfinished = os.path.join(os.path.dirname(path), ".drbd-harness.unfinished")
    if os.path.lexists(unfinished):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        finish(file.fileno())
        os.fsync(file.fileno())
    os.rename(unfinished, path)
    sync_folder(os.path.dirname(path))


# ----------------------------------------------------------------------------- files


class File:
    """A file: made, or replaced.  Ours are 'sha256 HEX', 'begins LINE' with its first line, or 'holds WORD'."""

    volatile = False

    def look(self, entry):
        try:
            descriptor = os.open(entry["what"], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                return NOT_PLAIN
            raise
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size > FILE_BYTES:
            os.close(descriptor)
            return NOT_PLAIN
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
            names = sorted(os.listxattr(descriptor))
            return {
                "content": base64.b64encode(data).decode(), "uid": status.st_uid, "gid": status.st_gid,
                "mode": stat.S_IMODE(status.st_mode), "mtime": status.st_mtime_ns,
                "xattrs": {name: base64.b64encode(os.getxattr(descriptor, name)).decode() for name in names},
            }  # fmt: skip

    def is_ours(self, entry, now):
        if now is None or now == NOT_PLAIN:
            return False
        data = base64.b64decode(now["content"])
        first, whole, _ = data.partition(b"\n")
        # Opened by who was to write it, and killed before.
        if not data:
            return True
        for one in entry["ours"]:
            how, _, value = one.partition(" ")
            line = value.encode()
            # What was being written when its writer was killed has no whole first line.
            if how == "begins" and (first == line or (not whole and line.startswith(data))):
                return True
            if how == "holds" and line in data.split():
                return True
            if how == "sha256" and hashlib.sha256(data).hexdigest() == value:
                return True
        return False

    def restore(self, entry, now):
        path, before = entry["what"], entry["before"]
        if before is None:
            os.unlink(path)
            sync_folder(os.path.dirname(path))
            return

        def finish(descriptor):
            os.fchown(descriptor, before["uid"], before["gid"])
            os.fchmod(descriptor, before["mode"])
            for name, value in before["xattrs"].items():
                os.setxattr(descriptor, name, base64.b64decode(value))
            os.utime(descriptor, ns=(before["mtime"], before["mtime"]))

        write_file(path, base64.b64decode(before["content"]), finish)

    def words(self, entry):
        return "rm %s" % entry["what"] if entry["before"] is None else "what it held is in this entry, in base64"


class Directory:
    volatile = False

    def look(self, entry):
        try:
            status = os.lstat(entry["what"])
        except FileNotFoundError:
            return None
        return "root's" if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() else "somebody's"

    def is_ours(self, entry, now):
        return entry["before"] is None and now == "root's"

    def restore(self, entry, now):
        if os.listdir(entry["what"]):
            raise LeftError("the directory %s is not empty, and stays" % entry["what"])
        os.rmdir(entry["what"])

    def words(self, entry):
        return "rmdir %s" % entry["what"]


class Programs(Directory):
    """All below a folder of the harness's."""

    def look(self, entry):
        # Where SELinux lets libvirt's daemons write what a guest prints.
        beside = r"|/var/log/libvirt/drbd-harness-[a-z0-9-]+"
        matching(entry["what"], entry["own"] + r"[/-][A-Za-z0-9._/-]+" + beside)
        return super().look(entry)

    def restore(self, entry, now):
        for words in mounted():
            if (words[4] + "/").startswith(entry["what"] + "/"):
                raise RefusedError("something is mounted at %s" % words[4])
        shutil.rmtree(entry["what"])

    def words(self, entry):
        return "rm -r %s" % entry["what"]


# ----------------------------------------------------------------------------- values in the kernel


class Parameter:
    """What stands in a file of the kernel's: of a module, or a sysctl."""

    volatile = True

    def look(self, entry):
        return read(matching(entry["what"], r"/sys/module/\w+/parameters/\w+|/proc/sys/[\w./-]+"))

    def is_ours(self, entry, now):
        return now in entry["ours"]

    def restore(self, entry, now):
        with open(entry["what"], "w") as file:
            file.write(entry["before"] + "\n")

    def words(self, entry):
        return "echo '%s' > %s" % (entry["before"], entry["what"])


def is_loaded(name):
    return os.path.isdir("/sys/module/" + name)


class Module:
    """A module that was loaded, and those that it needs; 'with' are the ones that were not there before."""

    volatile = True

    def look(self, entry):
        name = matching(entry["what"], r"[\w-]+").replace("-", "_")
        if "with" not in entry and not is_loaded(name):
            shown = run(["modprobe", "--show-depends", name], ok=()) or ""
            needs = [os.path.basename(line.split()[1]).split(".ko")[0] for line in shown.splitlines() if ".ko" in line]
            missing = [one.replace("-", "_") for one in needs]
            entry["with"] = [one for one in missing if one != name and not is_loaded(one)]
        return "loaded" if is_loaded(name) else None

    def is_ours(self, entry, now):
        return now == "loaded"

    def restore(self, entry, now):
        name = entry["what"].replace("-", "_")
        used = resources() if name == "drbd" else []
        if used:
            raise LeftError("the module drbd stays loaded: the resource %s is up" % used[0])
        if read("/sys/module/%s/refcnt" % name) != "0":
            raise LeftError("the module %s stays loaded: it is in use" % name)
        run(["rmmod", name])
        for one in reversed(entry.get("with", [])):
            if read("/sys/module/%s/refcnt" % one) == "0":
                run(["rmmod", one], ok=())

    def words(self, entry):
        return "rmmod %s" % entry["what"]


class NicFeature:
    """'NIC FEATURE', with the feature's name in ethtool -K."""

    volatile = True

    def look(self, entry):
        nic, name = matching(entry["what"], r"[\w.@:-]+ (%s)" % "|".join(FEATURES)).split()
        if not os.path.exists("/sys/class/net/" + nic):
            return None
        found = re.search(r"^%s: (on|off)( \[fixed\])?" % FEATURES[name], run(["ethtool", "-k", nic]), re.MULTILINE)
        return found.group(1) if found else None

    def is_ours(self, entry, now):
        return now in entry["ours"]

    def restore(self, entry, now):
        run(["ethtool", "-K", *entry["what"].split(), entry["before"]])

    def words(self, entry):
        return "ethtool -K %s %s" % (entry["what"], entry["before"])


def own_address():
    """The address of this machine's that the harness came by: that of the sshd above."""
    process = os.getpid()
    while process > 1:
        with open("/proc/%d/environ" % process, "rb") as file:
            for one in file.read().decode(errors="replace").split("\0"):
                if one.startswith("SSH_CONNECTION="):
                    return one.split()[2]
        process = int(read("/proc/%d/stat" % process).rpartition(")")[2].split()[1])
    return ""


class Qdisc:
    """The root qdisc of a NIC, with a word for each kind that there is: 'default', where nobody chose one."""

    volatile = True

    def look(self, entry):
        nic = matching(entry["what"], r"[\w.@:-]+")
        if not os.path.exists("/sys/class/net/" + nic):
            return None
        found = json.loads(run(["tc", "-j", "qdisc", "show", "dev", nic]) or "[]")
        root = [one for one in found if one.get("root")]
        if not root or all(one.get("handle") == "0:" for one in root):
            return "default"
        below = sorted("%s %s" % (one["kind"], one["handle"]) for one in found if not one.get("root"))
        name = root[0]["kind"]
        if name == "prio":
            return " + ".join(["prio %s" % root[0]["handle"], *[one for one in below if one.startswith("netem")]])
        options = root[0].get("options", {})
        loss = options.get("loss-random", {}).get("loss")
        return "netem loss" if name == "netem" and loss == 1 else json.dumps(root, sort_keys=True)

    def require_reachable(self, item):
        """What loses all that is sent would cut the harness off too."""
        address = own_address() if "netem loss" in item["ours"] else ""
        here = re.findall(r" inet6? ([^ /]+)", run(["ip", "-o", "address", "show", "dev", item["what"]], ok=()) or "")
        if address in here:
            raise RefusedError("the harness's own connection is over %s: cut, it could not be put back" % item["what"])

    def is_ours(self, entry, now):
        return entry["before"] == "default" and now in entry["ours"]

    def restore(self, entry, now):
        run(["tc", "qdisc", "del", "dev", entry["what"], "root"])

    def words(self, entry):
        return "tc qdisc del dev %s root" % entry["what"]
