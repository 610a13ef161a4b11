"""The real Resource over nodes that answer what DRBD printed, and tools of a node that log.  Nothing here is a test."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from recorded_nodes import DRBD_9, DRBD_84, RecordedRunner, node

from harness.drbd.resource import Resource
from harness.render.drbd_conf import ResourceSpec

GENERATIONS = ["8.4", "9"]
#: An impatient resource: what does not come at once does not come.
SOON = ResourceSpec(connect_seconds=0.05, verify_seconds=0.05, resync_seconds=0.05)


def new(spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource that nobody has created."""
    (a, on_a), (b, on_b) = node("nodea"), node("nodeb")
    return Resource.for_nodes(a, b, spec), on_a, on_b


def creatable(generation: str, spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource whose nodes come up as recorded when they are told to."""
    resource, on_a, on_b = new(spec)
    rest: list[tuple[RecordedRunner, list[str]]] = []
    for runner in (on_a, on_b):
        name = f"events2-planted-{runner.host}.txt" if generation == "8.4" else "events2-first-sync-and-verify.txt"
        folder = DRBD_84 if generation == "8.4" else DRBD_9
        lines = (folder / name).read_text().splitlines()
        up = next(n for n, line in enumerate(lines) if "peer-disk:Inconsistent" in line) + 1
        equal = next(n for n, line in enumerate(lines) if "peer-disk:UpToDate" in line) + 1
        proc = "proc-drbd-planted-nodea.txt" if generation == "8.4" else "proc-drbd.txt"
        runner.answers = {"/proc/drbd": (folder / proc).read_text(), "/sys/class/block/drbd0/size": "262064\n"}
        runner.happens = {"drbdadm up": partial(runner.tell, *lines[:up])}

        rest.append((runner, lines[up:equal]))

    def become_equal() -> None:
        for runner, lines in rest:
            runner.tell(*lines)

    on_a.happens |= {"new-current-uuid": become_equal, "primary --force": become_equal}
    return resource, on_a, on_b


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every tool of a node logs how it was called; there was no resource and no mapping before."""
    (tmp_path / "bin").mkdir()
    for name, body in {"modprobe": "", "drbdsetup": "exit 10", "drbdadm": "", "blockdev": "echo 2048",
                       "udevadm": "", "dmsetup": '[ "$1" != remove ]'}.items():  # fmt: skip
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        tool.chmod(0o755)
    (tmp_path / "vdb").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path
