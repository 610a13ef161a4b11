"""Running the long programs of a build: progress while they run, one sentence when they fail, nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from harness.config.recipe import ImageError
from harness.remote.local import ENGLISH
from harness.util import logs, paths

PROGRESS_SECONDS = 1.0
LOG_LINES = 3
LINE_CHARACTERS = 160
MIRROR_VARIABLE = "DRBD_HARNESS_MIRROR"
STALE_VARIABLE = "DRBD_HARNESS_STALE_MIRROR"
"""Set where the mirror's lists may have expired, as those of a snapshot have."""
_EXPIRED = re.compile(r"^E: Release file for \S+?(dists/\S+) is expired \(invalid since ([\w ]+)\)")

# Runs "$@". A TERM, from the harness or because the harness died, goes to everything that was started, and then
# there is time to clean up: mmdebstrap itself would wait for children that got no signal.
_GROUP = """
trap 'trap "" TERM; kill -TERM 0' TERM
"$@" &
child=$!
wait "$child"; status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
exit "$status"
"""

# Lines in which the tools report only that they are about to end.
_EPILOGUE = (
    "I:", "E: setup failed", "E: mmdebstrap failed", "E: Sub-process", "E: apt-get update --error-on", "W: hooklistener"
)  # fmt: skip


class StoppedError(ImageError):
    """This build was stopped because another one failed or the user interrupted."""


@dataclass(frozen=True)
class Step:
    """How a build reports its progress, with the seconds since it began, and learns that it has to stop."""

    name: str
    began: float
    stop: Event

    def report(self, what: str) -> None:
        """One line of progress; raises :class:`StoppedError` if the build was asked to stop."""
        if self.stop.is_set():
            raise StoppedError(f"{self.name}: stopped")
        logs.progress(f"{self.name}: {what} ({time.monotonic() - self.began:.0f} s)")


def run(argv: Sequence[str], log: Path, step: Step, phase: str, scratch: Path | None = None) -> None:
    """Run ``argv`` with its output appended to ``log``, until it ends or ``step`` is stopped.

    ``phase`` is what ``step`` reports every second, until the program writes an ``I:`` line of its own.  With
    ``scratch`` the program keeps its temporary files there, and root's mounts only in a namespace of its own, so that
    none of it outlives a harness that was killed.  Raises :class:`ImageError` with the end of the log.
    """
    # INITRD=No: the kernel packages' hook makes no initrd, this project makes its own.
    environment = os.environ | {
        "PATH": paths.programs(), "INITRD": "No", "DEBIAN_FRONTEND": "noninteractive", **ENGLISH
    }  # fmt: skip
    wrapped = ["setpriv", "--pdeathsig", "TERM"]
    if scratch is not None:
        environment["TMPDIR"] = str(scratch)
        wrapped += ["unshare", "--mount"] if os.geteuid() == 0 else []
    start = log.stat().st_size if log.exists() else 0
    with logs.command(logs.CONTROLLER, argv) as logged:
        status = _run([*wrapped, "sh", "-c", _GROUP, "sh", *argv], environment, log, start, step, phase)
        logged.status = status
    if status:
        raise ImageError(f"{argv[0]} ended with status {status}: {reason(_lines(log, start))} (whole log: {log})")


def _run(argv: Sequence[str], environment: Mapping[str, str], log: Path, start: int, step: Step, phase: str) -> int:
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        while True:
            try:
                return process.wait(PROGRESS_SECONDS)
            except subprocess.TimeoutExpired:
                phase = last_phase(_lines(log, start)) or phase
                step.report(phase)
    except BaseException:
        _end(process)
        raise


def last_phase(lines: Sequence[str]) -> str | None:
    """The last phase that mmdebstrap reported."""
    phases = [line.removeprefix("I: ").rstrip(".") for line in lines if line.startswith("I: ")]
    # The text of a hook is a script; that one runs is enough.
    return phases[-1].split(" in shell:")[0] if phases else None


def reason(lines: Sequence[str]) -> str:
    """Why a program ended: the last telling lines of its log, in one line; of lists that expired, what to do."""
    if expired := next(filter(None, map(_EXPIRED.search, lines)), None):
        remedy = f"{STALE_VARIABLE}=1 uses them all the same, {MIRROR_VARIABLE} names another mirror"
        return f"the mirror's lists have expired ({expired[1]}, {expired[2]} ago); {remedy}"
    telling = [line for line in lines if not line.startswith(_EPILOGUE)]
    errors = [line for line in telling if line.startswith(("E: ", "dpkg: error"))]
    telling = errors or telling or list(lines)
    return " / ".join(line[:LINE_CHARACTERS] for line in telling[-LOG_LINES:]) or "no output"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ``process`` and what it started, leaving it time to clean up after itself."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30.0)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5.0)


def _lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
