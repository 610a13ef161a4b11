"""The limits on the size of what is in harness/: a file and a class can be read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent
FILE_LINES = 400
CLASS_LINES = 250
# Each goes once its file is split by what the attributes share.
LARGER_FOR_NOW = frozenset({"drbd/resource.py"})


def too_large(top: Path, allowed: frozenset[str] = frozenset()) -> Iterator[str]:
    """A sentence for each file and class below ``top`` that is beyond the limits, without those ``allowed``."""
    for path in sorted(top.rglob("*.py")):
        name = path.relative_to(top).as_posix()
        if name in allowed:
            continue
        text = path.read_text()
        if (lines := len(text.splitlines())) > FILE_LINES:
            yield f"{name} has {lines} lines of at most {FILE_LINES}: split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > CLASS_LINES:
                yield f"class {node.name} in {name} has {lines} lines of at most {CLASS_LINES}: split it"


def test_harness_files_and_classes_are_within_the_limits() -> None:
    assert list(too_large(PACKAGE, LARGER_FOR_NOW)) == []


def test_larger_for_now_names_only_files_that_are_larger() -> None:
    for name in LARGER_FOR_NOW:
        assert any(name in sentence for sentence in too_large(PACKAGE)), f"{name} needs no allowance any more"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\n" * 400, []),
        ("\n" * 401, ["room/long.py has 401 lines of at most 400: split it"]),
        ("class Big:\n" + "    a = 1\n" * 249, []),
        ("class Big:\n" + "    a = 1\n" * 250, ["class Big in room/long.py has 251 lines of at most 250: split it"]),
    ],
)
def test_too_large_at_and_beyond_the_limits(tmp_path: Path, text: str, found: list[str]) -> None:
    path = tmp_path / "room" / "long.py"
    path.parent.mkdir()
    path.write_text(text)
    assert list(too_large(tmp_path)) == found
