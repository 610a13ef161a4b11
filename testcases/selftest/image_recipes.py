"""Recipes that a test may change, and images with nothing in them, for the builder's tests.  Nothing here is a test."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from harness import images
from harness.config import recipe
from harness.images import builder, process

ROLES_AND_SUITES = [(role, suite) for role in images.ROLES for suite in recipe.suites(role)]


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of the recipes, which the package then uses."""
    copy = tmp_path / "vm_images"
    shutil.copytree(recipe.recipes_directory(), copy, symlinks=True)
    monkeypatch.setattr(recipe, "recipes_directory", lambda: copy)
    return copy


def digest_of(recipes: Path, role: str = "guest", suite: str = "trixie") -> str:
    return recipe.digest(recipe.load(role, suite, recipes), recipes)


def put_image(store: Path, role: str, suite: str, digest: str, age: timedelta = timedelta()) -> Path:
    """A complete image with nothing in it."""
    directory = store / "images" / f"{role}-{suite}-{digest[:12]}"
    directory.mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img", "root.img"):
        (directory / name).write_bytes(b"x")
    manifest = {
        "schema": builder.MANIFEST_SCHEMA,
        "role": role,
        "suite": suite,
        "digest": digest,
        "kernel": "6.12.0",
        "kernel_args": ["ro"],
        "packages": {"fio": "3.39-1"},
        "built_at": (datetime.now(UTC) - age).isoformat(),
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


def build_step() -> process.Step:
    return process.Step("guest image, trixie", time.monotonic(), Event())
