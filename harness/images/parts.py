"""What an image gets beside what its suite has: resolved from a stack, checked, and counted in its digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from harness.config.stack_spec import NodeStack, is_path
from harness.images import debs, modules
from harness.images.debs import Deb, UserDebError

STACK_FORMAT = 1
"""Raised whenever the builder makes something else of the same base and parts."""

QEMU_FORMAT = 2
"""The same of what the builder makes of a folder with a QEMU."""

COMPONENTS = ("kernel", "drbd_utils", "qemu", "libvirt")
"""What comes from a suite or from packages; ``drbd`` is another kind of thing."""

QEMU_PROGRAM = "bin/qemu-system-x86_64"

# What has to be in a user's packages for a component: else the image would have its suite's under their name.
_IN_PACKAGES = {
    "drbd_utils": ("drbdadm", re.compile(r"sbin/drbdadm$", re.MULTILINE)),
    "qemu": (QEMU_PROGRAM, re.compile(rf"{QEMU_PROGRAM}$", re.MULTILINE)),
    "libvirt": (
        "libvirtd, virtqemud or libvirt.so", re.compile(r"sbin/(libvirtd|virtqemud)$|/libvirt\.so", re.MULTILINE),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The parts of an image of ``role``: ``stack`` says where each comes from."""

    role: str
    stack: NodeStack

    @property
    def suites(self) -> dict[str, str]:
        """Component to suite, of those that come from another one."""
        origins = {name: getattr(self.stack, name) for name in COMPONENTS}
        return {name: origin[0] for name, origin in origins.items() if origin and not is_path(origin[0])}

    @cached_property
    def debs(self) -> Mapping[str, tuple[Deb, ...]]:
        """Component to the user's packages for it; :class:`UserDebError` for what cannot be used."""
        found = {}
        for name in COMPONENTS:
            origin = getattr(self.stack, name)
            if origin and is_path(origin[0]) and not (name == "qemu" and self.qemu_folder):
                found[name] = tuple(debs.in_paths(origin, name))
        return found

    @property
    def qemu_folder(self) -> Path | None:
        """The folder with an installed build of QEMU, where that is meant."""
        origin = self.stack.qemu
        if len(origin) != 1 or not is_path(origin[0]) or not Path(origin[0]).is_dir():
            return None
        folder = Path(origin[0])
        for place in (folder, folder / "usr/local", folder / "usr"):
            if (place / QEMU_PROGRAM).is_file():
                return place
        if list(folder.glob("*.deb")):
            return None
        raise UserDebError(f"'qemu' names the folder {folder}, and there is neither {QEMU_PROGRAM} nor a package in it")

    @cached_property
    def module_files(self) -> tuple[Path, ...]:
        """The ready modules in folders that are named as DRBD."""
        found: list[Path] = []
        for path in map(Path, self.stack.drbd):
            found += (
                modules.files_in(path) if path.is_dir() else [path] if modules.MODULE_NAME.search(path.name) else []
            )
        return tuple(found)

    @cached_property
    def drbd_debs(self) -> tuple[Deb, ...]:
        """The packages that are named as DRBD; :class:`UserDebError` for what is neither that nor a module."""
        found: list[Deb] = []
        for path in map(Path, self.stack.drbd):
            if path.is_dir():
                inside = sorted(path.glob("*.deb"))
                if not inside and not any(file.is_relative_to(path) for file in self.module_files):
                    raise UserDebError(f"'drbd' names the folder {path}, and there is no module (.ko) or package in it")
                found += map(debs.read, inside)
            elif path.suffix == ".deb" or not modules.MODULE_NAME.search(path.name):
                found += debs.in_paths([str(path)], "drbd")
        for deb in found:
            if not (deb.has_modules or deb.has_dkms or deb.package == "drbd-utils"):
                raise UserDebError(
                    f"{deb.path} has neither a kernel module in it, nor sources for dkms, nor drbd-utils"
                )
        return tuple(found)

    @property
    def labels(self) -> dict[str, str]:
        """Component to where it comes from, in a few words; of what is not the image's own."""
        origins = {field.name: getattr(self.stack, field.name) for field in fields(NodeStack) if field.name != "suite"}
        return {name: _label(origin) for name, origin in origins.items() if origin}

    def check(self) -> None:
        """:class:`UserDebError` with one sentence where something cannot be used; packages are looked into."""
        for name, origin in vars(self.stack).items():
            for path in map(Path, origin if name != "suite" and origin and is_path(origin[0]) else ()):
                if not path.exists():
                    raise UserDebError(f"'{name}' names {path}, which is not there any more")
        if "kernel" in self.debs:
            debs.kernel_of(self.debs["kernel"])
        for name, (what, told) in _IN_PACKAGES.items():
            if (given := self.debs.get(name)) and not any(told.search(deb.files) for deb in given):
                raise UserDebError(f"'{name}' names {', '.join(deb.path.name for deb in given)}, and {what} is in none")
        found = [modules.read(path) for path in self.module_files]
        releases = {module.kernel: module for module in found}
        if len(releases) > 1:
            one, other = list(releases.values())[:2]
            raise UserDebError(
                f"{one.origin} was built for the kernel {one.kernel}, and {other.origin} for {other.kernel}"
            )
        if found and not any(deb.has_modules or deb.has_dkms for deb in self.drbd_debs):
            where = ", ".join(dict.fromkeys(str(path.parent) for path in self.module_files))
            modules.check(found, found[0].kernel, where)
        elif self.stack.drbd and not found and not any(deb.has_modules or deb.has_dkms for deb in self.drbd_debs):
            raise UserDebError(f"'drbd' names {', '.join(self.stack.drbd)}, and there is no module in it")
        # Now, and not when the image of the suite is built, minutes later.
        modules.one_of_each(module for module in found if module.name not in modules.NOT_FOR_A_LAB)
        _ = self.qemu_folder

    def digest(self, base: str) -> str:
        """The sha256 (hex) of the image: ``base`` is that of its suite's; files that go in are read."""
        hasher = hashlib.sha256()
        for word in self._words(base):
            hasher.update(b"%d:" % len(word.encode()) + word.encode())
        return hasher.hexdigest()

    def _words(self, base: str) -> Iterator[str]:
        yield from ("stack", str(STACK_FORMAT), self.role, base)
        if self.qemu_folder:
            yield from ("qemu folder", str(QEMU_FORMAT))
        for name, suite in sorted(self.suites.items()):
            yield from (name, suite)
        for name, origin in sorted(vars(self.stack).items()):
            for path in map(Path, origin if name != "suite" and origin and is_path(origin[0]) else ()):
                for file in _files(path):
                    yield from (name, str(file.relative_to(path if path.is_dir() else path.parent)), debs.sha256(file))


def _files(path: Path) -> list[Path]:
    """What counts of a path: a file, or what a folder has as modules, packages or an installed build."""
    if path.is_file():
        return [path]
    at_top = [file for file in sorted(path.iterdir()) if file.suffix == ".deb" or modules.MODULE_NAME.search(file.name)]
    return at_top or sorted(file for file in path.rglob("*") if file.is_file() and _counts(path, file))


def _counts(folder: Path, file: Path) -> bool:
    below = file.relative_to(folder).as_posix()
    built = any((place / QEMU_PROGRAM).is_file() for place in (folder, folder / "usr/local", folder / "usr"))
    return built or bool(modules.MODULE_NAME.search(below))


def _label(origin: tuple[str, ...]) -> str:
    names = [Path(one).name if is_path(one) else one for one in origin]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
