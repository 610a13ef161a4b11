"""How fast the comparison on real machines reads a device of this machine: its program in turn with dd, which reads
the same with O_DIRECT and does nothing with it.  It only reads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HarnessError
from harness.lab.hardware.compare import program
from harness.model import BLOCK_BYTES

MIB = 1 << 20
#: What the project asks of it.
LEAST = 0.5


def main() -> int:
    """0 where the ratio is as asked, 1 where it is less, 2 with a sentence where something cannot be read."""
    parser = argparse.ArgumentParser(prog="ci/bench-digests", description=__doc__)
    parser.add_argument("device", type=Path, metavar="DEVICE", help="a block device, or a file")
    parser.add_argument("--rounds", type=int, default=5, help="how often each reads it (default: 5)")
    parser.add_argument("--mib", type=int, help="how much of it is read (default: all, at most 4096)")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("it takes a round or more")
    try:
        return measure(asked.device, asked.rounds, asked.mib)
    except HarnessError as error:
        print(f"ci/bench-digests: {error}", file=sys.stderr)
    except OSError as error:
        print(f"ci/bench-digests: {error.filename} cannot be read: {error.strerror}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"ci/bench-digests: {error.stderr.decode(errors='replace').strip()}", file=sys.stderr)
    return 2


def measure(device: Path, rounds: int, mebibytes: int | None) -> int:
    """All rounds, each in the other order than the one before, and what they amount to."""
    with device.open("rb") as file:
        size = file.seek(0, os.SEEK_END) // MIB
    size = min(size, mebibytes or 4096)
    if size < 1:
        raise HarnessError(f"{device} has less than a MiB")
    dd = ["dd", f"if={device}", "of=/dev/null", "iflag=direct", "bs=1M", f"count={size}"]
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "replicadigest"
        binary.write_bytes(program()[1])
        binary.chmod(0o700)
        own = [str(binary), "digests", str(device), "0", str(size * MIB // BLOCK_BYTES)]
        ratios = []
        for number in range(rounds):
            found = {}
            for argv in (dd, own) if number % 2 else (own, dd):
                found[argv[0]] = size / seconds(argv)
            one, other = found[own[0]], found["dd"]
            ratios.append(one / other)
            print(
                f"round {number + 1}: dd {other:.0f} MiB/s, digests {one:.0f} MiB/s, ratio {one / other:.2f}",
                flush=True,
            )
    middle = statistics.median(ratios)
    print(
        f"digests of {size} MiB are read at {middle:.2f} of dd's speed (median of {rounds}, {min(ratios):.2f} to "
        f"{max(ratios):.2f}); at least {LEAST} is asked for"
    )
    return 0 if middle >= LEAST else 1


def seconds(argv: Sequence[str]) -> float:
    """How long ``argv`` runs; what it prints is read, as a connection would, and thrown away."""
    began = time.monotonic()
    subprocess.run(argv, capture_output=True, check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
