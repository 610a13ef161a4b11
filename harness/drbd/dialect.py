"""Where DRBD 8.4 and 9 differ: the commands of each, what each takes for a resync, how its status is read.

Everything here is pure: argument vectors, texts and conditions; :class:`~harness.drbd.resource.Resource` runs them.
``drbdsetup`` prints JSON for DRBD 9 only, and there not in ``events2``; where both generations print the same text
(``events2``, ``show``) that is read instead, so that there is one parser and not two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.errors import InfrastructureError
from harness.model import BITMAP_BLOCK_SIZES, Counters, ReplicationProfile, State
from harness.parse.drbd_status import ProcDevice, parse_proc, parse_status_json
from harness.render.drbd_conf import ResourceSpec, profile_options, resource_file, resource_options


@dataclass(frozen=True)
class Awaited:
    """A state to wait for: a condition, and the name of it for an error."""

    what: str
    reached: Callable[[State], bool]


@dataclass(frozen=True)
class ResyncStep:
    """A command on the node whose data is right, and the states that have to be seen behind it, in this order."""

    argv: tuple[str, ...]
    awaited: tuple[Awaited, ...]


RESYNCED = Awaited("UpToDate/UpToDate after a resync", lambda state: state.healthy)
_STANDALONE = Awaited("StandAlone after disconnect", lambda state: state.connection == "StandAlone")
_RESYNC_BEGUN = Awaited("the start of the resync", lambda state: state.replication != "Established")


class DrbdDialect(Protocol):
    """One generation of DRBD.

    ``generation`` is how it is called in messages; ``resync_of_marked`` what the evidence calls the repair of what a
    verify marked.
    """

    generation: str
    resync_of_marked: str

    def resource_file(self, spec: ResourceSpec) -> str:
        """The resource file; raises :class:`ValueError` unless ``spec`` has two nodes."""
        ...

    def skip_initial_sync(self, spec: ResourceSpec) -> list[str]:
        """Declares two connected, Inconsistent sides equal; to be run on one of them."""
        ...

    def start_verify(self, spec: ResourceSpec) -> list[str]:
        """Begins an online verify of the whole device; without a start it would resume where one was aborted."""
        ...

    def read_status(self, spec: ResourceSpec) -> list[str]:
        """Prints what :meth:`parse_status` reads."""
        ...

    def parse_status(self, text: str, spec: ResourceSpec) -> tuple[State, Counters]:
        """State and counters (KiB) of volume 0; raises :class:`ValueError` if ``text`` does not have them."""
        ...

    def parse_epochs(self, text: str, spec: ResourceSpec) -> int:
        """The connection's epochs of received writes, 1 where they are not told; :class:`ValueError` as above."""
        ...

    def resync_marked(self, spec: ResourceSpec) -> tuple[ResyncStep, ...]:
        """Copies what a verify has marked, and nothing else, from the node that these are run on."""
        ...

    def lacks(self, replication: ReplicationProfile) -> str:
        """What of ``replication`` this generation does not have, as a sentence; empty where it has all."""
        ...

    def create_metadata(self, spec: ResourceSpec) -> tuple[str, ...]:
        """What drbdadm is told to write new metadata to the lower device."""
        ...


class Drbd84:
    """DRBD 8.4: its status is ``/proc/drbd``; drbdadm takes drbdsetup's options behind a ``--``."""

    generation = "8.4"
    resync_of_marked = "disconnect + connect"

    def resource_file(self, spec: ResourceSpec) -> str:
        """Without node ids."""
        return resource_file(spec, node_ids=False)

    def skip_initial_sync(self, spec: ResourceSpec) -> list[str]:
        """``new-current-uuid --clear-bitmap``."""
        return ["drbdadm", "--", "--clear-bitmap", "new-current-uuid", spec.volume]

    def start_verify(self, spec: ResourceSpec) -> list[str]:
        """``verify --start=0``."""
        return ["drbdadm", "--", "--start=0", "verify", spec.volume]

    def read_status(self, spec: ResourceSpec) -> list[str]:
        """``/proc/drbd``: the ``drbdsetup status`` of this generation prints neither JSON nor ``dw`` and ``dr``."""
        return ["cat", "/proc/drbd"]

    def parse_status(self, text: str, spec: ResourceSpec) -> tuple[State, Counters]:
        """The device with the resource's minor."""
        device = _device(text, spec)
        return device.state, device.counters

    def parse_epochs(self, text: str, spec: ResourceSpec) -> int:
        """``ep:`` of the device with the resource's minor."""
        return _device(text, spec).epochs

    def resync_marked(self, spec: ResourceSpec) -> tuple[ResyncStep, ...]:
        """A new connection exchanges the bitmaps, and what is marked is copied."""
        return (
            ResyncStep(("drbdadm", "disconnect", spec.name), (_STANDALONE,)),
            ResyncStep(("drbdadm", "connect", spec.name), (RESYNCED,)),
        )

    def lacks(self, replication: ReplicationProfile) -> str:
        """All that came with DRBD 9."""
        found = " and ".join(f"{name} {value}" for name, value in options_of_9(replication).items())
        return f"it has no {found}: DRBD 9 has" if found else ""

    def create_metadata(self, spec: ResourceSpec) -> tuple[str, ...]:
        """With a bitmap of 4 KiB blocks, which it has no other of."""
        return ("create-md", "--force")


def _device(text: str, spec: ResourceSpec) -> ProcDevice:
    device = parse_proc(text).devices.get(spec.minor)
    if device is None:
        raise ValueError(f"minor {spec.minor} of resource '{spec.name}' is not configured")
    return device


class Drbd9:
    """DRBD 9: nodes have numbers, the status is JSON, and a reconnect copies nothing that a verify marked."""

    generation = "9"
    resync_of_marked = "invalidate-remote --reset-bitmap=no"

    def resource_file(self, spec: ResourceSpec) -> str:
        """With node ids."""
        return resource_file(spec, node_ids=True)

    def skip_initial_sync(self, spec: ResourceSpec) -> list[str]:
        """``new-current-uuid --clear-bitmap``."""
        return ["drbdadm", "new-current-uuid", "--clear-bitmap", spec.volume]

    def start_verify(self, spec: ResourceSpec) -> list[str]:
        """``verify --start=0``."""
        return ["drbdadm", "verify", "--start=0", spec.volume]

    def read_status(self, spec: ResourceSpec) -> list[str]:
        """``drbdsetup status`` as JSON."""
        return ["drbdsetup", "status", "--json", "--statistics", spec.name]

    def parse_status(self, text: str, spec: ResourceSpec) -> tuple[State, Counters]:
        """Volume 0 with its first peer."""
        return parse_status_json(text, spec.name, 0)

    def parse_epochs(self, text: str, spec: ResourceSpec) -> int:
        """Its status does not tell."""
        return 1

    def resync_marked(self, spec: ResourceSpec) -> tuple[ResyncStep, ...]:
        """``invalidate-remote`` that leaves the bitmap as it is.

        After a reconnect 9.3.3 sets out-of-sync to 0 and copies nothing (``uuid_compare()=no-sync by
        rule=reconnected``).
        """
        return (_invalidate_remote(spec, "--reset-bitmap=no"),)

    def lacks(self, replication: ReplicationProfile) -> str:
        """Nothing: what a version of it or its drbd-utils do not know is asked of them."""
        return ""

    def create_metadata(self, spec: ResourceSpec) -> tuple[str, ...]:
        """With the bitmap's block size where it is not DRBD's default, which older drbd-utils know no other of."""
        size = spec.bitmap_block_size
        return ("create-md", "--force", *([f"--bitmap-block-size={size}"] if size != BITMAP_BLOCK_SIZES[0] else []))


def options_of_9(replication: ReplicationProfile) -> dict[str, str]:
    """What ``replication`` asks for that only DRBD 9 has, by the name of the option."""
    net = {name: value for name, value in profile_options(replication) if name in ("transport", "tls")}
    size = replication.bitmap_block_size
    metadata = {"bitmap-block-size": size} if size != BITMAP_BLOCK_SIZES[0] else {}
    return {**net, **dict(resource_options(replication)), **metadata}


def resync_all(spec: ResourceSpec) -> tuple[ResyncStep, ...]:
    """Copies the whole device from the node that these are run on; the same in both generations."""
    return (_invalidate_remote(spec),)


def _invalidate_remote(spec: ResourceSpec, *options: str) -> ResyncStep:
    return ResyncStep(("drbdadm", "invalidate-remote", *options, spec.name), (_RESYNC_BEGUN, RESYNCED))


def dialect_of(version: str) -> DrbdDialect:
    """The dialect of a module of ``version``, such as ``8.4.11``.

    Raises :class:`InfrastructureError` for a generation that the harness does not know.
    """
    if version.startswith("8.4."):
        return Drbd84()
    if version.startswith("9."):
        return Drbd9()
    raise InfrastructureError(
        f"the nodes run DRBD {version or '(no version)'}, which the harness does not know: it needs 8.4 or 9"
    )
