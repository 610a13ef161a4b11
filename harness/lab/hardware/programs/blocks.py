# In front of this stands a line RUNS = [[first, count], ...], the 4 KiB blocks that are read.
"""Reads some blocks of a block device, past the page cache and some times, and prints digests of what it read.

It opens the device for reading only, and not exclusively.  Runs on the machine, from standard input, with the Python
that is there (3.6 is enough) and as root.  Its one argument is JSON: ``path``, ``readings`` and ``pause`` (seconds
between two).  It prints one JSON object: ``readings``, for each the digests (16 bytes as hex) of all blocks one behind
the other.
"""

import hashlib
import json
import mmap
import os
import sys
import time

BLOCK = 4096
PIECE = 256  # blocks read in one go


def digests(descriptor, runs, buffer):
    found = []
    for first, count in runs:
        for at in range(first, first + count, PIECE):
            blocks = min(PIECE, first + count - at)
            view = memoryview(buffer)[: blocks * BLOCK]
            with os.fdopen(os.dup(descriptor), "rb", 0) as file:
                file.seek(at * BLOCK)
                got = file.readinto(view)
            if got != blocks * BLOCK:
                raise OSError("block %d of it is behind its end" % (at + got // BLOCK))
            for number in range(blocks):
                piece = view[number * BLOCK : (number + 1) * BLOCK]
                found.append(hashlib.blake2b(piece, digest_size=16).hexdigest())
            view.release()
    return "".join(found)


def main():
    asked = json.loads(sys.argv[1])
    descriptor = os.open(asked["path"], os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    buffer = mmap.mmap(-1, PIECE * BLOCK)
    readings = []
    for number in range(asked["readings"]):
        if number:
            time.sleep(asked["pause"])
        readings.append(digests(descriptor, RUNS, buffer))  # noqa: F821
    print(json.dumps({"readings": readings}))


main()
