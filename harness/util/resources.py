"""The folders that come with the package: beside it in a checkout, inside it when it was installed."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent.parent


def folder(name: str, marker: str) -> Path:
    """The folder ``name`` (``vm_images``, ``testcases``) that holds ``marker``.

    :class:`UsageError` where it is neither beside the package nor in it.
    """
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if (candidate / marker).exists():
            return candidate
    raise UsageError(f"{name}/{marker} is neither in {_PACKAGE} nor beside it; install the harness again")


def recipes() -> Path:
    """Where the image recipes are, with the files and sources that go into an image."""
    return folder("vm_images", "node.toml")


def stacks() -> Path:
    """Where the stacks that come with the harness are."""
    return recipes() / "stacks"


def testcases() -> Path:
    """Where the matrices and the lab testcases are."""
    return folder("testcases", "matrices/smoke.toml")


def matrices() -> Path:
    """Where the matrices that come with the harness are."""
    return testcases() / "matrices"


def claims() -> Path:
    """The file of claims that comes with the harness."""
    return testcases() / "claims.toml"


def kept_runs() -> tuple[Path, ...]:
    """The runs whose evidence is in the checkout, in ``docs/evidence`` and the golden corpus; none where it was
    installed.
    """
    top = _PACKAGE.parent
    folders = (top / "docs" / "evidence", top / "testcases" / "selftest" / "golden")
    return tuple(found.parent for folder in folders for found in sorted(folder.glob("*/run.json")))
