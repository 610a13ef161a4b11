"""A workload that only tells that it worked.  Nothing here is a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from fake_drbd import FakeResource
from fake_lab import FakeLab

from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers, OwnedBlock, ReplicaView
from harness.model import BlockOwner, FilesystemKind, Work
from harness.workloads.base import Recovered, Workload, WorkloadTarget


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
