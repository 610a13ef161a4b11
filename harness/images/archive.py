"""Archives: the tar of files that go in, what is taken out of the finished tar, the initrd, the filesystem.

All of it needs no privilege: owners and device nodes exist only inside the archives.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from harness.config.recipe import Entry, ImageError
from harness.images import newc
from harness.images.newc import Member

BLOCK_BYTES = 4096
INODE_BYTES = 128
SPARE_INODES = 32768
STAGE = "drbd-harness-stack"
"""Where a chroot gets what is to be installed in it, below its root."""

# Modules that a recipe names for older kernels; newer ones have what they did in others.
_GONE = frozenset({"crc32c_generic"})
_MODULE = re.compile(r"\.ko(?:\.xz)?$")


@dataclass(frozen=True)
class Contents:
    """What the builder has to know of an installed system."""

    kernel_version: str
    modules: dict[str, bytes]
    """The initrd's modules, uncompressed, in loading order: file name to content."""
    packages: dict[str, str]
    blocks: int
    """Blocks of :data:`BLOCK_BYTES` that the content takes."""
    inodes: int


def pack(path: Path, files: Iterable[Entry], programs: Mapping[str, Path]) -> None:
    """Write the tar ``path`` with ``files`` and ``programs`` (path in the image to binary), all owned by root."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: PurePosixPath, kind: bytes, mode: int, data: bytes = b"", target: str = "") -> None:
            member = tarfile.TarInfo(str(name).lstrip("/"))
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), target
            tar.addfile(member, io.BytesIO(data))

        known: set[PurePosixPath] = set()
        for entry in files:
            if entry.target is not None:
                add(entry.path, tarfile.SYMTYPE, entry.mode, target=entry.target)
            elif entry.source is None:
                known.add(entry.path)
                add(entry.path, tarfile.DIRTYPE, entry.mode)
            else:
                add(entry.path, tarfile.REGTYPE, entry.mode, entry.content)
        for name, binary in sorted(programs.items()):
            for parent in list(PurePosixPath(name).parents)[-2::-1]:
                if parent not in known:
                    known.add(parent)
                    add(parent, tarfile.DIRTYPE, 0o755)
            add(PurePosixPath(name), tarfile.REGTYPE, 0o755, binary.read_bytes())


def pack_stage(
    path: Path, packages: Iterable[Path], modules: Mapping[str, bytes], folders: Mapping[str, Path | None]
) -> None:
    """Write the tar ``path`` with what is to be installed, below :data:`STAGE`, all owned by root.

    ``packages`` go to ``debs``, ``modules`` (file name to content) to ``modules``, and each of ``folders`` to its name.
    """

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for package in packages:
            tar.add(package, f"{STAGE}/debs/{package.name}", recursive=False, filter=owned_by_root)
        for name, content in modules.items():
            member = tarfile.TarInfo(f"{STAGE}/modules/{name}")
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
        for name, folder in folders.items():
            if folder is not None:
                tar.add(folder, f"{STAGE}/{name}", filter=owned_by_root)


def find_kernel(boot: Path) -> tuple[str, Path]:
    """The version of the one kernel in the directory ``boot``, and its file.

    The file is ``vmlinux-VERSION`` where the recipe unpacked the kernel: QEMU starts such a one without
    decompressing it.  Raises :class:`ImageError` unless there is exactly one.
    """
    kernels = sorted(boot.glob("vmlinuz-*"))
    if len(kernels) != 1:
        names = ", ".join(path.name for path in kernels)
        raise ImageError(f"the installed system has {len(kernels)} kernels instead of one: {names}")
    version = kernels[0].name.removeprefix("vmlinuz-")
    unpacked = boot / f"vmlinux-{version}"
    return version, unpacked if unpacked.is_file() else kernels[0]


def read(path: Path, version: str, initrd_modules: Iterable[str]) -> Contents:
    """Look through the installed system in the tar ``path``, whose kernel is ``version``.

    Raises :class:`ImageError` if one of ``initrd_modules`` is missing.
    """
    blocks = inodes = 0
    with tarfile.open(path, "r:") as tar:
        members: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            inodes += not member.islnk()
            if member.isreg():
                data_blocks = -(-member.size // BLOCK_BYTES)
                # One pointer block for each 1024 blocks, and the two levels above them.
                blocks += data_blocks + -(-data_blocks // 1024) + 2 if data_blocks > 12 else data_blocks
            elif member.isdir() or member.issym():
                blocks += 1
            members[member.name.removeprefix("./").rstrip("/")] = member

        def content(name: str) -> bytes:
            found = tar.extractfile(members[name])
            if found is None:
                raise ImageError(f"{name} in the installed system is not a file")
            return found.read()

        tree = f"usr/lib/modules/{version}"
        order = loading_order(
            content(f"{tree}/modules.dep").decode(), content(f"{tree}/modules.builtin").decode(), initrd_modules
        )
        modules = {}
        for name in order:
            data = content(f"{tree}/{name}")
            modules[_MODULE.sub("", name.rsplit("/", 1)[-1]) + ".ko"] = (
                lzma.decompress(data) if name.endswith(".xz") else data
            )
        packages = parse_status(content("var/lib/dpkg/status").decode())
        return Contents(version, modules, packages, blocks, inodes)


def loading_order(modules_dep: str, modules_builtin: str, wanted: Iterable[str]) -> list[str]:
    """The files of the ``wanted`` modules and what they need, dependencies first.

    Modules built into the kernel are left out; :class:`ImageError` names those that do not exist.
    """
    needs: dict[str, list[str]] = {}
    files: dict[str, str] = {}
    for line in modules_dep.splitlines():
        name, _, rest = line.partition(":")
        # depmod lists the deepest dependency last.
        needs[name] = rest.split()[::-1]
        files[module_name(name)] = name
    builtin = {module_name(line) for line in modules_builtin.splitlines()}
    order: dict[str, None] = {}
    for module in wanted:
        name = module.replace("-", "_")
        if name in files:
            order.update(dict.fromkeys([*needs[files[name]], files[name]]))
        elif name not in builtin and name not in _GONE:
            raise ImageError(f"the kernel has no module '{module}', which the recipe wants in the initrd")
    return list(order)


def module_name(path: str) -> str:
    """``kernel/fs/dm-mod.ko.xz`` -> ``dm_mod``."""
    return _MODULE.sub("", path.rsplit("/", 1)[-1]).replace("-", "_")


def parse_status(text: str) -> dict[str, str]:
    """dpkg's status file -> package to version, of those installed, in order of their names."""
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))


def initrd(init: bytes, modules: Mapping[str, bytes]) -> bytes:
    """The archive for the kernel with ``init``, ``modules`` and the list that ``init`` reads."""
    return newc.archive(
        [
            Member("dev", 0o040755),
            Member("dev/console", 0o020600, device=(5, 1)),
            Member("init", 0o100755, init),
            Member("modules.list", 0o100644, "".join(f"/{name}\n" for name in modules).encode()),
            *(Member(name, 0o100644, data) for name, data in modules.items()),
        ]
    )


def filesystem_size(contents: Contents, free_mib: int) -> tuple[int, int]:
    """Blocks and inodes for ``contents`` with ``free_mib`` MiB to spare."""
    inodes = contents.inodes + (SPARE_INODES if free_mib >= 256 else 1024)
    blocks = contents.blocks + free_mib * 256 + inodes * INODE_BYTES // BLOCK_BYTES
    # Bitmaps and descriptors of the groups, and some slack for directories that outgrow a block.
    return blocks + blocks // 100 + 2048, inodes
