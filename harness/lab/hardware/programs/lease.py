"""The lease of a machine: one file of root's that says which harness uses it, and until when by the machine's clock.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument
is JSON: ``act`` (``take``, ``renew``, ``give``, ``show``, ``break``), ``folder``, and for all but ``show`` the
``holder``, of which ``id`` tells two apart.  A ``take`` may have ``over``, the ``id`` of a holder that is known to have
ended: what he held is taken from him, and kept as one that was broken.  It prints the lease that holds now as JSON, ``{}`` for none; status 4 where
somebody else holds it, or nobody the one that is to be renewed.
"""

import fcntl
import json
import os
import sys
import time


def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write(path, lease):
    unfinished = "%s.%d" % (path, os.getpid())
    with open(unfinished, "w") as file:
        json.dump(lease, file, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)


def holds(lease, boot):
    """Whether somebody holds it: not beyond its end, and not over a boot, which ends all that used the machine."""
    return bool(lease) and lease.get("until", 0) > time.time() and lease.get("boot") == boot


def main():
    asked = json.loads(sys.argv[1])
    act, folder, holder = asked["act"], asked["folder"], asked.get("holder", {})
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    path = folder + "/lease.json"
    # Others may pass through the folder, to the image of a guest.
    os.umask(0o077)
    if act == "show":
        lease = read(path)
        print(json.dumps(lease if holds(lease, boot) else {}))
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with open(folder + "/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lease = read(path)
        if not holds(lease, boot):
            lease = {}
        over = act == "take" and "over" in asked and lease.get("id") == asked["over"]
        if act == "break" or over:
            with open(folder + "/leases.log", "a") as log:
                entry = {"at": int(time.time()), "broken": lease, "by": holder}
                if over:
                    entry["why"] = "its process has ended"
                log.write(json.dumps(entry, sort_keys=True) + "\n")
                log.flush()
                os.fsync(log.fileno())
        elif lease and lease.get("id") != holder["id"]:
            print(json.dumps(lease))
            sys.exit(4)
        elif act == "renew" and not lease:
            print("{}")
            sys.exit(4)
        if act in ("take", "renew"):
            lease = dict(holder, boot=boot, until=int(time.time()) + asked["seconds"])
            write(path, lease)
        else:
            if os.path.exists(path):
                os.unlink(path)
            lease = {}
    print(json.dumps(lease))


main()
