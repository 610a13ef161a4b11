"""A stream of ``drbdsetup events2`` that is bounded: what changes no state is left out from some number on, counted.

DRBD prints an event for each change of a counter that somebody asked for, thousands a second where it goes wrong.  What
changes a connection, a disk, a role or what is replicated is never left out as a repetition; where even of that there
is more than can be kept, the events are not complete, which is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.parse.events2 import Event, ResourceView, fold, parse_event

#: How many events of one object that change no state are kept from one :meth:`EventSift.begin` to the next.
KEPT_OF_AN_OBJECT = 1000
#: How many lines are kept in all.
MOST_LINES = 200_000
# What :meth:`ResourceView.state` is made of.
_STATE = ("role", "connection", "disk", "peer-disk", "replication")


class EventSift:
    """Which lines of ``events2`` are kept, in the order they come; for one thread."""

    def __init__(self) -> None:
        self._kinds: Counter[tuple[str, str]] = Counter()
        self._lines = 0
        #: The objects after every event that ever came, kept or not.
        self.view = ResourceView()
        #: How many events were left out since :meth:`begin` because they change no state.
        self.left_out = 0
        #: How many events that may change a state could not be kept since :meth:`begin`.
        self.lost = 0

    def begin(self) -> None:
        """Count anew: what was kept so far is not kept in memory any more."""
        self._kinds.clear()
        self._lines = self.left_out = self.lost = 0

    def __call__(self, line: str) -> Iterator[str]:
        """``line``, or nothing."""
        try:
            event = parse_event(line)
        except ValueError:
            # Whoever reads it says that it is none.
            event = None
        if event is not None:
            before, self.view = self.view, fold(self.view, event)
            if self._repeats(event, before):
                self.left_out += 1
                return
        if self._lines >= MOST_LINES:
            self.lost += 1
            return
        self._lines += 1
        yield line

    def _repeats(self, event: Event, before: ResourceView) -> bool:
        if event.kind not in ("change", "call", "response") or _changes_state(event, before, self.view):
            return False
        self._kinds[event.kind, event.object] += 1
        return self._kinds[event.kind, event.object] > KEPT_OF_AN_OBJECT


def _changes_state(event: Event, before: ResourceView, after: ResourceView) -> bool:
    if before.objects is after.objects:
        return False
    return any(
        before.objects.get(key, {}).get(name) != fields.get(name)
        for key, fields in after.objects.items()
        if before.objects.get(key) is not fields
        for name in _STATE
    )
