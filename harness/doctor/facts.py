"""Gathering the facts of this machine: the only part of the doctor that touches it."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shutil
import sys
from contextlib import closing
from pathlib import Path

from harness.doctor import cpu_weight, kvm_access, packages, session
from harness.doctor.facts_model import Answer, Facts, Place
from harness.errors import HarnessError, InfrastructureError
from harness.images import DEFAULT_SUITE, ROLES, Image, current_digests, list_images
from harness.lab.nested import accel
from harness.lab.nested.accel import Accelerator
from harness.lab.nested.libvirt_daemon import SESSION, SYSTEM, DaemonDownError, default_uri, ensure_libvirt
from harness.remote.local import LocalRunner
from harness.util import subids
from harness.util.paths import cache_dir, state_dir

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
GIB = 1 << 30


def gather(*, fresh: bool = False, suite: str = DEFAULT_SUITE) -> Facts:
    """Look at everything once; takes seconds, most of them in the accelerator's probe."""
    images = _images(suite)
    accelerator, error = _accelerator(images, fresh=fresh)
    account = kvm_access.qemu_account() if default_uri() == SYSTEM and os.geteuid() == 0 else None
    return Facts(
        python=sys.version_info[:3],
        machine=platform.machine(),
        root=os.geteuid() == 0,
        user=_user(),
        family=packages.this_family(),
        missing=tuple(need for need in packages.needs() if not packages.is_there(need)),
        qemu=_qemu(),
        libvirt=_libvirt(),
        accelerator=accelerator,
        accelerator_error=error,
        kvm=kvm_access.look(account),
        kvm_vendor=_kvm_vendor(),
        cache=_place(cache_dir(), account),
        state=_place(state_dir(), account),
        memory_gib=memory_gib(),
        cpus=len(os.sched_getaffinity(0)),
        namespaces=_namespaces(),
        keys=keys_in(KEYRING.read_bytes()) if KEYRING.is_file() else frozenset(),
        suite=suite,
        images=frozenset(images),
        images_wanted=frozenset(ROLES),
        # A libvirt of one's own puts nothing into groups.
        sessions_weigh_as_much=default_uri() == SYSTEM and cpu_weight.sessions_weigh_as_much(),
    )


def keys_in(keyring: bytes) -> frozenset[str]:
    """The Debian suites whose archive keys are in a keyring, by the keys' own names."""
    names = re.findall(rb"Debian Archive Automatic Signing Key \(\d+/([a-z]+)\)", keyring)
    return frozenset(name.decode() for name in names)


def memory_gib(meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that could be had, in GiB: the kernel's estimate, or less where a control group allows less."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    available = int(found.group(1)) * 1024 if found else 0
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        available = min(available, int(limit) - int(used))
    except (OSError, ValueError):
        pass
    return max(available, 0) / GIB


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _qemu() -> Answer:
    try:
        return Answer(accel.qemu_version(accel.find_qemu()), True)
    except HarnessError as error:
        return Answer(str(error), False)


def _libvirt() -> Answer:
    if default_uri() == SESSION and (why := session.why_too_long(session.monitor_socket())):
        return Answer(why, False, session.remedy(_user()))
    try:
        with ensure_libvirt() as libvirt, closing(libvirt.open()) as connection:
            number = connection.getLibVersion()
            started = ", ".join(one.daemon.name for one in libvirt.started)
    except DaemonDownError as error:
        return Answer(str(error), False, error.remedy)
    except (HarnessError, OSError) as error:
        return Answer(str(error), False)
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    return Answer(f"{version} at {libvirt.uri}" + (f", {started} started as needed" if started else ""), True)


def _images(suite: str) -> dict[str, Image]:
    """The newest image of each role that is as today's recipes want it."""
    try:
        wanted = current_digests({suite})
        return {image.role: image for image in reversed(list_images(cache_dir())) if image.digest in wanted}
    except (HarnessError, OSError):
        return {}


def _accelerator(images: dict[str, Image], *, fresh: bool) -> tuple[Accelerator | None, str]:
    image = images.get("guest") or images.get("node")
    kernel, initrd = (image.kernel, image.initrd) if image else (None, None)
    try:
        return accel.probe(kernel, initrd, cache_dir(), fresh=fresh), ""
    except (HarnessError, OSError) as error:
        return None, str(error)


def _kvm_vendor() -> str:
    return next((vendor for vendor in ("intel", "amd") if Path(f"/sys/module/kvm_{vendor}").exists()), "")


def _place(path: Path, account: str | None) -> Place:
    """The free space is that of the nearest directory that exists."""
    existing = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free / GIB
    if account is None:
        return Place(path, free)
    closed = kvm_access.first_closed(path, lambda parent: kvm_access.run_as(account, ["test", "-x", str(parent)]))
    return Place(path, free, closed)


def _namespaces() -> Answer:
    """Whether an ordinary user may build images: a range of ids, and a kernel that lets him use it."""
    if os.geteuid() == 0:
        return Answer("root needs none", True)
    if lacking := subids.without_range({_user(), str(os.getuid())}):
        return Answer(f"{lacking} gives {_user()} no range of ids", False, subids.command_for_range(_user()))
    try:
        argv = ["unshare", "--user", "--map-root-user", "true"]
        tried = LocalRunner().run(argv, timeout=20, ok=())
    except InfrastructureError as error:
        return Answer(str(error), False)
    if tried.status:
        said = tried.stderr.strip() or f"unshare ended with status {tried.status}"
        return Answer(f"the kernel refuses them: {said}", False, subids.command_for_kernel())
    return Answer("the kernel allows them", True)
