"""What stacks share in the cache: packages that apt fetched, and modules that dkms built."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from harness.images.cache import Image, being_built


def packages_folder(cache: Path) -> Path:
    """Where packages are that were fetched for stacks, each once."""
    return cache / "packages"


def modules_folder(cache: Path) -> Path:
    """Where modules are that dkms built, a folder for all that they were made from."""
    return cache / "modules"


def prune_downloads(cache: Path, kept: Iterable[Image], dry_run: bool) -> list[Path]:
    """Remove packages and modules that are in none of the images ``kept``; returns them.

    With ``dry_run`` nothing is removed; and nothing while an image is being built, which may be what they were fetched
    for.
    """
    if being_built(cache):
        return []
    said = [image.manifest.get("stack", {}) for image in kept]
    packages = {name for stack in said for name in stack.get("debs", {})}
    built = {Path(facts["origin"]).parent for stack in said for facts in stack.get("modules", {}).values()}
    doomed = [path for path in sorted(packages_folder(cache).glob("*.deb")) if path.name not in packages]
    doomed += [path for path in sorted(modules_folder(cache).glob("[!.]*")) if path not in built]
    for path in [] if dry_run else doomed:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return doomed
