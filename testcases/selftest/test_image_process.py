"""The programs of a build: their progress, their last words, and how they end with whoever started them."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from image_recipes import build_step

from harness import images
from harness.images import ImageError, process


class TestProcess:
    def test_run_that_fails_raises_reason_and_log(self, tmp_path: Path) -> None:
        script = 'echo Reading package lists; echo "E: Unable to locate package nonsense"; echo "I: done"; exit 25'
        log = tmp_path / "log"
        with pytest.raises(ImageError) as caught:
            process.run(["sh", "-c", script], log, build_step(), "starting")
        assert str(caught.value) == f"sh ended with status 25: E: Unable to locate package nonsense (whole log: {log})"
        assert "Reading package lists" in log.read_text()

    def test_last_phase_is_the_newest_that_was_printed(self) -> None:
        assert process.last_phase(["I: extracting archives...", "Setting up x", "I: done"]) == "done"
        assert process.last_phase(["Setting up x"]) is None

    def test_reason_without_an_error_line_is_the_last_lines(self) -> None:
        assert process.reason(["a", "b", "c", "d", "I: done"]) == "b / c / d"
        assert process.reason(["I: done"]) == "I: done"
        assert process.reason([]) == "no output"
        expired = "E: Release file for http://here/dists/sid/InRelease is expired (invalid since 24d 4h). Updates will"
        said = process.reason([expired, "E: mmdebstrap failed to run"])
        assert said.startswith("the mirror's lists have expired (dists/sid/InRelease, 24d 4h ago); DRBD_HARNESS_STALE")
        assert len(process.reason(["x" * 10000])) < 200

    def test_run_of_a_silent_program_reports_progress(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "harness.progress")
        process.run(["sleep", "1.3"], tmp_path / "log", build_step(), "waiting")
        assert caplog.messages[0].startswith("guest image, trixie: waiting (")

    def test_run_logs_the_program_without_what_is_around_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "harness.command")
        with pytest.raises(ImageError):
            process.run(["sh", "-c", "exit 25"], tmp_path / "log", build_step(), "starting")
        stopped = build_step()
        stopped.stop.set()
        with pytest.raises(process.StoppedError):
            process.run(["sleep", "60"], tmp_path / "log", stopped, "waiting")
        assert [message.split("\t")[:3] + message.split("\t")[4:5] for message in caplog.messages] == [
            ["-", "controller", "25", "sh -c 'exit 25'"], ["-", "controller", "stopped", "sleep 60"],
        ]  # fmt: skip

    def test_run_that_is_stopped_lets_the_program_clean_up(self, tmp_path: Path) -> None:
        step = build_step()
        marker = tmp_path / "cleaned"
        script = f'trap "touch {marker}; exit 1" TERM; sleep 60 & wait'
        step.stop.set()
        with pytest.raises(process.StoppedError):
            process.run(["sh", "-c", script], tmp_path / "log", step, "waiting")
        assert marker.exists()

    def test_run_in_a_killed_harness_ends_its_programs(self, tmp_path: Path) -> None:
        """SIGKILL leaves the harness no chance; the programs it started must end all the same."""
        marker = tmp_path / "cleaned"
        script = f'trap "touch {marker}; exit 1" TERM; echo started; sleep 60 & wait'
        program = textwrap.dedent(
            f"""
            import time
            from pathlib import Path
            from threading import Event
            from harness.images import process
            step = process.Step("x", time.monotonic(), Event())
            process.run(["sh", "-c", {script!r}], Path({str(tmp_path / "log")!r}), step, "waiting")
            """
        )
        root = Path(images.__file__).parents[2]
        harness = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.DEVNULL)
        try:
            self.wait_until(lambda: (tmp_path / "log").exists() and "started" in (tmp_path / "log").read_text())
        finally:
            harness.kill()
            harness.wait()
        self.wait_until(marker.exists)

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "did not happen in time"
            time.sleep(0.02)
