"""A run in the few files that judging it needs, small enough to be kept beside the source."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from harness.errors import StoreError, UsageError
from harness.store.plausible import safe_name
from harness.store.run_store import PACKED, Store, read_packed
from harness.util.atomic_file import make_directory, write_atomic


def keep_small(store: Store, root: Path, name: str) -> Store:
    """The run as ``root/name``: ``run.json``, and the packed evidence of each attempt that is whole.

    It is judged like the run itself.  The same run gives the same bytes with the same zlib.
    :class:`~harness.errors.UsageError` where something of that name is there already.
    """
    target = root / safe_name(name)
    if target.exists():
        raise UsageError(f"there is something called '{name}' in {root} already")
    try:
        for directory, _ in store.attempts():
            folder = target / directory.relative_to(store.directory)
            make_directory(folder)
            facts = json.loads(read_packed(directory / "evidence.json"))
            text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "backslashreplace")
            write_atomic(folder / f"evidence.json{PACKED}", gzip.compress(text, mtime=0))
        make_directory(target)
        # The last one: without it the folder is no run.
        shutil.copyfile(store.directory / "run.json", target / "run.json")
    except BaseException as error:
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(f"the run cannot be kept in {root}: {error.strerror or error}") from error
        raise
    return Store.open(root, name)
