"""What the witness costs: fio's IOPS on a node's DRBD device with it and without it, in turn, on a lab of its own."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence

from scipy import stats

from harness.config.lab_spec import LabSpec
from harness.config.stack_spec import StackSpec
from harness.drbd.resource import Resource
from harness.drbd.witness import READY_SECONDS, REPORT_SECONDS, WitnessProgram
from harness.errors import HarnessError
from harness.lab.nested.provider import nested_lab
from harness.model import Witness
from harness.render.fio_job import Job
from harness.util import logs
from harness.util.deadline import Deadline
from harness.util.progress import Progress
from harness.workloads.fio_runner import run_fio

CONFIDENCE = 0.95


def main() -> int:
    """0, or 2 with a sentence when the lab or the witness failed."""
    parser = argparse.ArgumentParser(prog="ci/bench-witness", description=__doc__)
    parser.add_argument("--pairs", type=int, default=8, help="runs with it and as many without it (default: 8)")
    parser.add_argument("--seconds", type=int, default=10, help="how long each run is (default: 10)")
    parser.add_argument("--block-size", default="4k", help="of each write, as fio has it (default: 4k)")
    parser.add_argument("--depth", type=int, default=16, help="writes in flight (default: 16)")
    asked = parser.parse_args()
    if asked.pairs < 2:
        parser.error("an interval needs two pairs or more")
    try:
        measure(asked)
    except HarnessError as error:
        print(f"ci/bench-witness: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(asked: argparse.Namespace) -> None:
    """Every pair, each in the other order than the one before, and what they amount to."""
    ratios: list[float] = []
    with logs.with_handler(logs.PROGRESS, Progress()), nested_lab(LabSpec(), StackSpec()) as lab:
        resource = Resource.for_nodes(lab.a, lab.b, lab.resource_spec)
        resource.create(skip_initial_sync=lab.fresh)
        # The first run fills what is empty: the activity log, the backing files.
        iops(resource, asked)
        for pair in range(asked.pairs):
            found: dict[bool, float] = {}
            seen: list[Witness] = []
            for watched in (True, False) if pair % 2 else (False, True):
                with witness(resource, seen) if watched else contextlib.nullcontext():
                    found[watched] = iops(resource, asked)
            ratios.append(found[True] / found[False])
            (one,) = seen
            print(
                f"pair {pair + 1}: without {found[False]:.0f}/s, with {found[True]:.0f}/s, ratio {ratios[-1]:.3f}; "
                f"{one.block_writes} block writes watched, {one.changed_block_writes} changed, "
                f"{one.total_not_watched} writes not watched, attached in {one.attach_seconds:.1f} s",
                flush=True,
            )
        resource.down()
    middle, low, high = interval(ratios)
    print(
        f"IOPS with the witness are {middle:.3f} of those without "
        f"({CONFIDENCE:.0%} interval {low:.3f} to {high:.3f}, {asked.pairs} pairs of {asked.seconds} s, "
        f"{asked.block_size}, {asked.depth} in flight)"
    )


@contextlib.contextmanager
def witness(resource: Resource, seen: list[Witness]) -> Iterator[None]:
    """The witness on the Primary; its counts go to ``seen``."""
    program = WitnessProgram(resource.a, resource.spec.minor)
    program.wait_ready(Deadline.after(READY_SECONDS, "the start of the witness"))
    yield
    seen.append(program.read(Deadline.after(REPORT_SECONDS, "the report of the witness")))


def iops(resource: Resource, asked: argparse.Namespace) -> float:
    """Random writes around the page cache, per second."""
    job = Job("bench", {
        "filename": resource.device, "rw": "randwrite", "bs": asked.block_size, "direct": True, "ioengine": "libaio",
        "iodepth": asked.depth, "time_based": True, "runtime": asked.seconds, "ramp_time": 1, "randrepeat": False,
    })  # fmt: skip
    ran = run_fio(resource.a.runner, (job,), name="bench-witness", timeout=asked.seconds + 60)
    return ran.result.jobs[0].write.iops


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of ``ratios`` and Student's interval around it."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = sum(logs) / len(logs)
    spread = math.sqrt(sum((one - middle) ** 2 for one in logs) / (len(logs) - 1) / len(logs))
    margin = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1)) * spread
    return math.exp(middle), math.exp(middle - margin), math.exp(middle + margin)


if __name__ == "__main__":
    sys.exit(main())
