"""A machine of a cluster in use: reached over ssh, and asked by programs that write nothing there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.inspected import InspectedCluster, InspectedHost
from harness.errors import InfrastructureError
from harness.lab.hardware.machines import reached, require_two_machines
from harness.lab.node import Node
from harness.parse.machine import MachineFacts
from harness.remote.ssh import SshRunner

_PROGRAMS = Path(__file__).parents[1] / "lab" / "hardware" / "programs"
#: What an inspection needs on a machine, and what it would rather have.
TOOLS = ("drbdsetup", "drbdadm", "ip", "ethtool")
ASK_SECONDS = 120.0


@dataclass(frozen=True)
class InspectedNode:
    """A machine that answered, and what it says of itself."""

    host: InspectedHost
    runner: SshRunner
    facts: MachineFacts

    @property
    def name(self) -> str:
        """Its name in the inventory."""
        return self.host.name

    @property
    def python(self) -> str:
        """Its Python."""
        return self.facts["python"] or "python3"

    def ask(
        self, program: str, asked: Mapping[str, Any], seconds: float = ASK_SECONDS, before: str = ""
    ) -> dict[str, Any]:
        """What one of the harness's programs prints, which is sent over standard input and not kept there.

        ``before`` are lines that go in front of it.

        :class:`~harness.errors.InfrastructureError` with its last line where it ends otherwise.
        """
        source = before + (_PROGRAMS / f"{program}.py").read_text(encoding="utf-8")
        argv = [self.python, "-I", "-", json.dumps(asked, sort_keys=True)]
        done = self.runner.run(argv, stdin=source, timeout=seconds, ok=())
        try:
            found = json.loads(done.stdout) if done.status == 0 else None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            said = done.message.splitlines()[-1] if done.message else "no answer"
            raise InfrastructureError(f"{self.name} could not be looked at: {said[-200:]}")
        return found

    def node(self, lower: str = "") -> Node:
        """The same as the rest of the harness knows one; it has no libvirt that anybody may ask."""
        return Node(self.name, self.runner, self.host.nic, "", lower, "")


@contextlib.contextmanager
def reached_cluster(
    cluster: InspectedCluster, pin_command: str
) -> Iterator[tuple[InspectedNode, InspectedNode]]:  # fmt: skip
    """Both machines; the connections end with the context.

    :class:`~harness.errors.HostKeyError`, :class:`~harness.errors.LostNodeError`,
    :class:`~harness.errors.UsageError` where both are one.
    """
    with contextlib.ExitStack() as undo:
        one, other = (
            InspectedNode(host, *reached(host, cluster.known_hosts, "", pin_command, undo, TOOLS, host.nic))
            for host in cluster.hosts
        )
        require_two_machines((one.name, one.facts), (other.name, other.facts))
        yield one, other
