"""Runs of several stacks together: which were played with the same versions, and what tells the others apart; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import ascii_uppercase

from harness.model import Result, Stack
from harness.model.claim import Component

EMULATED = "emulated nodes"
#: Stacks that are said in full each time.
FEW = 3


@dataclass(frozen=True)
class PlayedRun:
    """A run as it was judged: its name, the versions it was played with, and what came of its cells."""

    name: str
    stack: Stack
    results: tuple[Result, ...]


@dataclass(frozen=True)
class StackKey:
    """What makes two runs ones of the same stack; empty where it was not recorded."""

    drbd: str
    kernel: str
    qemu: str
    guest: str
    accelerator: str

    @classmethod
    def of(cls, stack: Stack) -> StackKey:
        """The key of a stack; kernels without the name that a distribution hangs on."""
        kernel, guest = (plain_kernel(one) for one in (stack.kernel, stack.guest_kernel))
        return cls(stack.drbd, kernel, stack.qemu, guest, stack.accelerator)

    def parts(self) -> tuple[str, ...]:
        """Each component in words."""
        named = ((self.drbd, "DRBD "), (self.kernel, "Linux "), (self.qemu, "QEMU "), (self.guest, "guest "))
        known = {"kvm": "hardware KVM", "hardware": "real machines", "": "unknown nodes"}
        nodes = known.get(self.accelerator, EMULATED)
        return (*(f"{prefix}{version or '(unknown)'}" for version, prefix in named), nodes)

    def __str__(self) -> str:
        return ", ".join(self.parts())


def plain_kernel(kernel: str) -> str:
    """A kernel's version without the name that a distribution hangs on; of two nodes that differ, both."""
    return " / ".join(one.partition("+")[0] for one in kernel.split(" / "))


def short_names(keys: Iterable[StackKey]) -> Mapping[StackKey, str]:
    """Each stack by what tells it from the others; empty for the only one."""
    found = list(dict.fromkeys(keys))
    told = [len({key.parts()[at] for key in found}) > 1 for at in range(5)]
    return {key: ", ".join(part for part, tells in zip(key.parts(), told, strict=True) if tells) for key in found}


def letters(names: Iterable[str]) -> Mapping[str, str]:
    """A letter for each name where there are too many to say them again and again; else each is its own."""
    found = list(dict.fromkeys(names))
    if len(found) <= FEW:
        return {name: name for name in found}
    rounds = range(1, 2 + len(found) // len(ascii_uppercase))
    labels = (letter + (str(number) if number > 1 else "") for number in rounds for letter in ascii_uppercase)
    return dict(zip(found, labels, strict=False))


def component(stack: Stack, which: Component) -> str:
    """One component of a stack, empty where it was not recorded.

    Emulated nodes are the same hardware on every processor: none.
    """
    if which is Component.HARDWARE:
        if stack.accelerator and stack.accelerator not in ("kvm", "hardware"):
            return f"nodes emulated by QEMU ({stack.accelerator})"
        return f"{stack.cpu}, {stack.accelerator}" if stack.cpu and stack.accelerator else ""
    return {Component.DRBD: stack.drbd, Component.KERNEL: stack.kernel, Component.QEMU: stack.qemu}[which]


def by_version(version: str) -> tuple[tuple[int, int | str], ...]:
    """A key to sort versions by: numbers as numbers."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"[.+~_ -]+", version))
