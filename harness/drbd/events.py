"""One node's ``drbdsetup events2``, followed from the start: what to wait on instead of asking again and again."""

from __future__ import annotations

from collections.abc import Callable

from harness.lab.node import Node
from harness.model import State
from harness.parse.events2 import ResourceView, fold, parse_event
from harness.remote.stream import LineStream
from harness.util.deadline import Deadline


class Events:
    """One node's ``drbdsetup events2`` about one resource, folded into states of its volume 0.

    Any number of threads may wait on it at the same time.  It goes on until the node's connection ends; a node that
    has booted needs a new one.
    """

    def __init__(self, node: Node, resource: str) -> None:
        """Begin to follow; raises :class:`~harness.errors.LostNodeError` when the node does not answer."""
        self._resource = resource
        self.stream: LineStream = node.runner.stream(
            ["drbdsetup", "events2", "--timestamps", "--statistics", resource], "events2"
        )

    def cursor(self) -> int:
        """Where what is about to happen will begin."""
        return self.stream.cursor()

    def wait(self, accept: Callable[[State], bool], what: str, deadline: Deadline, cursor: int | None = None) -> int:
        """Wait for the first state at or behind ``cursor`` that ``accept`` takes and return the cursor behind it.

        Without a cursor the present state counts too.  Everything before the cursor is folded in, so that a state is
        complete even where an event names only what changed.  Blocks until ``deadline`` at most; raises
        :class:`~harness.errors.DeadlineError` then, and :class:`~harness.errors.LostNodeError` when the stream ends.
        """
        lines = self.stream.since(0)
        view = ResourceView()
        for line in lines[:cursor]:
            view = _folded(view, line)
        present = view.state(self._resource, 0)
        if cursor is None and present is not None and accept(present):
            return len(lines)

        def match(line: str) -> State | None:
            nonlocal view
            view = _folded(view, line)
            state = view.state(self._resource, 0)
            return state if state is not None and accept(state) else None

        bounded = Deadline(what, deadline.at, deadline.seconds)
        return self.stream.wait(match, len(lines) if cursor is None else cursor, bounded)[1]


def _folded(view: ResourceView, line: str) -> ResourceView:
    event = parse_event(line)
    return view if event is None else fold(view, event)
