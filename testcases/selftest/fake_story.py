"""What happened on a lab that only remembers, in order, and what goes wrong on the way.  Nothing here is a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Story:
    """What happened, in order, and what goes wrong on the way.

    ``broken`` maps a step to what it raises, each time; ``when`` to what happens besides.
    """

    steps: list[str] = field(default_factory=list)
    broken: dict[str, BaseException] = field(default_factory=dict)
    when: dict[str, Callable[[], object]] = field(default_factory=dict)

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        if step in self.when:
            self.when[step]()
        error = self.broken.get(step)
        if error is not None:
            raise error


def in_order(steps: Sequence[str], *wanted: str) -> bool:
    """Whether ``wanted`` happened in that order, whatever else did in between."""
    left = iter(steps)
    return all(any(step == one for step in left) for one in wanted)
