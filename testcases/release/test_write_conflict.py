"""Two Primaries that write the same blocks at once, which nothing coordinates: docs/drbd-write-conflict.md.

On a lab; before a release, and whenever somebody asks what a DRBD makes of it.  ``-s`` shows what both nodes said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.drbd import epochs, roles
from harness.drbd.resource import Resource, both
from harness.errors import DeadlineError
from harness.lab.node import Node
from harness.model import DelayProfile
from harness.parse.kernel_log import is_error
from harness.util.deadline import Deadline, poll

SPAN_MIB = 4
SECONDS = 6
# DRBD 9.1.4 and later refuse to resolve it, and say so.
REFUSED = "Concurrent writes detected"


@dataclass(frozen=True)
class Outcome:
    """What became of it: the connection at the end, the epochs of each side, and what each log has to say of it."""

    connected: bool
    epochs: dict[str, int]
    said: tuple[str, ...]


@pytest.fixture
def two_primaries(resource: Resource) -> Iterator[Resource]:
    """Both nodes are Primary; behind the test ``a`` is the only one again, and its data is everywhere."""
    roles.allow_two_primaries(resource, True)
    roles.promote(resource, resource.b)
    yield resource
    resource.apply_delays(DelayProfile())
    epochs.drop_stuck(resource)
    roles.restore_baseline(resource, Deadline.after(roles.SETTLE_SECONDS, "the end of the conflict"))
    assert all(resource.epochs(node) == 1 for node in (resource.a, resource.b))


def written(resource: Resource, apart: bool) -> Outcome:
    """Both nodes write 4 KiB blocks at random, to the same few MiB or to some that lie apart."""
    cursors = {node.name: node.log.mark("the writes begin") for node in (resource.a, resource.b)}

    def write(node: Node) -> None:
        offset = SPAN_MIB * 2 if apart and node is resource.b else 0
        job = [
            "fio", "--name=writes", f"--filename={resource.device}", "--direct=1", "--rw=randwrite", "--bs=4k",
            f"--size={SPAN_MIB}m", f"--offset={offset}m", "--ioengine=libaio", "--iodepth=16", "--time_based",
            f"--runtime={SECONDS}", f"--randseed={1 + offset}",
        ]  # fmt: skip
        node.runner.run(job, timeout=120)

    both(write, resource.a, resource.b)
    # The one that notices is some writes behind, and its peer learns of it still later.
    with contextlib.suppress(DeadlineError):
        poll(lambda: None if roles.connected(resource) else True, Deadline.after(3, "the end of the connection"))
    said = []
    for node in (resource.a, resource.b):
        node.log.mark("the writes ended")
        lines = [line.text for line in node.log.lines(cursors[node.name])]
        said += [f"{node.name}: {text}" for text in lines if is_error(text) or REFUSED in text]
    held = {node.name: resource.epochs(node) for node in (resource.a, resource.b)}
    outcome = Outcome(roles.connected(resource), held, tuple(said))
    print(f"\n{resource.version}: {outcome}")
    return outcome


@pytest.mark.lab
@pytest.mark.parametrize("link_delay_ms", [0, 20])
@pytest.mark.parametrize("apart", [True, False], ids=["apart", "same"])
def test_both_write_at_once(two_primaries: Resource, apart: bool, link_delay_ms: int) -> None:
    two_primaries.apply_delays(DelayProfile(link_delay_ms=link_delay_ms))
    found = written(two_primaries, apart)
    if apart:
        assert found == Outcome(True, {"nodea": 1, "nodeb": 1}, ())
    elif two_primaries.dialect.generation == "8.4":
        assert not found.connected
        assert any("BAD! BarrierAck" in text or "P_BARRIER" in text for text in found.said), found
    else:
        assert not found.connected and any(REFUSED in text for text in found.said), found
