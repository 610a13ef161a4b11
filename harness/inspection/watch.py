"""How many writes to a volume change in flight while a cluster is in use: the harness's BPF program, for some seconds.

It changes nothing of what is written, and nothing is left of it: the program is in memory only, and its hooks end with
it.
"""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

from harness.errors import InfrastructureError
from harness.images.programs import compile_program
from harness.inspection.machine import InspectedNode
from harness.model import Witness
from harness.parse.witness import parse_report, parse_start
from harness.util import resources

# To be sent, to be loaded into the kernel, to count at its end.
_AROUND_SECONDS = 300.0
_X86 = "x86_64"


def program() -> str:
    """The program, built on the controller, as a line of Python; :class:`~harness.errors.InfrastructureError` with what
    is missing there.
    """
    source = resources.recipes() / "src"
    with tempfile.TemporaryDirectory() as folder:
        built = compile_program(source / "witness.c", Path(folder), source / "witness.bpf.c")
        return f"BINARY = '{base64.b64encode(built.read_bytes()).decode()}'\n"


def watched(node: InspectedNode, minor: int, seconds: int, built: str) -> Witness:
    """What changed in flight on the device with the number ``minor`` within ``seconds``.

    :class:`~harness.errors.InfrastructureError` with the reason where the machine cannot be watched: no BTF, no BPF.
    """
    if node.facts["machine"] not in ("", _X86):
        raise InfrastructureError(
            f"{node.name} has the processor {node.facts['machine']}, and the program is built for {_X86}"
        )
    asked = {"minor": minor, "seconds": seconds}
    found = node.ask("watch", asked, seconds + _AROUND_SECONDS, before=built)
    start = parse_start(str(found["start"]))
    if start is None or not start.hooks:
        why = start.reason if start else found["errors"] or "it could not be started"
        raise InfrastructureError(f"{node.name} cannot be watched: {why}")
    try:
        return parse_report(str(found["report"]), node.name)
    except ValueError as error:
        raise InfrastructureError(f"{node.name} was watched, and the report cannot be read: {error}") from error
