"""A resource of somebody's, as both machines have it; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness.config.machine_tools import family, named
from harness.errors import InfrastructureError
from harness.inspection.machine import InspectedNode
from harness.model.inspection import InspectedVolume, Inspection
from harness.parse.in_use import generation, link, machine, replication, sides

Nodes = tuple[InspectedNode, InspectedNode]


@dataclass(frozen=True)
class Looked:
    """What was seen, and of whom it can be asked again."""

    nodes: Nodes
    seen: Inspection


def look(nodes: Nodes, resource: str) -> Looked:
    """The resource on both machines; takes some seconds.

    :class:`~harness.errors.InfrastructureError` with one sentence where a machine cannot tell, does not run it, or
    where the two are not the two sides of it.
    """
    answers = _answers(nodes, resource)
    generations = {node.name: _read(node, generation, answer) for node, answer in zip(nodes, answers, strict=True)}
    if len({*generations.values()}) > 1:
        told = ", ".join(f"{name} runs DRBD {value}" for name, value in generations.items())
        raise InfrastructureError(f"the two machines are of two generations, which are not compared: {told}")
    links = [_read(node, lambda one: link(one, resource), answer) for node, answer in zip(nodes, answers, strict=True)]
    if links[0] != links[1][::-1]:
        raise InfrastructureError(
            f"{nodes[0].name} and {nodes[1].name} both have a resource '{resource}', but not with each other:"
            f" {nodes[0].name} replicates with {links[0][1]}, and {nodes[1].name} has {links[1][0]}"
        )
    machines = [machine(node.name, node.facts) for node in nodes]
    replicating = [
        _read(node, lambda one, name=node.name: replication(name, one, resource), answer)
        for node, answer in zip(nodes, answers, strict=True)
    ]
    volumes = _volumes(nodes, answers, resource)
    found = Inspection(
        resource, next(iter(generations.values())), (machines[0], machines[1]), (replicating[0], replicating[1]),
        tuple(volumes.values()), tuple(_unknown(nodes)),
    )  # fmt: skip
    return Looked(nodes, found)


def look_again(looked: Looked) -> Mapping[int, InspectedVolume]:
    """The volumes by their numbers as they are now."""
    return _volumes(looked.nodes, _answers(looked.nodes, looked.seen.resource), looked.seen.resource)


def _answers(nodes: Nodes, resource: str) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(node.ask, "resource", {"resource": resource, "nic": node.host.nic}) for node in nodes]
        answers = [one.result() for one in asked]
    for node, answer in zip(nodes, answers, strict=True):
        show = answer["show"]
        if show["status"] is None:
            tool = named(family(node.facts["family"]), ["drbdsetup"])
            raise InfrastructureError(f"{tool} on {node.name} cannot be asked: {show['err']}")
        if "resource" not in show["out"]:
            said = f" ({' '.join(show['err'].split())})" if show["err"].strip() else ""
            raise InfrastructureError(f"no resource '{resource}' is up on {node.name}{said}")
    return answers


def _volumes(nodes: Nodes, answers: list[dict[str, Any]], resource: str) -> dict[int, InspectedVolume]:
    one, other = (
        _read(node, lambda found, name=node.name: sides(name, found, resource), answer)
        for node, answer in zip(nodes, answers, strict=True)
    )
    if {*one} != {*other}:
        raise InfrastructureError(f"'{resource}' has other volumes on {nodes[0].name} than on {nodes[1].name}")
    return {number: InspectedVolume(number, (one[number], other[number])) for number in sorted(one)}


def _unknown(nodes: Nodes) -> list[str]:
    """What could not be told for want of a program."""
    return [
        f"{node.name} has no {named(family(node.facts['family']), [tool])}"
        for node in nodes for tool in dict.fromkeys(node.facts.missing)
    ]  # fmt: skip


def _read(node: InspectedNode, read: Any, answer: Mapping[str, Any]) -> Any:
    try:
        return read(answer)
    except ValueError as error:
        raise InfrastructureError(f"{node.name} cannot be read: {error}") from error
