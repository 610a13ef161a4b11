"""What runs in the chroot of a stack's image: install without a network, replace the kernel, add modules and a QEMU."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.config.recipe import Recipe
from harness.images import archive, builder
from harness.images.apt import Download
from harness.images.cache import Image
from harness.images.modules import Module
from harness.images.parts import Parts

STAGE = f"/{archive.STAGE}"
QEMU = "/opt/drbd-harness/qemu"
QEMU_PROGRAMS = ("qemu-system-x86_64", "qemu-img", "qemu-io", "qemu-nbd", "qemu-storage-daemon")
_KERNEL_PACKAGE = re.compile(r"linux-(image|modules|binary|base)-\d")

# The hooks of a kernel's package make an initrd, which this project does itself.  Debian's kernels ask the environment
# (INITRD=No); the packages of "make bindeb-pkg" set it to Yes themselves, and the hook of lvm2 misses files then.
INSTALL = f"""set -- {STAGE}/debs/*.deb
[ -e "$1" ] || exit 0
for hook in /etc/kernel/postinst.d/*; do [ ! -e "$hook" ] || chmod a-x "$hook"; done
apt-get -y -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null -o APT::Install-Recommends=false \\
    -o Dpkg::Use-Pty=0 --allow-downgrades --allow-change-held-packages install "$@" < /dev/null"""

_MODULES = f"""install -d /usr/lib/modules/$K/updates
cp {STAGE}/modules/*.ko /usr/lib/modules/$K/updates/
depmod "$K"
for name in $NEEDS; do
    modprobe -S "$K" -n -q "$name" && continue
    echo "E: the DRBD module needs '$name', which is not in the kernel $K" >&2
    exit 1
done"""

# What ldd says of libraries that are missing, or too old.  The base's modules are of another build, and QEMU ends where
# it finds such.  A build that is not relocatable, as Debian's, looks for modules and firmware where it was to be
# installed.  libvirt's first question to a QEMU loads all modules, which --version does not.
_QEMU = f"""install -d {QEMU}
cp -a {STAGE}/qemu/. {QEMU}/
for name in {" ".join(QEMU_PROGRAMS)}; do
    [ -x {QEMU}/bin/$name ] || continue
    ln -sf {QEMU}/bin/$name /usr/bin/$name
    missing=$(ldd {QEMU}/bin/$name 2>&1 |
        sed -n 's/^[[:space:]]*\\([^ ]*\\) => not found.*/\\1/p; s/.*: \\(.*version .* not found\\).*/\\1/p' |
        sort -u | tr '\\n' ' ')
    if [ -n "$missing" ]; then
        echo "E: $name of $FOLDER needs libraries that the image of $SUITE lacks: $missing" >&2; exit 1
    fi
done
modules=lib/x86_64-linux-gnu/qemu
rm -f /usr/$modules/*.so
[ ! -d {QEMU}/$modules ] || {{ rm -rf "/usr/$modules"; ln -s {QEMU}/$modules /usr/$modules; }}
data=$(/usr/bin/qemu-system-x86_64 -L help < /dev/null | head -n 1)
case $data in
    {QEMU}/*) ;;
    /usr/*/*) [ ! -d {QEMU}/share/qemu ] || {{
        rm -rf "$data"; mkdir -p "${{data%/*}}"; ln -s {QEMU}/share/qemu "$data"; }} ;;
esac
asked='{{"execute":"qmp_capabilities"}}{{"execute":"qom-list-types"}}{{"execute":"quit"}}'
said=$(echo "$asked" | /usr/bin/qemu-system-x86_64 -S -no-user-config -nodefaults -nographic -machine none -qmp stdio \\
    2>&1 > /dev/null) || {{
    echo "E: qemu-system-x86_64 of $FOLDER does not start in the image of $SUITE: $(echo "$said" | tail -n 1)" >&2
    exit 1
}}"""


@dataclass(frozen=True)
class Added:
    """All that goes in: package files and the packages they remove, modules, and the kernel that is in the image then.

    ``new_kernel``: it is another one than the base has.
    """

    download: Download
    modules: Sequence[Module]
    kernel: str
    new_kernel: bool


def script(parts: Parts, wanted: Recipe, base: Image, added: Added) -> list[str]:
    """The shell commands, in order; each ends the build where it fails."""
    commands = []
    if added.new_kernel:
        # Its modules are not those that its package knows: they are few, and unpacked.
        commands.append(f"rm -rf /usr/lib/modules/{shlex.quote(base.kernel_version)}")
    commands.append(INSTALL)
    if added.new_kernel:
        commands += _without_old_kernel(base, added)
        commands += builder.slimming(wanted)
        commands.append("/usr/lib/drbd-harness/unpack-kernel")
    if added.modules:
        own = {module.name.removesuffix(".ko").replace("-", "_") for module in added.modules}
        needs = sorted({name for module in added.modules for name in module.needs} - own)
        commands.append(f"K={shlex.quote(added.kernel)} NEEDS={shlex.quote(' '.join(needs))}\n{_MODULES}")
    if parts.qemu_folder:
        names = f"SUITE={shlex.quote(wanted.suite)} FOLDER={shlex.quote(str(parts.qemu_folder))}"
        commands.append(f"{names}\n{_QEMU}")
    commands += builder.units(wanted)
    commands.append(
        f"rm -rf {STAGE} /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/*.log"
        " /var/log/apt; : > /etc/resolv.conf"
    )
    return commands


def _without_old_kernel(base: Image, added: Added) -> Iterable[str]:
    """Only one kernel stays; a package that only stands for the newest one of a suite may go with the old one."""
    new = {path.name.partition("_")[0] for path in added.download.files}
    old = [name for name in base.packages if _KERNEL_PACKAGE.match(name) and name not in new]
    old += [name for name in base.packages if re.fullmatch(r"linux-image-(cloud-)?amd64", name) and name not in new]
    if old:
        yield f"dpkg --purge --force-depends {shlex.join(old)} < /dev/null"
        yield f"find /usr/lib/modules -mindepth 1 -maxdepth 1 ! -name {shlex.quote(added.kernel)} -exec rm -rf {{}} +"
        yield f"find /boot -name '*-*' ! -name {shlex.quote('*-' + added.kernel)} -delete"
