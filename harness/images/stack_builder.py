"""Building the image of a stack: its suite's image, with other packages, modules and a QEMU of the user's added to it.

What is installed is resolved by apt on the controller first; the chroot gets only files and installs them without a
network.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from harness.config import recipe
from harness.config.recipe import Recipe
from harness.images import archive, builder, chroot_script, debs, modules, sources
from harness.images.apt import KEYRING, Apt, Download
from harness.images.cache import Image
from harness.images.chroot_script import Added
from harness.images.dkms import dkms_modules
from harness.images.parts import Parts
from harness.images.process import Step, run
from harness.images.programs import compile_program
from harness.images.system import System

STATUS = "/var/lib/dpkg/status"
SOURCES = "/etc/apt/sources.list"


def into(target: Path, parts: Parts, digest: str, base: Image, cache: Path, log: Path, step: Step) -> None:
    """Build the image of ``parts`` over ``base`` so that ``target`` appears, complete, in one rename.

    Raises :class:`~harness.config.recipe.ImageError`; then nothing is left but the log, and what was downloaded.
    """
    directory = recipe.recipes_directory()
    wanted = recipe.load(parts.role, parts.stack.suite, directory)
    builder.check_tools(wanted)
    builder.check_space(target.parent, wanted.role)
    with builder.appearing(target, wanted.role) as work:
        _make(work, parts, wanted, digest, base, cache, log, step)
    step.report("done")


def _make(
    work: Path, parts: Parts, wanted: Recipe, digest: str, base: Image, cache: Path, log: Path, step: Step
) -> None:
    scratch = work / "parts"
    scratch.mkdir()
    system = System(base.root)
    added = _resolve(parts, wanted, base, system, cache, scratch, log, step)
    step.report("taking the base out of its image")
    base_tar, stage, tar = scratch / "base.tar", scratch / "stage.tar", scratch / "root.tar"
    system.pack(base_tar)
    contents_of = {module.name: module.content for module in added.modules}
    archive.pack_stage(stage, added.download.files, contents_of, {"qemu": parts.qemu_folder})
    script = chroot_script.script(parts, wanted, base, added)
    argv = [
        "mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=custom", "--format=tar",
        "--skip=update,cleanup/apt",
        f"--setup-hook=tar-in {shlex.quote(str(base_tar))} /",
        f"--customize-hook=tar-in {shlex.quote(str(stage))} /",
        *(builder.in_chroot(command) for command in script),
        f"--customize-hook=copy-out /boot {shlex.quote(str(scratch))}",
        builder.in_chroot("rm -rf /boot/*"),
        wanted.suite, str(tar),
    ]  # fmt: skip
    run(argv, log, step, "adding to the base", scratch=builder.scratch_directory(scratch))
    base_tar.unlink()
    stage.unlink()

    step.report("reading what was installed")
    contents = archive.read(tar, added.kernel, wanted.initrd_modules)
    if added.new_kernel:
        _, kernel = archive.find_kernel(scratch / "boot")
        kernel.rename(work / "vmlinuz")
        init = compile_program(recipe.source_path("initrd.c", recipe.recipes_directory()), scratch)
        (work / "initrd.img").write_bytes(archive.initrd(init.read_bytes(), contents.modules))
    else:
        shutil.copyfile(base.kernel, work / "vmlinuz")
        shutil.copyfile(base.initrd, work / "initrd.img")
    image = work / "root.img"
    builder.make_filesystem(image, tar, contents, wanted, log, step)
    manifest = {
        **base.manifest,
        "digest": digest,
        "kernel": contents.kernel_version,
        "packages": contents.packages,
        "root_bytes": image.stat().st_size,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "build_seconds": round(time.monotonic() - step.began, 1),
        "built_as": "root" if os.geteuid() == 0 else "user",
        "stack": _said(parts, base, added),
    }
    (work / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(log, work / "build.log")
    shutil.rmtree(scratch)
    for path in work.iterdir():
        path.chmod(0o644)


def _said(parts: Parts, base: Image, added: Added) -> dict[str, object]:
    """What the manifest says about what was added: by component, by file, by module."""
    qemu = parts.qemu_folder
    return {
        "base": {"digest": base.digest, "built_at": base.manifest["built_at"]},
        "origins": parts.labels,
        "debs": {path.name: debs.sha256(path) for path in added.download.files},
        "modules": {module.name: module.facts() for module in added.modules},
        "qemu": {"folder": str(qemu), "sha256": debs.sha256(qemu / "bin/qemu-system-x86_64")} if qemu else {},
    }


def _resolve(
    parts: Parts, wanted: Recipe, base: Image, system: System, cache: Path, scratch: Path, log: Path, step: Step
) -> Added:
    suites, own = parts.suites, _own_packages(parts, base)
    names = [
        name for component, suite in suites.items() for name in sources.packages_of(component, suite, wanted.packages)
    ]
    download = Download(())
    status = system.read(STATUS)
    mirrors = sources.Mirrors.of(system.read(SOURCES).decode())
    apt = Apt(cache, mirrors.lines([wanted.suite, *suites.values()], KEYRING), status, wanted.suite)
    if names or own:
        rules = [
            sources.preferences(wanted.suite, suites, alone=alone) for alone in ((True, False) if suites else (True,))
        ]
        what = ", ".join(f"{name} of {origin}" for name, origin in parts.labels.items())
        download = apt.download(
            [*map(str, own), *names], rules, f"apt cannot install {what} in the {wanted.role} image of {wanted.suite}",
            scratch / "apt", log, step,
        )  # fmt: skip
    new_kernel = _kernel(download)
    kernel = new_kernel or base.kernel_version
    found = [modules.read(path) for path in parts.module_files]
    for deb in parts.drbd_debs:
        if deb.has_modules:
            found += modules.in_deb(deb, scratch)
        elif deb.has_dkms:
            found += dkms_modules(deb, kernel, parts, wanted, system, apt, scratch, log, step)
    if parts.stack.drbd:
        found = modules.one_of_each(module for module in found if module.name not in modules.NOT_FOR_A_LAB)
        modules.check(found, kernel, ", ".join(parts.stack.drbd))
    return Added(download, found, kernel, bool(new_kernel))


def _own_packages(parts: Parts, base: Image) -> list[Path]:
    """The user's packages that are to be installed."""
    found: list[Path] = []
    for component, given in parts.debs.items():
        chosen = debs.kernel_of(given)[0] if component == "kernel" else debs.chosen_for(given, base.packages)
        found += [deb.path for deb in chosen]
    if "drbd_utils" not in {*parts.debs, *parts.suites}:
        found += [deb.path for deb in parts.drbd_debs if deb.package == "drbd-utils"]
    return found


def _kernel(download: Download) -> str:
    """The release of the kernel in ``download``; empty where there is none."""
    for path in download.files:
        if path.name.startswith(("linux-image-", "linux-binary-")) and (release := debs.read(path).kernel):
            return release
    return ""
