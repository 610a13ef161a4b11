"""The commands ``images ...``: the node and guest images in the cache."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from harness.cli.options import DrbdOption, OptionalSuiteOption, StackOption, console, stack_options
from harness.util import logs
from harness.util.paths import log_dir

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
    from harness.images import current_digests
    from harness.images import list_images as images_of
    from harness.util.paths import cache_dir

    table = Table("role", "suite", "digest", "size (MiB)", "age (h)", "kernel", "recipe")
    current = current_digests()
    for image in images_of(cache_dir()):
        table.add_row(
            image.role, image.suite, image.digest[:12], f"{image.size_bytes / 2**20:.0f}",
            f"{image.age_seconds / 3600:.1f}", image.kernel_version,
            "current" if image.digest in current else "old",
        )  # fmt: skip
    console.print(table)


@app.command("prune")
def prune_images(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only print what would be removed")] = False,
) -> None:
    """Remove images that no present recipe makes, and the copies of guest images of yours."""
    from harness.images import current_digests, prune
    from harness.images.user_image import prune_kept
    from harness.util.paths import cache_dir

    for image in prune(cache_dir(), current_digests(), dry_run):
        print(f"{'would remove' if dry_run else 'removed'} {image.directory}")
    for path in prune_kept(cache_dir(), dry_run):
        print(f"{'would remove' if dry_run else 'removed'} {path}")
