"""The second part of the program of the journal: what was made on a machine, and is taken back by its own name only."""

import glob
import os
import re

# ----------------------------------------------------------------------------- what was made


def resources():
    """The names of DRBD's resources that are up; asked without its module, drbdsetup would load it."""
    if not os.path.exists("/proc/drbd"):
        return []
    return re.findall(r'^resource "?([^" ]+)', run(["drbdsetup", "show"]), re.MULTILINE)


class Resource:
    """A resource of DRBD's that was brought up: ours by its name and by the first line of its file ('begins LINE')."""

    volatile = False

    def look(self, entry):
        return "up" if matching(entry["what"], r"[\w.-]+") in resources() else None

    def is_ours(self, entry, now):
        file = dict(entry, kind="file", what=entry["file"], before=None)
        return entry["before"] is None and File().is_ours(file, File().look(file))

    def restore(self, entry, now):
        run(["drbdsetup", "down", entry["what"]])

    def words(self, entry):
        return "drbdadm down %s" % entry["what"]


class Mapping:
    """A mapping of device-mapper: ours by the identity that it was made with."""

    volatile = False

    def look(self, entry):
        for one in entry["ours"]:
            matching(one, OWN_UUID + r"[\w.-]+")
        argv = ["dmsetup", "info", "-c", "--noheadings", "-o", "uuid", matching(entry["what"], r"[\w.+-]+")]
        status, out, err = status_of(argv)
        if status and not re.search("not exist|not found|No such device", out + err):
            raise RefusedError("dmsetup does not say whether there is a mapping %s: %s" % (entry["what"], err.strip()))
        return None if status else out.strip()

    def is_ours(self, entry, now):
        return entry["before"] is None and now in entry["ours"]

    def restore(self, entry, now):
        # One that was suspended when its maker was killed would keep whoever uses it waiting for ever.
        run(["dmsetup", "resume", "--uuid", now])
        run(["dmsetup", "remove", "--retry", "--uuid", now])

    def words(self, entry):
        return "dmsetup remove %s" % entry["what"]


class Loop:
    """The loop devices of a file below the harness's folder."""

    volatile = False

    def look(self, entry):
        matching(entry["what"], entry["own"] + r"[/-][A-Za-z0-9._/-]+")
        found = glob.glob("/sys/block/loop*/loop/backing_file")
        # The kernel says so of a file that was removed meanwhile.
        files = (entry["what"], entry["what"] + " (deleted)")
        return sorted(path.split("/")[3] for path in found if read(path) in files) or None

    def is_ours(self, entry, now):
        return entry["before"] is None

    def restore(self, entry, now):
        for name in now:
            run(["losetup", "--detach", "/dev/" + name])

    def words(self, entry):
        return "losetup --detach what has the file %s" % entry["what"]


class Mount:
    """A mount of our own device; ours are devices."""

    volatile = True

    def look(self, entry):
        here = [words for words in mounted() if words[4] == entry["what"]]
        return here[-1][here[-1].index("-") + 2] if here else None

    def is_ours(self, entry, now):
        return entry["before"] is None and now in entry["ours"]

    def restore(self, entry, now):
        run(["umount", entry["what"]])

    def words(self, entry):
        return "umount %s" % entry["what"]


class Domain:
    """A domain of libvirt's: ours by its UUID."""

    volatile = False

    def _virsh(self, *argv):
        return status_of(["virsh", "-q", "-c", "qemu:///system", *argv])

    def look(self, entry):
        status, out, err = self._virsh("domuuid", matching(entry["what"], r"[\w.+-]+"))
        if status and "failed to get domain" not in err and "Domain not found" not in err:
            raise RefusedError(
                "libvirt does not say whether there is a domain %s: %s" % (entry["what"], " ".join(err.split()))
            )
        return None if status else out.strip()

    def is_ours(self, entry, now):
        return entry["before"] is None and now in entry["ours"]

    def restore(self, entry, now):
        self._virsh("destroy", now)
        # One that was never defined is gone with that.
        self._virsh("undefine", now)
        self._virsh("undefine", now, "--nvram")

    def words(self, entry):
        return "virsh destroy %s" % entry["what"]


class Firewall:
    """A rule with our comment: 'iptables CHAIN ...' as -A takes it, 'nft FAMILY TABLE CHAIN COMMENT', or 'firewalld
    ZONE RICH RULE' of the runtime.
    """

    volatile = False

    def _argv(self, entry, does):
        tool, first, rest = entry["what"].split(" ", 2)
        if tool in ("iptables", "ip6tables"):
            return [tool, "-w", {"look": "-C", "undo": "-D"}[does], first, *rest.split()]
        if tool == "firewalld":
            option = {"look": "--query-rich-rule", "undo": "--remove-rich-rule"}[does]
            return ["firewall-cmd", "--zone=" + first, option, rest]
        if tool != "nft":
            raise RefusedError("there is no firewall '%s'" % tool)
        chain, _, comment = (first + " " + rest).rpartition(" ")
        listed = run(["nft", "-a", "list", "chain", *chain.split()], ok=()) or ""
        rules = re.findall(r'comment "%s".* # handle (\d+)$' % re.escape(comment), listed, re.MULTILINE)
        return ["nft", "delete", "rule", *chain.split(), "handle", rules[0]] if rules else []

    def look(self, entry):
        argv = self._argv(entry, "look")
        if entry["what"].startswith("nft "):
            return "there" if argv else None
        return "there" if run(argv, ok=()) is not None else None

    def is_ours(self, entry, now):
        return entry["before"] is None

    def restore(self, entry, now):
        run(self._argv(entry, "undo"))

    def words(self, entry):
        return "the firewall without the rule %s" % entry["what"]
