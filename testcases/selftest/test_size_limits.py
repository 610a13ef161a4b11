"""The limits on the size of what is in harness/ and testcases/: a file and a class can be read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent
TESTCASES = Path(__file__).parents[1]
FILE_LINES = 400
CLASS_LINES = 250


def too_large(top: Path) -> Iterator[str]:
    """A sentence for each file and class below ``top`` that is beyond the limits."""
    for path in sorted(top.rglob("*.py")):
        name = path.relative_to(top).as_posix()
        text = path.read_text()
        if (lines := len(text.splitlines())) > FILE_LINES:
            yield f"{name} has {lines} lines of at most {FILE_LINES}: split it"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > CLASS_LINES:
                yield f"class {node.name} in {name} has {lines} lines of at most {CLASS_LINES}: split it"


def test_harness_files_and_classes_are_within_the_limits() -> None:
    assert list(too_large(PACKAGE)) == []


def test_testcases_files_and_classes_are_within_the_limits() -> None:
    assert list(too_large(TESTCASES)) == []


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
