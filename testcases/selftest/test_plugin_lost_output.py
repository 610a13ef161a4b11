"""A session of pytest whose output nobody reads any more, as when a terminal is gone: its lab is taken down."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from plugin_world import matrix, suite

from harness.store import Store, judged_results

pytest_plugins = ("pytester",)
__all__ = ["matrix", "suite"]

# Plays the matrix in a process of its own; "up" and "down" are files, and as long as "go" is not there a cell waits.
_PLAYED = """
import contextlib, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import pytest
from plugin_world import made_world
from harness.pytest_plugin import two_machines
from harness.util.logs import progress

patched = pytest.MonkeyPatch()
world = made_world(patched)

@contextlib.contextmanager
def lab(spec, stack, evidence):
    with world.lab(spec, stack, evidence) as made:
        Path("up").touch()
        try:
            deadline = time.monotonic() + 60
            while not Path("go").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            yield made
        finally:
            progress("what was changed is put back")
            Path("down").touch()

patched.setattr(two_machines, "nested_lab", lab)
sys.exit(pytest.main(["-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--drbd-matrix", sys.argv[2]]))
"""


@pytest.mark.parametrize("asked_to_end", [False, True])
def test_session_whose_output_nobody_reads_takes_its_lab_down(
    pytester: pytest.Pytester, matrix: Path, asked_to_end: bool
) -> None:
    argv = [sys.executable, "-c", _PLAYED, str(Path(__file__).parent), str(matrix)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=pytester.path) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while not (pytester.path / "up").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.stdout.close()
        if asked_to_end:
            process.send_signal(signal.SIGHUP)
        (pytester.path / "go").touch()
        status = process.wait(timeout=60)
    assert (pytester.path / "down").exists()
    found = judged_results(Store.open(pytester.path / "runs", "latest"))
    if asked_to_end:
        assert status == 2, "interrupted"
    else:
        # The expectations of the matrix are not all that this world finds: that is its answer, whoever reads it.
        assert status in (0, 1) and all(result.verdict is not None for result in found)
