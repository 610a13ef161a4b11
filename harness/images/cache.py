"""The cache of images: look one up, build it if it is missing, list them, prune them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from filelock import FileLock, Timeout

from harness.config import recipe as _recipe
from harness.config.recipe import OTHER_ROLES, ROLES, ImageError
from harness.images import builder
from harness.images.builder import remove_image
from harness.images.process import Step, StoppedError
from harness.util.deadline import patience

DIGEST_SHOWN = 12
LOGS_KEPT = 10
LOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Image:
    """A complete image in a cache. ``size_bytes`` is what it takes on disk; ``built_at`` is in UTC."""

    role: str
    suite: str
    digest: str
    directory: Path
    manifest: dict[str, Any] = field(repr=False, compare=False, hash=False)

    @property
    def kernel(self) -> Path:
        """The kernel, for a direct boot."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initrd that belongs to :attr:`kernel`."""
        return self.directory / "initrd.img"

    @property
    def root(self) -> Path:
        """The raw root filesystem; never to be written to."""
        return self.directory / "root.img"

    @property
    def packages(self) -> dict[str, str]:
        """Package to version."""
        return dict(self.manifest["packages"])

    @property
    def command_line(self) -> str:
        """The kernel's command line for a node or guest of this image, whose first disk is its root."""
        return " ".join(["root=/dev/vda", *self.manifest["kernel_args"], *_patient_watchdogs()])

    @property
    def kernel_version(self) -> str:
        """The release of :attr:`kernel`, as ``uname -r`` prints it."""
        return str(self.manifest["kernel"])

    @property
    def added(self) -> dict[str, str]:
        """What was added to the image of :attr:`suite`: component of a stack to where it comes from, in short."""
        return dict(self.manifest.get("stack", {}).get("origins", {}))

    @property
    def built_at(self) -> datetime:
        """When it was built."""
        return datetime.fromisoformat(self.manifest["built_at"])

    @property
    def age_seconds(self) -> float:
        """Seconds since it was built."""
        return (datetime.now(UTC) - self.built_at).total_seconds()

    @property
    def size_bytes(self) -> int:
        """Bytes taken on disk; holes count nothing."""
        return sum(path.stat().st_blocks * 512 for path in self.directory.iterdir())


def _patient_watchdogs() -> list[str]:
    """A kernel takes itself for stuck after some 20 s; on a machine where all is slow, later.

    60 and 300 are the most that Linux takes for the processor's (watchdog_thresh is half of a soft lockup) and RCU's.
    """
    factor = patience()
    if factor == 1:
        return []
    soft_lockup, stall = min(60, round(10 * factor)), min(300, round(21 * factor))
    return [f"watchdog_thresh={soft_lockup}", f"rcupdate.rcu_cpu_stall_timeout={stall}"]


@dataclass(frozen=True)
class Plan:
    """An image that is wanted: what progress calls it, where it is or will be, and what builds it there."""

    title: str
    target: Path
    make: Callable[[Path, Step], None] = field(compare=False)
    """Takes the log of the build, and how it reports; see :func:`harness.images.builder.into`."""

    fits: Callable[[Image], bool] = field(default=lambda image: True, compare=False)
    """Whether the image that is there will do."""


def target_of(role: str, suite: str, digest: str, cache: Path) -> Path:
    """Where the image of that digest is, or will be."""
    return _images(cache) / f"{role}-{suite}-{digest[:DIGEST_SHOWN]}"


def _plan_of(role: str, suite: str, cache: Path) -> Plan:
    """Today's recipe as a plan."""
    recipes = _recipe.recipes_directory()
    wanted = _recipe.load(role, suite, recipes)
    digest = _recipe.digest(wanted, recipes)
    target = target_of(role, suite, digest, cache)

    def make(log: Path, step: Step) -> None:
        builder.into(target, wanted, digest, recipes, log, step)

    return Plan(f"{role} image, {suite}", target, make)


def ensure(role: str, suite: str, cache: Path) -> Image:
    """The image of ``role`` and ``suite`` for today's recipe: found in ``cache``, or built into it.

    Two processes that want the same image build it once.  ``harness.progress`` gets a line at
    least every two seconds while it is built.  Raises :class:`ImageError`.
    """
    return ensure_all([(role, suite)], cache)[0]


def ensure_all(wanted: Sequence[tuple[str, str]], cache: Path) -> list[Image]:
    """The images of all pairs of role and suite, in that order; those that are missing are built side by side.

    The first :class:`ImageError` ends the other builds and is raised.
    """
    plans = [_plan_of(role, suite, cache) for role, suite in wanted]
    images = [load_image(plan.target) for plan in plans]
    found = [image for image in images if image]
    if len(found) == len(plans):
        return found
    return build_all(plans, cache, again=False)


def build(role: str, suite: str, cache: Path) -> Image:
    """Build the image of ``role`` and ``suite`` anew, which takes in newer packages; the old one goes when it is ready.

    Raises :class:`ImageError`.
    """
    return build_all([_plan_of(role, suite, cache)], cache, again=True)[0]


def build_all(plans: Sequence[Plan], cache: Path, *, again: bool) -> list[Image]:
    """The images of ``plans``, built side by side where they are not there yet, or ``again``.

    The first :class:`ImageError` ends the other builds and is raised.
    """
    stop = Event()
    with ThreadPoolExecutor(len(plans)) as pool:
        futures = [pool.submit(_build_one, plan, cache, stop, again) for plan in plans]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Reached early only by a failure or an interrupt: the other builds clean up and end.
            stop.set()
    failures = [error for future in futures if (error := future.exception())]
    for error in sorted(failures, key=lambda error: isinstance(error, StoppedError)):
        raise error
    return [future.result() for future in futures]


def _build_one(plan: Plan, cache: Path, stop: Event, again: bool) -> Image:
    images, name = plan.target.parent, plan.target.name
    _make_directory(images)
    step = Step(plan.title, time.monotonic(), stop)
    lock = FileLock(images / f".{name}.lock", mode=0o644)
    with _acquired(lock, step):
        if not again and (found := load_image(plan.target)) and plan.fits(found):
            return found
        _remove_leftovers(images, name)
        log = _new_log(cache, name)
        try:
            plan.make(log, step)
        except StoppedError:
            log.unlink(missing_ok=True)
            raise
        log.unlink(missing_ok=True)
        built = load_image(plan.target)
    if built is None:
        raise ImageError(f"the image {plan.target} vanished as soon as it was built; is the cache being pruned?")
    return built


def list_images(cache: Path) -> list[Image]:
    """The complete images in ``cache``, newest first."""
    directory = _images(cache)
    names = sorted(path for path in directory.iterdir() if not path.name.startswith(".")) if directory.is_dir() else []
    found = [image for path in names if (image := load_image(path))]
    return sorted(found, key=lambda image: image.built_at, reverse=True)


def prune(cache: Path, keep: Collection[str], dry_run: bool) -> list[Image]:
    """Remove the images whose digest is not in ``keep``, and what dead builders left; returns the images.

    With ``dry_run`` nothing is removed.  An image that is being built right now stays.
    """
    doomed = [image for image in list_images(cache) if image.digest not in keep]
    if dry_run or not _images(cache).is_dir():
        return doomed
    removed = []
    for image in doomed:
        with _if_free(_images(cache), image.directory.name) as free:
            if free:
                remove_image(image.directory)
                removed.append(image)
    for path in _images(cache).glob(".*.lock"):
        name = path.name.removeprefix(".").removesuffix(".lock")
        with _if_free(_images(cache), name) as free:
            if free:
                _remove_leftovers(_images(cache), name)
    return removed


def being_built(cache: Path) -> bool:
    """Whether somebody builds an image in ``cache`` right now."""
    for path in _images(cache).glob(".*.lock"):
        with _if_free(_images(cache), path.name.removeprefix(".").removesuffix(".lock")) as free:
            if not free:
                return True
    return False


def current_digests(suites: Collection[str] | None = None) -> set[str]:
    """The digests of today's recipes of a lab's roles for ``suites``; without, of all there are: what pruning keeps."""
    recipes = _recipe.recipes_directory()
    return {
        _recipe.digest(_recipe.load(role, suite, recipes), recipes)
        for role in (ROLES if suites else ROLES + OTHER_ROLES)
        for suite in suites or _recipe.suites(role, recipes)
    }


def current_digest(role: str, suite: str) -> str:
    """The digest of today's recipe of ``role`` for ``suite``, whether its image is built or not."""
    recipes = _recipe.recipes_directory()
    return _recipe.digest(_recipe.load(role, suite, recipes), recipes)


def _images(cache: Path) -> Path:
    return cache / "images"


def load_image(directory: Path) -> Image | None:
    """The image in ``directory`` if it is complete and of a schema this version knows."""
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        if manifest["schema"] != builder.MANIFEST_SCHEMA:
            return None
        image = Image(manifest["role"], manifest["suite"], manifest["digest"], directory, manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return image if all(path.is_file() for path in (image.kernel, image.initrd, image.root)) else None


@contextmanager
def _acquired(lock: FileLock, step: Step) -> Iterator[None]:
    """Hold ``lock``; while another process holds it, that is reported."""
    while True:
        try:
            lock.acquire(timeout=LOCK_SECONDS)
            break
        except Timeout:
            step.report("waiting for another process that builds it")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _if_free(images: Path, name: str) -> Iterator[bool]:
    """Hold the lock of the image ``name`` if nobody else does; yields whether."""
    lock = FileLock(images / f".{name}.lock", mode=0o644)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _remove_leftovers(images: Path, name: str) -> None:
    """Remove the temporary directories of builders of ``name`` that died; the caller holds its lock."""
    for path in images.glob(f".{name}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _make_directory(path: Path) -> None:
    """Make ``path`` and its missing parents, readable for all: libvirt may run QEMU as another user."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    try:
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
    except OSError as error:
        raise ImageError(f"cannot make the image cache {path}: {error.strerror}") from error


def _new_log(cache: Path, name: str) -> Path:
    """An empty log file for one build; the oldest ones of failed builds go."""
    logs = cache / "logs"
    _make_directory(logs)
    for old in sorted(logs.glob("*.log"), key=_modified)[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    log = logs / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.log"
    log.touch()
    return log


def _modified(path: Path) -> float:
    """When ``path`` was written last, in s; a log that the end of its build has just removed is as new as can be."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
