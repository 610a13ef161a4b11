"""What names and numbers are taken on a machine, printed as one JSON object; it writes nothing.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument
is JSON: with ``domains`` libvirt is asked too.  What it all means is for the harness to say
(``harness/parse/taken.py``); secrets of DRBD's configuration stay where they are.
"""

import glob
import json
import os
import re
import subprocess
import sys

INCLUDE = re.compile(r'^[ \t]*include[ \t]+"?([^";]+)"?[ \t]*;', re.MULTILINE)
SECRET = re.compile(r'(shared-secret[ \t]+)("[^"]*"|[^;\s]+)')


def run(argv):
    """Status, output and errors; status None where it is not there or does not end."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60
        )
    except OSError:
        return {"status": None, "out": "", "err": "not installed"}
    except subprocess.TimeoutExpired:
        return {"status": None, "out": "", "err": "did not end within 60 s"}
    return {
        "status": done.returncode,
        "out": SECRET.sub(r'\1""', done.stdout.decode(errors="replace")),
        "err": done.stderr.decode(errors="replace"),
    }


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(1048576).decode(errors="replace")
    except OSError:
        return ""


def configuration():
    """The files of drbd.conf and all that they include, as drbdadm reads them, and what else lies in its folder."""
    found, todo = {}, ["/etc/drbd.conf", *glob.glob("/etc/drbd.d/*")]
    while todo:
        path = todo.pop()
        if path not in found and os.path.isfile(path):
            found[path] = SECRET.sub(r'\1""', read(path))
            for pattern in INCLUDE.findall(found[path]):
                todo += glob.glob(os.path.join(os.path.dirname(path), pattern.strip()))
    return found


def mappings():
    return {
        read(path).strip(): read(os.path.dirname(path) + "/uuid").strip()
        for path in glob.glob("/sys/block/dm-*/dm/name")
    }


def firewall():
    """The rules for what comes in, as far as the kernel has any: asked without its modules, both programs load them."""
    nothing = {"status": None, "out": "", "err": "not loaded"}
    tables = os.path.exists("/sys/module/nf_tables")
    # Of the two programs of that name, the older one has a table of its own in the kernel.
    older = "filter" in read("/proc/net/ip_tables_names").split()
    asked = tables if "nf_tables" in run(["iptables", "-V"])["out"] else older
    return {
        "iptables": run(["iptables", "-w", "-S", "INPUT"]) if asked else nothing,
        "nft": run(["nft", "list", "ruleset"]) if tables else nothing,
    }


def main():
    asked = json.loads(sys.argv[1])
    # Its daemon may be started by that, and the networks that it has.
    domains = ["virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name"]
    found = {
        # Asked without its module, drbdsetup would load it.
        "drbd": run(["drbdsetup", "show"])["out"] if os.path.exists("/proc/drbd") else "",
        "devices": [os.path.basename(path) for path in glob.glob("/sys/block/drbd*")],
        "files": configuration(),
        "mappings": mappings(),
        "sockets": read("/proc/net/tcp") + read("/proc/net/tcp6"),
        "domains": run(domains) if asked.get("domains") else {"status": None, "out": "", "err": "not asked"},
        "firewalld": run(["firewall-cmd", "--state"]),
    }
    found.update(firewall())
    print(json.dumps(found))


main()
