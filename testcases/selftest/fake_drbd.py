"""A small DRBD over a lab that only remembers, with roles, connections and a verify.  Nothing here is a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fake_lab import FakeLab, FakeNode

from harness.errors import CommandError, DeadlineError, InfrastructureError, LostNodeError, RefusedError
from harness.model import Counters, DelayProfile, NodeVerify, Repair, ReplicationProfile, State, Verify, extents_of
from harness.remote.stream import LineStream
from harness.render.drbd_conf import ResourceNode, ResourceSpec
from harness.util.deadline import Deadline

BLOCKS = 32768
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
NARROW = {"nodea": DelayProfile(), "nodeb": DelayProfile()}
MULTIPLE = "State change failed: (-1) Multiple primaries not allowed by config"
HELD_OPEN = "State change failed: (-12) Device is held open by someone"


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
        self.open_epochs = {"nodea": 1, "nodeb": 1}
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
        self.open_epochs = {"nodea": 1, "nodeb": 1}

    def epochs(self, node: FakeNode) -> int:
        return self.open_epochs[node.name]

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
