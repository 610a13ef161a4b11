"""Which software is to run in a lab: where kernel, DRBD, drbd-utils, QEMU and libvirt of each node come from.

A component comes from a Debian suite, or from a path: packages (.deb), a folder of ready modules, an installed build.
:mod:`harness.config.stack_file` reads a spec from a file, with its paths made absolute.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, model_validator

from harness.config.recipe import DEFAULT_SUITE, suites
from harness.config.sentences import WrittenModel, hint, quoted, shown
from harness.config.spec import Spec

IN_TREE = "in-tree"
"""The DRBD module that comes with the kernel."""

PACKAGE_SUITES = (
    "bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky", "sid", "experimental"
)  # fmt: skip
"""The suites that a component can come from; of which there are images is another question."""

Side = Literal["a", "b"]
_MACHINE = re.compile(r"pc-q35-\d+(\.\d+)+")
_PATH = re.compile(r"[/*?\[]|^[.~]|\.deb$")


def is_path(text: str) -> bool:
    """Whether ``text`` is meant as a path or a pattern of paths; else it is a suite."""
    return bool(_PATH.search(text))


def _one_or_more(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _suite_or_paths(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    words = [one for one in value if not is_path(one)]
    if words and len(value) > 1:
        raise ValueError(f"'{info.field_name}' has {quoted(words[0])} beside others; it is one suite, or only paths")
    if words and words[0] not in PACKAGE_SUITES:
        known = hint(words[0], PACKAGE_SUITES)
        raise ValueError(f"{quoted(words[0])} is no suite for '{info.field_name}'{known}, or a path, with a slash")
    return value


Origin = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_suite_or_paths)]
"""A suite alone, or paths; empty: the suite of the image."""

Module = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]
"""``in-tree`` alone, or paths; empty: ``in-tree``."""


class NodeTable(WrittenModel):
    """Where the components of nodes come from; an empty one is not asked for."""

    kernel: Origin = ()
    drbd: Module = ()
    drbd_utils: Origin = ()
    qemu: Origin = ()
    libvirt: Origin = ()

    def over(self, other: NodeTable) -> NodeTable:
        """These, and those of ``other`` that are not asked for here."""
        mine = {name: getattr(self, name) for name in NodeTable.model_fields if getattr(self, name)}
        return other.model_copy(update=mine)


class GuestTable(WrittenModel):
    """Where the guest's kernel comes from."""

    kernel: Origin = ()


@dataclass(frozen=True)
class NodeStack:
    """What one node gets: a suite, and for each component a suite alone or absolute paths.

    An empty one is the image's own: of its suite, and for ``drbd`` the kernel's.
    """

    suite: str
    kernel: tuple[str, ...] = ()
    drbd: tuple[str, ...] = ()
    drbd_utils: tuple[str, ...] = ()
    qemu: tuple[str, ...] = ()
    libvirt: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether it is the image of the suite as it is."""
        return self == NodeStack(self.suite)


class StackTables(WrittenModel):
    """What a stack file and a stack spec have in common."""

    suite: str = DEFAULT_SUITE
    guest_suite: str = ""
    machine: str = ""
    node: NodeTable = NodeTable()
    a: NodeTable = NodeTable()
    b: NodeTable = NodeTable()
    guest: GuestTable = GuestTable()

    @model_validator(mode="after")
    def _images_known(self) -> Self:
        for role, suite in (("node", self.suite), ("guest", self.guest_base)):
            known = suites(role)
            if suite not in known:
                near = difflib.get_close_matches(suite, known, n=1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(
                    f"there is no {role} image of {shown(suite)}; there is one of {', '.join(known)}{meant}"
                )
        return self

    @model_validator(mode="after")
    def _machine_versioned(self) -> Self:
        if self.machine and not _MACHINE.fullmatch(self.machine):
            raise ValueError(
                f"'machine' is {quoted(self.machine)}; it is a versioned q35 that both nodes' QEMUs know, "
                "such as pc-q35-7.2: what 'q35' alone means differs from one QEMU to the next"
            )
        return self

    @property
    def guest_base(self) -> str:
        """The suite of the guest image."""
        return self.guest_suite or self.suite

    def of_node(self, side: Side) -> NodeStack:
        """What node ``side`` gets: ``[node]``, but for what ``[a]`` or ``[b]`` says itself."""
        own = (self.a if side == "a" else self.b).over(self.node)
        given = {name: value for name in NodeTable.model_fields if (value := getattr(own, name)) != (self.suite,)}
        if given.get("drbd") == (IN_TREE,):
            del given["drbd"]
        return NodeStack(self.suite, **given)

    @property
    def guest_kernel(self) -> tuple[str, ...]:
        """Where the guest's kernel comes from: a suite alone or paths; empty: the image's own."""
        return () if self.guest.kernel == (self.guest_base,) else self.guest.kernel

    @property
    def differs(self) -> bool:
        """Whether the two nodes get different software."""
        return self.of_node("a") != self.of_node("b")

    @property
    def plain(self) -> bool:
        """Whether nothing but whole suites is asked for."""
        return self.of_node("a").plain and self.of_node("b").plain and not self.guest_kernel


class StackSpec(StackTables, Spec):
    """The suites of nodes and guest, of which there are recipes, and what comes from elsewhere.

    ``guest_suite`` empty: the nodes'; ``machine`` empty: chosen from what the nodes' QEMUs know.  ``name`` is that of a
    stack that comes with the harness, or the absolute path of a file; empty where the suites say all.  All paths are
    absolute.
    """

    title: ClassVar[str] = "the stack spec"

    name: str = ""

    @property
    def label(self) -> str:
        """What people call it: its name, or its suite."""
        return self.name or self.suite
