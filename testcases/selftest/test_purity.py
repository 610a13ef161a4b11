"""The pure modules stay pure: none of them brings in libvirt, an ssh client or pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import harness

PACKAGE = Path(harness.__file__).parent
IMPURE = ("libvirt", "paramiko", "pytest")


def pure_modules() -> list[str]:
    single = [name for name in ("model", "matrix", "agree", "judge", "stats") if (PACKAGE / f"{name}.py").exists()]
    nested = [
        f"{folder}.{path.stem}"
        for folder in ("parse", "render")
        for path in sorted((PACKAGE / folder).glob("*.py"))
        if path.stem != "__init__"
    ]
    return [f"harness.{name}" for name in (*single, *nested)]


# Importing takes all modules in one fresh interpreter; after each it looks at what came along.
LOOK = """
import importlib, json, sys
brought = {}
for name in sys.argv[1].split(","):
    importlib.import_module(name)
    brought[name] = [bad for bad in sys.argv[2].split(",") if bad in sys.modules]
print(json.dumps(brought))
"""


def brought_by(modules: list[str]) -> dict[str, list[str]]:
    argv = [sys.executable, "-c", LOOK, ",".join(modules), ",".join(IMPURE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_pure_modules_bring_nothing_impure() -> None:
    modules = pure_modules()
    assert {"harness.model", "harness.matrix", "harness.stats", "harness.parse.kernel_log"} <= set(modules)
    assert {name: bad for name, bad in brought_by(modules).items() if bad} == {}


def test_the_look_itself_can_see_it() -> None:
    assert brought_by(["json", "paramiko"]) == {"json": [], "paramiko": ["paramiko"]}


def test_the_model_needs_the_standard_library_only() -> None:
    look = "import sys; before = set(sys.modules); import harness.model; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    brought = {name.partition(".")[0] for name in done.stdout.split()}
    assert brought - set(sys.stdlib_module_names) == {"harness"}
