"""What harness/ imports is declared, what is declared is imported, and the lock has all of it with digests."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent
CHECKOUT = Path(__file__).parents[2]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    return {canonical(re.split(r"[<>=!~;\[ ]", one, maxsplit=1)[0]) for one in wanted}


def imported() -> set[str]:
    modules: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    modules -= {*sys.stdlib_module_names, "harness"}
    makers = packages_distributions()
    return {canonical(makers[module][0]) for module in modules}


def locked() -> dict[str, str]:
    """Each package of the lock, with the rest of its entry."""
    text = (CHECKOUT / "ci" / "requirements.lock").read_text()
    entries = re.findall(r"^([A-Za-z][^=\n]*)==((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return {canonical(name): rest for name, rest in entries}


def test_dependencies_declared_are_those_imported() -> None:
    assert declared() == imported()


def test_lock_has_every_declared_dependency_with_a_digest() -> None:
    lock = locked()
    assert declared("dev") <= set(lock)
    assert [name for name, rest in lock.items() if "--hash=sha256:" not in rest] == []


def test_lock_names_no_registry() -> None:
    text = (CHECKOUT / "ci" / "requirements.lock").read_text()
    assert "://" not in text and "index-url" not in text
