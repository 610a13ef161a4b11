"""What the tests of the guard on a foreign machine share: the disk that it may have, and how a refusal is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from foreign import Foreign, link_of

from harness.config.inventory import StorageEntry
from harness.errors import ProtectedError
from harness.lab.hardware.guard import Guard, Step
from harness.model.disks import MachineDisks
from harness.parse.machine_disks import machine_disks
from harness.remote.base import Completed

MIB = 2**20
SIZE = 64 * MIB
SERIAL, WWN = "TARGET1", 0x5000C50000000001
LINK = link_of(SERIAL, WWN)
# Without it the kernel goes on writing to a filesystem that is mounted.
MKFS = "mkfs.ext4 -q -E lazy_itable_init=0"
WHOLE = StorageEntry(kind="disk", disk=LINK, serial=SERIAL, wwn=f"0x{WWN:016x}", size_bytes=SIZE)

# What the test before left on the disk; plugging it out and in takes longer than all else.
BLANK = (
    "blockdev --setrw $d; dd if=/dev/zero of=$d bs=1M count=64 oflag=direct conv=nocreat,fsync status=none; "
    "blockdev --rereadpt $d; udevadm settle"
)


def guard(foreign: Foreign, storage: StorageEntry = WHOLE, size: int = SIZE) -> Listening:
    return Listening(foreign.machine, storage, "test", size)


def refused(foreign: Foreign, one: Guard, step: Step, record: Path | None, name: str) -> str:
    """The sentence with which the guard refuses a step; every byte of every disk is what it was."""
    before = foreign.digests()
    with pytest.raises(ProtectedError) as caught:
        one.do(step)
    assert foreign.digests() == before
    sentence = str(caught.value)
    assert sentence.isprintable()
    keep(record, name, one, step, sentence)
    return sentence


def keep(record: Path | None, name: str, one: Guard, step: Step, sentence: str) -> None:
    """Keep what the machine said before ``step``, with the answer to it ("" for none), as a selftest reads it."""
    if record is not None and name and isinstance(one, Listening):
        kept = {"step": step, "storage": one.storage.model_dump(), "size": one.size, "lab": one.lab, "owner": one.owner}
        kept |= {"sentence": sentence, "look": json.loads(one.before)}
        (record / f"{name}.json").write_text(json.dumps(kept) + "\n")


class Listening(Guard):
    """A guard that keeps what the machine said: ``heard`` last, ``before`` the last step.  A look takes long there."""

    heard = before = ""

    def do(self, step: Step) -> None:
        self.before = ""
        super().do(step)

    @property
    def last(self) -> MachineDisks:
        """What the last look was."""
        return machine_disks(self.heard)

    def _program(self, name: str, asked: Mapping[str, object], timeout: float) -> Completed:
        done = super()._program(name, asked, timeout)
        if name == "look":
            self.heard = done.stdout
            self.before = self.before or self.heard
        return done


def between(one: Guard, act: Callable[[], object]) -> None:
    """Do ``act`` behind the guard's next look, before it does what it looked for."""
    look = one.look

    def looked() -> MachineDisks:
        found = look()
        one.look = look  # type: ignore[method-assign]
        act()
        return found

    one.look = looked  # type: ignore[method-assign]


def refuses_what_is_taken(foreign: Foreign, disk: str, script: str, undo: str, part: str) -> None:
    """A disk that ``script`` does something to between look and write gets no label, with ``part`` as the reason, and
    keeps every byte; ``undo`` takes back what it did.  ``$d`` is the disk in both.
    """
    one = guard(foreign)
    digests = {}

    def taken() -> None:
        foreign.sh(f"d=/dev/{disk}; {script}")
        digests.update(foreign.digests())

    between(one, taken)
    try:
        with pytest.raises(ProtectedError, match=part):
            one.do(Step.LABEL)
        assert foreign.digests() == digests
    finally:
        foreign.sh(f"d=/dev/{disk}; {undo}", ok=())
