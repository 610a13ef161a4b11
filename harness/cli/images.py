"""The commands ``images ...``: the node and guest images in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from harness.cli.options import DrbdOption, OptionalSuiteOption, StackOption, console, stack_options, warn
from harness.util import logs
from harness.util.paths import log_dir

if TYPE_CHECKING:
    from harness.images import Image

app = typer.Typer(no_args_is_help=True, help="The node and guest images.")


@app.command("build")
def build_images(
    suite: OptionalSuiteOption = None,
    stack: StackOption = None,
    drbd: DrbdOption = None,
) -> None:
    """Build the images of a suite or a stack that the cache lacks."""
    from harness.config.run_specs import stack_from_options
    from harness.images import check_stack, ensure_stack
    from harness.util.paths import cache_dir

    spec = stack_from_options(stack_options(stack, drbd, suite))
    check_stack(spec)
    with logs.kept_below(log_dir(), "images-build"):
        images = ensure_stack(spec, cache_dir())
    for image in dict.fromkeys((images.a, images.b, images.guest)):
        print(f"{image.role} {image.suite} {image.digest[:12]} {image.directory}")


@app.command("list")
def list_images() -> None:
    """List the images in the cache."""
    from harness.images import current_digests, kept_digests
    from harness.images import list_images as images_of
    from harness.util.paths import cache_dir

    table = Table("role", "suite and what is added", "digest", "size (MiB)", "age (h)", "kernel", "recipe")
    current = current_digests() | kept_digests()
    for image in images_of(cache_dir()):
        table.add_row(
            image.role, _made_of(image), image.digest[:12], f"{image.size_bytes / 2**20:.0f}",
            f"{image.age_seconds / 3600:.1f}", image.kernel_version,
            "current" if image.digest in current else "yours" if image.added else "old",
        )  # fmt: skip
    console.print(table)


@app.command("prune")
def prune_images(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print what would be removed")] = False,
    stack: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="a stack of yours whose images stay; several times for several"),
    ] = None,
    drbd: DrbdOption = None,
) -> None:
    """Remove images that no recipe, no stack that comes along and none of yours asks for, and what only they needed.

    The copies of guest images of yours go too.
    """
    from harness.config.run_specs import stack_from_options
    from harness.images import being_built, current_digests, kept_digests, prune, prune_downloads
    from harness.images import list_images as images_of
    from harness.images.user_image import prune_kept
    from harness.util.paths import cache_dir

    cache = cache_dir()
    said = [stack_options(one, drbd, None) for one in stack or ()] or (
        [stack_options(None, drbd, None)] if drbd is not None else []
    )
    named = [stack_from_options(one) for one in said]
    keep = current_digests() | kept_digests(named)
    gone = [image.directory for image in prune(cache, keep, dry_run)]
    kept = [image for image in images_of(cache) if image.directory not in gone]
    if being_built(cache):
        warn("an image is being built: the packages and modules that were fetched for stacks stay")
    for path in (*gone, *prune_downloads(cache, kept, dry_run), *prune_kept(cache, dry_run)):
        print(f"{'would remove' if dry_run else 'removed'} {path}")


def _made_of(image: Image) -> str:
    return ", ".join([image.suite, *(f"{name.replace('_', '-')} {origin}" for name, origin in image.added.items())])
