"""Modules from a package for dkms: built in a chroot over the image's base against the headers of the image's kernel.

The chroot is thrown away; only the modules are kept, in the cache, by all that they were made from.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import tarfile
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from harness.config.recipe import ImageError, Recipe
from harness.images import archive, builder, chroot_script, debs, modules, sources
from harness.images.apt import Apt, UnresolvedError
from harness.images.debs import Deb, UserDebError
from harness.images.downloads import modules_folder
from harness.images.modules import Module
from harness.images.parts import Parts
from harness.images.process import Step, run
from harness.images.system import System

_BUILT = "/drbd-harness-modules"

# $K is the kernel, $DEB the package's name in sentences.
_BUILD = f"""cp -a {chroot_script.STAGE}/sources/usr/src/. /usr/src/
cd /usr/src
for conf in */dkms.conf; do
    [ -e "{chroot_script.STAGE}/sources/usr/src/$conf" ] || continue
    module=$(bash -c '. "./$0" > /dev/null 2>&1; echo "$PACKAGE_NAME/$PACKAGE_VERSION"' "$conf")
    dkms add "/usr/src/${{conf%/dkms.conf}}" < /dev/null || true
    said=$(mktemp)
    if ! dkms build "$module" -k "$K" < /dev/null > "$said" 2>&1; then
        cat "$said" >&2
        log=/var/lib/dkms/$module/build/make.log
        [ -e "$log" ] || log=$(find /var/lib/dkms -name make.log | head -n 1)
        [ -n "$log" ] && [ -e "$log" ] && cat "$log" >&2 && cp "$log" "$said"
        first=$(grep -m 1 -E 'error:|Error [0-9]|^ERROR|^Error!|undefined!' "$said" || tail -n 1 "$said")
        echo "E: dkms could not build $module of $DEB for the kernel $K: $first" >&2
        exit 1
    fi
    cat "$said"
done
mkdir {_BUILT}
find /var/lib/dkms -path "*/$K/*/module/*.ko*" -exec cp {{}} {_BUILT}/ \\;
[ -n "$(ls {_BUILT})" ] || {{ echo "E: dkms built no module of $DEB for the kernel $K" >&2; exit 1; }}"""


def dkms_modules(
    deb: Deb, kernel: str, parts: Parts, wanted: Recipe, system: System, apt: Apt, scratch: Path, log: Path, step: Step
) -> list[Module]:
    """The modules that dkms makes of ``deb`` for ``kernel``, out of the cache where they were made before.

    :class:`UserDebError` where the kernel's headers are missing, :class:`ImageError` with the compiler's first error
    and the log where it does not build.  A build takes a minute and more.
    """
    suites = {"kernel": parts.suites["kernel"]} if "kernel" in parts.suites else {}
    own = [one for one in parts.debs.get("kernel", ()) if one.package.startswith(("linux-headers-", "linux-kbuild-"))]
    if "kernel" in parts.debs and not any(one.package == f"linux-headers-{kernel}" for one in own):
        raise UserDebError(
            f"{deb.path} has to be built against the headers of the kernel {kernel}, and no linux-headers-{kernel} is "
            "among the packages of 'kernel'"
        )
    headers = [str(one.path) for one in own] or [f"linux-headers-{kernel}"]
    rules = [sources.preferences(wanted.suite, suites, alone=alone) for alone in ((True, False) if suites else (True,))]
    what = f"apt cannot install the headers of the kernel {kernel}, which {deb.path.name} is built against"
    try:
        tools = apt.download([*headers, "dkms", "gcc", "make"], rules, what, scratch / "apt-dkms", log, step)
    except UnresolvedError as error:
        if f"linux-headers-{kernel}" not in str(error):
            raise
        raise UnresolvedError(
            f"{error}; where the archive has moved on to a newer kernel, the image of {wanted.suite} has to be built "
            "anew, with what 'drbd-harness images build' finds there now"
        ) from None
    folder = modules_folder(apt.cache) / _key(deb, kernel, tools.files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The two nodes' images may want the same at once.
    with FileLock(folder.with_name(f".{folder.name}.lock"), mode=0o644):
        if not folder.is_dir():
            _build(folder, deb, kernel, tools.files, wanted, system, scratch, log, step)
    return [modules.read(path) for path in modules.files_in(folder)]


def _key(deb: Deb, kernel: str, tools: Sequence[Path]) -> str:
    """What the modules depend on: the package, and the headers and the compiler that they are built with."""
    names = sorted(path.name for path in tools if path.name.startswith(("linux-", "gcc-", "dkms_")))
    words = [debs.sha256(deb.path), kernel, *names]
    return f"{deb.package}-{kernel}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:12]}"


def _build(
    folder: Path, deb: Deb, kernel: str, tools: Sequence[Path], wanted: Recipe, system: System, scratch: Path,
    log: Path, step: Step,
) -> None:  # fmt: skip
    step.report(f"building the modules of {deb.path.name}")
    base_tar, stage, out = scratch / "dkms-base.tar", scratch / "dkms-stage.tar", scratch / "dkms-out.tar"
    system.pack(base_tar)
    archive.pack_stage(stage, tools, {}, {"sources": debs.unpack(deb, scratch / "dkms-sources")})
    environment = f"K={shlex.quote(kernel)} DEB={shlex.quote(deb.path.name)}"
    argv = [
        "mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--variant=custom", "--format=null",
        "--skip=update,cleanup",
        f"--setup-hook=tar-in {shlex.quote(str(base_tar))} /",
        f"--customize-hook=tar-in {shlex.quote(str(stage))} /",
        builder.in_chroot(chroot_script.INSTALL),
        builder.in_chroot(f"{environment}\n{_BUILD}"),
        f"--customize-hook=tar-out {_BUILT} {shlex.quote(str(out))}",
        wanted.suite, "-",
    ]  # fmt: skip
    run(argv, log, step, f"building the modules of {deb.path.name}", scratch=builder.scratch_directory(scratch))
    base_tar.unlink()
    stage.unlink()
    made = scratch / "dkms-made"
    made.mkdir()
    with tarfile.open(out) as tar:
        for member in tar:
            if modules.MODULE_NAME.search(member.name) and (content := tar.extractfile(member)):
                (made / Path(member.name).name).write_bytes(content.read())
    if not list(made.iterdir()):
        raise ImageError(f"dkms built no module of {deb.path.name} for the kernel {kernel} (whole log: {log})")
    made.rename(folder)
