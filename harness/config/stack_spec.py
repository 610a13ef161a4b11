"""Which software is to run in a lab: the suites of its images."""

from __future__ import annotations

import difflib
from typing import ClassVar, Self

from pydantic import model_validator

from harness.config.recipe import DEFAULT_SUITE, suites
from harness.config.sentences import shown
from harness.config.spec import Spec


class StackSpec(Spec):
    """The Debian suites of nodes and guest, of which there are recipes; ``guest_suite`` empty: the nodes'."""

    title: ClassVar[str] = "the stack spec"

    suite: str = DEFAULT_SUITE
    guest_suite: str = ""

    @model_validator(mode="after")
    def _images_known(self) -> Self:
        for role, suite in (("node", self.suite), ("guest", self.guest)):
            known = suites(role)
            if suite not in known:
                near = difflib.get_close_matches(suite, known, n=1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                raise ValueError(
                    f"there is no {role} image of {shown(suite)}; there is one of {', '.join(known)}{meant}"
                )
        return self

    @property
    def guest(self) -> str:
        """The suite of the guest image."""
        return self.guest_suite or self.suite
