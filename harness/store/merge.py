"""Several runs become one: their evidence and raw files in a run of its own; the runs themselves stay as they are.

All is put together in a folder that nobody takes for a run; that it gets its name, which is last, makes it one.
What a merge that was killed left behind is removed by the next.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import StoreError, UsageError
from harness.store.lock import LOCK
from harness.store.merge_plan import MergePlan, Part, in_order, merge_plan
from harness.store.plausible import safe_name
from harness.store.provenance import PACKAGES
from harness.store.results import keep_judged
from harness.store.run_store import KEPT, PACKED, Store, read_packed
from harness.util.atomic_file import make_directory, sync_directory, write_atomic

#: Below a merged run, by the id of each run: what that has beside its cells.
MERGED = "merged"
_BUILDING = ".merging"
# What is written again for the merged run, or is nobody's.
_LEFT_OUT = ("cells", ".lock", "report.html")


@dataclass(frozen=True)
class _Source:
    store: Store
    part: Part


def merge_runs(root: Path, stores: Sequence[Store], run_id: str) -> Store:
    """A new run ``run_id`` below ``root`` that is all of ``stores``, judged as one.

    Files are linked where the file system can, copied elsewhere; attempts get new numbers.  Every run is locked
    meanwhile.  :class:`~harness.errors.UsageError` where they do not fit together or somebody writes one of them,
    :class:`~harness.errors.StoreError` where there is no room; then there is no new run.
    """
    target = root / safe_name(run_id)
    _must_be_free(target)
    folders = [store.directory.resolve() for store in stores]
    if twice := next((store for store in stores if folders.count(store.directory.resolve()) > 1), None):
        raise UsageError(f"the run '{twice.directory.name}' is named twice")
    with ExitStack() as held:
        for store in stores:
            held.enter_context(store.lock())
        sources = [_Source(store, Part(store.run(), store.every_attempt())) for store in stores]
        parts = in_order(source.part for source in sources)
        sources.sort(key=lambda source: parts.index(source.part))
        plan = merge_plan(parts, run_id)
        with _building(root) as folder:
            for source in sources:
                _take_over(source, plan, folder)
            Store(folder).save_run(plan.run)
            _sync(folder)
            # Another merge may have made it since; there is only this one now.
            _must_be_free(target)
            folder.rename(target)
        sync_directory(root)
    merged = Store(target)
    keep_judged(merged)
    return merged


def _must_be_free(target: Path) -> None:
    if target.exists():
        raise UsageError(f"there is something called '{target.name}' in {target.parent} already")


@contextmanager
def _building(root: Path) -> Iterator[Path]:
    """An empty folder, gone afterwards unless it was moved away; one merge at a time below ``root``."""
    make_directory(root)
    folder = root / _BUILDING
    try:
        with FileLock(root / f"{_BUILDING}.lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            make_directory(folder, new=True)
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise UsageError(f"another process is merging runs in {root}") from None
    except OSError as error:
        raise StoreError(f"the runs cannot be merged in {root}: {error.strerror or error}") from error


def _take_over(source: _Source, plan: MergePlan, folder: Path) -> None:
    run, directory = source.part.run, source.store.directory
    became: dict[str, str] = {}
    for cell_id, attempt in source.store.attempt_folders():
        cell = folder / "cells" / safe_name(cell_id)
        make_directory(cell)
        number = 1 + sum(1 for _ in cell.iterdir())
        # Where the evidence was read: somebody may have made room by a link.
        _copy_tree(attempt.resolve() if attempt.is_dir() else attempt, cell / str(number), link=True)
        _renumber(cell / str(number) / "evidence.json", run.id, number, plan)
        became[str(attempt.relative_to(directory))] = f"cells/{cell_id}/{number}"
    beside = folder / MERGED / safe_name(run.id)
    make_directory(beside)
    for entry in directory.iterdir():
        if entry.name not in _LEFT_OUT:
            # No link: a run that goes on writes on in its logs.
            _copy_tree(entry, beside / entry.name)
    write_atomic(beside / "attempts.json", (json.dumps(became, indent=1) + "\n").encode())
    for name in (PACKAGES, LOCK) if run.provenance == plan.run.provenance else ():
        if (directory / name).is_file():
            (folder / name).unlink(missing_ok=True)
            _copy_tree(directory / name, folder / name)


def _renumber(path: Path, run_id: str, number: int, plan: MergePlan) -> None:
    """Give the evidence in ``path`` its new numbers, and leave all else as it is; damaged evidence stays damaged."""
    try:
        found = json.loads(read_packed(path))
    except (FileNotFoundError, ValueError, RecursionError):
        return
    except OSError as error:
        # What is no file, or has no end, is damaged evidence too; of anything else it is not known.
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EFBIG):
            return
        raise
    if not isinstance(found, dict) or not isinstance(found.get("cell"), dict):
        return
    before = found["cell"].get("repetition", 1)
    if not isinstance(before, int):
        return
    # By the id that it is read with: evidence of an earlier version calls its cells by other names.
    after = plan.repetition.get((run_id, (path.parent.parent.name, before)), before)
    if found["cell"].get("control") is None and after != before:
        found["cell"]["repetition"] = after
    found["attempt"] = number
    # A link is to the other run's file; this makes a file of its own.
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    # Half a character, which JSON can hold, as JSON writes it.
    write_atomic(path, text.encode("utf-8", "backslashreplace"))
    path.with_name(f"{path.name}{PACKED}").unlink(missing_ok=True)


def _copy_tree(source: Path, target: Path, *, link: bool = False) -> None:
    """The files of ``source`` in ``target``, durable; what is neither file nor folder is left out.

    So is what a link leads to, unless it is what is judged.
    """
    if source.is_symlink() and not (source.name in KEPT and source.is_file()):
        return
    if source.is_dir():
        make_directory(target)
        for entry in source.iterdir():
            _copy_tree(entry, target / entry.name, link=link)
    elif source.is_file():
        if link and not source.is_symlink():
            # Not on another file system, one without links, or where there are too many.
            with suppress(OSError):
                os.link(source, target)
                return
        shutil.copy2(source, target)
        with target.open("rb") as copied:
            os.fsync(copied.fileno())


def _sync(folder: Path) -> None:
    for directory, _, _ in os.walk(folder, topdown=False):
        with suppress(FileNotFoundError):
            sync_directory(Path(directory))
