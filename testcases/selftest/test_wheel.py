"""The wheel, installed away from any checkout: it brings what a run needs, and a user's own folder can be tested."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.config import recipe
from harness.util import resources

CHECKOUT = Path(__file__).parents[2]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "harness", "testcases", "vm_images")
# What a user's folder holds: the example of the README.
EXAMPLE = (CHECKOUT / "testcases" / "examples" / "test_own.py").read_text()
REPORT = """
import json
from harness.config import recipe
from harness.util import resources
directory = recipe.recipes_directory()
print(json.dumps({
    "package": str(directory.parent),
    "digests": {
        f"{role} {suite}": recipe.digest(recipe.load(role, suite), directory)
        for role in recipe.ROLES for suite in recipe.suites(role)
    },
    "matrices": sorted(path.name for path in resources.matrices().iterdir()),
}))
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it; the other packages are those of this one."""

    directory: Path
    wheel: Path

    def run(self, program: str, *arguments: str, cwd: Path, status: int = 0) -> str:
        """What ``program`` of the environment printed; it has to end with ``status``."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST_"))}
        ran = subprocess.run(
            [str(self.directory / "bin" / program), *arguments],
            cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ran.returncode == status, ran.stdout + ran.stderr
        return ran.stdout


def pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Built from a copy of the sources, so that no leavings of an earlier build get in and none are left."""
    top = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            # What Python just compiles in another test has such a name until it is whole, and then no more.
            shutil.copytree(source, top / "source" / name, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))
        else:
            (top / "source").mkdir(exist_ok=True)
            shutil.copy(source, top / "source" / name)
    pip("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(top), str(top / "source"))
    shutil.rmtree(top / "source")
    (wheel,) = top.glob("*.whl")
    directory = top / "venv"
    venv.create(directory, symlinks=True)
    pip("--python", str(directory / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return Installed(directory, wheel)


def test_wheel_brings_recipes_and_matrices_equal_to_the_checkouts(installed: Installed, tmp_path: Path) -> None:
    found = json.loads(installed.run("python", "-c", REPORT, cwd=tmp_path))
    assert Path(found["package"]).is_relative_to(installed.directory), "the wheel's, not the checkout's"
    here = recipe.recipes_directory()
    assert found["digests"] == {
        f"{role} {suite}": recipe.digest(recipe.load(role, suite), here)
        for role in recipe.ROLES
        for suite in recipe.suites(role)
    }
    assert found["matrices"] == sorted(path.name for path in resources.matrices().iterdir())


def test_wheel_has_no_selftests(installed: Installed) -> None:
    (site,) = installed.directory.glob("lib/python*/site-packages")
    present = {path.name for path in (site / "harness" / "testcases").iterdir()} - {"__pycache__"}
    assert present == {"claims.toml", "conftest.py", "examples", "lab", "matrices"}


def test_wheel_has_the_claims(installed: Installed, tmp_path: Path) -> None:
    run = CHECKOUT / "testcases" / "selftest" / "golden" / "quick-drbd-8.4"
    assert "cache=directsync is reliable" in installed.run("drbd-harness", "claims", str(run), cwd=tmp_path)


def test_wheel_lists_the_cells_of_a_matrix(installed: Installed, tmp_path: Path) -> None:
    listed = installed.run("drbd-harness", "list", "--matrix", "smoke", cwd=tmp_path).split()
    (lab,) = installed.directory.glob("lib/python*/site-packages/harness/testcases/lab")
    arguments = (str(lab), f"--rootdir={lab.parents[1]}", "--collect-only", "-q", "--drbd-matrix", "smoke")
    collected = installed.run("python", "-m", "pytest", *arguments, cwd=tmp_path)
    assert listed and all(f"test_cell[{cell}]" in collected for cell in listed)


def test_wheel_lets_a_users_own_folder_be_collected(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(EXAMPLE)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["harness.fixtures"]\n')
    collected = installed.run("python", "-m", "pytest", "--collect-only", "-q", cwd=tmp_path)
    assert "test_own.py::test_random_writes_stay_equal[writeback-random-writes-stay-equal]" in collected


def test_wheel_runs_a_matrix_whatever_settings_stand_around_it(installed: Installed, tmp_path: Path) -> None:
    above = installed.directory.parent
    (above / "conftest.py").write_text("raise RuntimeError('somebody else is')\n")
    (above / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--nosuchoption"\n')
    installed.run("drbd-harness", "run", "--matrix", "smoke", "-k", "nosuchcell", cwd=tmp_path, status=3)
    (above / "conftest.py").unlink()
    (above / "pyproject.toml").unlink()
