"""Building one image: mmdebstrap makes a tar, the tar becomes a filesystem, kernel and initrd are taken out of it.

The same steps for root and for an ordinary user; the latter needs user namespaces.  Everything happens in a
temporary directory beside the result, which one rename makes visible.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from harness.config import recipe
from harness.config.recipe import ImageError, Recipe
from harness.images import archive
from harness.images.archive import Contents
from harness.images.process import MIRROR_VARIABLE, STALE_VARIABLE, Step, run
from harness.images.programs import compile_program
from harness.remote.local import LocalRunner
from harness.util import paths, subids

MANIFEST_SCHEMA = 1

# Measured once with room to spare, in MiB: the installed system while it is made, and tar plus image.
_SCRATCH_MIB = {"node": 2200, "guest": 1100, "controller": 4400}
_CACHE_MIB = {"node": 1800, "guest": 900, "controller": 4000}

# Kernels whose packages have the modules packed in another way than with xz, which the image's own script unpacks.
_UNPACK_ZSTD = """for tree in /usr/lib/modules/*/; do
    [ -z "$(find "$tree" -name '*.ko.zst' -print -quit)" ] && continue
    find "$tree" -name '*.ko.zst' -exec zstd -dq --rm {} +
    depmod "$(basename "$tree")"
done"""

_PACKAGES_OF_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "genext2fs": "genext2fs",
    "tune2fs": "e2fsprogs",
    "gcc": "gcc libc6-dev",
    "clang": "clang libbpf-dev",
    "pkg-config": "pkg-config",
    "setpriv": "util-linux",
    "newuidmap": "uidmap",
}


def into(target: Path, wanted: Recipe, digest: str, directory: Path, log: Path, step: Step) -> None:
    """Build ``wanted`` (whose digest is ``digest``) so that ``target`` appears, complete, in one rename.

    ``directory`` holds the recipes; ``log`` is where mmdebstrap's output goes.  Raises :class:`ImageError`; then, and
    on an interrupt, nothing is left but the log.
    """
    check_tools(wanted)
    check_space(target.parent, wanted.role)
    with appearing(target, wanted.role) as work:
        _make(work, wanted, digest, directory, log, step)
    step.report("done")


@contextlib.contextmanager
def appearing(target: Path, role: str) -> Iterator[Path]:
    """A new folder, which becomes ``target`` in one rename where the context ends well, and else is removed."""
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        work.chmod(0o755)
        yield work
        _sync(work)
        if target.exists():
            remove_image(target)
        work.rename(target)
    except OSError as error:
        raise ImageError(f"cannot write the {role} image in {target.parent}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def remove_image(directory: Path) -> None:
    """Make the image ``directory`` disappear at once, and then remove it."""
    grave = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    directory.rename(grave / directory.name)
    shutil.rmtree(grave, ignore_errors=True)


def check_tools(wanted: Recipe) -> None:
    """Raises :class:`ImageError` that names what to install, or what the kernel forbids, before any work."""
    tools = ["mmdebstrap", "genext2fs", "tune2fs", "gcc", "setpriv"] + (["newuidmap"] if os.geteuid() else [])
    tools += ["clang", "pkg-config"] if wanted.bpf else []
    missing = [tool for tool in tools if not shutil.which(tool, path=paths.programs())]
    if missing:
        packages = " ".join(_PACKAGES_OF_TOOLS[tool] for tool in missing)
        raise ImageError(
            f"building the {wanted.role} image needs {', '.join(missing)}: "
            f"install with 'apt-get install --no-remove {packages}'"
        )
    if os.geteuid() and (reason := _no_user_namespace()):
        raise ImageError(
            f"an ordinary user cannot build images here: {reason}; or build them once as root and export "
            f"DRBD_HARNESS_CACHE={paths.SYSTEM_CACHE}, where root's are"
        )


def check_space(cache: Path, role: str) -> None:
    """Raises :class:`ImageError` if the cache or the temporary directory has too little room for a ``role`` image."""
    scratch = scratch_directory(cache)
    needs: dict[int, tuple[Path, int]] = {}
    for place, mib in ((cache, _CACHE_MIB[role]), (scratch, _SCRATCH_MIB[role])):
        device = place.stat().st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + mib)
    for place, mib in needs.values():
        free = shutil.disk_usage(place).free >> 20
        if free < mib:
            raise ImageError(f"building the {role} image needs {mib} MiB free in {place}, and only {free} MiB are")


def scratch_directory(own: Path) -> Path:
    """Where mmdebstrap unpacks the system: root's below ``own``; an ordinary user's where ``TMPDIR`` says.

    His namespace's users have to reach it, which they could not below a home; and /tmp is often memory, of which two
    systems would fill gigabytes.
    """
    return own if os.geteuid() == 0 else Path(os.environ.get("TMPDIR") or "/var/tmp")


def make_filesystem(image: Path, tar: Path, contents: Contents, wanted: Recipe, log: Path, step: Step) -> None:
    """Make of ``tar``, which holds ``contents``, the sparse filesystem ``image`` that ``wanted`` describes."""
    blocks, inodes = archive.filesystem_size(contents, wanted.free_mib + wanted.journal_mib)
    options = ["-B", str(archive.BLOCK_BYTES), "-b", str(blocks), "-N", str(inodes), "-m", "0", "-z", "-L", "root"]
    step.report("making the filesystem")
    run(["genext2fs", *options, "-a", str(tar), str(image)], log, step, "making the filesystem")
    if wanted.journal_mib:
        journal = ["tune2fs", "-J", f"size={wanted.journal_mib}", str(image)]
        run(journal, log, step, "giving the filesystem a journal")


def _make(work: Path, wanted: Recipe, digest: str, directory: Path, log: Path, step: Step) -> None:
    parts = work / "parts"
    parts.mkdir()
    step.report("compiling the programs")
    binaries = {
        source: compile_program(
            recipe.source_path(source, directory), parts, recipe.source_path(bpf, directory) if bpf else None
        )
        for source, bpf in recipe.compiled(wanted).items()
    }
    overlay, tar = parts / "overlay.tar", parts / "root.tar"
    programs = {path: binaries[source] for path, source in wanted.programs}
    archive.pack(overlay, recipe.entries(wanted, directory), programs)

    argv = mmdebstrap_argv(wanted, overlay, parts, tar, os.environ.get(MIRROR_VARIABLE))
    run(argv, log, step, "starting mmdebstrap", scratch=scratch_directory(parts))

    step.report("reading what was installed")
    version, kernel = archive.find_kernel(parts / "boot")
    kernel.rename(work / "vmlinuz")
    contents = archive.read(tar, version, wanted.initrd_modules)
    (work / "initrd.img").write_bytes(archive.initrd(binaries["initrd.c"].read_bytes(), contents.modules))
    image = work / "root.img"
    make_filesystem(image, tar, contents, wanted, log, step)

    tools = ["mmdebstrap", "genext2fs", "gcc", *(["clang"] if wanted.bpf else [])]
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
        "tools": {tool: _version(tool) for tool in tools},
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
        *(f"--aptopt={option}" for option in stale_options()),
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=force-confold",
        *(f"--dpkgopt=path-exclude={path}" for path in wanted.exclude),
        *(f"--setup-hook={hook}" for hook in _hooks(wanted.suite)),
        f"--customize-hook=tar-in {shlex.quote(str(overlay))} /",
    ]
    # Services first, so that a recipe's own commands have the last word.
    argv += [in_chroot(command) for command in units(wanted)]
    argv += [in_chroot(command) for command in slimming(wanted)]
    argv += [in_chroot(command) for command in wanted.commands]
    argv += [f"--customize-hook=copy-out /boot {shlex.quote(str(parts))}", in_chroot("rm -rf /boot/*")]
    return [*argv, wanted.suite, str(tar), *([mirror] if mirror else [])]


def units(wanted: Recipe) -> list[str]:
    """What starts, and what does not."""
    commands = [
        f"systemctl {verb} {shlex.join(names)}"
        for verb, names in (("enable", wanted.enable), ("disable", wanted.disable))
        if names
    ]
    if wanted.mask:
        links = f"for unit in {shlex.join(wanted.mask)}; do ln -sfn /dev/null /etc/systemd/system/$unit; done"
        commands.append(links)
    return commands


def slimming(wanted: Recipe) -> list[str]:
    """What leaves only those modules in the image that ``wanted`` names, unpacked."""
    if not wanted.keep_modules:
        return []
    patterns = shlex.join(wanted.keep_modules)
    return [_UNPACK_ZSTD, f"exec /usr/lib/drbd-harness/slim-modules {patterns}"]


def stale_options() -> list[str]:
    """apt's options where the user said that the mirror's lists may have expired."""
    return ['Acquire::Check-Valid-Until "false"'] if os.environ.get(STALE_VARIABLE) else []


def _hooks(suite: str) -> list[str]:
    # Later suites bring this about with a package of their own; here it has to be done before the first one.
    links = 'mkdir -p "$1/usr/$name"; ln -s "usr/$name" "$1/$name"'
    merged = f"for name in bin sbin lib lib32 lib64 libx32; do {links}; done"
    return [merged] if suite == "bullseye" else []


def in_chroot(command: str) -> str:
    """mmdebstrap's option for ``command``, run by a shell in the image."""
    return f'--customize-hook=chroot "$1" sh -e -c {shlex.quote(command)}'


def _no_user_namespace() -> str | None:
    """Why mmdebstrap could not unshare, with what to do about it; None if it can."""
    user = _user_name()
    if lacking := subids.without_range({user, str(os.getuid())}):
        return f"{lacking} gives {user} no range of ids (as root: {subids.command_for_range(user)})"
    argv = ["unshare", "--user", "--map-auto", "--map-root-user", "true"]
    probe = LocalRunner().run(argv, ok=())
    if probe.status:
        remedy = subids.command_for_kernel()
        what_to_do = f"as root: {remedy}" if remedy else "no sysctl does; is this a container that may not?"
        return f"the kernel refuses user namespaces ({probe.stderr.strip()}; {what_to_do})"
    return None


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _version(tool: str) -> str:
    result = LocalRunner().run([tool, "--version"], ok=())
    return (result.stdout or result.stderr).strip().splitlines()[0]


def _sync(directory: Path) -> None:
    for path in [*directory.iterdir(), directory]:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
