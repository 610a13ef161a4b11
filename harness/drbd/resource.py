"""DRBD over two nodes: up, waiting, verify, counters, repair.

``a`` is the Primary at rest; ``b`` holds the other replica.  What differs between the generations of DRBD is in
:mod:`harness.drbd.dialect`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from harness.drbd import below, changes, delays
from harness.drbd.dialect import DrbdDialect, dialect_of, resync_all
from harness.drbd.drbdadm import run_drbdadm
from harness.drbd.events import Events
from harness.drbd.running import adopted_spec, read_running, require_agreement
from harness.drbd.verify import resync, run_verify
from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import (
    BLOCK_BYTES,
    SECTOR_BYTES,
    Counters,
    DelayProfile,
    PlantedChange,
    Repair,
    ReplicationProfile,
    State,
    Verify,
)
from harness.parse.drbd_status import parse_version
from harness.render.drbd_conf import SECRET_CHARACTERS, ResourceNode, ResourceSpec, replicating
from harness.util.deadline import Deadline

T = TypeVar("T")

# The lower device is always a linear device-mapper table, so that a delay can go on and off under a running resource.
_PREPARE = """
name=$1 lower=$2 mapping=$3 path=$4 mebibytes=$5 uuid=$6
modprobe drbd; modprobe dm-delay
drbdsetup down "$name" >/dev/null 2>&1
if [ -n "$mapping" ]; then
    dmsetup remove --retry "$mapping" >/dev/null 2>&1
    set -e
    lower=$(readlink -f "$lower") sectors=$(blockdev --getsz "$(readlink -f "$lower")")
    if [ "$((mebibytes * 2048))" -gt "$sectors" ]; then
        echo "$lower has $((sectors / 2048)) MiB, fewer than the $mebibytes MiB that are asked of it" >&2
        exit 1
    fi
    [ "$mebibytes" = 0 ] || sectors=$((mebibytes * 2048))
    dmsetup create "$mapping" ${uuid:+--uuid "$uuid"} --table "0 $sectors linear $lower 0"
    udevadm settle 2>/dev/null || true
fi
set -e
[ -z "$path" ] || write "$path"
"""
# The shared secret is in it, so that root alone may read it, also where an earlier file was open to all; and it is
# never half written.  DRBD includes only what ends with .res.
_WRITE = """
write() { rm -f "$1.new"; (umask 077; cat > "$1.new") && mv "$1.new" "$1"; }
"""

# What a verify or resync is given for each MiB of a device: a quarter of what an emulated node does.
WHOLE_DEVICE_MIB_PER_SECOND = 5.0


class Resource:
    """The DRBD resource over the two nodes of a lab; one of :meth:`create` and :meth:`adopt` makes it usable.

    What changes it (everything but :meth:`status`, :meth:`raw_status`, :meth:`events` and :meth:`delays`) is for one
    thread at a time; those four may be called from another one meanwhile.  Every method may raise
    :class:`~harness.errors.LostNodeError` when a node does not answer and :class:`~harness.errors.CommandError` when a
    command there fails; waits raise :class:`~harness.errors.DeadlineError`.  How long they may block is in ``spec``.
    """

    def __init__(self, a: Node, b: Node, spec: ResourceSpec) -> None:
        self.a = a
        self.b = b
        self.spec = spec
        #: The version of DRBD's module on ``a``, such as ``8.4.11``; empty before it was read.
        self.version = ""
        #: The size of the device in blocks of 4 KiB.
        self.blocks = 0
        #: How the resource replicates now; None after a change that did not succeed.  See
        #: :mod:`harness.drbd.replication`.
        self.replication: ReplicationProfile | None = ReplicationProfile()
        #: The options of its net section that no replication profile takes away.
        self.net = spec.net
        #: Whether its resource files are the harness's own and may be written again.
        self.owns_files = True
        self._events: dict[str, Events] = {}

    @classmethod
    def for_nodes(cls, a: Node, b: Node, spec: ResourceSpec | None = None) -> Resource:
        """What ``spec`` (or the defaults) describes, with a random secret if it has none; nothing is done yet."""
        spec = spec or ResourceSpec()
        secret = spec.secret or secrets.token_hex(SECRET_CHARACTERS // 2)
        nodes = tuple(ResourceNode(node.drbd_name, node.address, spec.mapped or node.lower) for node in (a, b))
        return cls(a, b, replace(spec, nodes=nodes, secret=secret))

    @classmethod
    def adopt(cls, a: Node, b: Node, name: str = "r0", *, spec: ResourceSpec | None = None) -> Resource:
        """Take over the resource ``name`` that runs on both nodes already; nothing on them is changed.

        Minor, port, net options, secret, replication profile and state are read; ``spec`` is asked for the rest.  A
        resource file without the harness's signature is never written: then only the profile that was found can be
        used.  A lower device that is not the mapping of ``spec`` can be neither delayed nor broken.  Roles stay.

        Blocks for some seconds.  Raises :class:`~harness.errors.InfrastructureError` where the resource is not there,
        is not Connected, is none that the harness can work with, or where the nodes disagree about it.
        """
        spec = replace(spec or ResourceSpec(), name=name)
        one, other = both(lambda node: read_running(node, spec), a, b)
        require_agreement(name, one, other)
        resource = cls(a, b, adopted_spec(spec, one, other))
        resource.spec = replicating(resource.spec, resource.net, one.replication)
        resource.version = one.version
        resource.replication = one.replication
        resource.owns_files = one.signed and other.signed
        deadline = Deadline.after(spec.connect_seconds, "the first events of the resource")
        for node in (a, b):
            resource._follow(node)
            resource.events(node).wait(
                lambda state: state.connection == "Connected", f"Connected on {node.name}", deadline
            )
        resource._read_size()
        return resource

    @property
    def device(self) -> str:
        """The path of its block device, the same on both nodes."""
        return self.spec.device

    @property
    def dialect(self) -> DrbdDialect:
        """How the nodes' generation of DRBD is spoken to; raises InfrastructureError before the version was read."""
        if not self.version:
            raise InfrastructureError(f"{self.spec.name} was neither created nor taken over yet")
        return dialect_of(self.version)

    def events(self, node: Node) -> Events:
        """The event stream of one node; raises InfrastructureError before there is one."""
        try:
            return self._events[node.name]
        except KeyError:
            raise InfrastructureError(f"{self.spec.name} was neither created nor taken over on {node.name}") from None

    # ------------------------------------------------------------------------------------------ up and down

    def create(self, *, skip_initial_sync: bool) -> None:
        """From bare lower devices to Connected, UpToDate on both, ``a`` Primary.

        ``skip_initial_sync``: the caller knows that the two lower devices hold the same; else all of ``a`` is copied to
        ``b``.  An old resource of the same name is taken down first and its resource file is replaced.  Blocks for at
        most ``connect_seconds`` and, with a sync, ``resync_seconds`` more.  Raises InfrastructureError for a
        generation of DRBD that the harness does not know, and where its resource files are not the harness's.
        """
        self.require_own_files()
        self.version = _load(self.a)
        plain = ReplicationProfile(bitmap_block_size=self.spec.bitmap_block_size)
        self.spec = replicating(self.spec, self.net, plain)
        # What an earlier cell changed outside of the resource file is not known where something went wrong.
        self.replication = plain if skip_initial_sync else None
        both(self._prepare, self.a, self.b)
        both(lambda node: _create_metadata(node, self.dialect, self.spec), self.a, self.b)
        for node in (self.a, self.b):
            self._follow(node)
        both(lambda node: self._drbdadm(node, "up"), self.a, self.b)
        deadline = Deadline.after(self.spec.connect_seconds, "the first connection of the resource")
        for node in (self.a, self.b):
            self.events(node).wait(
                lambda state: state.connection == "Connected" and state.peer_disk == "Inconsistent",
                f"Connected and Inconsistent on {node.name}",
                deadline,
            )
        if skip_initial_sync:
            run_drbdadm(self.a.runner, self.dialect.skip_initial_sync(self.spec))
        else:
            self._drbdadm(self.a, "primary", "--force")
            seconds = _for_the_device(self.spec.resync_seconds, self.spec.size_mib * 2**20 // BLOCK_BYTES)
            deadline = Deadline.after(seconds, "the first sync of the resource")
        for node in (self.a, self.b):
            self.events(node).wait(lambda state: state.healthy, f"UpToDate/UpToDate on {node.name}", deadline)
        if skip_initial_sync:
            self._drbdadm(self.a, "primary")
        self._read_size()

    def _prepare(self, node: Node) -> None:
        """Away with an old resource; the mapping and the resource file of this one."""
        changes.note_resource(node, self.spec)
        conf, path = (self.dialect.resource_file(self.spec), self.spec.path) if self.owns_files else (None, "")
        argv = ["sh", "-c", f"{_WRITE}{_PREPARE}", "sh", self.spec.name, node.lower, self.spec.mapping, path]
        node.runner.run([*argv, *self.spec.table], stdin=conf, timeout=self.spec.connect_seconds)

    def _drbdadm(self, node: Node, *args: str) -> None:
        run_drbdadm(node.runner, ["drbdadm", *args, self.spec.name], timeout=self.spec.connect_seconds)

    def _follow(self, node: Node) -> None:
        self._events[node.name] = Events(node, self.spec.name)

    def _read_size(self) -> None:
        # A Secondary does not let its device be opened; the kernel knows its size all the same.
        sectors = self.a.runner.run(["cat", f"/sys/class/block/drbd{self.spec.minor}/size"]).stdout
        self.blocks = int(sectors) * SECTOR_BYTES // BLOCK_BYTES

    def write_configuration(self, node: Node) -> None:
        """Put the resource file that ``spec`` renders to on ``node``; DRBD learns of it by an adjust.

        Raises :class:`InfrastructureError`, and writes nothing, where the file is not the harness's own.
        """
        self.require_own_files()
        argv = ["sh", "-c", f'{_WRITE}write "$1"', "sh", self.spec.path]
        node.runner.run(argv, stdin=self.dialect.resource_file(self.spec))

    def require_own_files(self) -> None:
        """Raise :class:`InfrastructureError` unless the harness may write the resource files."""
        if not self.owns_files:
            raise InfrastructureError(
                f"{self.spec.path} was not written by the harness and stays as it is: {self.spec.name} can neither be "
                "set up anew nor be given another replication profile"
            )

    def rejoin(self, node: Node) -> None:
        """Bring the resource up again on a node that has booted; its data is what it was.

        Blocks for at most twice ``connect_seconds``; the connection is not waited for.
        """
        self._prepare(node)
        self._follow(node)
        self._drbdadm(node, "up")

    def down(self) -> None:
        """Take the resource down on both nodes; nothing is asked of its data, and a refusal is no error."""
        both(lambda node: run_drbdadm(node.runner, ["drbdadm", "down", self.spec.name], ok=()), self.a, self.b)

    # ------------------------------------------------------------------------------------------ what DRBD reports

    def status(self, node: Node | None = None) -> tuple[State, Counters]:
        """State and counters (KiB) as one node (``a`` by default) reports them.

        One round trip of at most 60 s; raises :class:`InfrastructureError` where the report cannot be read or the
        resource is not configured.
        """
        return _told(self, node or self.a, self.dialect.parse_status)

    def epochs(self, node: Node) -> int:
        """The connection's epochs of received writes on ``node``, 1 at rest and on DRBD 9; as :meth:`status` raises."""
        return _told(self, node, self.dialect.parse_epochs)

    def raw_status(self, node: Node) -> dict[str, str]:
        """What one node reports: its status, and the events since they begin anew, behind the state at that moment."""
        status = node.runner.run(self.dialect.read_status(self.spec)).stdout
        return {"status": status, "events2": "\n".join([*self.events(node).complete()[0], ""])}

    def sync(self, node: Node | None = None) -> None:
        """Flush the page cache of a Primary's device (``a`` by default) and wait until nothing is in flight.

        Blocks for at most 120 s.
        """
        node = node or self.a
        node.runner.run(["sh", "-c", 'sync; blockdev --flushbufs "$1"', "sh", self.device], timeout=120)

    def drbdadm(self, node: Node, *args: str, timeout: float | None = None) -> None:
        """One `drbdadm` command about the resource on ``node``, options behind the command.

        Blocks for at most ``timeout`` (``connect_seconds``) seconds; raises :class:`RefusedError` with DRBD's message.
        """
        command, *rest = args
        seconds = self.spec.connect_seconds if timeout is None else timeout
        done = run_drbdadm(node.runner, ["drbdadm", command, *rest, self.spec.name], timeout=seconds, ok=())
        if done.status:
            raise RefusedError(f"DRBD on {node.name}", f"drbdadm {' '.join(args)}: {done.message}")

    # ------------------------------------------------------------------------------------------ verify and repair

    def verify(self) -> tuple[Verify, str, str]:
        """One online verify of the whole device, and the raw kernel logs of both nodes over it (``a``'s first).

        Blocks for at most ``verify_seconds``, 0.2 s for each MiB of the device, and two minutes:
        :func:`harness.drbd.verify.run_verify`.
        """
        seconds = _for_the_device(self.spec.verify_seconds, self.blocks)
        return run_verify(self.a, self.b, self.events(self.a), self.dialect, self.spec, seconds)

    def repair(self, differing: Callable[[], int]) -> Repair:
        """Make ``b`` equal to ``a`` again and let ``differing`` (the comparison, in blocks) tell whether it is.

        First what DRBD marked is resynced; when the comparison still finds differences, everything is.  Blocks for at
        most ``resync_seconds`` (and 0.2 s for each MiB of the device) each time, and as long as ``differing`` does.
        """
        began = time.monotonic()
        method, seconds = self.dialect.resync_of_marked, _for_the_device(self.spec.resync_seconds, self.blocks)
        resync(self.a, self.events(self.a), self.dialect.resync_marked(self.spec), seconds)
        if not differing():
            return Repair(method, time.monotonic() - began, 0)
        resync(self.a, self.events(self.a), resync_all(self.spec), seconds)
        return Repair(f"{method}, then invalidate-remote", time.monotonic() - began, differing())

    # ------------------------------------------------------------------------------------------ below and around DRBD

    def plant_below(self, node: Node, changes: Iterable[PlantedChange]) -> None:
        """Make ``changes`` on ``node``, so that a verify has to find them: :func:`harness.drbd.below.plant`."""
        below.plant(node, changes)

    def delays(self, node: Node | None = None) -> DelayProfile:
        """The delays of ``node`` (``a`` by default): :func:`harness.drbd.delays.observed`."""
        return delays.observed(node or self.a, self.spec)

    def apply_delays(self, profile: DelayProfile, node: Node | None = None) -> None:
        """Delay what ``node`` (``a`` by default) sends, writes and flushes: :func:`harness.drbd.delays.apply`."""
        delays.apply(node or self.a, self.spec, profile)

    def break_disk(self, node: Node) -> None:
        """Let the lower device of ``node`` fail: :func:`harness.drbd.delays.break_disk`."""
        delays.break_disk(node, self.spec)


def _told(resource: Resource, node: Node, parse: Callable[[str, ResourceSpec], T]) -> T:
    """What ``parse`` reads in the status that ``node`` reports."""
    text = node.runner.run(resource.dialect.read_status(resource.spec)).stdout
    try:
        return parse(text, resource.spec)
    except ValueError as error:
        raise InfrastructureError(f"the status of DRBD on {node.name} cannot be read: {error}") from error


def follow_again(resource: Resource) -> tuple[str, ...]:
    """Follow the events anew of each node whose stream has ended; the names of those nodes.

    Not in the middle of a cell, whose cursors are of the stream that was.
    """
    ended = [node for node in (resource.a, resource.b) if resource.events(node).stream.ended is not None]
    for node in ended:
        resource._follow(node)
    return tuple(node.name for node in ended)


def _create_metadata(node: Node, dialect: DrbdDialect, spec: ResourceSpec) -> None:
    if node.guard is not None:
        node.guard.create_metadata()
    else:
        node.runner.run(["drbdadm", *dialect.create_metadata(spec), spec.name], timeout=spec.connect_seconds)


def _load(node: Node) -> str:
    """Load DRBD's module on ``node``, and its version."""
    changes.note_module(node)
    text = node.runner.run(["sh", "-c", "modprobe drbd; cat /proc/drbd"]).stdout
    try:
        return parse_version(text)
    except ValueError as error:
        raise InfrastructureError(f"the version of DRBD on {node.name} cannot be read: {error}") from error


def both(step: Callable[[Node], T], a: Node, b: Node) -> tuple[T, T]:
    """Do ``step`` on both nodes at the same time; what each returned.

    Blocks until both are done; then ``a``'s error is raised, or ``b``'s.
    """
    with ThreadPoolExecutor(2) as pool:
        # Not by map: the error of the first would cancel the second where it has not begun.
        one, other = pool.submit(step, a), pool.submit(step, b)
    return one.result(), other.result()


def _for_the_device(seconds: float, blocks: int) -> float:
    """``seconds`` and what a device of ``blocks`` 4 KiB blocks takes beyond them."""
    return seconds + blocks * BLOCK_BYTES / 2**20 / WHOLE_DEVICE_MIB_PER_SECOND
