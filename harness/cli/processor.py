"""A processor that NumPy does not start on: many a virtual machine's, whose type leaves out what every real one has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def known_processor() -> Iterator[None]:
    """Around imports: ends with one sentence, and status 2, where NumPy finds that this processor lacks something."""
    try:
        yield
    except RuntimeError as error:
        if "baseline optimizations" not in str(error):
            raise
        print(
            "drbd-harness: this processor lacks what NumPy is built for (x86-64-v2); in a virtual machine choose a CPU "
            "type that has it, such as 'host', or 'x86-64-v2-AES' on Proxmox VE",
            file=sys.stderr,
        )
        sys.exit(2)
