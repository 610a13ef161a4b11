"""Recipes: what goes into an image, read from TOML and turned into a digest.

A recipe file covers one role and several suites; a table ``[suite.NAME]`` adds to the lists of the common
part.  The digest covers everything the result depends on that this project decides: the resolved
recipe, the name, kind, mode and content of each file that goes in, the sources of the programs, and
the format of the builder.  Times and owners of the files do not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import HarnessError
from harness.util import resources

BUILDER_FORMAT = 1
"""Raised whenever the builder makes something else of the same recipe."""

RECIPE_SCHEMA = 1
ROLES = ("node", "guest")
DEFAULT_SUITE = "trixie"
COMMON_FILES = "common"

_SIZES = ("free_mib", "journal_mib")
_LISTS = (
    "components",
    "packages",
    "exclude",
    "kernel_args",
    "initrd_modules",
    "keep_modules",
    "enable",
    "disable",
    "mask",
    "commands",
)


class ImageError(HarnessError):
    """An image is unknown, or could not be built; the message says what to do."""


@dataclass(frozen=True)
class Recipe:
    """What goes into the image of one role and suite.

    ``free_mib`` is the space beyond the content, in MiB; ``journal_mib`` is the filesystem's journal, 0 for none;
    ``programs`` pairs a path in the image with the name of a C source; patterns of ``keep_modules`` are relative to
    the modules' ``kernel/`` directory.
    """

    role: str
    suite: str
    free_mib: int
    journal_mib: int
    components: tuple[str, ...]
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    kernel_args: tuple[str, ...]
    initrd_modules: tuple[str, ...]
    keep_modules: tuple[str, ...]
    enable: tuple[str, ...]
    disable: tuple[str, ...]
    mask: tuple[str, ...]
    commands: tuple[str, ...]
    programs: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, object]:
        """The recipe as JSON can hold it, in a stable form."""
        return asdict(self) | {"programs": dict(self.programs)}


@dataclass(frozen=True)
class Entry:
    """One file, directory or symbolic link that goes into an image.

    ``path`` is absolute in the image.  ``mode`` is 0o755 or 0o644: only the owner's execute bit is kept, so
    that the umask of a checkout changes nothing.  ``target`` is that of a link.
    """

    path: PurePosixPath
    mode: int
    source: Path | None = None
    target: str | None = None

    @property
    def content(self) -> bytes:
        """What the file holds; empty for directories and links."""
        return b"" if self.source is None else self.source.read_bytes()


def recipes_directory() -> Path:
    """Where the recipes are: beside the package in a checkout, inside it when installed."""
    return resources.recipes()


def load(role: str, suite: str, directory: Path | None = None) -> Recipe:
    """The recipe of ``role`` for ``suite``; raises :class:`ImageError` where there is none or it is malformed."""
    directory = directory or recipes_directory()
    if role not in ROLES:
        raise ImageError(f"unknown image role '{role}': it is one of {', '.join(ROLES)}")
    path = directory / f"{role}.toml"
    table = _read(path)
    offered = _strings(table, "suites", path)
    if suite not in offered:
        raise ImageError(f"unknown suite '{suite}' for a {role} image: it is one of {', '.join(offered)}")
    if table.get("schema") != RECIPE_SCHEMA or table.get("role") != role:
        raise ImageError(f"{path} must say schema = {RECIPE_SCHEMA} and role = '{role}'")
    extra = _table(_table(table, "suite", path), suite, path)
    known = {"schema", "role", "suites", "suite", *_SIZES, "programs", *_LISTS}
    for name in [*(set(table) - known), *(set(extra) - set(_LISTS))]:
        raise ImageError(f"{path} has an unknown key '{name}'")
    programs = _table(table, "programs", path)
    lists = {name: _strings(table, name, path) + _strings(extra, name, path) for name in _LISTS}
    return Recipe(
        role=role,
        suite=suite,
        free_mib=_mib(table, "free_mib", path),
        journal_mib=_mib(table, "journal_mib", path),
        programs=tuple(sorted((name, str(source)) for name, source in programs.items())),
        **lists,
    )


def suites(role: str, directory: Path | None = None) -> tuple[str, ...]:
    """The suites there is a recipe of ``role`` for."""
    path = (directory or recipes_directory()) / f"{role}.toml"
    return _strings(_read(path), "suites", path)


def entries(recipe: Recipe, directory: Path) -> list[Entry]:
    """What goes in for ``recipe``, in the order of the paths; the role's own files win over the common ones."""
    found: dict[PurePosixPath, Entry] = {}
    for part in (COMMON_FILES, recipe.role):
        for entry in _walk(directory / "files" / part):
            found[entry.path] = entry
    return [found[path] for path in sorted(found)]


def digest(recipe: Recipe, directory: Path) -> str:
    """The sha256 (hex) of everything the image depends on; see the module's text."""
    hasher = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            hasher.update(b"%d:" % len(data))
            hasher.update(data)

    add("format", str(BUILDER_FORMAT), json.dumps(recipe.as_dict(), sort_keys=True))
    for entry in entries(recipe, directory):
        add("entry", str(entry.path), oct(entry.mode), entry.target or "", entry.content)
    for source in sources(recipe):
        add("source", source, source_path(source, directory).read_bytes())
    return hasher.hexdigest()


def sources(recipe: Recipe) -> list[str]:
    """The C sources the image needs: its programs' and the initrd's."""
    return sorted({"initrd.c", *(source for _, source in recipe.programs)})


def source_path(source: str, directory: Path) -> Path:
    """Where the C source ``source`` is; raises :class:`ImageError` if it is not there."""
    path = directory / "src" / source
    if not path.is_file():
        raise ImageError(f"the recipe names the program source {source}, but {path} does not exist")
    return path


def _walk(top: Path) -> Iterator[Entry]:
    for current, directories, files in os.walk(top):
        below = PurePosixPath("/") / PurePosixPath(Path(current).relative_to(top))
        for name in [*directories, *files]:
            path = Path(current) / name
            status = path.lstat()
            if name.endswith("~") or name == "__pycache__":
                continue
            if stat.S_ISLNK(status.st_mode):
                yield Entry(below / name, 0o777, target=str(path.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                yield Entry(below / name, 0o755)
            elif stat.S_ISREG(status.st_mode):
                yield Entry(below / name, 0o755 if status.st_mode & stat.S_IXUSR else 0o644, source=path)
            else:
                raise ImageError(f"{path} is neither a file, a directory nor a link and cannot go into an image")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"cannot read the image recipe {path}: {error}") from error


def _table(table: Mapping[str, object], name: str, path: Path) -> dict[str, object]:
    value = table.get(name, {})
    if not isinstance(value, dict):
        raise ImageError(f"'{name}' in {path} must be a table")
    return value


def _mib(table: Mapping[str, object], name: str, path: Path) -> int:
    value = table.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ImageError(f"{name} in {path} must be a whole number of MiB, not {value!r}")
    return value


def _strings(table: Mapping[str, object], name: str, path: Path) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ImageError(f"'{name}' in {path} must be a list of strings")
    return tuple(value)
