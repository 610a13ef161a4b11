"""A process with the arguments by which libvirt's QEMUs are known.  Nothing here is a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.util.deadline import Deadline, poll


@contextmanager
def process(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the arguments by which libvirt's QEMUs are known."""
    argv = [sys.executable, "-c", "import time; time.sleep(600)", "-name", f"guest={name},debug-threads=on"]
    with subprocess.Popen(argv) as found:
        try:
            # The kernel shows the arguments a moment after the program was started.
            known = Path(f"/proc/{found.pid}/cmdline")
            poll(lambda: name in known.read_text() or None, Deadline.after(60, "its arguments"), every=0.01)
            yield found
        finally:
            found.kill()
