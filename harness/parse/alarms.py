"""What DRBD itself noticed while a workload had the device: digests that fail, a link that goes down, split brain.

It is put together from the kernel logs of both nodes and from one node's ``drbdsetup events2 --timestamps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from harness.model import Alarms, State
from harness.parse.events2 import ResourceView, fold, parse_event
from harness.parse.kernel_log import (
    KernelLine,
    became_standalone,
    digest_failures,
    digest_mismatches,
    is_digest_error,
    peer_given_up,
    resyncs_kib,
)


@dataclass(frozen=True)
class LinkState:
    """A state of the link, and since when.

    ``at`` is in seconds since 1970 by the clock of the node whose events these are; ``line`` is the index of the line
    that reported it.
    """

    at: float
    state: State
    line: int


def link_history(events: Sequence[str], resource: str) -> tuple[LinkState, ...]:
    """Each change of connection, disks or replication of the first volume of ``resource``, in order.

    ``events`` are raw lines from the start of ``drbdsetup events2`` on: nothing is known before its initial state is
    complete.  A change in a line without a timestamp shows with the next line that has one.  While the volume is away
    (the resource is down) nothing is added.  :class:`ValueError` for a line that is none of events2.
    """
    view = ResourceView()
    history: list[LinkState] = []
    for number, line in enumerate(events):
        event = parse_event(line)
        if event is None:
            continue
        view = fold(view, event)
        state = view.state(resource, 0)
        if state is None or event.timestamp is None:
            continue
        if not history or _link(history[-1].state) != _link(state):
            history.append(LinkState(_seconds(event.timestamp), state, number))
    return tuple(history)


def drops(history: Sequence[LinkState]) -> int:
    """How often the connection left ``Connected``."""
    connected = [entry.state.connection == "Connected" for entry in history]
    return sum(was and not still for was, still in pairwise(connected))


def down_seconds(history: Sequence[LinkState], until: float) -> float:
    """For how many seconds, from the first entry to the moment ``until``, the state was not healthy.

    A verify or a resync under way is not healthy either.
    """
    ends = [*(entry.at for entry in history[1:]), until]
    # A clock that was set back must not make the rest shorter.
    return sum(
        max(0.0, min(end, until) - entry.at)
        for entry, end in zip(history, ends, strict=False)
        if not entry.state.healthy
    )


def first_digest_to_split_brain(lines: Sequence[KernelLine]) -> float | None:
    """The seconds from the first digest that failed to the end of the connection for good, by that kernel's clock.

    None if one of them is not in ``lines``.  StandAlone counts as the end, so ``lines`` must end before anybody
    disconnects on purpose.
    """
    first = next((number for number, line in enumerate(lines) if is_digest_error(line.text)), None)
    if first is None:
        return None
    end = next((line.seconds for line in lines[first:] if became_standalone(line.text)), None)
    return None if end is None else end - lines[first].seconds


def alarms_of(
    a: Sequence[KernelLine],
    b: Sequence[KernelLine],
    events: Sequence[str],
    *,
    resource: str,
    minor: int,
    algorithm: str,
    events_from: int,
    watched_seconds: float,
    began: float | None = None,
    nodes: tuple[str, str] = ("a", "b"),
) -> Alarms:
    """What DRBD noticed in the ``watched_seconds`` that began at line ``events_from`` of ``events``.

    ``a`` and ``b`` are both kernel logs of just that time; each node's messages stay in the order of its log, ``a``'s
    come first.  ``events`` are all lines since the start of events2: states are complete.  ``began`` is when the
    watch began, in seconds since 1970 by the clock of the node whose events these are; without it, it is the first
    event of the watch, and the last state of the watch may count for longer than it lasted, but no more than
    ``watched_seconds`` in all.  ``nodes`` are the names of ``a`` and ``b``.  A resync is logged by both sides: ``a``'s
    log counts, ``b``'s where ``a``'s has none.  ``split_brain`` is left to the caller.  :class:`ValueError` for a line
    that is none of events2.
    """
    history = link_history(events, resource)
    start = began if began is not None else _first_moment(events[events_from:])
    # The state the watch began with: without it a drop in the first event would not be one.
    before = [LinkState(start, entry.state, events_from) for entry in history if entry.line < events_from][-1:]
    watched = [*before, *(entry for entry in history if entry.line >= events_from)]
    return Alarms(
        algorithm=algorithm,
        mismatches=(*digest_mismatches(a, minor), *digest_mismatches(b, minor)),
        failures=(*digest_failures(a, minor), *digest_failures(b, minor)),
        drops=drops(watched),
        causes=tuple(f"{node}: {said}" for node, log in zip(nodes, (a, b), strict=True) for said in peer_given_up(log)),
        down_seconds=min(down_seconds(watched, start + watched_seconds), watched_seconds),
        watched_seconds=watched_seconds,
        resynced_kib=sum(resyncs_kib(a, minor) or resyncs_kib(b, minor)),
    )


def _link(state: State) -> tuple[str, str, str, str]:
    """What makes a change of the link; roles do not."""
    return state.connection, state.local_disk, state.peer_disk, state.replication


def _first_moment(events: Sequence[str]) -> float:
    """When the first line with a timestamp was; 0 without one: then nothing changed, and any moment will do."""
    for line in events:
        event = parse_event(line)
        if event is not None and event.timestamp is not None:
            return _seconds(event.timestamp)
    return 0.0


def _seconds(timestamp: str) -> float:
    moment = datetime.fromisoformat(timestamp)
    # Without an offset it must not depend on the time zone of whoever reads it.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
