"""DRBD over two nodes: up, waiting, verify, counters, repair.

``a`` is the Primary throughout; ``b`` holds the other replica.  Both generations of DRBD are spoken: 8.4
(in-tree) and 9.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness.errors import InfrastructureError, RefusedError
from harness.lab.node import Node
from harness.model import BLOCK_BYTES, Counters, Extent, Repair, ReplicationProfile, State, Verify
from harness.parse.delays import dm_write_delay_ms, netem_delay_ms
from harness.parse.drbd_status import parse_proc, parse_status_json, parse_version
from harness.parse.events2 import ResourceView, fold, parse_event
from harness.parse.kernel_log import last_verify, verify_of
from harness.remote.stream import LineStream
from harness.render.drbd_conf import ResourceNode, ResourceSpec, resource_file
from harness.util.deadline import Deadline

CONNECT_SECONDS = 60.0
VERIFY_SECONDS = 120.0
RESYNC_SECONDS = 120.0

# The lower device is always a linear device-mapper table, so that a delay can go on and off under a running resource.
MAPPED = "drbd-lower"


class Events:
    """One node's ``drbdsetup events2``, followed from the start and folded into a view."""

    def __init__(self, node: Node, resource: str) -> None:
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
        whole even when an event says only what changed.
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


class Resource:
    """The DRBD resource over the two nodes of a lab."""

    def __init__(self, a: Node, b: Node, spec: ResourceSpec) -> None:
        self.a = a
        self.b = b
        self.spec = spec
        self.version = ""
        self.blocks = 0
        #: How the resource replicates now; None after a change that did not succeed.  See
        #: :mod:`harness.drbd.replication`.
        self.replication: ReplicationProfile | None = ReplicationProfile()
        #: The options of its net section that no replication profile takes away.
        self.net = spec.net
        self._events: dict[str, Events] = {}

    @classmethod
    def for_nodes(cls, a: Node, b: Node, *, name: str = "r0", net: tuple[tuple[str, str], ...] = ()) -> Resource:
        """The resource with the harness's defaults; ``net`` are further options of its net section."""
        nodes = (
            ResourceNode(a.name, a.address, f"/dev/mapper/{MAPPED}"),
            ResourceNode(b.name, b.address, f"/dev/mapper/{MAPPED}"),
        )
        return cls(a, b, ResourceSpec(name, 0, 7789, nodes, net))

    @property
    def device(self) -> str:
        """Its block device, the same path on both nodes."""
        return self.spec.device

    @property
    def major(self) -> int:
        """8 or 9."""
        return int(self.version.split(".")[0])

    def events(self, node: Node) -> Events:
        """The event stream of one node."""
        return self._events[node.name]

    # ------------------------------------------------------------------------------------------ up and down

    def create(self, *, skip_initial_sync: bool) -> None:
        """From bare lower devices to Connected, UpToDate on both, ``a`` Primary.

        ``skip_initial_sync``: the caller knows that the two lower devices hold the same; else all of ``a`` is copied to
        ``b``.  An old resource of the same name is taken down first.
        """
        self.version = parse_version(self.a.runner.run(["sh", "-c", "modprobe drbd; cat /proc/drbd"]).stdout)
        self.spec = replace(self.spec, net=self.net)
        # What an earlier cell changed outside of the resource file is not known where something went wrong.
        self.replication = ReplicationProfile() if skip_initial_sync else None
        both(self._prepare, self.a, self.b)
        both(self._new_metadata, self.a, self.b)
        for node in (self.a, self.b):
            self._events[node.name] = Events(node, self.spec.name)
        both(lambda node: node.runner.run(["drbdadm", "up", self.spec.name], timeout=CONNECT_SECONDS), self.a, self.b)
        deadline = Deadline.after(CONNECT_SECONDS, "the first connection of the resource")
        for node in (self.a, self.b):
            self.events(node).wait(
                lambda state: state.connection == "Connected" and state.peer_disk == "Inconsistent",
                f"Connected and Inconsistent on {node.name}",
                deadline,
            )
        if skip_initial_sync:
            self.a.runner.run(self._skip_first_sync())
        else:
            self.a.runner.run(["drbdadm", "primary", "--force", self.spec.name])
            deadline = Deadline.after(RESYNC_SECONDS, "the first sync of the resource")
        for node in (self.a, self.b):
            self.events(node).wait(lambda state: state.healthy, f"UpToDate/UpToDate on {node.name}", deadline)
        if skip_initial_sync:
            self.a.runner.run(["drbdadm", "primary", self.spec.name])
        size = self.a.runner.run(["blockdev", "--getsize64", self.device]).stdout
        self.blocks = int(size) // BLOCK_BYTES

    def _skip_first_sync(self) -> list[str]:
        volume = f"{self.spec.name}/0"
        if self.major < 9:
            return ["drbdadm", "--", "--clear-bitmap", "new-current-uuid", volume]
        return ["drbdadm", "new-current-uuid", "--clear-bitmap", volume]

    def _prepare(self, node: Node) -> None:
        conf = resource_file(self.spec, self.major)
        script = f"""
        modprobe drbd; modprobe dm-delay
        drbdsetup down {self.spec.name} >/dev/null 2>&1
        dmsetup remove {MAPPED} >/dev/null 2>&1
        set -e
        lower=$(readlink -f "$1")
        dmsetup create {MAPPED} --table "0 $(blockdev --getsz "$lower") linear $lower 0"
        udevadm settle 2>/dev/null || true
        cat > /etc/drbd.d/{self.spec.name}.res
        """
        node.runner.run(["sh", "-c", script, "sh", node.lower], stdin=conf, timeout=CONNECT_SECONDS)

    def _new_metadata(self, node: Node) -> None:
        node.runner.run(["drbdadm", "create-md", "--force", self.spec.name], timeout=CONNECT_SECONDS)

    def write_configuration(self, node: Node) -> None:
        """Put the resource file that ``spec`` renders to on ``node``; DRBD learns of it by an adjust."""
        node.runner.write(f"/etc/drbd.d/{self.spec.name}.res", resource_file(self.spec, self.major))

    def rejoin(self, node: Node) -> None:
        """Bring the resource up again on a node that has booted; its data is what it was."""
        self._prepare(node)
        self._events[node.name] = Events(node, self.spec.name)
        node.runner.run(["drbdadm", "up", self.spec.name], timeout=CONNECT_SECONDS)

    def down(self) -> None:
        """Take the resource down on both nodes; nothing is asked of its data."""
        both(lambda node: node.runner.run(["drbdadm", "down", self.spec.name], ok=()), self.a, self.b)

    # ------------------------------------------------------------------------------------------ what DRBD says

    def status(self, node: Node | None = None) -> tuple[State, Counters]:
        """State and counters in the words of one node (``a`` by default)."""
        node = node or self.a
        try:
            return self._status(node)
        except ValueError as unreadable:
            raise InfrastructureError(f"what DRBD says on {node.name} cannot be read: {unreadable}") from unreadable

    def raw_status(self, node: Node) -> dict[str, str]:
        """What one node says of the resource, word for word: its status, and all events since it came up."""
        events = "\n".join(self.events(node).stream.since(0))
        return {"status": self._status_text(node), "events2": f"{events}\n"}

    def _status_text(self, node: Node) -> str:
        if self.major < 9:
            return node.runner.run(["cat", "/proc/drbd"]).stdout
        return node.runner.run(["drbdsetup", "status", "--json", "--statistics", self.spec.name]).stdout

    def _status(self, node: Node) -> tuple[State, Counters]:
        raw = self._status_text(node)
        if self.major < 9:
            device = parse_proc(raw).devices.get(self.spec.minor)
            if device is None or device.state is None or device.counters is None:
                raise InfrastructureError(f"{self.spec.name} is not configured on {node.name}")
            return device.state, device.counters
        return parse_status_json(raw, self.spec.name, 0)

    def sync(self, node: Node | None = None) -> None:
        """Flush the page cache of a Primary's device (``a`` by default) and wait until nothing is in flight."""
        node = node or self.a
        node.runner.run(["sh", "-c", 'sync; blockdev --flushbufs "$1"', "sh", self.device], timeout=120)

    def drbdadm(self, node: Node, *words: str, timeout: float = CONNECT_SECONDS) -> None:
        """One `drbdadm` command about the resource on ``node``; raises :class:`RefusedError` with DRBD's words."""
        command, *rest = words
        done = node.runner.run(["drbdadm", command, *rest, self.spec.name], timeout=timeout, ok=())
        if done.status:
            said = " ".join((done.stderr.strip() or done.stdout.strip() or f"status {done.status}").split())
            raise RefusedError(f"DRBD on {node.name}", f"drbdadm {' '.join(words)}: {said}")

    # ------------------------------------------------------------------------------------------ verify and repair

    def verify(self) -> tuple[Verify, str, str]:
        """One whole `drbdadm verify`; also returns the raw kernel logs of both nodes over it."""
        began = time.monotonic()
        cursors = [node.log.mark("verify begins") for node in (self.a, self.b)]
        events = self.events(self.a)
        cursor = events.cursor()
        deadline = Deadline.after(VERIFY_SECONDS, "the online verify")
        self.a.runner.run(self._start_verify())
        begun = events.wait(lambda state: state.replication == "VerifyS", "the start of the verify", deadline, cursor)
        events.wait(lambda state: state.replication != "VerifyS", "the end of the verify", deadline, begun)
        for node in (self.a, self.b):
            node.log.mark("verify ended")
        raw_a, raw_b = (node.log.raw(at) for node, at in zip((self.a, self.b), cursors, strict=True))
        logs = [node.log.lines(at) for node, at in zip((self.a, self.b), cursors, strict=True)]
        source = verify_of(logs[0], self.a.name, self.spec.minor)
        target = verify_of(logs[1], self.b.name, self.spec.minor)
        skipped = max(last_verify(log, self.spec.minor).skipped_blocks for log in logs)
        return Verify(source, target, time.monotonic() - began, skipped), raw_a, raw_b

    def _start_verify(self) -> list[str]:
        # Without a start, one that follows an aborted one would begin where that one stopped.
        volume = f"{self.spec.name}/0"
        if self.major < 9:
            return ["drbdadm", "--", "--start=0", "verify", volume]
        return ["drbdadm", "verify", "--start=0", volume]

    def repair(self, differing: Callable[[], int]) -> Repair:
        """Make ``b`` equal to ``a`` again and let ``differing`` (the comparison) say whether it is.

        First what DRBD marked is resynced; when the comparison still finds differences, everything is.
        """
        began = time.monotonic()
        marked = "disconnect + connect" if self.major < 9 else "invalidate-remote --reset-bitmap=no"
        if self.major < 9:
            self._reconnect()
        else:
            self._invalidate("--reset-bitmap=no")
        left = differing()
        if not left:
            return Repair(marked, time.monotonic() - began, 0)
        self._invalidate()
        return Repair(f"{marked}, then invalidate-remote", time.monotonic() - began, differing())

    def _reconnect(self) -> None:
        events = self.events(self.a)
        cursor = events.cursor()
        deadline = Deadline.after(RESYNC_SECONDS, "the resync")
        self.a.runner.run(["drbdadm", "disconnect", self.spec.name])
        alone = "StandAlone after disconnect"
        cursor = events.wait(lambda state: state.connection == "StandAlone", alone, deadline, cursor)
        self.a.runner.run(["drbdadm", "connect", self.spec.name])
        self._wait_resynced(cursor, deadline)

    def _invalidate(self, *options: str) -> None:
        cursor = self.events(self.a).cursor()
        deadline = Deadline.after(RESYNC_SECONDS, "the resync")
        self.a.runner.run(["drbdadm", "invalidate-remote", *options, self.spec.name])
        begins = "the start of the resync"
        cursor = self.events(self.a).wait(lambda state: state.replication != "Established", begins, deadline, cursor)
        self._wait_resynced(cursor, deadline)

    def _wait_resynced(self, cursor: int, deadline: Deadline) -> None:
        self.events(self.a).wait(lambda state: state.healthy, "UpToDate/UpToDate after a resync", deadline, cursor)

    # ------------------------------------------------------------------------------------------ below and around DRBD

    def corrupt_below(self, node: Node, extents: tuple[Extent, ...]) -> None:
        """Change exactly ``extents`` on ``node`` below DRBD, so that a verify has to find them."""
        script = """
        set -e
        lower=$(readlink -f "$lower")
        for run in "$@"; do
            start=${run%+*}; size=${run#*+}
            head -c $((size * 512)) /dev/urandom |
                dd of="$lower" bs=512 seek="$start" oflag=direct conv=notrunc iflag=fullblock status=none
        done
        """
        runs = [f"{extent.start}+{extent.size}" for extent in extents]
        node.runner.run(["env", f"lower={node.lower}", "sh", "-c", script, "sh", *runs])

    def delays(self, node: Node | None = None) -> tuple[int, int]:
        """The delays that are on right now on ``node`` (``a`` by default), read back: (link, disk) in ms."""
        node = node or self.a
        script = f'tc qdisc show dev "$1"; echo ==; dmsetup table {MAPPED}'
        link, _, table = node.runner.run(["sh", "-c", script, "sh", node.link]).stdout.partition("==")
        return netem_delay_ms(link), dm_write_delay_ms(table)

    def apply_delays(self, link_delay_ms: int, disk_delay_ms: int, node: Node | None = None) -> None:
        """Delay the replication egress and the lower device's writes of ``node`` (``a`` by default); zeros: neither."""
        node = node or self.a
        # Only DRBD is delayed: TCP sends little more than a millisecond's worth into a queue on its own machine, so
        # that a migration over the same link would crawl (1.7 MB/s with 20 ms).
        script = f"""
        set -e
        tc qdisc del dev "$1" root 2>/dev/null || true
        if [ "$2" -gt 0 ]; then
            tc qdisc add dev "$1" root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
            tc qdisc add dev "$1" parent 1:3 handle 30: netem delay "$2"ms limit 20000
            for side in sport dport; do
                tc filter add dev "$1" parent 1: protocol ip u32 match ip "$side" {self.spec.port} 0xffff flowid 1:3
            done
        fi
        lower=$(readlink -f "$4"); sectors=$(blockdev --getsz "$lower")
        case "$(dmsetup table {MAPPED})" in *" linear "*) plain=1;; *) plain=0;; esac
        if [ "$3" -gt 0 ]; then table="0 $sectors delay $lower 0 0 $lower 0 $3"
        elif [ "$plain" = 0 ]; then table="0 $sectors linear $lower 0"
        else exit 0; fi
        dmsetup load {MAPPED} --table "$table"
        dmsetup suspend {MAPPED}
        dmsetup resume {MAPPED}
        """
        node.runner.run(["sh", "-c", script, "sh", node.link, str(link_delay_ms), str(disk_delay_ms), node.lower])

    def break_disk(self, node: Node) -> None:
        """Every request to the lower device of ``node`` fails from now on; :meth:`apply_delays` ends it."""
        script = f"""
        set -e
        sectors=$(blockdev --getsz "$(readlink -f "$1")")
        dmsetup load {MAPPED} --table "0 $sectors error"
        dmsetup suspend --noflush --nolockfs {MAPPED}
        dmsetup resume {MAPPED}
        """
        node.runner.run(["sh", "-c", script, "sh", node.lower])


def both(step: Callable[[Node], object], a: Node, b: Node) -> None:
    """Do ``step`` on both nodes at the same time; the first error is raised when both are done."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(step, (a, b)))
