"""What a lab may call its own on two machines: nothing of theirs has its names, numbers or ports already."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Machine
from harness.parse.taken import Taken, taken
from harness.render.drbd_conf import SIGNATURE, ResourceSpec

_PROGRAM = Path(__file__).parent / "programs" / "taken.py"
LOOK_SECONDS = 120.0
#: Where a free number is looked for: what people choose themselves is below.
FIRST_MINOR, FIRST_PORT = 100, 7900


def look(machine: Machine, *, domains: bool = False) -> Taken:
    """What the machine uses at this moment; nothing is written.  ``domains``: those of its libvirt too.

    :class:`~harness.errors.InfrastructureError` where it cannot be read.
    """
    argv = [machine.python, "-I", "-", json.dumps({"domains": True} if domains else {})]
    done = machine.runner.run(argv, stdin=_PROGRAM.read_text(encoding="utf-8"), timeout=LOOK_SECONDS, ok=())
    try:
        if done.status:
            raise ValueError(done.message)
        return taken(done.stdout)
    except ValueError as error:
        raise InfrastructureError(f"what names and ports are taken on {machine.name} cannot be read: {error}") from None


def free_minor(looks: Sequence[Taken], first: int = FIRST_MINOR) -> int:
    """The first minor from ``first`` on that no device and no configuration on any of the machines has."""
    return _free(first, 1048575, [one.minors for one in looks], "minor")


def free_port(looks: Sequence[Taken], first: int = FIRST_PORT) -> int:
    """The first port from ``first`` on that nobody listens on and no configuration names on any of the machines."""
    return _free(first, 65535, [one.ports for one in looks], "port")


def collisions(seen: Taken, spec: ResourceSpec, domain: str = "") -> tuple[str, ...]:
    """Every name and number of ``spec`` and the guest's ``domain`` that is somebody else's on a machine, a sentence
    each.  What carries the harness's own signature and this name is the lab's own.
    """
    return tuple(_collisions(seen, spec, domain))


def require_free(machines: Sequence[tuple[Machine, Taken]], spec: ResourceSpec, domain: str = "") -> None:
    """:class:`~harness.errors.ProtectedError` with the first collision on one of the machines."""
    for machine, seen in machines:
        for sentence in collisions(seen, spec, domain):
            raise ProtectedError(f"on {machine.name}, {sentence}; nothing was changed")


def _collisions(seen: Taken, spec: ResourceSpec, domain: str) -> Iterator[str]:
    own = {one.name for one in seen.resources if (one.first_line, one.name, one.file) == (SIGNATURE, *_own(spec))}
    others = [one for one in seen.resources if one.name not in own]
    for one in others:
        where = f"in {one.file}" if one.file else "which is up"
        if one.name == spec.name:
            yield f"there is a resource {one.name} already, {where}"
        if spec.minor in one.minors:
            yield f"the minor {spec.minor} belongs to the resource {one.name}, {where}"
        if spec.port in one.ports:
            yield f"the port {spec.port} belongs to the resource {one.name}, {where}"
    named = {port for one in seen.resources for port in one.ports}
    if spec.port in seen.ports and spec.port not in named:
        yield f"somebody listens on the port {spec.port}"
    if spec.minor in seen.minors and not any(spec.minor in one.minors for one in seen.resources):
        yield f"there is a device drbd{spec.minor} already"
    if spec.path in seen.files and not own and all(one.name != spec.name for one in others):
        yield f"there is a file {spec.path} already"
    if spec.mapping in seen.mappings and not seen.mappings[spec.mapping].startswith("DRBD-HARNESS-"):
        yield f"there is a mapping {spec.mapping} already"
    if domain and seen.domains and domain in seen.domains and not own:
        yield f"there is a domain {domain} already"


def _own(spec: ResourceSpec) -> tuple[str, str]:
    return spec.name, spec.path


def _free(first: int, last: int, used: Sequence[Collection[int]], what: str) -> int:
    found = next((number for number in range(first, last + 1) if not any(number in one for one in used)), None)
    if found is None:
        raise ProtectedError(f"there is no {what} from {first} on that neither machine uses")
    return found
