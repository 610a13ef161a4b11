"""What a run was made with: images, packages, and the commit of the harness."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import __version__
from harness.model import LabProvenance, Run
from harness.store import Store, keep_provenance
from harness.store import provenance as module
from harness.util.checkout import harness_commit

RUN = Run("20261124T000000Z-aaaa", "quick", "2026-11-24T00:00:00+00:00", ())
LAB = LabProvenance(
    {"node": "a" * 64, "guest": "b" * 64}, {"node": {"qemu": "10.0", "drbd-utils": "9.22"}, "guest": {"fio": "3.39"}}, 2
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(module, "harness_commit", lambda: "c0ffee")
    return Store.create(tmp_path, RUN)


def test_keep_provenance_of_a_lab_is_in_the_run_and_its_packages_beside_it(store: Store) -> None:
    keep_provenance(store, LAB)
    found = store.run().provenance
    assert found.images == LAB.images and found.node_vcpus == 2
    assert (found.harness_version, found.harness_commit) == (__version__, "c0ffee")
    content = (store.directory / "packages.json").read_bytes()
    assert found.packages_digest == hashlib.sha256(content).hexdigest()
    assert json.loads(content) == LAB.packages


def test_keep_provenance_of_the_same_lab_again_changes_nothing(store: Store) -> None:
    keep_provenance(store, LAB)
    before = store.run()
    keep_provenance(store, LAB)
    assert store.run() == before and before.notes == ()
    assert not (store.directory / "packages.1.json").exists()


def test_keep_provenance_of_another_image_keeps_the_old_packages_and_notes_it(store: Store) -> None:
    keep_provenance(store, LAB)
    other = LabProvenance({**LAB.images, "node": "d" * 64}, {**LAB.packages, "node": {"qemu": "10.1"}}, 2)
    keep_provenance(store, other)
    assert store.run().notes == ("the node image is another than before: dddddddddddd instead of aaaaaaaaaaaa",)
    assert json.loads((store.directory / "packages.1.json").read_bytes()) == LAB.packages
    assert json.loads((store.directory / "packages.json").read_bytes()) == other.packages


def test_keep_provenance_of_images_built_again_notes_it(store: Store) -> None:
    keep_provenance(store, LAB)
    keep_provenance(store, LabProvenance(LAB.images, {**LAB.packages, "guest": {"fio": "3.40"}}, 2))
    keep_provenance(store, LAB)
    notes = store.run().notes
    assert [note.rpartition(" ")[2] for note in notes] == ["packages.1.json", "packages.2.json"]
    assert notes[0].startswith("the images were built again in between; the packages of the earlier ones are in ")


def test_keep_provenance_by_another_commit_notes_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_provenance(store, LAB)
    monkeypatch.setattr(module, "harness_commit", lambda: "beef+modified")
    keep_provenance(store, LAB)
    named = f"{__version__} (beef+modified) instead of {__version__} (c0ffee)"
    assert store.run().notes == (f"the harness is another than before: {named}",)


def test_keep_provenance_of_a_lab_without_packages_writes_no_file(store: Store) -> None:
    keep_provenance(store, LabProvenance())
    assert store.run().provenance.packages_digest == ""
    assert not (store.directory / "packages.json").exists()


# --------------------------------------------------------------------------- the harness's own commit


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a package in it, committed; returns the package."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    package = tmp_path / "repository" / "harness"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", "harness")
    git(package.parent, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "first")
    return package


def git(directory: Path, *arguments: str) -> str:
    argv = ["git", "-C", str(directory), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_harness_commit_of_a_clean_checkout_is_its_head(checkout: Path) -> None:
    commit = harness_commit(checkout)
    assert commit == git(checkout.parent, "rev-parse", "HEAD").strip() and len(commit) == 40


@pytest.mark.parametrize("name", ["__init__.py", "new.py"])
def test_harness_commit_of_a_changed_checkout_is_modified(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed = True\n")
    assert harness_commit(checkout).endswith("+modified")


def test_harness_commit_with_runs_beside_the_package_is_not_modified(checkout: Path) -> None:
    (checkout.parent / "runs").mkdir()
    (checkout.parent / "runs" / "run.json").write_text("{}")
    assert not harness_commit(checkout).endswith("+modified")


def test_harness_commit_of_an_installed_package_below_a_repository_is_empty(checkout: Path) -> None:
    installed = checkout.parent / "venv" / "lib" / "harness"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert harness_commit(installed) == ""


def test_harness_commit_outside_of_a_repository_is_empty(tmp_path: Path) -> None:
    package = tmp_path / "harness"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert harness_commit(package) == ""


def test_harness_commit_within_a_git_hook_is_that_of_the_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = harness_commit(checkout)
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))
    assert harness_commit(checkout) == head


def test_harness_commit_without_git_is_empty(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert harness_commit(checkout) == ""
