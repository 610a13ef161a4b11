"""The guest's image on a machine: which of its files are there whole, and pieces of one that is not.

Runs on the machine with the Python that is there (3.6 is enough) and as root; only
``harness/lab/hardware/guest_image.py`` starts it.  Its one argument is JSON: ``act`` (``look``, ``piece``, ``finish``),
the harness's ``folder`` and the image's ``digest``.  ``look`` prints the SHA-256 of each file that is there, and how
many bytes are free; it writes nothing.  A piece comes by standard input, packed and in base64, and goes to a file of
another name, which ``finish`` gives its own where it is what was meant.  Status 1 and a sentence where that is not so.
"""

import base64
import hashlib
import json
import os
import re
import sys
import zlib

NAMES = ("vmlinuz", "initrd.img", "root.img")
CHUNK = 1048576


class RefusedError(Exception):
    pass


def digest_of(path):
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            whole.update(chunk)
    return whole.hexdigest()


def own_folder(asked):
    """The image's folder.  QEMU, which is not root, has to get through what leads to it, and to see nothing there."""
    path = asked["folder"]
    if not re.match(r"^[0-9a-f]{64}$", asked["digest"]):
        raise RefusedError("'%s' is no digest" % asked["digest"])
    for part in ("", "images", asked["digest"]):
        path = os.path.join(path, part) if part else path
        if not os.path.isdir(path):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
        if os.path.islink(path) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise RefusedError("%s is no directory that only root may write" % path)
        os.chmod(path, 0o711)
    return path


def look(asked):
    folder = os.path.join(asked["folder"], "images", asked["digest"])
    paths = {name: os.path.join(folder, name) for name in NAMES}
    there = asked["folder"]
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    free = os.statvfs(there)
    whole = {name: digest_of(path) for name, path in paths.items() if os.path.isfile(path) and not os.path.islink(path)}
    return {"files": whole, "free": free.f_bavail * free.f_frsize}


def piece(asked):
    path = os.path.join(own_folder(asked), asked["name"] + ".new")
    data = zlib.decompress(base64.b64decode(sys.stdin.buffer.read()))
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if asked["first"] else 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.seek(asked["at"])
        file.write(data)
    return {}


def finish(asked):
    path = os.path.join(own_folder(asked), asked["name"])
    with os.fdopen(os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
        file.truncate(asked["size"])
        os.fsync(file.fileno())
    if digest_of(path + ".new") != asked["sha256"]:
        raise RefusedError("%s did not arrive whole" % asked["name"])
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)
    return {}


def main():
    asked = json.loads(sys.argv[1])
    if asked.get("name", NAMES[0]) not in NAMES:
        raise RefusedError("there is no file '%s' of an image" % asked["name"])
    print(json.dumps({"look": look, "piece": piece, "finish": finish}[asked["act"]](asked)))


try:
    main()
except (RefusedError, OSError, zlib.error) as why:
    sys.stderr.write("%s\n" % why)
    sys.exit(1)
