"""A guest that only remembers: its agent, its domain, its disk, its way to the other node, its canary.  No test."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import libvirt
from fake_lab import FakeLab, FakeNode
from fake_libvirt import FakeLibvirt, LibvirtSaid
from fake_story import Story

from harness.config.lab_spec import GuestSpec, UserImageSpec
from harness.errors import LostGuestError, LostNodeError
from harness.guest.disk import AttachedDisk
from harness.guest.user_guest import Ready
from harness.model import AioMode, Canary, Cell, DiskBus, DiskSource, Observed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.workloads.swap import MOVES_FILE


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
        self.printed = "guest said\n"
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
        return self.printed

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
