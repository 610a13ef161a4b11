# In front of this stands a line BINARY = '...', the program ``witness`` in base64: nothing of it is written to a disk.
"""Runs the program ``witness`` for some seconds and prints what it printed, as one JSON object.

Runs on the machine, from standard input, with the Python that is there (3.6 is enough) and as root.  Its one argument
is JSON: ``minor`` and ``seconds``.  It prints ``start`` (its first line), ``report`` (its last) and ``errors``.
"""

import base64
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

ENDING_SECONDS = 60


def in_memory(data):
    """A descriptor of a file that is in no directory."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("witness", 0)
    else:
        descriptor = ctypes.CDLL(None, use_errno=True).memfd_create(b"witness", 0)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def main():
    asked = json.loads(sys.argv[1])
    descriptor = in_memory(base64.b64decode(BINARY))  # noqa: F821
    # It ends with its standard input too, so that it does not outlive this program.
    ran = subprocess.Popen(
        ["/proc/self/fd/%d" % descriptor, "--minor", str(asked["minor"])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[descriptor],
    )  # fmt: skip
    errors = []
    drain = threading.Thread(target=lambda: errors.append(ran.stderr.read()))
    drain.start()
    start = ran.stdout.readline().decode(errors="replace").strip()
    report = ""
    if start.startswith("ready"):
        time.sleep(asked["seconds"])
        ran.send_signal(signal.SIGTERM)
        killer = threading.Timer(ENDING_SECONDS, ran.kill)
        killer.start()
        report = ran.stdout.read().decode(errors="replace").strip()
        killer.cancel()
    ran.stdin.close()
    ran.wait()
    drain.join()
    print(json.dumps({"start": start, "report": report, "errors": errors[0].decode(errors="replace").strip()}))


main()
