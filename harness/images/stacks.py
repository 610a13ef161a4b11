"""The images of a stack: those of whole suites, and what comes from elsewhere added to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.config import stack_file
from harness.config.stack_spec import NodeStack, StackSpec
from harness.images import stack_builder
from harness.images.cache import Image, Plan, build_all, current_digest, ensure_all, load_image, target_of
from harness.images.parts import Parts
from harness.images.process import Step
from harness.util import resources

T = TypeVar("T")


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


def by_role(a: T, b: T, guest: T) -> dict[str, T]:
    """The images, or their digests, as provenance calls them: ``node-b`` is there where it is another than ``node``."""
    return {"node": a, **({"node-b": b} if b != a else {}), "guest": guest}


def parts_of(spec: StackSpec) -> tuple[Parts, Parts, Parts]:
    """What the images of node a, node b and the guest get beside their suites."""
    guest = NodeStack(spec.guest_base, kernel=spec.guest_kernel)
    return Parts("node", spec.of_node("a")), Parts("node", spec.of_node("b")), Parts("guest", guest)


def check_stack(spec: StackSpec) -> None:
    """:class:`~harness.errors.UsageError` with one sentence where something that ``spec`` names cannot be used.

    Packages and modules of the user's are looked into: seconds for large ones.
    """
    for parts in dict.fromkeys(parts_of(spec)):
        parts.check()


def ensure_stack(spec: StackSpec, cache: Path) -> StackImages:
    """The images of ``spec``: found in ``cache``, or built into it.

    The images of its suites are built first where they are not there, which takes minutes; adding to them takes one at
    most.  :class:`~harness.config.recipe.ImageError` where that fails, and what :func:`check_stack` raises.
    """
    check_stack(spec)
    wanted = parts_of(spec)
    suites = list(dict.fromkeys((parts.role, parts.stack.suite) for parts in wanted))
    bases = dict(zip(suites, ensure_all(suites, cache), strict=True))
    images = {parts: bases[parts.role, parts.stack.suite] for parts in wanted}
    plans = {parts: _plan(parts, base, cache) for parts, base in images.items() if not parts.stack.plain}
    missing: dict[Parts, Plan] = {}
    for parts, plan in plans.items():
        found = load_image(plan.target)
        if found is not None and plan.fits(found):
            images[parts] = found
        else:
            missing[parts] = plan
    if missing:
        images |= zip(missing, build_all(list(missing.values()), cache, again=False), strict=True)
    a, b, guest = (images[parts] for parts in wanted)
    return StackImages(a, b, guest)


def stack_digests(spec: StackSpec) -> StackDigests:
    """What the images of ``spec`` have as their digests; files that go in are read."""
    a, b, guest = map(_digest, parts_of(spec))
    return StackDigests(a, b, guest)


def kept_digests(specs: Iterable[StackSpec] = ()) -> set[str]:
    """The digests of the images of all stacks that come along, and of ``specs``: what pruning keeps."""
    search = resources.stacks()
    shipped = [stack_file.load(name, search) for name in stack_file.names(search)]
    return {digest for spec in (*shipped, *specs) for digest in vars(stack_digests(spec)).values()}


def _digest(parts: Parts) -> str:
    base = current_digest(parts.role, parts.stack.suite)
    return base if parts.stack.plain else parts.digest(base)


def _plan(parts: Parts, base: Image, cache: Path) -> Plan:
    digest = _digest(parts)
    target = target_of(parts.role, parts.stack.suite, digest, cache)

    def make(log: Path, step: Step) -> None:
        stack_builder.into(target, parts, digest, base, cache, log, step)

    words = ", ".join(f"{name.replace('_', '-')} {origin}" for name, origin in parts.labels.items())
    return Plan(
        f"{parts.role} image, {parts.stack.suite} with {words}", target, make, lambda image: _is_over(image, base)
    )


def _is_over(image: Image, base: Image) -> bool:
    """Whether ``image`` was made of that very ``base``: one that was built anew has newer packages."""
    made_of = image.manifest.get("stack", {}).get("base", {})
    return bool(made_of == {"digest": base.digest, "built_at": base.manifest["built_at"]})
