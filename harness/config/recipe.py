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
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo

from harness.config.sentences import WrittenModel, hint, sentence, shown
from harness.errors import HarnessError, UsageError
from harness.util import resources

BUILDER_FORMAT = 1
"""Raised whenever the builder makes something else of the same recipe."""

RECIPE_SCHEMA = 1
ROLES = ("node", "guest")
"""What a lab is made of."""

OTHER_ROLES = ("controller",)
"""What no lab needs: a machine to try the harness in."""

DEFAULT_SUITE = "trixie"
COMMON_FILES = "common"
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


class ImageError(HarnessError):
    """An image is unknown, or could not be built; the message says what to do."""


class UnknownImageError(ImageError, UsageError):
    """There is no recipe of that role or for that suite; the message names those that there are."""


def _checked_list(value: object, info: ValidationInfo) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"'{info.field_name}' in {_file(info)} must be a list of strings")
    return tuple(value)


def _checked_mib(value: object, info: ValidationInfo) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{info.field_name} in {_file(info)} must be a whole number of MiB, not {shown(value)}")
    return value


def _checked_table(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        raise ValueError(f"'{info.field_name}' in {_file(info)} must be a table")
    return value


def _file(info: ValidationInfo) -> Path:
    path = (info.context or {})["path"]
    assert isinstance(path, Path)
    return path


Strings = Annotated[tuple[str, ...], BeforeValidator(_checked_list)]
Mib = Annotated[int, BeforeValidator(_checked_mib)]
Sources = Annotated[dict[str, str], BeforeValidator(_checked_table)]


class RecipeLists(WrittenModel):
    """What a recipe says for all suites, and a table ``[suite.NAME]`` adds for one."""

    components: Strings = ()
    packages: Strings = ()
    exclude: Strings = ()
    kernel_args: Strings = ()
    initrd_modules: Strings = ()
    keep_modules: Strings = ()
    enable: Strings = ()
    disable: Strings = ()
    mask: Strings = ()
    commands: Strings = ()


class RecipeFile(RecipeLists):
    """A recipe file as it is written; see :class:`Recipe` for what the keys mean."""

    version: object = Field(None, alias="schema")
    role: object = None
    suites: Strings = ()
    free_mib: Mib = 0
    journal_mib: Mib = 0
    programs: Sources = Field(default_factory=dict)
    bpf: Sources = Field(default_factory=dict)
    suite: Annotated[dict[str, RecipeLists], BeforeValidator(_checked_table)] = Field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """What goes into the image of one role and suite.

    ``free_mib`` is the space beyond the content, in MiB; ``journal_mib`` is the filesystem's journal, 0 for none;
    ``programs`` pairs a path in the image with the name of a C source, ``bpf`` such a source with that of the BPF
    program that is embedded in it; patterns of ``keep_modules`` are relative to the modules' ``kernel/`` directory.
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
    bpf: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, object]:
        """The recipe as JSON can hold it, in a stable form."""
        return asdict(self) | {"programs": dict(self.programs), "bpf": dict(self.bpf)}


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
    if role not in ROLES + OTHER_ROLES:
        raise UnknownImageError(f"unknown image role '{role}': it is one of {', '.join(ROLES + OTHER_ROLES)}")
    path = directory / f"{role}.toml"
    written = _read(path)
    if suite not in written.suites:
        raise UnknownImageError(f"unknown suite '{suite}' for a {role} image: it is one of {', '.join(written.suites)}")
    if written.version != RECIPE_SCHEMA or written.role != role:
        raise ImageError(f"{path} must say schema = {RECIPE_SCHEMA} and role = '{role}'")
    extra = written.suite.get(suite, RecipeLists())
    for source in written.bpf:
        if source not in written.programs.values():
            raise ImageError(f"[bpf] in {path} names '{source}', which is the source of no program in [programs]")
    lists: dict[str, tuple[str, ...]] = {
        name: getattr(written, name) + getattr(extra, name) for name in RecipeLists.model_fields
    }
    return Recipe(
        role=role,
        suite=suite,
        free_mib=written.free_mib,
        journal_mib=written.journal_mib,
        programs=tuple(sorted(written.programs.items())),
        bpf=tuple(sorted(written.bpf.items())),
        **lists,
    )


def suites(role: str, directory: Path | None = None) -> tuple[str, ...]:
    """The suites there is a recipe of ``role`` for; raises :class:`ImageError` where it is malformed."""
    return _read((directory or recipes_directory()) / f"{role}.toml").suites


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
    for source in with_headers(sources(recipe), directory):
        add("source", source, source_path(source, directory).read_bytes())
    return hasher.hexdigest()


def sources(recipe: Recipe) -> list[str]:
    """The C sources the image needs: its programs', those of the BPF programs in them, and the initrd's."""
    return sorted({*compiled(recipe), *(source for _, source in recipe.bpf)})


def compiled(recipe: Recipe) -> dict[str, str | None]:
    """The C sources that become a program each, with the source of the BPF program that is embedded in it, if any."""
    own = {"initrd.c", *(source for _, source in recipe.programs)}
    return {source: dict(recipe.bpf).get(source) for source in sorted(own)}


def with_headers(names: Iterable[str], directory: Path) -> list[str]:
    """The sources ``names`` and the headers beside them that they include, directly or not."""
    found: dict[str, None] = {}
    waiting = sorted(names, reverse=True)
    while waiting:
        if (name := waiting.pop()) not in found:
            found[name] = None
            text = source_path(name, directory).read_text(encoding="utf-8")
            waiting += (header for header in _INCLUDE.findall(text) if (directory / "src" / header).is_file())
    return list(found)


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


def _read(path: Path) -> RecipeFile:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"cannot read the image recipe {path}: {error}") from error
    try:
        return RecipeFile.model_validate(table, context={"path": path})
    except ValidationError as error:
        raise ImageError(_sentence(error, path)) from None


def _sentence(error: ValidationError, path: Path) -> str:
    """What is wrong with the recipe in ``path``: the first thing, an unknown key before all others."""
    mistakes = error.errors(include_url=False)
    for mistake in mistakes:
        if mistake["type"] == "extra_forbidden":
            *table, key = mistake["loc"]
            model = RecipeLists if table else RecipeFile
            known = [field.alias or name for name, field in model.model_fields.items()]
            where = f" in [{'.'.join(map(str, table))}]" if table else ""
            return f"{path} has an unknown key '{key}'{where}{hint(key, known)}"
    if isinstance(reason := mistakes[0].get("ctx", {}).get("error"), ValueError):
        return str(reason)
    return sentence(error, RecipeFile, source=str(path))
