"""A lab that only remembers: two nodes, a small DRBD with roles and connections, a guest, a canary, a workload.

Nothing here waits for anything, and nothing here is a test.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import libvirt

from harness.config.lab_spec import GuestSpec, LabSpec, UserImageSpec
from harness.drbd.resource import Resource
from harness.engine.cell_run import play
from harness.engine.cell_steps import CellRun
from harness.errors import (
    CommandError,
    DeadlineError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    RefusedError,
)
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers, OwnedBlock, ReplicaView
from harness.guest.disk import AttachedDisk
from harness.guest.domain import Guest
from harness.guest.user_guest import Ready
from harness.lab.backing_compare import DIGEST_BYTES
from harness.lab.base import Lab
from harness.model import (
    AioMode,
    BlockOwner,
    CacheMode,
    Canary,
    Cell,
    Comparison,
    Counters,
    DelayProfile,
    DiskBus,
    DiskSource,
    Evidence,
    FilesystemKind,
    LabProvenance,
    NodeVerify,
    Observed,
    Repair,
    ReplicationProfile,
    Run,
    Sample,
    Stack,
    StackLock,
    State,
    Verify,
    Work,
    extents_of,
)
from harness.parse.kernel_log import KernelLine, parse_kmsg
from harness.remote.base import Completed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.stream import LineStream
from harness.render.drbd_conf import ResourceNode, ResourceSpec
from harness.store import Store
from harness.util.deadline import Deadline
from harness.workloads.base import Recovered, Workload, WorkloadTarget
from harness.workloads.swap import MOVES_FILE

BLOCKS = 32768
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
NARROW = {"nodea": DelayProfile(), "nodeb": DelayProfile()}
MULTIPLE = "State change failed: (-1) Multiple primaries not allowed by config"
HELD_OPEN = "State change failed: (-12) Device is held open by someone"


# --------------------------------------------------------------------------- what happened


@dataclass
class Story:
    """What happened, in order, and what goes wrong on the way.

    ``broken`` maps a step to what it raises, each time; ``when`` to what happens besides.
    """

    steps: list[str] = field(default_factory=list)
    broken: dict[str, BaseException] = field(default_factory=dict)
    when: dict[str, Callable[[], object]] = field(default_factory=dict)

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        if step in self.when:
            self.when[step]()
        error = self.broken.get(step)
        if error is not None:
            raise error


def in_order(steps: Sequence[str], *wanted: str) -> bool:
    """Whether ``wanted`` happened in that order, whatever else did in between."""
    left = iter(steps)
    return all(any(step == one for step in left) for one in wanted)


# --------------------------------------------------------------------------- nodes


class FakeLog:
    """A kernel log: ``text`` is in it wherever one begins to read, what it ``says`` from there on only."""

    def __init__(self, story: Story, name: str) -> None:
        self._story = story
        self.name = name
        self.text = "6,1,1000,-;quiet\n"
        self.said: list[str] = []

    def says(self, line: str) -> None:
        """Now, and not before."""
        self.said.append(f"{line}\n")

    def mark(self, what: str) -> int:
        self._story(f"mark {self.name}: {what}")
        return len(self.said)

    def begin(self, cursor: int) -> None:
        self.begins = cursor

    def counted(self, cursor: int) -> tuple[KernelLine, ...]:
        return self.lines(cursor)

    def raw(self, cursor: int) -> str:
        return self.text + "".join(self.said[cursor:])

    def lines(self, cursor: int) -> tuple[KernelLine, ...]:
        return parse_kmsg(self.raw(cursor))


class LibvirtSaid(libvirt.libvirtError):  # type: ignore[misc]
    """An error of libvirt's with a code."""

    def __init__(self, words: str, code: int = libvirt.VIR_ERR_INTERNAL_ERROR) -> None:
        super().__init__(words)
        # libvirt prefers the last error of the thread, which may be another test's.
        self.args = (words,)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


@dataclass
class FakeLibvirt:
    """The libvirt of one node; with ``error`` that is what it raises instead of finding a domain."""

    name: str
    story: Story
    domains: dict[str, object] = field(default_factory=dict)
    alive: bool = True
    error: BaseException | None = None

    def end(self) -> None:
        self.story(f"connection to {self.name} ended")

    def lookupByName(self, name: str) -> object:  # noqa: N802 - libvirt's name
        if self.error is not None:
            raise self.error
        if name not in self.domains:
            raise LibvirtSaid(f"Domain not found: {name}", libvirt.VIR_ERR_NO_DOMAIN)
        return self.domains[name]


class FakeNodeRunner(ScriptedRunner):
    """Also starts the witness: ``witness`` is the line that it begins with, ``report`` the one that it ends with.

    Without a report it is still starting, or does not stop.  ``silent``: why the node is lost.
    """

    def __init__(self, answer: Callable[[tuple[str, ...]], Answer], host: str) -> None:
        super().__init__(answer, host)
        self.witness = "unwatched there is none on this node"
        self.report = ""
        self.streams: list[LineStream] = []
        self.silent: str | None = None

    def stream(self, argv: Sequence[str], name: str) -> LineStream:
        self.run(argv)
        stream = LineStream(f"{name} on {self.host}")
        self.streams.append(stream)
        for line in ("pid 77", self.witness):
            stream.append(line)
        return stream

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        done = super().run(argv, stdin=stdin, timeout=timeout, ok=ok)
        if list(argv) == ["kill", "-TERM", "77"] and self.report:
            self.streams[-1].append(self.report)
        return done


class FakeNode:
    """A node that keeps what was put below DRBD, and otherwise says nothing.

    ``answers`` maps a piece of a command to what the node answers it with, before anything else.
    """

    def __init__(self, story: Story, name: str) -> None:
        self.story = story
        self.name = name
        self.link = "repl0"
        self.lower = "/dev/vdb"
        self.address = "192.0.2.1" if name == "nodea" else "192.0.2.2"
        self.own_link, self.guard, self.journal = True, None, None
        self.drbd_name = name
        self.log = FakeLog(story, name)
        self.alive = True
        # Whether a new connection is all that it takes.
        self.connection_lost = False
        self.log_ended = False
        # All that its guests ever said; what is there already is no cell's.
        self.console = "said before\n"
        self.net: dict[str, str] = {}
        self.sendpage = "N"
        self.gather = "on"
        self.answers: dict[str, Answer] = {}
        self.runner = FakeNodeRunner(self._answer, name)
        self.libvirt = FakeLibvirt(name, story)
        self.monitor_connection = self.libvirt
        self.libvirt_lost = False
        # Whether a new start of its daemon helps.
        self.libvirt_starts = False
        # Whether it is a machine that has guests of its owner's too.
        self.somebodys = False

    def note(self, *changes: object) -> None:
        """It is nobody's machine but the lab's."""

    def require_lower(self, what: str) -> None:
        """Its lower device is the lab's."""

    @property
    def away(self) -> bool:
        return not self.alive

    def require_libvirt(self) -> None:
        if self.libvirt_lost:
            raise LostNodeError(f"no libvirt on {self.name}: it hangs")

    def connect_again(self) -> bool:
        self.alive, self.connection_lost = self.alive or self.connection_lost, False
        return self.alive

    def listen_again(self) -> bool:
        ended, self.log_ended = self.log_ended, False
        return ended

    def _answer(self, argv: tuple[str, ...]) -> Answer:
        if not self.alive:
            raise LostNodeError(f"{self.name} does not answer")
        text = " ".join(argv)
        for piece, answer in self.answers.items():
            if piece in text:
                return answer
        if "drbdsetup show" in text:
            return 0, self._shown(), ""
        if "ethtool -K" in text:
            # As a command of its own, or in the script that sets the parameter of DRBD's module, too.
            self.sendpage, self.gather = (self.sendpage if argv[0] == "ethtool" else argv[-3]), argv[-1]
        if "/var/log/libvirt/" in text:
            return 0, f"QEMU on {self.name} said\n", ""
        if argv[0] == "stat":
            return 0, f"{len(self.console.encode())}\n", ""
        if "tail -c" in text:
            self.story(f"console {self.name}")
            return 0, self.console.encode()[int(argv[-1]) - 1 :].decode(), ""
        if "netem loss" in text or "tc qdisc del" in text:
            self.story(f"link of {self.name} {'cut' if 'netem loss' in text else 'joined'}")
        if "systemctl restart" in text:
            self.libvirt_lost = self.libvirt_lost and not self.libvirt_starts
            self.story(f"{argv[-1]} restarted on {self.name}")
        if "/usr/lib/drbd-harness/witness" in argv:
            self.story(f"witness on {self.name}")
        if argv[0] == "kill":
            self.story(f"witness stops on {self.name}")
        if argv[0] == "virsh":
            self.story(f"libvirt of {self.name} answers")
        return 0, "", ""

    def _shown(self) -> str:
        net = "".join(f"        {name} {value};\n" for name, value in self.net.items())
        show = f"resource r0 {{\n    net {{\n{net}    }}\n}}\n"
        return f"{show}== parameter\n{self.sendpage}\n== link\nscatter-gather: {self.gather}\n"


@dataclass
class FakeLab:
    """Two nodes; ``differing`` are the blocks that differ outside DRBD."""

    story: Story = field(default_factory=Story)
    id: str = "lab1"
    differing: set[int] = field(default_factory=set)
    # The blocks of nodea's backing device that hold something else than in the beginning.
    changed: set[int] = field(default_factory=set)
    stack: Stack = field(default_factory=lambda: Stack(kernel="6.12"))
    lock: StackLock = field(default_factory=StackLock)
    fresh: bool = True
    carries_guests: bool = True
    boot_seconds: float = 0.0
    # Whether only the nodes themselves can read their lower devices.
    reads_by_nodes: bool = False
    resources: list[FakeResource] = field(default_factory=list)
    spec: LabSpec = field(default_factory=LabSpec)

    def __post_init__(self) -> None:
        self.a = FakeNode(self.story, "nodea")
        self.b = FakeNode(self.story, "nodeb")

    @property
    def resource_spec(self) -> ResourceSpec:
        return self.spec.resource

    @property
    def guest_spec(self) -> GuestSpec:
        return self.spec.guest

    def provenance(self) -> LabProvenance:
        return LabProvenance({"node": "0" * 64}, {"node": {"drbd-utils": "9.22"}}, 1)

    def compare(self, blocks: int) -> Comparison:
        self.story("compare")
        return Comparison(blocks, extents_of(self.differing), 0.1, "here")

    def readable(self, node: FakeNode) -> bool:
        return node.alive or not self.reads_by_nodes

    def block_digests(self, node: FakeNode, blocks: int) -> bytes:
        if not self.readable(node):
            raise LostNodeError(f"{node.name} has no power")
        self.story(f"digest {node.name}")
        other = self.differing if node is self.b else set()
        return b"".join(bytes([(block in self.changed) != (block in other)]) * DIGEST_BYTES for block in range(blocks))

    def sample(self, blocks: Iterable[int]) -> tuple[Sample, ...]:
        return tuple(Sample(block, 0, 1, "00", "01") for block in blocks)

    def power_off(self, node: FakeNode) -> None:
        node.alive = False
        for resource in self.resources:
            resource.lost(node)
        self.story(f"kill {node.name}")

    def stop(self, node: FakeNode) -> None:
        node.alive = False
        self.story(f"stop {node.name}")

    def kill_libvirt(self) -> bool:
        self.story("kill libvirt")
        return True

    def power_on(self, node: FakeNode) -> None:
        self.story(f"revive {node.name}")
        node.alive = True
        node.log.said.clear()


# --------------------------------------------------------------------------- DRBD


class FakeEvents:
    """One node's events2: what it waits for is there already, or never comes."""

    def __init__(self, resource: FakeResource, node: FakeNode) -> None:
        self._resource, self._node = resource, node
        self.stream = LineStream(f"events2 on {node.name}")

    left_out = lost = 0

    def cursor(self) -> int:
        return self.stream.cursor()

    def begin(self) -> None:
        """What came so far is forgotten."""

    def complete(self, cursor: int = 0) -> tuple[list[str], int]:
        return self.stream.since(0), cursor

    def wait(self, accept: Callable[[State], bool], what: str, deadline: Deadline, cursor: int | None = None) -> int:
        self._resource.lab.story(f"wait on {self._node.name}: {what}")
        if not accept(self._resource.seen_by(self._node)):
            raise DeadlineError(f"{what} did not happen within {deadline.seconds:.0f} s")
        return self.cursor()


class FakeResource:
    """DRBD over a lab: ``verified`` are the blocks that a verify reports, ``mends`` whether a repair works.

    ``split``: the two sides do not find together again unless one of them gives its data up.  ``refuses`` maps what is
    asked, e.g. ``nodeb secondary``, to the words of the refusals that come before it is done.
    """

    def __init__(self, lab: FakeLab, sent_kib: int = 1000) -> None:
        self.lab = lab
        self.a, self.b = lab.a, lab.b
        lab.resources.append(self)
        nodes = (ResourceNode("nodea", self.a.address, "x"), ResourceNode("nodeb", self.b.address, "x"))
        self.net: tuple[tuple[str, str], ...] = ()
        self.spec = ResourceSpec("r0", 0, 7789, nodes)
        self.replication: ReplicationProfile | None = ReplicationProfile()
        self.blocks = BLOCKS
        self.device = "/dev/drbd0"
        self.major = 8
        self.sent_kib = sent_kib
        self.verified: set[int] = set()
        self.delayed = dict(NARROW)
        self.mends = True
        self.ups: list[bool] = []
        self.oos_kib = 0
        self.stuck_kib = 0
        self.refuses: dict[str, list[str]] = {}
        self.split = False
        self._events: dict[str, FakeEvents] = {}
        self._fresh()

    def _fresh(self) -> None:
        self.replication = ReplicationProfile()
        self.roles = {"nodea": "Primary", "nodeb": "Secondary"}
        self.disks = {"nodea": "UpToDate", "nodeb": "UpToDate"}
        self.links = {"nodea": "Connected", "nodeb": "Connected"}
        self.here = {"nodea", "nodeb"}
        self._events = {node.name: FakeEvents(self, node) for node in (self.a, self.b)}

    # ----------------------------------------------------------------------- up and down

    def create(self, *, skip_initial_sync: bool) -> None:
        self.lab.story(f"create skip_initial_sync={skip_initial_sync}")
        self.ups.append(skip_initial_sync)
        self._fresh()

    def down(self) -> None:
        self.lab.story("down")

    def lost(self, node: FakeNode) -> None:
        """The node has no power any more."""
        self.here.discard(node.name)
        self.roles[node.name] = "Secondary"
        other = self._other(node)
        if self.links[other.name] == "Connected":
            self.links[other.name] = "Connecting"

    def rejoin(self, node: FakeNode) -> None:
        self.lab.story(f"rejoin {node.name}")
        assert node.alive, "it has no power"
        self.here.add(node.name)
        self._events[node.name] = FakeEvents(self, node)
        self._connect(node)

    def require_own_files(self) -> None:
        pass

    def _follow(self, node: FakeNode) -> None:
        self._events[node.name] = FakeEvents(self, node)

    def write_configuration(self, node: FakeNode) -> None:
        self.lab.story(f"configure {node.name}: {dict(self.spec.net)}")

    # ----------------------------------------------------------------------- what it says

    @property
    def state(self) -> State:
        """As ``a`` sees it."""
        return self.seen_by(self.a)

    @state.setter
    def state(self, state: State) -> None:
        self.links["nodea"] = state.connection
        self.links["nodeb"] = state.connection
        self.roles = {"nodea": state.local_role, "nodeb": state.peer_role}
        self.disks = {"nodea": state.local_disk, "nodeb": state.peer_disk}

    def seen_by(self, node: FakeNode) -> State:
        peer = self._other(node)
        link = self.links[node.name]
        connected = link == self.links[peer.name] == "Connected" and peer.name in self.here
        if link == "Connected" and not connected:
            link = "Connecting"
        return State(
            link,
            self.roles[node.name],
            self.roles[peer.name] if connected else "Unknown",
            self.disks[node.name],
            self.disks[peer.name] if connected else "DUnknown",
        )

    def _other(self, node: FakeNode) -> FakeNode:
        return self.b if node.name == self.a.name else self.a

    def events(self, node: FakeNode) -> FakeEvents:
        return self._events[node.name]

    def raw_status(self, node: object) -> dict[str, str]:
        return {"status": "as it is\n"}

    def status(self, node: FakeNode | None = None) -> tuple[State, Counters]:
        node = node or self.a
        self.lab.story("status")
        if not node.alive:
            raise LostNodeError(f"{node.name} does not answer")
        if node.name not in self.here:
            raise InfrastructureError(f"r0 is not configured on {node.name}")
        sent, received = (self.sent_kib, 0) if node.name == "nodea" else (0, self.sent_kib)
        return self.seen_by(node), Counters(sent, received, self.sent_kib, 0, self.oos_kib + self.stuck_kib)

    # ----------------------------------------------------------------------- what it does

    def drbdadm(self, node: FakeNode, *words: str, timeout: float = 60.0) -> None:
        asked = f"{node.name} {' '.join(words)}"
        self.lab.story(f"drbdadm {asked}")
        if not node.alive:
            raise LostNodeError(f"{node.name} does not answer")
        if self.refuses.get(asked):
            self._refuse(node, words, self.refuses[asked].pop(0))
        match words[0]:
            case "primary":
                both = self.roles[self._other(node).name] == "Primary"
                if both and self._connected() and node.net.get("allow-two-primaries") != "yes":
                    self._refuse(node, words, MULTIPLE)
                self.roles[node.name] = "Primary"
            case "secondary":
                self.roles[node.name] = "Secondary"
            case "disconnect":
                self.links[node.name] = "StandAlone"
                if self.links[self._other(node).name] == "Connected":
                    self.links[self._other(node).name] = "Connecting"
            case "connect" | "adjust":
                if "--discard-my-data" in words:
                    self.split = False
                if words[0] == "adjust":
                    node.net = dict(self.spec.net)
                self._connect(node)
            case "attach":
                self.disks[node.name] = "UpToDate"
            case "net-options":
                node.net |= dict(word.removeprefix("--").split("=") for word in words[1:])
            case _:
                raise AssertionError(f"unknown to the fake: drbdadm {words}")

    def _refuse(self, node: FakeNode, words: Sequence[str], said: str) -> None:
        raise RefusedError(f"DRBD on {node.name}", f"drbdadm {' '.join(words)}: {said}")

    def _connected(self) -> bool:
        return self.here == {"nodea", "nodeb"} and set(self.links.values()) == {"Connected"}

    def _connect(self, node: FakeNode) -> None:
        self.links[node.name] = "Connecting"
        if self.links[self._other(node).name] != "StandAlone" and self.here == {"nodea", "nodeb"}:
            word = "StandAlone" if self.split else "Connected"
            self.links = {"nodea": word, "nodeb": word}

    def sync(self, node: FakeNode | None = None) -> None:
        node = node or self.a
        self.lab.story("sync" if node.name == "nodea" else f"sync {node.name}")
        if not node.alive:
            raise LostNodeError(f"{node.name} does not answer")
        if self.roles[node.name] != "Primary":
            raise CommandError(node.name, ["blockdev"], 1, "", "Wrong medium type")

    def verify(self) -> tuple[Verify, str, str]:
        self.lab.story("verify")
        self.oos_kib = 4 * len(self.verified)
        extents = extents_of(self.verified)
        source, target = (NodeVerify(name, True, True, extents) for name in ("nodea", "nodeb"))
        return Verify(source, target, 1.0), "raw of a", "raw of b"

    def repair(self, differing: Callable[[], int]) -> Repair:
        self.lab.story("repair")
        if self.mends:
            self.lab.differing, self.verified, self.oos_kib = set(), set(), 0
        return Repair("by hand", 1.0, differing())

    def apply_delays(self, profile: DelayProfile, node: FakeNode | None = None) -> None:
        node = node or self.a
        flush = f"/{profile.flush_delay_ms}" if profile.flush_delay_ms else ""
        delays = f"{profile.link_delay_ms}/{profile.disk_delay_ms}{flush}"
        self.lab.story(f"apply_delays {delays}" + ("" if node.name == "nodea" else f" on {node.name}"))
        if not node.alive:
            raise LostNodeError(f"{node.name} does not answer")
        self.delayed[node.name] = profile

    def delays(self, node: FakeNode | None = None) -> DelayProfile:
        return self.delayed[(node or self.a).name]

    def break_disk(self, node: FakeNode) -> None:
        self.lab.story(f"break the disk of {node.name}")
        self.disks[node.name] = "Diskless"

    def plant_below(self, node: FakeNode, changes: object) -> None:
        self.lab.story(f"plant_below on {node.name}")


# --------------------------------------------------------------------------- the guest


class FakeAgent(ScriptedRunner):
    """The guest's agent; ``holding`` is how many hold it right now.

    ``answers`` maps a piece of a command to what it prints.
    """

    def __init__(self, story: Story) -> None:
        super().__init__(self._told, "guest")
        self.story = story
        self.holding = 0
        self.kernel = ""
        # The status of each program, where none gets to run.
        self.dead = 0
        self.running: Callable[[], bool] = lambda: True
        # Whether a storm has filled its memory.
        self.storms: Callable[[], bool] = lambda: True
        self.answers: dict[str, str] = {}
        self.digest: Callable[[int], str] = lambda block: f"{block:016x}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.holding += 1
        try:
            yield
        finally:
            self.holding -= 1

    def active(self) -> bool:
        return self.running()

    def _told(self, argv: tuple[str, ...]) -> Answer:
        if self.dead:
            return self.dead, "", ""
        program = argv[0].rpartition("/")[2]
        text = " ".join(argv)
        for piece, answer in self.answers.items():
            if piece in text:
                return 0, answer, ""
        if program == "divide":
            self.story(f"divide {' '.join(argv[1:])}")
        if MOVES_FILE in argv:
            # Silent where the storm is only asked whether it storms, which is asked until it does.
            if argv[-1] == MOVES_FILE:
                return 0, "there\n" if self.storms() else "", ""
            self.story(f"storm told {argv[-1]}")
        if program == "blockdigest":
            first, count = int(argv[2]), int(argv[3])
            if first == 0:
                self.story(f"read {argv[1]}")
            return 0, "".join(f"{self.digest(block)}\n" for block in range(first, first + count)), ""
        return 0, self.kernel, ""


class FakeDomain:
    """As much of a libvirt domain as a migration needs.

    ``error`` is what ``migrate3`` raises; it ends at once, or waits for ``ends`` when that is set to an event.
    ``sample`` is what the job's statistics say under way, ``completed`` what they say in the end.  Before the migration
    has begun there is no job to look at, nor one to abort.
    """

    def __init__(self, story: Story, node: FakeNode, agent: FakeAgent | None = None) -> None:
        self.story, self.node, self.agent = story, node, agent
        self.error: BaseException | None = None
        self.ends: threading.Event | None = None
        self.sample: dict[str, object] = {}
        self.completed: dict[str, object] = {"type": 3, "downtime": 34, "memory_iteration": 5}
        self.asked: list[tuple[str, dict[str, object], int]] = []
        self.held_then: list[bool] = []
        self.becomes: FakeDomain | None = None
        self.abort_ends = True
        self.running = True
        self.under_way = False
        self.connection = node.libvirt
        self.said_state: tuple[int, int] = (libvirt.VIR_DOMAIN_RUNNING, 0)

    def state(self) -> tuple[int, int]:
        return self.said_state

    def destroy(self) -> None:
        self.story(f"destroy on {self.node.name}")
        for name in [name for name, domain in self.node.libvirt.domains.items() if domain is self]:
            del self.node.libvirt.domains[name]

    def migrate3(self, destination: FakeLibvirt, parameters: dict[str, object], flags: int) -> FakeDomain:
        self.story(f"migrate {self.node.name} to {destination.name}")
        self.asked.append((destination.name, parameters, flags))
        self.held_then.append(self.agent is not None and self.agent.holding > 0)
        self.under_way = True
        try:
            return self._moved()
        finally:
            self.under_way = False

    def _moved(self) -> FakeDomain:
        if self.ends is not None:
            assert self.ends.wait(20), "nobody let the migration end"
        if self.error is not None:
            raise self.error
        assert self.becomes is not None, "the test did not say what it becomes"
        return self.becomes

    def jobStats(self, flags: int = 0) -> dict[str, object]:  # noqa: N802 - libvirt's name
        if flags & libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED:
            return self.completed
        return self.sample if self.under_way else {"type": 0}

    def abortJob(self) -> None:  # noqa: N802 - libvirt's name
        if not self.under_way:
            raise LibvirtSaid("Requested operation is not valid: no job is active on the domain")
        self.story("abort")
        self.error = LibvirtSaid("operation aborted: migration out job: canceled by client")
        if self.abort_ends and self.ends is not None:
            self.ends.set()

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return int(self.running)


class FakeGuest:
    """A guest with room for one disk, on ``node``."""

    def __init__(self, story: Story, node: Any = None, said: str = "guest") -> None:
        self.uuid = ""
        self.story = story
        self.spec = GuestSpec()
        self.node: Any = node or FakeNode(story, "nodea")
        self.name = said
        self.agent = FakeAgent(story)
        self.agent.running = self.alive
        self.domain: Any = FakeDomain(story, self.node, self.agent)
        self.attached = False
        self.living = True
        self.ended = False
        self.image: UserImageSpec | None = None
        self.ready = Ready()
        self.pauses: list[str | None] = [None]
        #: What it was given as its disk, each time.
        self.sources: list[DiskSource] = []

    def attach(self, source: DiskSource, cell: Cell) -> AttachedDisk:
        self.sources.append(source)
        self.story("attach" if self.node.name == "nodea" else f"attach on {self.node.name}")
        assert cell.cache is not None and not self.attached
        self.attached = True
        self.node.console += "guest said\n"
        return AttachedDisk("/dev/vdb", "cell-1", "<disk/>", cell.cache, AioMode.THREADS, DiskBus.VIRTIO, source)

    def located(self, disk: AttachedDisk) -> AttachedDisk:
        self.story("located")
        return replace(disk, path="/dev/vdc")

    def observe(self, disk: AttachedDisk, device: str) -> Observed:
        self.story("observe")
        return Observed(
            o_direct=True,
            qemu_cache={"direct": True, "no-flush": False, "writeback": True},
            qemu_aio="threads",
            guest_write_cache="write back",
            scatter_gather=True,
        )

    def detach(self, disk: AttachedDisk) -> None:
        self.story("detach")
        if not self.living:
            raise LostGuestError("the disk was not detached: the domain is not running")
        self.attached = False

    def moved(self, node: Any, domain: Any) -> None:
        self.story(f"moved to {node.name}")
        self.node, self.domain = node, domain

    def monitor_domain(self) -> Any:
        return self.domain

    def found_again(self) -> None:
        self.story("found again")

    def paused(self) -> str | None:
        return self.pauses.pop(0) if len(self.pauses) > 1 else self.pauses[0]

    def suspend(self) -> None:
        self.story("suspend")
        self.pauses = ["reason 1"]

    def resume(self) -> None:
        self.story("resume")
        self.pauses = [None]

    def kill(self) -> None:
        self.living = self.attached = False
        self.story("kill the guest")

    def reset(self) -> None:
        self.story("reset the guest")

    def console(self) -> str:
        self.story("console")
        return "guest said\n"

    def alive(self) -> bool:
        return self.living and bool(self.node.alive)

    def destroy(self) -> None:
        self.story("destroy")
        self.attached = self.living = False
        self.ended = True


class Traveller(FakeGuest):
    """A guest between both nodes of a lab: each migration takes its domain to the other one.

    Each libvirt knows what is on its node: nothing on the second before the guest has arrived there.
    """

    def __init__(self, lab: FakeLab) -> None:
        super().__init__(lab.story, lab.a)
        there = FakeDomain(lab.story, lab.b, self.agent)
        self.domain.becomes, there.becomes = there, self.domain
        self.here, self.there = self.domain, there
        self.on(lab.a, self.here)

    def on(self, node: FakeNode, domain: FakeDomain) -> None:
        node.libvirt.domains[self.spec.name] = domain

    def moved(self, node: Any, domain: Any) -> None:
        if node is not self.node:
            self.node.libvirt.domains.pop(self.spec.name, None)
        self.on(node, domain)
        super().moved(node, domain)


# --------------------------------------------------------------------------- the canary


class FakeWatch:
    """The controller's side of a canary."""

    story: Story
    found = Canary({"fsync": 9}, memory_checked=9)

    def __init__(self, nodes: Sequence[FakeNode], region: object, run: int, spec: GuestSpec) -> None:
        self.nodes, self.region, self.run = nodes, region, run
        self.story = nodes[0].story

    def follow(self, node: FakeNode) -> None:
        self.story(f"follow {node.name}")
        if not node.alive:
            raise LostNodeError(f"{node.name} does not answer")

    def start(self, runner: object, device: str) -> None:
        self.story(f"canary on {device}")

    def stop(self, runner: object) -> None:
        self.story("canary stops")

    def report(self, runner: object, device: str, *, survived: bool = False) -> Canary:
        self.story(f"canary received on {device}")
        return replace(self.found, survived=survived)

    def transcript(self) -> str:
        return "what it said\n"

    def close(self) -> None:
        self.story("canary left")


# --------------------------------------------------------------------------- the workload, and all of it


class Script(Workload):
    """A workload that tells the story; with ``ends`` its work goes on until that is set, and then fails."""

    name = "pressure"
    needs = frozenset(Offers)

    def __init__(self, lab: FakeLab, resource: FakeResource) -> None:
        super().__init__(FILESYSTEMS[FilesystemKind.SWAP])
        self.lab, self.resource = lab, resource
        self.wrong = 0
        self.leaves: set[int] = set()
        self.ends: threading.Event | None = None
        # A step that it waits for, but not long.
        self.outlasts = ""
        self.ended_by: BaseException | None = None
        self.recovers = Recovered()
        self.heard = ""

    def prepare(self, target: WorkloadTarget) -> None:
        self.lab.story(f"prepare {target.device}")

    def clean_up(self, target: WorkloadTarget) -> None:
        self.lab.story("clean up")

    def hear_console(self, printed: str) -> None:
        self.heard = printed

    def work(self, target: WorkloadTarget, seconds: int) -> Work:
        self.lab.story(f"work {seconds}")
        self.resource.sent_kib += 400
        self.lab.differing |= self.leaves
        self.resource.verified |= self.leaves
        if self.ends is not None:
            assert self.ends.wait(20), "nobody let the work end"
        until = time.monotonic() + 1
        while self.outlasts and self.outlasts not in self.lab.story.steps and time.monotonic() < until:
            time.sleep(0.001)
        if self.ended_by is not None:
            raise self.ended_by
        return Work(float(seconds), {"pages_swapped_out": 5.0}, 1 if self.wrong else 0)

    def quiesce(self, target: WorkloadTarget) -> int:
        self.lab.story("quiesce")
        return self.wrong

    def recover(self, target: WorkloadTarget) -> Recovered:
        self.lab.story(f"recover {target.device}")
        return self.recovers

    def owners(self, view: ReplicaView, blocks: Iterable[int]) -> Mapping[int, OwnedBlock]:
        self.lab.story("owners")
        assert not view.path.startswith("/dev/drbd"), "asked on node a's replica, not on what is compared"
        return {block: OwnedBlock(BlockOwner.FREE, "free swap slot") for block in blocks}


@dataclass
class Stage:
    """Everything that one attempt at a cell needs."""

    run: CellRun
    lab: FakeLab
    resource: FakeResource
    guest: FakeGuest
    workload: Script
    store: Store

    @classmethod
    def of(cls, runs: Path, cell: Cell, guest: Callable[[FakeLab], FakeGuest] | None = None) -> Stage:
        store = Store.create(runs, Run("run1", "quick", "2026-11-23T01:50:03Z", (cell,)))
        lab = FakeLab()
        resource = FakeResource(lab)
        run = CellRun(cast(Lab, lab), cast(Resource, resource), store.begin(cell))
        made = guest(lab) if guest is not None else FakeGuest(lab.story, lab.a)
        stage = cls(run, lab, resource, made, Script(lab, resource), store)
        if cell.migrations:
            stage.workload.outlasts = "migrate nodea to nodeb"
        return stage

    def play(self) -> Evidence:
        return play(self.run, self.workload, lambda: cast(Guest, self.guest))

    @property
    def steps(self) -> list[str]:
        return self.lab.story.steps

    def kept(self) -> Evidence:
        """What is on the disk."""
        found = self.store.evidence(self.run.cell.id)
        assert found is not None, "no evidence was kept"
        return found

    def raw(self, name: str) -> str:
        return (self.run.context.attempt.directory / name).read_text()


SWAP = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
