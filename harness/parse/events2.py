"""``drbdsetup events2``: one line, one event; events folded into a view of the resources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.model import State

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(?:[+-]\d\d:?\d\d|Z)?", re.ASCII)


@dataclass(frozen=True)
class Event:
    """One event.

    ``kind``: exists, create, change, destroy, call, response, rename or skipped.  ``object``: resource, connection,
    device, peer-device, path, helper, or ``-`` (with ``exists``: the initial state is complete).
    """

    kind: str
    object: str
    fields: Mapping[str, str] = field(default_factory=dict)
    timestamp: str | None = None


def parse_event(line: str) -> Event | None:
    """The event that ``line`` prints; None for an empty line.  Raises :class:`ValueError` for anything else.

    The tool's ``- skipped N`` (it lost N events) becomes an event of kind ``skipped`` with the field ``count``.
    """
    parts = line.split()
    if not parts:
        return None
    timestamp = parts.pop(0) if _TIMESTAMP.fullmatch(parts[0]) else None
    if parts[:2] == ["-", "skipped"] and len(parts) == 3:
        return Event("skipped", "-", {"count": parts[2]}, timestamp)
    if len(parts) < 2 or ":" in parts[0] or ":" in parts[1]:
        raise ValueError(f"not a line of events2: '{line.strip()}'")
    pairs = (part.partition(":") for part in parts[2:])
    return Event(parts[0], parts[1], {name: value for name, colon, value in pairs if colon}, timestamp)


def skipped(lines: Iterable[str]) -> int:
    """How many events the tool says that it lost; a count that is none is one event."""
    events = (parse_event(line) for line in lines)
    counts = (event.fields["count"] for event in events if event is not None and event.kind == "skipped")
    return sum(int(count) if count.isascii() and count.isdigit() else 1 for count in counts)


def as_events(view: ResourceView, timestamp: str | None = None) -> list[str]:
    """Lines of events2 that fold into ``view``: how the tool would begin if it were started then."""
    head = f"{timestamp} " if timestamp else ""
    lines = [
        f"{head}exists {key[0]} {' '.join(f'{name}:{value}' for name, value in fields.items())}".rstrip()
        for key, fields in view.objects.items()
    ]
    return [*lines, *([f"{head}exists -"] if view.complete else [])]


_Key = tuple[str, ...]


@dataclass(frozen=True)
class ResourceView:
    """The objects after all events so far.  ``complete``: the initial state is known; ``lossy``: some were skipped."""

    objects: Mapping[_Key, Mapping[str, str]] = field(default_factory=dict)
    complete: bool = False
    lossy: bool = False

    def state(self, resource: str, volume: int) -> State | None:
        """The state of a volume with its first peer; None before the initial state is complete or without the volume.

        A peer that is not configured shows as StandAlone, Unknown, DUnknown and Off.
        """
        local = self.objects.get(("resource", resource))
        device = self.objects.get(("device", resource, str(volume)))
        if not self.complete or local is None or device is None:
            return None
        links = [key for key in self.objects if key[:2] == ("connection", resource)]
        link = self.objects[links[0]] if links else {}
        pair = self.objects.get(("peer-device", resource, *links[0][2:], str(volume)), {}) if links else {}
        return State(
            connection=link.get("connection", "StandAlone"),
            local_role=local.get("role", "Unknown"),
            peer_role=link.get("role", "Unknown"),
            local_disk=device.get("disk", "DUnknown"),
            peer_disk=pair.get("peer-disk", "DUnknown"),
            replication=pair.get("replication", "Off"),
        )

    def field(self, kind: str, resource: str, volume: int, name: str) -> str | None:
        """One field of the first ``device`` or ``peer-device`` of a volume, such as ``done`` or ``out-of-sync``."""
        for key, fields in self.objects.items():
            if key[:2] == (kind, resource) and key[-1] == str(volume):
                return fields.get(name)
        return None


def fold(view: ResourceView, event: Event) -> ResourceView:
    """The view after ``event``.  Kinds and objects without a bearing on the state leave it as it is."""
    if event.kind == "skipped":
        return replace(view, lossy=True)
    if event.kind == "exists" and event.object == "-":
        return replace(view, complete=True)
    key = _key(event)
    if key is None or event.kind not in ("exists", "create", "change", "destroy"):
        return view
    objects = dict(view.objects)
    if event.kind == "destroy":
        objects.pop(key, None)
    elif event.kind == "change":
        objects[key] = {**objects.get(key, {}), **event.fields}
    else:
        objects[key] = dict(event.fields)
    return replace(view, objects=objects)


def _key(event: Event) -> _Key | None:
    """What tells one object from another.  8.4 may name its one peer by its address only."""
    get = event.fields.get
    peer = get("conn-name") or get("peer-node-id") or get("peer", "")
    name, volume = get("name", ""), get("volume", "")
    keys = {
        "resource": ("resource", name),
        "device": ("device", name, volume),
        "connection": ("connection", name, peer),
        "peer-device": ("peer-device", name, peer, volume),
    }
    return keys.get(event.object)
