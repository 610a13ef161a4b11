"""The libvirt of a node that only remembers, and errors of libvirt with a code.  Nothing here is a test."""

from __future__ import annotations

from dataclasses import dataclass, field

import libvirt
from fake_story import Story


class LibvirtSaid(libvirt.libvirtError):  # type: ignore[misc]
    """An error of libvirt's with a code."""

    def __init__(self, words: str, code: int = libvirt.VIR_ERR_INTERNAL_ERROR) -> None:
        super().__init__(words)
        # libvirt prefers the last error of the thread, which may be another test's.
        self.args = (words,)
        self.code = code

    def get_error_code(self) -> int:
        return self.code


@dataclass
class FakeLibvirt:
    """The libvirt of one node; with ``error`` that is what it raises instead of finding a domain."""

    name: str
    story: Story
    domains: dict[str, object] = field(default_factory=dict)
    alive: bool = True
    error: BaseException | None = None

    def end(self) -> None:
        self.story(f"connection to {self.name} ended")

    def lookupByName(self, name: str) -> object:  # noqa: N802 - libvirt's name
        if self.error is not None:
            raise self.error
        if name not in self.domains:
            raise LibvirtSaid(f"Domain not found: {name}", libvirt.VIR_ERR_NO_DOMAIN)
        return self.domains[name]
