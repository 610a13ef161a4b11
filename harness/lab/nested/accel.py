"""Which accelerator really works here: found out by booting something, because ``/dev/kvm`` alone proves nothing.

Two stages, each a QEMU that has to write a sentinel to its serial line: a boot sector of our own (a second,
needs nothing) and an ordinary kernel (as soon as one is known).  Hardware KVM is used where both come through and its
module lets a node have KVM of its own, emulation otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.lab.nested.boot_probe_images import KERNEL_SENTINEL, SECTOR_SENTINEL, boot_sector, tiny_initramfs
from harness.remote.local import LocalRunner
from harness.util import logs
from harness.util.paths import make
from harness.util.process_identity import boot_id

Kind = Literal["kvm", "tcg"]

OVERRIDE = "DRBD_HARNESS_ACCEL"
DEV_KVM = Path("/dev/kvm")
SECTOR_SECONDS = 15.0
SLOW_SECONDS = 120.0
"""What is slow is not broken: emulation on a busy machine gets at least this long to reach the kernel's sentinel, and
KVM on a virtual machine, too, as long as the kernel goes on printing."""


@dataclass(frozen=True)
class Accelerator:
    """What QEMU can use here; ``nested`` says whether a node can itself run KVM guests with it.

    ``kvm_lacks_nesting``: KVM boots here, and emulation is used only because it does not nest.
    """

    kind: Kind
    nested: bool
    why: str
    seconds: float
    kvm_lacks_nesting: bool = False


@dataclass(frozen=True)
class Boot:
    """One QEMU that was asked to boot: whether its sentinel came, after how many s, and its last output otherwise."""

    came_up: bool
    seconds: float
    last_output: str


@dataclass(frozen=True)
class Subject:
    """What is booted in the second stage: a kernel, and an initial file system or None for a made-up one."""

    kernel: Path
    initrd: Path | None = None


def probe(
    kernel: Path | None,
    initrd: Path | None,
    cache: Path,
    deadline_seconds: float = 30,
    *,
    fresh: bool = False,
) -> Accelerator:
    """The accelerator to use, from the cache where nothing it depends on has changed.

    ``DRBD_HARNESS_ACCEL=kvm|tcg`` overrides the choice; what the forced one can do is still looked at.
    """
    qemu = find_qemu()
    forced = forced_kind()
    subject = Subject(kernel, initrd) if kernel else host_kernel()
    key = cache_key(qemu, forced, subject)
    store = cache / "probe.json"
    if not fresh and (known := _recall(store, key)):
        return known
    found = _probe(qemu, forced, subject, deadline_seconds)
    _remember(store, key, found)
    return found


def likely(cache: Path) -> Kind:
    """What :func:`probe` will likely find, without booting: what was asked for or found last, or by /dev/kvm."""
    if forced := forced_kind():
        return forced
    try:
        known = json.loads((cache / "probe.json").read_text())["accelerator"]["kind"]
        return "kvm" if known == "kvm" else "tcg"
    except (OSError, ValueError, KeyError, TypeError):
        return "kvm" if os.access(DEV_KVM, os.R_OK | os.W_OK) else "tcg"


def find_qemu() -> Path:
    """QEMU's system emulator for x86-64, under the names and in the places that distributions give it."""
    path = os.environ.get("PATH", "") + ":/usr/bin:/usr/local/bin:/usr/libexec"
    for name in ("qemu-system-x86_64", "qemu-kvm"):
        if found := shutil.which(name, path=path):
            return Path(found)
    raise HarnessError("QEMU for x86-64 (qemu-system-x86_64) is not installed")


def qemu_version(qemu: Path) -> str:
    """QEMU's own version, as ``7.2.22``."""
    try:
        output = LocalRunner().run([str(qemu), "--version"], timeout=20).stdout
    except InfrastructureError as error:
        raise InfrastructureError(f"'{qemu} --version' does not work: {error}") from error
    found = re.search(r"version (\d+(?:\.\d+)+)", output)
    return found.group(1) if found else output.strip()


def forced_kind() -> Kind | None:
    """The accelerator that the environment asks for, if any."""
    match os.environ.get(OVERRIDE, ""):
        case "":
            return None
        case "kvm":
            return "kvm"
        case "tcg":
            return "tcg"
        case other:
            raise UsageError(f"{OVERRIDE} is 'kvm' or 'tcg', not '{other}'")


def host_kernel(boot: Path = Path("/boot")) -> Subject | None:
    """A kernel of this machine that this user may read, the newest; good enough while there are no images."""
    readable = [path for path in boot.glob("vmlinuz-*") if path.is_file() and os.access(path, os.R_OK)]
    return Subject(max(readable, key=lambda path: path.stat().st_mtime)) if readable else None


def kvm_is_nested(parameters: Sequence[Path] | None = None) -> bool:
    """Whether this machine's KVM module lets guests have KVM."""
    files = parameters or [Path(f"/sys/module/kvm_{vendor}/parameters/nested") for vendor in ("intel", "amd")]
    return any(file.read_text().strip() in {"Y", "1"} for file in files if file.exists())


# --------------------------------------------------------------------------- the probe itself


def _probe(qemu: Path, forced: Kind | None, subject: Subject | None, seconds: float) -> Accelerator:
    started = time.monotonic()
    partial = "" if subject else "; only a boot sector was tried, the full probe follows when images exist"

    def answer(kind: Kind, nested: bool, why: str) -> Accelerator:
        return Accelerator(kind, nested, why, round(time.monotonic() - started, 1))

    why_not, lacks_nesting = "", False
    if forced != "tcg":
        why_not, nested = _why_not_kvm(qemu, subject, seconds), kvm_is_nested()
        if not why_not and (nested or forced):
            return answer("kvm", nested, f"KVM booted {_named(subject)}{partial}")
        if forced == "kvm":
            return answer("kvm", nested, f"forced by {OVERRIDE}, although {why_not}")
        if not why_not:
            why_not, lacks_nesting = f"KVM boots {_named(subject)}, but gives a node no KVM for its guests", True
    reason = f"forced by {OVERRIDE}" if forced else why_not
    for cpu, nested in (("max,svm=on", True), ("max", False)):
        boot = _boot_all(qemu, ["-accel", "tcg", "-cpu", cpu], subject, max(seconds, SLOW_SECONDS))
        if boot.came_up:
            found = answer("tcg", nested, f"{reason}; emulation booted {_named(subject)}{partial}")
            return replace(found, kvm_lacks_nesting=lacks_nesting)
    raise InfrastructureError(f"QEMU boots nothing here, not even with emulation: {boot.last_output}")


def _why_not_kvm(qemu: Path, subject: Subject | None, seconds: float) -> str:
    """Why KVM is of no use here; empty when it is."""
    if not DEV_KVM.exists():
        return f"there is no {DEV_KVM}"
    if not os.access(DEV_KVM, os.R_OK | os.W_OK):
        return f"this user may not open {DEV_KVM}"
    boot = _boot_all(qemu, ["-accel", "kvm", "-cpu", "host"], subject, seconds)
    return "" if boot.came_up else f"KVM does not boot: {boot.last_output}"


def _boot_all(qemu: Path, accelerator: Sequence[str], subject: Subject | None, seconds: float) -> Boot:
    """Boot the sector, then the kernel where there is one; the first that fails is the answer."""
    with tempfile.TemporaryDirectory(prefix="drbd-harness-probe-") as name:
        scratch = Path(name)
        disk = scratch / "sector.img"
        disk.write_bytes(boot_sector().ljust(1 << 20, b"\0"))
        drive = f"if=none,id=sector,format=raw,readonly=on,file={disk}"
        first = _boot(
            [str(qemu), *accelerator, "-drive", drive, "-device", "virtio-blk-pci,drive=sector"],
            SECTOR_SENTINEL,
            min(seconds, SECTOR_SECONDS) if "kvm" in accelerator else seconds,
        )
        if not first.came_up or subject is None:
            return first
        initrd = subject.initrd
        if initrd is None:
            initrd = scratch / "initrd"
            initrd.write_bytes(tiny_initramfs())
        append = "console=ttyS0 panic=-1 ignore_loglevel"
        return _boot(
            [str(qemu), *accelerator, "-kernel", str(subject.kernel), "-initrd", str(initrd), "-append", append],
            KERNEL_SENTINEL,
            seconds,
        )


def _boot(argv: Sequence[str], sentinel: bytes, seconds: float) -> Boot:
    """Run QEMU until the sentinel, its end or ``seconds`` without a word from it; it has ended when this returns.

    What goes on printing has :data:`SLOW_SECONDS`.  ``timeout`` ends it even if this process is killed before it can.
    """
    most = max(seconds, SLOW_SECONDS)
    common = ["-machine", "q35", "-m", "512", "-nodefaults", "-no-user-config"]
    common += ["-no-reboot", "-nographic", "-serial", "stdio"]
    guard = ["timeout", "--signal=KILL", f"{most + 5:.0f}"]
    command = [*guard, argv[0], *common, *argv[1:]]
    started = time.monotonic()
    with logs.command(logs.CONTROLLER, command) as logged:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            logged.status = logs.error_name(error)
            return Boot(False, 0.0, str(error))
        try:
            seen, ended = _read_until(process, sentinel, seconds, started + most)
        finally:
            _end(process)
            if process.stdout:
                process.stdout.close()
        logged.status = process.returncode
    took = time.monotonic() - started
    if sentinel in seen:
        return Boot(True, took, "")
    silence = "QEMU ended" if ended else f"nothing more within {seconds:.0f} s"
    if not ended and took >= most:
        silence = f"not done in {most:.0f} s"
    return Boot(False, took, f"{silence}, last output: {last_message(seen)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End QEMU and its guard: politely, so that the guard can bury it, then by force."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    # The guard leaves QEMU alone where it is told to end right after it has started it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_until(process: subprocess.Popen[bytes], sentinel: bytes, quiet: float, at: float) -> tuple[bytes, bool]:
    """What QEMU and its guest wrote, and whether QEMU ended by itself.

    Until the sentinel came, nothing came for ``quiet`` s, or it was time (``at``).
    """
    assert process.stdout is not None
    seen = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while sentinel not in seen and (left := at - time.monotonic()) > 0:
            if not selector.select(min(left, quiet)):
                break
            piece = os.read(process.stdout.fileno(), 65536)
            if not piece:
                return seen, True
            seen += piece
    return seen, False


def last_message(seen: bytes) -> str:
    """The last line with something printable in it, shortened."""
    text = re.sub(r"\x1b(?:[\[(][0-9;?]*)?[A-Za-z]", "", seen.decode("utf-8", "replace"))
    lines = [line.strip() for line in re.sub(r"[^\x20-\x7e\n]", "", text).splitlines() if line.strip()]
    return f"'{lines[-1][:160]}'" if lines else "none at all"


def _named(subject: Subject | None) -> str:
    return f"the kernel {'/'.join(subject.kernel.parts[-2:])}" if subject else "a boot sector"


# --------------------------------------------------------------------------- the cache


def cache_key(qemu: Path, forced: Kind | None, subject: Subject | None) -> str:
    """A digest of everything the answer depends on."""
    parts = {
        "boot": boot_id(),
        "user": os.geteuid(),
        "qemu": [str(qemu), qemu_version(qemu)],
        "kvm": _kvm_identity(),
        "nested": kvm_is_nested(),
        "forced": forced,
        "kernel": _identity(subject.kernel) if subject else None,
        "initrd": _identity(subject.initrd) if subject and subject.initrd else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _recall(store: Path, key: str) -> Accelerator | None:
    try:
        known = json.loads(store.read_text())
        return Accelerator(**known["accelerator"]) if known["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(store: Path, key: str, found: Accelerator) -> None:
    """Keep the answer; a cache that cannot be written costs a probe next time, nothing else."""
    try:
        make(store.parent)
        temporary = store.with_name(f"{store.name}.{os.getpid()}")
        temporary.write_text(json.dumps({"key": key, "accelerator": asdict(found)}, indent=2) + "\n")
        temporary.replace(store)
    except OSError:
        pass


def _kvm_identity() -> list[int] | None:
    try:
        about = DEV_KVM.stat()
    except OSError:
        return None
    return [stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, int(os.access(DEV_KVM, os.R_OK | os.W_OK))]


def _identity(file: Path) -> list[str | int]:
    about = file.stat()
    return [str(file), about.st_size, about.st_mtime_ns]
