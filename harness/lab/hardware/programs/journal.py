"""The journal of a machine: what is about to be changed there, how it was before, and putting it back.

Runs on the machine behind ``journal_values.py`` and ``journal_made.py``, from standard input, with the Python that is
there (3.6 is enough) and as root; only ``harness/lab/hardware/journal.py`` starts it.  Its one argument is JSON:
``act`` (``note``, ``list``, ``put-back``, ``drop``, ``end-commands``), ``folder`` and ``lab``.  An entry is a file, on
the disk before its change is made and gone after that was put back.  What somebody else changed since stays, and its
entry goes to ``left``.  It prints JSON; status 1 and a sentence where nothing is changed.
"""

import fcntl
import glob
import json
import os
import signal
import stat
import sys
import time

KINDS = {
    "file": File(), "directory": Directory(), "programs": Programs(), "module": Module(),
    "module-parameter": Parameter(), "sysctl": Parameter(), "nic-feature": NicFeature(), "qdisc": Qdisc(),
    "resource": Resource(), "mapping": Mapping(), "loop": Loop(), "mount": Mount(), "domain": Domain(),
    "firewall": Firewall(),
}  # fmt: skip
# What only the guard takes back.
STORAGE = "storage"
# What nothing else rests on: put back also where something else cannot be.
INDEPENDENT = ("module-parameter", "sysctl", "nic-feature", "qdisc", "firewall")
# What is made has to be new; what is changed has to be there.
MADE = ("resource", "mapping", "loop", "mount", "domain", "directory", "module", "programs", "firewall")
CHANGED = ("module-parameter", "sysctl", "nic-feature", "qdisc")


# ----------------------------------------------------------------------------- the journal


class Book:
    def __init__(self, asked):
        self.folder, self.lab, self.holder = asked["folder"] + "/journal", asked["lab"], asked.get("holder", {})
        self.own = asked["folder"]
        self.boot = read("/proc/sys/kernel/random/boot_id")

    def open(self):
        for path in (self.own, self.folder, self.folder + "/left"):
            if not os.path.isdir(path):
                os.makedirs(path, mode=0o700)
                sync_folder(os.path.dirname(path))
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise RefusedError("%s is no directory that only root may write" % path)
        self.lock = open(self.folder + "/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def entries(self):
        """This lab's, in the order in which they were written; what cannot be read is no entry: its change was not made."""
        found = []
        for path in sorted(glob.glob(self.folder + "/[0-9]*.json")):
            try:
                with open(path) as file:
                    entry = json.load(file)
            except ValueError:
                raise RefusedError("%s cannot be read" % path)
            if entry["lab"] == self.lab:
                found.append(dict(entry, number=int(os.path.basename(path)[:-5]), own=self.own))
        return found

    def write(self, entry):
        kept = {name: value for name, value in entry.items() if name not in ("number", "own")}
        text = json.dumps(kept, sort_keys=True)
        write_file("%s/%08d.json" % (self.folder, entry["number"]), text.encode())

    def close(self, entry, left=False):
        name = "%08d.json" % entry["number"]
        if left:
            os.rename(self.folder + "/" + name, "%s/left/%d-%s" % (self.folder, time.time(), name))
            sync_folder(self.folder + "/left")
        else:
            os.unlink(self.folder + "/" + name)
        sync_folder(self.folder)

    def past(self, entry):
        """Whether a boot has undone it."""
        return entry["kind"] != STORAGE and KINDS[entry["kind"]].volatile and entry["boot"] != self.boot

    def note(self, item):
        """Write what is about to be changed; whether it was not written down before."""
        if item["kind"] == "qdisc":
            KINDS["qdisc"].require_reachable(item)
        known = [one for one in self.entries() if (one["kind"], one["what"]) == (item["kind"], item["what"])]
        known = [one for one in known if not self.past(one)]
        if known:
            entry = known[-1]
            new = [one for one in item["ours"] if one not in entry["ours"]]
            if new:
                entry["ours"] += new
                self.write(entry)
            return bool(new)
        kind, what = item["kind"], item["what"]
        entry = dict(item, own=self.own, lab=self.lab, holder=self.holder, boot=self.boot, at=int(time.time()))
        entry["before"] = None if kind == STORAGE else KINDS[kind].look(entry)
        if entry["before"] == NOT_PLAIN:
            raise RefusedError("%s is %s" % (what, NOT_PLAIN))
        if kind in CHANGED and entry["before"] is None:
            raise RefusedError("there is no %s" % what)
        if kind == "qdisc" and entry["before"] != "default":
            raise RefusedError("%s has a qdisc of somebody's already" % what)
        if kind in MADE and entry["before"] is not None:
            if kind in ("directory", "module", "programs"):
                return False
            raise RefusedError("there is a %s %s already, of somebody's" % (kind, what))
        taken = [int(os.path.basename(path)[:-5]) for path in glob.glob(self.folder + "/[0-9]*.json")]
        entry["number"] = max(taken or [0]) + 1
        entry["how"] = "the guard" if kind == STORAGE else KINDS[kind].words(entry)
        self.write(entry)
        return True

    def put_back(self, entry):
        """One change; (what became of it, a sentence)."""
        kind, what = KINDS[entry["kind"]], entry["what"]
        if self.past(entry):
            self.close(entry)
            return "done", "%s %s: a boot has undone it" % (entry["kind"], what)
        try:
            now = kind.look(entry)
            if now is None and entry["before"] is not None and entry["kind"] != "file":
                self.close(entry)
                return "done", "%s %s: it is gone" % (entry["kind"], what)
            if now == entry["before"]:
                self.close(entry)
                return "done", "%s %s: it is as it was" % (entry["kind"], what)
            if not kind.is_ours(entry, now):
                raise LeftError("%s %s stays: somebody else has changed it since" % (entry["kind"], what))
            kind.restore(entry, now)
            if kind.look(entry) != entry["before"]:
                raise RefusedError("it is not as it was")
            self.close(entry)
            return "done", "%s %s: put back" % (entry["kind"], what)
        except LeftError as why:
            self.close(entry, left=True)
            return "left", str(why)
        except (RefusedError, OSError, ValueError, LookupError) as why:
            why = os.strerror(why.errno) if isinstance(why, OSError) and why.errno else str(why)
            return "failed", "%s %s cannot be put back: %s" % (entry["kind"], what, why)


def end_commands(lab):
    """End what the commands of an earlier run of the lab are still doing; those that did not end."""
    mine, process = set(), os.getpid()
    while process > 1:
        mine.add(process)
        process = int(read("/proc/%d/stat" % process).rpartition(")")[2].split()[1])
    mark = ("DRBD_HARNESS_LAB=" + lab).encode()

    def found():
        for path in glob.glob("/proc/[0-9]*/environ"):
            number = int(path.split("/")[2])
            try:
                with open(path, "rb") as file:
                    marked = mark in file.read().split(b"\0")
            except OSError:
                continue
            if marked and number not in mine and read("/proc/%d/comm" % number) == "timeout":
                yield number

    for sent in (signal.SIGTERM, signal.SIGKILL):
        for number in found():
            try:
                os.killpg(number, sent)
            except OSError:
                pass
        end = time.time() + 5
        while time.time() < end and list(found()):
            time.sleep(0.1)
    return ["process %d of an earlier run does not end" % number for number in found()]


def main():
    asked = json.loads(sys.argv[1])
    book, act = Book(asked), asked["act"]
    if act == "list":
        print(json.dumps({"entries": book.entries(), "boot": book.boot}))
        return
    if act == "end-commands":
        print(json.dumps({"failed": end_commands(book.lab)}))
        return
    book.open()
    if act == "note":
        print(json.dumps({"noted": [book.note(item) for item in asked["items"]]}))
        return
    skipped = asked.get("skip", [])
    if act == "drop":
        for entry in book.entries():
            if entry["number"] == asked["number"]:
                book.close(entry)
        print("{}")
        return
    said = {"done": [], "left": [], "failed": [], "waiting": [], "tried": [], "storage": None}
    stuck = asked.get("stuck", False)
    for entry in reversed(book.entries()):
        if entry["number"] in skipped:
            continue
        if stuck and entry["kind"] not in INDEPENDENT:
            # What was made later may need it: a resource its file, by which it is known, a loop device its file.
            said["waiting"].append("%s %s" % (entry["kind"], entry["what"]))
            continue
        if entry["kind"] == STORAGE:
            said["storage"] = {"number": entry["number"], "what": entry["what"]}
            break
        became, sentence = book.put_back(entry)
        said[became].append(sentence)
        stuck |= became == "failed" and entry["kind"] not in INDEPENDENT
        said["tried"].append(entry["number"])
    print(json.dumps(said))


try:
    main()
except RefusedError as why:
    sys.stderr.write("%s\n" % why)
    sys.exit(1)
