"""Images of the nodes and guests: found by the digest of their recipe, or built.

A cache holds ``images/<role>-<suite>-<digest12>/`` with ``vmlinuz`` (unpacked where the recipe says so, in spite of its
name), ``initrd.img``, ``root.img`` (a raw, sparse filesystem, to be used through an overlay or read-only),
``manifest.json`` and ``build.log``.  The recipes, and the files that go in, are in ``vm_images/``.
"""

from harness.config.recipe import DEFAULT_SUITE, ROLES, ImageError
from harness.images.cache import (
    Image,
    being_built,
    build,
    current_digest,
    current_digests,
    ensure,
    ensure_all,
    list_images,
    prune,
)
from harness.images.downloads import prune_downloads
from harness.images.stacks import (
    StackDigests,
    StackImages,
    by_role,
    check_stack,
    ensure_stack,
    kept_digests,
    stack_digests,
)

__all__ = [
    "DEFAULT_SUITE",
    "ROLES",
    "Image",
    "ImageError",
    "StackDigests",
    "StackImages",
    "being_built",
    "build",
    "by_role",
    "check_stack",
    "current_digest",
    "current_digests",
    "ensure",
    "ensure_all",
    "ensure_stack",
    "kept_digests",
    "list_images",
    "prune",
    "prune_downloads",
    "stack_digests",
]
