"""Building one image: mmdebstrap makes a tar, the tar becomes a filesystem, kernel and initrd are taken out of it.

The same steps for root and for an ordinary user; the latter needs user namespaces.  Everything happens in a
temporary directory beside the result, which one rename makes visible.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from harness.images import archive, recipe
from harness.images.recipe import ImageError, Recipe

MANIFEST_SCHEMA = 1
MIRROR_VARIABLE = "DRBD_HARNESS_MIRROR"
PROGRESS_SECONDS = 1.0
LOG_LINES = 5

# Measured once with room to spare, in MiB: the installed system while it is made, and tar plus image.
_SCRATCH_MIB = {"node": 2200, "guest": 1100}
_CACHE_MIB = {"node": 1800, "guest": 900}

_PACKAGES_OF_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "genext2fs": "genext2fs",
    "gcc": "gcc libc6-dev",
    "setpriv": "util-linux",
    "newuidmap": "uidmap",
}

Progress = Callable[[str], None]


class StoppedError(ImageError):
    """This build was given up because another one failed or the user interrupted."""


@dataclass(frozen=True)
class Step:
    """How a build says what it is doing, with the seconds since it began, and learns that it has to stop."""

    name: str
    progress: Progress
    began: float
    stop: Event

    def say(self, what: str) -> None:
        """One line of progress; raises :class:`StoppedError` if the build was asked to stop."""
        if self.stop.is_set():
            raise StoppedError(f"{self.name}: stopped")
        self.progress(f"{self.name}: {what} ({time.monotonic() - self.began:.0f} s)")


def into(
    target: Path, wanted: Recipe, digest: str, directory: Path, log: Path, progress: Progress, stop: Event
) -> None:
    """Build ``wanted`` (whose digest is ``digest``) so that ``target`` appears, complete, in one rename.

    ``directory`` holds the recipes; ``log`` is where mmdebstrap's output goes.  Raises :class:`ImageError`; then, and
    on an interrupt, nothing is left but the log.
    """
    step = Step(f"{wanted.role} image, {wanted.suite}", progress, time.monotonic(), stop)
    check_tools(wanted)
    check_space(target.parent, wanted.role)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _make(work, wanted, digest, directory, log, step)
        work.chmod(0o755)
        _sync(work)
        if target.exists():
            remove_image(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    step.say("done")


def remove_image(directory: Path) -> None:
    """Make the image ``directory`` disappear at once, and then remove it."""
    grave = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    directory.rename(grave / directory.name)
    shutil.rmtree(grave, ignore_errors=True)


def check_tools(wanted: Recipe) -> None:
    """Raises :class:`ImageError` that names what to install, or what the kernel forbids, before any work."""
    tools = ["mmdebstrap", "genext2fs", "gcc", "setpriv"] + (["newuidmap"] if os.geteuid() else [])
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(_PACKAGES_OF_TOOLS[tool] for tool in missing)
        raise ImageError(
            f"building the {wanted.role} image needs {', '.join(missing)}: install with 'apt-get install {packages}'"
        )
    if os.geteuid() and (reason := _no_user_namespace()):
        raise ImageError(f"an ordinary user cannot build images here: {reason}; or build them once as root")


def check_space(cache: Path, role: str) -> None:
    """Raises :class:`ImageError` if the cache or the temporary directory has too little room for a ``role`` image."""
    scratch = Path(os.environ.get("TMPDIR", "/tmp"))
    needs: dict[int, tuple[Path, int]] = {}
    for place, mib in ((cache, _CACHE_MIB[role]), (scratch, _SCRATCH_MIB[role])):
        device = place.stat().st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + mib)
    for place, mib in needs.values():
        free = shutil.disk_usage(place).free >> 20
        if free < mib:
            raise ImageError(f"building the {role} image needs {mib} MiB free in {place}, and only {free} MiB are")


def _make(work: Path, wanted: Recipe, digest: str, directory: Path, log: Path, step: Step) -> None:
    parts = work / "parts"
    parts.mkdir()
    step.say("compiling the programs")
    binaries = {name: _compile(recipe.source_path(name, directory), parts) for name in recipe.sources(wanted)}
    overlay, tar = parts / "overlay.tar", parts / "root.tar"
    programs = {path: binaries[source] for path, source in wanted.programs}
    archive.pack(overlay, recipe.entries(wanted, directory), programs)

    _run(mmdebstrap_argv(wanted, overlay, parts, tar, os.environ.get(MIRROR_VARIABLE)), log, step)

    step.say("reading what was installed")
    version, kernel = archive.find_kernel(parts / "boot")
    kernel.rename(work / "vmlinuz")
    contents = archive.read(tar, version, wanted.initrd_modules)
    (work / "initrd.img").write_bytes(archive.initrd(binaries["initrd.c"].read_bytes(), contents.modules))
    blocks, inodes = archive.filesystem_size(contents, wanted.free_mib)
    image = work / "root.img"
    options = ["-B", str(archive.BLOCK_BYTES), "-b", str(blocks), "-N", str(inodes), "-m", "0", "-z", "-L", "root"]
    _run(["genext2fs", *options, "-a", str(tar), str(image)], log, step, "making the filesystem")

    manifest = {
        "schema": MANIFEST_SCHEMA,
        "role": wanted.role,
        "suite": wanted.suite,
        "digest": digest,
        "kernel": contents.kernel_version,
        "kernel_args": list(wanted.kernel_args),
        "packages": contents.packages,
        "recipe": wanted.as_dict(),
        "root_bytes": image.stat().st_size,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "build_seconds": round(time.monotonic() - step.began, 1),
        "built_as": "root" if os.geteuid() == 0 else "user",
        "tools": {tool: _version(tool) for tool in ("mmdebstrap", "genext2fs", "gcc")},
    }
    (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(log, work / "build.log")
    shutil.rmtree(parts)
    for path in work.iterdir():
        path.chmod(0o644)


def mmdebstrap_argv(wanted: Recipe, overlay: Path, parts: Path, tar: Path, mirror: str | None) -> list[str]:
    """The mmdebstrap command that makes ``tar`` of ``wanted``.

    The files of the tar ``overlay`` go in; what is in ``/boot`` comes out, into ``parts``.
    """
    argv = [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=apt",
        "--format=tar",
        f"--components={','.join(wanted.components)}",
        f"--include={','.join(wanted.packages)}",
        "--aptopt=APT::Install-Recommends false",
        "--aptopt=Acquire::Languages none",
        "--aptopt=Acquire::Retries 3",
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=force-confold",
        *(f"--dpkgopt=path-exclude={path}" for path in wanted.exclude),
        f"--customize-hook=tar-in {shlex.quote(str(overlay))} /",
    ]
    # Services first, so that a recipe's own commands have the last word.
    for verb, units in (("enable", wanted.enable), ("disable", wanted.disable)):
        if units:
            argv.append(_in_chroot(f"systemctl {verb} {shlex.join(units)}"))
    if wanted.mask:
        links = f"for unit in {shlex.join(wanted.mask)}; do ln -sfn /dev/null /etc/systemd/system/$unit; done"
        argv.append(_in_chroot(links))
    if wanted.keep_modules:
        argv.append(_in_chroot(f"exec /usr/lib/drbd-harness/slim-modules {shlex.join(wanted.keep_modules)}"))
    argv += [_in_chroot(command) for command in wanted.commands]
    argv += [f"--customize-hook=copy-out /boot {shlex.quote(str(parts))}", _in_chroot("rm -rf /boot/*")]
    return [*argv, wanted.suite, str(tar), *([mirror] if mirror else [])]


def _in_chroot(command: str) -> str:
    return f'--customize-hook=chroot "$1" sh -e -c {shlex.quote(command)}'


def _compile(source: Path, directory: Path) -> Path:
    binary = directory / source.stem
    argv = ["gcc", "-O2", "-Wall", "-static", "-pthread", "-o", str(binary), str(source)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise ImageError(f"gcc could not build {source.name} as a static program (libc6-dev is needed): {said}")
    return binary


def _run(argv: Sequence[str], log: Path, step: Step, phase: str = "starting mmdebstrap") -> None:
    """Run ``argv`` with its output appended to ``log``; each new ``I:`` line of it is a phase for ``progress``."""
    # INITRD=No: the kernel packages' hook makes no initrd, this project makes its own.
    environment = os.environ | {"INITRD": "No", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            # The child is told to end if this process is killed without a chance to tell it itself.
            ["setpriv", "--pdeathsig", "TERM", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        while True:
            try:
                status = process.wait(PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                phase = _last_phase(log, start) or phase
                step.say(phase)
    except BaseException:
        _end(process)
        raise
    if status:
        tail = " / ".join(_lines(log, start)[-LOG_LINES:]) or "no output"
        raise ImageError(f"{argv[0]} ended with status {status} (whole log: {log}): {tail}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and what it started, leaving it time to clean up after itself."""
    for number, seconds in ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]


def _last_phase(log: Path, start: int) -> str | None:
    phases = [line.removeprefix("I: ").rstrip(".") for line in _lines(log, start) if line.startswith("I: ")]
    return phases[-1] if phases else None


def _no_user_namespace() -> str | None:
    """Why mmdebstrap could not unshare, with what to do about it; None if it can."""
    user = _user_name()
    for name in ("/etc/subuid", "/etc/subgid"):
        try:
            known = any(line.split(":")[0] in (user, str(os.getuid())) for line in Path(name).read_text().splitlines())
        except OSError:
            known = False
        if not known:
            cure = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            return f"{name} gives {user} no range of ids (as root: {cure})"
    argv = ["unshare", "--user", "--map-auto", "--map-root-user", "true"]
    probe = subprocess.run(argv, capture_output=True, text=True, check=False)
    if probe.returncode:
        settings = "user.max_user_namespaces, kernel.*unprivileged_userns*"
        return f"the kernel refuses user namespaces ({probe.stderr.strip()}; look at sysctl {settings})"
    return None


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _version(tool: str) -> str:
    result = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr).strip().splitlines()[0]


def _sync(directory: Path) -> None:
    for path in [*directory.iterdir(), directory]:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
