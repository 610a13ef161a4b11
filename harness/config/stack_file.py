"""Stack files: TOML in, a :class:`~harness.config.stack_spec.StackSpec` with absolute paths out.

A file has ``schema = 1``, ``description``, the keys of the spec, and the tables ``[node]``, ``[a]``, ``[b]`` and
``[guest]``.  Paths are relative to it; patterns such as ``debs/*.deb`` are resolved when it is read.  Whatever is wrong
is one sentence: a :class:`~harness.errors.UsageError`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from harness.config.sentences import WrittenFile, hint, quoted, validated
from harness.config.stack_spec import IN_TREE, NodeTable, StackSpec, StackTables, is_path
from harness.config.toml_text import is_there, read_toml
from harness.errors import UsageError
from harness.util.paths import expanded

STACK_SCHEMA = 1
_TABLES = ("node", "a", "b", "guest")
_PATTERN = re.compile(r"[*?\[]")


class StackFile(WrittenFile, StackTables):
    """A stack file as it is written."""

    reads: ClassVar[int] = STACK_SCHEMA


def names(search: Path) -> tuple[str, ...]:
    """The stacks in the directory ``search``."""
    return tuple(sorted(path.stem for path in search.glob("*.toml")))


def load(path_or_name: str, search: Path) -> StackSpec:
    """The stack in a TOML file, or the one of that name in the directory ``search``."""
    path = _find(path_or_name, search)
    _, table = read_toml(path)
    file = validated(StackFile, table, source=str(path))
    given = {name: getattr(file, name) for name in StackTables.model_fields}
    for name in _TABLES:
        written = given[name]
        origins = {
            key: _resolved(getattr(written, key), key, path.parent, f"{path}, [{name}]")
            for key in type(written).model_fields
        }
        given[name] = written.model_copy(update=origins)
    # A file that comes along and says no more than the suite it is named after: --suite NAME is the same stack.
    shipped = path.parent == search
    whole = shipped and file.suite == path.stem and StackSpec(**given) == StackSpec(suite=file.suite)
    return StackSpec(**given, name="" if whole else path.stem if shipped else str(path))


def require_well_formed(path_or_name: str, search: Path) -> None:
    """That it says nothing wrong, whatever is where its paths lead.

    :class:`~harness.errors.UsageError` where it does, or where there is no such stack.
    """
    path = _find(path_or_name, search)
    validated(StackFile, read_toml(path)[1], source=str(path))


def description(name: str, search: Path) -> str:
    """What the stack ``name`` in the directory ``search`` says of itself."""
    return str(read_toml(_find(name, search))[1].get("description", ""))


def with_module(spec: StackSpec, path: str, option: str) -> StackSpec:
    """``spec`` with another DRBD module on both nodes, or on the one that its own table leaves free.

    ``path``, which ``option`` named, is relative to the working directory; ``in-tree`` is the kernel's own.
    """
    if spec.a.drbd and spec.b.drbd:
        raise UsageError(f"{option} {path} would be on no node: the stack '{spec.label}' says the DRBD of each itself")
    drbd = _resolved((path,), "drbd", Path.cwd(), option)
    return spec.model_copy(update={"node": NodeTable(drbd=drbd).over(spec.node)})


def _find(path_or_name: str, search: Path) -> Path:
    path = Path(path_or_name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if not is_there(path):
            why = "is no file" if path.exists() or path.is_symlink() else ""
            raise UsageError(f"{path} {why}" if why else f"there is no stack file {path}{_near(path)}")
        return path.absolute()
    known = names(search)
    if path_or_name not in known:
        raise UsageError(f"there is no stack '{path_or_name}' in {search}{hint(path_or_name, known)}")
    return search / f"{path_or_name}.toml"


def _resolved(origins: Iterable[str], key: str, folder: Path, where: str) -> tuple[str, ...]:
    """``origins`` with absolute paths that are there, and patterns replaced by what they match."""
    found: dict[str, None] = {}
    for origin in origins:
        if not origin.strip():
            # A variable of a script's that is empty, and not the folder that it happens to be in.
            raise UsageError(f"{where}: '{key}' is empty; it names a path{f', or {IN_TREE}' if key == 'drbd' else ''}")
        if origin == IN_TREE if key == "drbd" else not is_path(origin):
            found[origin] = None
            continue
        path = Path(os.path.normpath(folder / expanded(origin, f"{where}: '{key}'")))
        try:
            if why := _too_wide(path):
                raise UsageError(f"{where}: '{key}' is {quoted(origin)}, {why}")
            if path.exists():
                found[str(path)] = None
            elif matches := _matches(path):
                found.update(dict.fromkeys(map(str, matches)))
            else:
                raise UsageError(f"{where}: '{key}' is {quoted(origin)}, and there is no {path}{_near(path, key)}")
        except OSError as error:
            # In a folder of somebody else's, say.
            why = error.strerror or str(error)
            raise UsageError(f"{where}: '{key}' is {quoted(origin)}, and {path} cannot be looked at: {why}") from error
    return tuple(found)


def _too_wide(path: Path) -> str:
    """Why nobody looks for what ``path`` means: that would be on the whole machine; empty where it is not."""
    first, *_ = (*path.parts[1:], "")
    if not first:
        return "which is the whole machine; name the folder that it is in"
    if path.exists():
        return ""
    if "**" in path.parts:
        return "and '**' may be any number of folders; write a '*' for each"
    return "a pattern of any folder; name the folder that it is in" if _PATTERN.search(first) else ""


def _matches(pattern: Path) -> list[Path]:
    """The files that ``pattern`` matches, where it is one; directories in it may be patterns too."""
    root = Path(pattern.anchor)
    try:
        return sorted(root.glob(str(pattern.relative_to(root))))
    except (ValueError, OSError):
        return []


def _near(path: Path, key: str = "") -> str:
    """The name in the nearest folder that there is that is most like the one that is not there, as a sentence's end."""
    missing = path
    while not missing.parent.is_dir():
        missing = missing.parent
    try:
        there = sorted(path.name for path in missing.parent.iterdir())
    except OSError:
        there = []
    there += [IN_TREE] if key == "drbd" else []
    near = difflib.get_close_matches(missing.name, there, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
