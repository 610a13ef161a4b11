"""What a run was made with, kept beside it: images and their packages, and the harness's own version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import count
from pathlib import Path

from harness import __version__
from harness.model import LabProvenance, Provenance, Run
from harness.store.run_store import Store
from harness.util.atomic_file import write_atomic
from harness.util.checkout import harness_commit
from harness.util.read_file import read_file

PACKAGES = "packages.json"


def keep_provenance(store: Store, lab: LabProvenance) -> None:
    """Keep what ``lab`` is made of, and by which version of the harness, with the run in ``store``.

    Where an earlier lab of the run was another, the run gets a note, and its packages stay beside the new ones as
    ``packages.1.json`` and so on.  :class:`~harness.errors.StoreError` where it cannot be kept.
    """
    packages = _dumped(lab)
    path = store.directory / PACKAGES
    run = store.run()
    found = Provenance(
        images=dict(lab.images),
        packages_digest=packages_digest(lab),
        node_vcpus=lab.node_vcpus,
        machines=lab.machines,
        harness_version=__version__,
        harness_commit=harness_commit(),
    )
    earlier = ""
    if lab.packages and not _holds(path, packages):
        if path.exists():
            earlier = path.rename(_free_name(path)).name
        write_atomic(path, packages)
    store.save_run(replace(run, provenance=found, notes=(*run.notes, *_changes(run, found, earlier))))


def kept_packages(store: Store) -> dict[str, dict[str, str]]:
    """By role, the packages of the run's newest images; empty where they were not kept or cannot be read."""
    try:
        found = json.loads(read_file(store.directory / PACKAGES))
    except (OSError, ValueError, RecursionError):
        return {}
    roles = found if isinstance(found, dict) else {}
    return {
        role: {name: str(version) for name, version in packages.items()}
        for role, packages in roles.items()
        if isinstance(packages, dict)
    }


def packages_digest(lab: LabProvenance) -> str:
    """The SHA-256 (hex) of what ``packages.json`` is for ``lab``; empty where its packages are not known."""
    return hashlib.sha256(_dumped(lab)).hexdigest() if lab.packages else ""


def _changes(run: Run, found: Provenance, earlier: str) -> list[str]:
    """One sentence for each thing that is another than with the run's lab before; ``earlier`` has its packages."""
    before = run.provenance
    if before == Provenance():
        return []
    notes = [
        f"the {role} image is another than before: {digest[:12]} instead of {before.images.get(role, 'none')[:12]}"
        for role, digest in found.images.items()
        if digest != before.images.get(role)
    ]
    if earlier and not notes:
        notes.append(f"the images were built again in between; the packages of the earlier ones are in {earlier}")
    if found.harness_commit != before.harness_commit or found.harness_version != before.harness_version:
        notes.append(f"the harness is another than before: {_named(found)} instead of {_named(before)}")
    return notes


def _named(one: Provenance) -> str:
    return f"{one.harness_version} ({one.harness_commit})" if one.harness_commit else one.harness_version


def _dumped(lab: LabProvenance) -> bytes:
    plain = {role: dict(sorted(packages.items())) for role, packages in lab.packages.items()}
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_file(path) == content
    except OSError:
        return False


def _free_name(path: Path) -> Path:
    return next(
        name for number in count(1) if not (name := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists()
    )
