"""One node's ``drbdsetup events2``, followed from the start: what to wait on instead of asking again and again."""

from __future__ import annotations

from collections.abc import Callable

from harness.lab.node import Node
from harness.model import State
from harness.parse.event_flood import EventSift
from harness.parse.events2 import ResourceView, as_events, fold, parse_event
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline


class Events:
    """One node's ``drbdsetup events2`` about one resource, folded into states of one of its volumes.

    Any number of threads may wait on it at the same time.  It goes on until the node's connection ends; a node that
    has booted needs a new one.  It is bounded (:mod:`harness.parse.event_flood`).
    """

    def __init__(self, node: Node, resource: str, volume: int = 0) -> None:
        """Begin to follow; raises :class:`~harness.errors.LostNodeError` when the node does not answer."""
        self._resource, self._volume = resource, volume
        self._sift = EventSift()
        # What was forgotten, as the state that it left behind.
        self._before = ResourceView()
        self._before_at: str | None = None
        self._from = 0
        self.stream: LineStream = node.runner.stream(
            ["drbdsetup", "events2", "--timestamps", "--statistics", resource], "events2", self._sift
        )

    def cursor(self) -> int:
        """Where what is about to happen will begin."""
        return self.stream.cursor()

    def begin(self) -> None:
        """Keep nothing of what came so far but the state that it led to, and count anew what is left out from now on.

        Not while somebody waits, or has a cursor of before.
        """
        lines = self.stream.since(self._from)
        # Of more lines than could be kept too; one that came meanwhile is folded in twice, which changes nothing.
        self._before = self._sift.view
        self._before_at = next(filter(None, map(_timestamp, reversed(lines))), self._before_at)
        self._from += len(lines)
        self.stream.forget(self._from)
        self._sift.begin()

    def complete(self, cursor: int = 0) -> tuple[list[str], int]:
        """Lines that begin with a whole initial state, as far as they arrived, and the index of ``cursor`` in them."""
        begin = as_events(self._before, self._before_at)
        return [*begin, *self.stream.since(self._from)], len(begin) + max(0, cursor - self._from)

    @property
    def left_out(self) -> int:
        """How many events since :meth:`begin` were left out because they change no state."""
        return self._sift.left_out

    @property
    def lost(self) -> int:
        """How many events since :meth:`begin` were more than could be kept."""
        return self._sift.lost

    def wait(self, accept: Callable[[State], bool], what: str, deadline: Deadline, cursor: int | None = None) -> int:
        """Wait for the first state at or behind ``cursor`` that ``accept`` takes and return the cursor behind it.

        Without a cursor the present state counts too.  Everything before the cursor is folded in, so that a state is
        complete even where an event names only what changed.  Blocks until ``deadline`` at most; raises
        :class:`~harness.errors.DeadlineError` then, and :class:`~harness.errors.LostNodeError` when the stream ends.
        """
        lines = self.stream.since(self._from)
        view = self._before
        for line in lines if cursor is None else lines[: max(0, cursor - self._from)]:
            view = _folded(view, line)
        present = view.state(self._resource, self._volume)
        if cursor is None and present is not None and accept(present):
            return self._from + len(lines)

        def match(line: str) -> State | None:
            nonlocal view
            view = _folded(view, line)
            state = view.state(self._resource, self._volume)
            return state if state is not None and accept(state) else None

        bounded = Deadline(what, deadline.at, deadline.seconds)
        return self.stream.wait(match, self._from + len(lines) if cursor is None else cursor, bounded)[1]


def _folded(view: ResourceView, line: str) -> ResourceView:
    event = parse_event(line)
    return view if event is None else fold(view, event)


def _timestamp(line: str) -> str | None:
    try:
        event = parse_event(line)
    except ValueError:
        return None
    return event.timestamp if event is not None else None
