"""A run without what its owner may not want to show: content of blocks, what machines printed, hosts, addresses; pure.

What stays is what the harness counted, measured and chose.  What a machine printed is left out whole, for nobody knows
what is in it; in all other texts addresses and names are replaced (:mod:`harness.util.anonymous`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from harness.model import Evidence, Extent, Result, Run
from harness.util.anonymous import anonymizer

LEFT_OUT = "(left out)"

#: Fields whose texts machines printed or people wrote: how many there are stays, what they say does not.
_PRINTED = frozenset({
    "console_errors", "detail", "event_log", "events_lost", "examples", "file", "files", "findings", "fsck_message",
    "inventory",
    "given_up", "kernel_errors", "looks_a", "looks_b", "message", "mount_message", "names", "notes", "owner_detail",
    "path", "text",
})  # fmt: skip
#: Fields that hold names of hosts, guests and places.
_NAMING = frozenset({"node", "source", "target", "node_names", "lab", "name"})
#: Fields of evidence that hold names of nodes, as text, as several, or as the keys of what is known of each.
_OF_NODES = frozenset({"node", "nodes", "source", "target", "before", "after", "away", "victim", "delayed"})

T = TypeVar("T")
Anonymous = Callable[[str], str]


def on_hardware(run: Run) -> bool:
    """Whether the nodes are machines of somebody's own: then nothing of theirs is shown unless that is asked for."""
    spec = run.lab_spec
    return bool(spec.get("inventory")) or str(spec.get("provider", "nested")) != "nested"


def without_data(
    run: Run, results: Sequence[Result], attempts: Sequence[Evidence] = (), hosts: Sequence[str] = ()
) -> tuple[Run, list[Result], list[Evidence], Anonymous]:
    """The run, its results and attempts without data, and what makes any other text of it anonymous.

    ``hosts`` are names that stand nowhere in the run, as the controller's own.  Verdicts stay as they were judged.
    """
    every = [*attempts, *(result.evidence for result in results if result.evidence)]
    named = {*hosts, *_names(run.lab_spec), *_names(run.stack_spec), *(name for one in every for name in _hosts(one))}
    # What the harness itself calls something is no name of a host.
    words = {"", "lab", "guest", "host", "node", "nodea", "nodeb", "r0", "repl0", "ext4", "drbd", "backing"} | {
        word for cell in run.cells for word in (cell.workload, str(cell.filesystem))
    }
    ids = {cell.id for cell in run.cells} | {cell.id.removeprefix(f"{cell.row}-") for cell in run.cells}
    anonymous = anonymizer(named - words, ids)
    kept = [replace(one, cell=_kept(one.cell, anonymous)) for one in results]
    for number, one in enumerate(results):
        evidence, verdict = one.evidence, one.verdict
        if verdict is not None:
            said = _sayer(evidence, anonymous)
            verdict = replace(
                verdict,
                sentence=said(verdict.sentence),
                reasons=tuple(map(said, verdict.reasons)),
                potency_reason=said(verdict.potency_reason),
            )
        kept[number] = replace(kept[number], evidence=_evidence(evidence, anonymous), verdict=verdict)
    stripped = [found for one in attempts if (found := _evidence(one, anonymous))]
    return _kept(run, anonymous), kept, stripped, anonymous


def _evidence(evidence: Evidence | None, anonymous: Anonymous) -> Evidence | None:
    return None if evidence is None else _kept(replace(evidence, samples=()), anonymous)


def _kept(value: T, anonymous: Anonymous, name: str = "") -> T:
    """``value`` with its texts made anonymous; those of fields that machines printed left out."""
    made: Any = value
    if isinstance(value, Enum):
        pass
    elif is_dataclass(value) and not isinstance(value, type):
        own = {item.name: getattr(value, item.name) for item in fields(value)}
        inside = name if name in _PRINTED else ""
        made = replace(value, **{key: _kept(item, anonymous, inside or key) for key, item in own.items()})
    elif isinstance(value, str):
        made = value and LEFT_OUT if name in _PRINTED else anonymous(value)
    elif isinstance(value, Mapping):
        inside = name if name in _PRINTED else ""
        made = {_key(key, anonymous): _kept(item, anonymous, inside or str(key)) for key, item in value.items()}
    elif isinstance(value, tuple | list):
        made = type(value)(_kept(item, anonymous, name) for item in value)
    return made  # type: ignore[no-any-return]


def _key(key: Any, anonymous: Anonymous) -> Any:
    return key if isinstance(key, Enum) or not isinstance(key, str) else anonymous(key)


def _sayer(evidence: Evidence | None, anonymous: Anonymous) -> Anonymous:
    """What makes a verdict's text anonymous: also without what it quotes of a machine."""
    quoted = set(_printed(evidence)) if evidence is not None else set()
    texts = {line for text in quoted for line in (text, *text.splitlines()) if len(line.strip()) >= 4}

    def said(text: str) -> str:
        for one in sorted(texts, key=len, reverse=True):
            text = text.replace(one, LEFT_OUT)
        return anonymous(text)

    return said


def _printed(value: Any, name: str = "") -> Iterator[str]:
    """The texts of fields that machines printed."""
    if isinstance(value, Enum):
        return
    if is_dataclass(value):
        for item in fields(value):
            yield from _printed(getattr(value, item.name), name if name in _PRINTED else item.name)
    elif isinstance(value, str):
        if name in _PRINTED:
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _printed(item, name if name in _PRINTED else str(key))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _printed(item, name)


def _hosts(value: Any, name: str = "") -> Iterator[str]:
    """The names by which evidence calls the nodes, wherever they are in it: a play that failed has few of its parts."""
    if isinstance(value, Enum):
        return
    if is_dataclass(value):
        for item in fields(value):
            yield from _hosts(getattr(value, item.name), item.name)
    elif isinstance(value, str):
        if name in _OF_NODES:
            yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if name in _OF_NODES:
                yield str(key)
            yield from _hosts(item)
    elif isinstance(value, tuple | list) and not (value and type(value[0]) is Extent):
        for item in value:
            yield from _hosts(item, name)


def _names(spec: Any, key: str = "") -> Iterator[str]:
    """The names in a specification, by the names of its fields."""
    if isinstance(spec, Mapping):
        for name, item in spec.items():
            yield from _names(item, str(name))
            if "host" in key:
                yield str(name)
    elif isinstance(spec, tuple | list):
        for item in spec:
            yield from _names(item, key)
    elif isinstance(spec, str) and (key in _NAMING or "host" in key):
        yield spec
