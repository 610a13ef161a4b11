"""The status that DRBD reports: ``/proc/drbd`` of 8.4 and ``drbdsetup status --json`` of 9.

Both become :class:`~harness.model.State` in DRBD 9's terms, so that one question fits both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.model import Counters, State

_VERSION = re.compile(r"^version: (\S+)", re.ASCII | re.MULTILINE)
_DEVICE = re.compile(r" *(\d+): cs:(\S+)(?: ro:([^/\s]+)/(\S+) ds:([^/\s]+)/(\S+))?(.*)", re.ASCII)
_NUMBER = re.compile(r"\b(ns|nr|dw|dr|oos|ep):(\d+)", re.ASCII)
_PROGRESS = re.compile(r"\b(?:verified|sync'ed): *(\d+\.\d+)%", re.ASCII)
_UNLINKED = {"WFConnection": "Connecting", "WFReportParams": "Connected"}
_NOT_CONNECTED = frozenset({
    "StandAlone", "Disconnecting", "Unconnected", "Timeout",
    "BrokenPipe", "NetworkFailure", "ProtocolError", "TearDown",
})  # fmt: skip


@dataclass(frozen=True)
class ProcDevice:
    """One device of ``/proc/drbd``.

    ``connection_state`` is 8.4's own term (``cs:``); ``progress`` is how many percent of a resync or verify are done;
    ``epochs`` counts the connection's epochs of received writes (``ep:``), one where nothing is in flight.
    """

    connection_state: str
    state: State
    counters: Counters
    progress: float | None = None
    epochs: int = 1


@dataclass(frozen=True)
class ProcDrbd:
    """``/proc/drbd``: the module's version, and its devices by minor; an unconfigured device is left out."""

    version: str
    devices: Mapping[int, ProcDevice]


def parse_version(text: str) -> str:
    """The version of the loaded module from the text of ``/proc/drbd``; :class:`ValueError` if it has none."""
    found = _VERSION.search(text)
    if not found:
        raise ValueError("this is not /proc/drbd: it has no version line")
    return found[1]


def parse_proc(text: str) -> ProcDrbd:
    """``/proc/drbd`` of DRBD 8.4 (9 prints no devices there); :class:`ValueError` if it has no version line."""
    version = parse_version(text)
    devices: dict[int, ProcDevice] = {}
    blocks = re.split(r"^(?= *\d+: cs:)", text, flags=re.ASCII | re.MULTILINE)
    for block in blocks[1:]:
        head = _DEVICE.match(block)
        if head and head[3]:
            devices[int(head[1])] = _device(head, block)
    return ProcDrbd(version, devices)


def _device(head: re.Match[str], block: str) -> ProcDevice:
    cs = head[2]
    numbers = {name: int(value) for name, value in _NUMBER.findall(block[head.end() :])}
    progress = _PROGRESS.search(block)
    return ProcDevice(
        connection_state=cs,
        state=State(_connection(cs), head[3], head[4], head[5], head[6], _replication(cs)),
        counters=Counters(*(numbers.get(name, 0) for name in ("ns", "nr", "dw", "dr", "oos"))),
        progress=float(progress[1]) if progress else None,
        epochs=numbers.get("ep", 1),
    )


def _connection(cs: str) -> str:
    """8.4 has one term for the connection and for what goes over it; this is the connection's part."""
    return _UNLINKED.get(cs) or (cs if cs in _NOT_CONNECTED else "Connected")


def _replication(cs: str) -> str:
    if cs in _NOT_CONNECTED or cs in _UNLINKED:
        return "Off"
    return "Established" if cs == "Connected" else cs


def parse_status_json(text: str, resource: str, volume: int) -> tuple[State, Counters]:
    """``drbdsetup status --json --statistics`` of DRBD 9, for a volume with its first peer.

    Without ``--statistics`` the counters are 0.  :class:`ValueError` if the text is no such JSON or lacks the volume.
    """
    found = json.loads(text)
    here = _pick(found, "name", resource)
    device = _pick(here.get("devices") if here else None, "volume", volume)
    if here is None or device is None:
        raise ValueError(f"drbdsetup status knows no volume {volume} of resource '{resource}'")
    links = here.get("connections") or [{}]
    link = links[0] if isinstance(links, list) and isinstance(links[0], dict) else {}
    pair = _pick(link.get("peer_devices"), "volume", volume) or {}
    state = State(
        connection=str(link.get("connection-state", "StandAlone")),
        local_role=str(here.get("role", "Unknown")),
        peer_role=str(link.get("peer-role", "Unknown")),
        local_disk=str(device.get("disk-state", "DUnknown")),
        peer_disk=str(pair.get("peer-disk-state", "DUnknown")),
        replication=str(pair.get("replication-state", "Off")),
    )
    sent, received, out_of_sync = (_kib(pair, name) for name in ("sent", "received", "out-of-sync"))
    return state, Counters(sent, received, _kib(device, "written"), _kib(device, "read"), out_of_sync)


def _pick(items: object, name: str, value: object) -> dict[str, Any] | None:
    if not isinstance(items, Sequence):
        return None
    return next((item for item in items if isinstance(item, dict) and item.get(name) == value), None)


def _kib(item: Mapping[str, Any], name: str) -> int:
    value = item.get(name, 0)
    if not isinstance(value, int):
        raise ValueError(f"drbdsetup status prints '{value}' for '{name}', which is not a number")
    return value
