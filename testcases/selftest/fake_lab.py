"""A lab that only remembers: two nodes with a kernel log and what is put below DRBD.  Nothing here is a test."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fake_libvirt import FakeLibvirt
from fake_story import Story

from harness.config.lab_spec import GuestSpec, LabSpec
from harness.errors import LostNodeError
from harness.lab.backing_compare import DIGEST_BYTES
from harness.model import Comparison, LabProvenance, Sample, Stack, StackLock, extents_of
from harness.parse.kernel_log import KernelLine, parse_kmsg
from harness.remote.base import Completed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.stream import LineStream
from harness.render.drbd_conf import ResourceSpec

if TYPE_CHECKING:
    from fake_drbd import FakeResource


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
