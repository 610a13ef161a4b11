"""The volumes of a resource as DRBD counts them, of 8.4 (``/proc/drbd``) and of 9 (JSON), and the options in force."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model import Counters, State
from harness.parse.drbd_show import ShownResource, shown_resource
from harness.parse.drbd_status import parse_proc, parse_status_json


@dataclass(frozen=True)
class VolumeStatus:
    """One volume on one machine; ``lower`` is its lower device, empty without one.

    ``epochs`` is how many the connection has, where the status tells.
    """

    number: int
    minor: int
    lower: str
    state: State
    counters: Counters
    progress: float | None = None
    epochs: int = 1


def volumes(show: str, proc: str, status_json: str, resource: str) -> tuple[VolumeStatus, ...]:
    """The volumes of ``resource``, in their order.

    :class:`ValueError` where the texts do not have them; so it is where the resource has several peers, of which one
    would have to be chosen.
    """
    shown = shown_resource(show, resource)
    if len(shown.connections) != 1:
        raise ValueError(f"the resource '{resource}' has {len(shown.connections)} peers, not one")
    found = parse_proc(proc) if proc.strip() else None
    if found is not None and found.version.startswith("8."):
        return tuple(_of_proc(shown, found.devices))
    return tuple(_of_json(shown, status_json))


def _of_proc(shown: ShownResource, devices: Mapping[int, Any]) -> Sequence[VolumeStatus]:
    made = []
    for one in shown.volumes:
        device = devices.get(one.minor)
        if device is None:
            raise ValueError(f"/proc/drbd knows no minor {one.minor}")
        state, counters = device.state, device.counters
        made.append(
            VolumeStatus(one.number, one.minor, one.disk or "", state, counters, device.progress, device.epochs)
        )
    return made


def _of_json(shown: ShownResource, text: str) -> Sequence[VolumeStatus]:
    made = []
    for one in shown.volumes:
        state, counters = parse_status_json(text, shown.name, one.number)
        done = _done(text, shown.name, one.number)
        made.append(VolumeStatus(one.number, one.minor, one.disk or "", state, counters, done))
    return made


def _done(text: str, resource: str, volume: int) -> float | None:
    """How many percent of a resync or verify are done; None where none is under way."""
    for here in json.loads(text):
        for link in here.get("connections", []) if here.get("name") == resource else []:
            for pair in link.get("peer_devices", []):
                if pair.get("volume") == volume and isinstance(pair.get("done"), int | float):
                    return float(pair["done"])
    return None
