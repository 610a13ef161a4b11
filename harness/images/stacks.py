"""The images of a stack: of whole suites, and what comes from elsewhere added to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.config.stack_spec import StackSpec
from harness.errors import UsageError
from harness.images.cache import Image, current_digest, ensure_all


@dataclass(frozen=True)
class StackImages:
    """What the nodes ``a`` and ``b`` and the guest boot; ``a`` and ``b`` are equal where the stack says no other."""

    a: Image
    b: Image
    guest: Image


@dataclass(frozen=True)
class StackDigests:
    """The digests of the images that a stack asks for today, whether they are built or not."""

    a: str
    b: str
    guest: str


def check_stack(spec: StackSpec) -> None:
    """:class:`~harness.errors.UsageError` with one sentence where no images can be made of ``spec``."""
    if not spec.plain:
        raise UsageError(
            f"the stack '{spec.label}' asks for more than whole suites, which this version cannot build images of yet"
        )


def ensure_stack(spec: StackSpec, cache: Path) -> StackImages:
    """The images of ``spec``: found in ``cache``, or built into it, which takes minutes.

    :class:`~harness.config.recipe.ImageError` where that fails, and what :func:`check_stack` raises.
    """
    check_stack(spec)
    node, guest = ensure_all([("node", spec.suite), ("guest", spec.guest_base)], cache)
    return StackImages(node, node, guest)


def stack_digests(spec: StackSpec) -> StackDigests:
    """What the images of ``spec`` have as their digests; files that go in are read."""
    node = current_digest("node", spec.suite)
    return StackDigests(node, node, current_digest("guest", spec.guest_base))
