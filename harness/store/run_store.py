"""What a run leaves behind, in files that survive a power cut and are checked when they are read.

``<root>/<run id>/run.json`` and ``cells/<cell id>/<attempt>/``: ``evidence.json``, ``verdict.json``, raw files.
Each file is written under a temporary name, synced, renamed, and its directory synced: it is whole or it is not there.
An attempt without ``evidence.json`` was interrupted.  In a run that was made small (:mod:`harness.store.small_form`)
it is ``evidence.json.gz`` instead.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import secrets
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.model import SCHEMA_VERSION, Cell, Evidence, Run, Verdict
from harness.model.aliases import former_id, present_id
from harness.store.plausible import ImplausibleError, is_safe_name, plausible, safe_name
from harness.store.upgrade import upgraded
from harness.util.atomic_file import make_directory, sync_directory, write_atomic
from harness.util.read_file import MOST_STORED_BYTES, open_file, read_file, read_within
from harness.util.redact import redacted

T = TypeVar("T")

#: What is judged, and what was thought of it: no other file takes the place of these.
KEPT = ("run.json", "evidence.json", "evidence.json.gz", "verdict.json")
#: Behind the name of a file whose content is packed with gzip.
PACKED = ".gz"

_RUN = TypeAdapter(Run)
_EVIDENCE = TypeAdapter(Evidence)
_VERDICT = TypeAdapter(Verdict)


def new_run_id(now: datetime | None = None) -> str:
    """An id that sorts by time, such as ``20261123T015003Z-4f2a``."""
    return f"{(now or datetime.now(UTC)).astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


_STAMPED = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}", re.ASCII)


def run_ids(root: Path) -> tuple[str, ...]:
    """The runs in ``root``, oldest first; what is hidden is being made, or was.

    :class:`~harness.errors.UsageError` where nobody may look, or where no folder can be called so.
    """
    try:
        return _ids_in(root)
    except OSError as error:
        raise UsageError(f"the runs in {root} cannot be read: {error.strerror or error}") from error


def _ids_in(root: Path) -> tuple[str, ...]:
    found = [path.parent for path in root.glob("*/run.json") if not path.parent.name.startswith(".")]
    return tuple(one.name for one in sorted(found, key=lambda one: (_when(one), one.name)))


def _when(directory: Path) -> str:
    """When the run was played, as an id says it; of a name that somebody gave it, its end, behind that of its parts."""
    if _STAMPED.fullmatch(directory.name):
        return directory.name
    try:
        kept = json.loads(read_file(directory / "run.json", MOST_STORED_BYTES))
        moment = datetime.fromisoformat(kept.get("finished_at") or kept["started_at"])
        return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        # Of a damaged one nobody knows it: whoever takes it for the newest is told that it is damaged.
        return "~"


@dataclass(frozen=True)
class Attempt:
    """One attempt at one cell: a directory of its own, numbered from 1."""

    cell: Cell
    number: int
    directory: Path

    def write_raw(self, name: str, content: str | bytes) -> Path:
        """Keep a machine's output as the file ``name``, unchanged but for DRBD's shared secret in a text; its path."""
        path = self.directory / safe_name(name)
        raw = content if isinstance(content, bytes) else redacted(content).encode("utf-8", "backslashreplace")
        write_atomic(path, raw)
        return path

    def save(self, evidence: Evidence) -> None:
        """Keep the evidence, which completes the attempt; the attempt's number is the store's."""
        if evidence.cell.id != self.cell.id:
            raise ValueError(f"evidence of '{evidence.cell.id}' in an attempt at '{self.cell.id}'")
        write_atomic(self.directory / "evidence.json", dumped(replace(evidence, attempt=self.number)))

    def save_verdict(self, verdict: Verdict) -> None:
        """Keep what was thought of the evidence; it can be judged again at any time."""
        write_atomic(self.directory / "verdict.json", dumped(verdict))


class Store:
    """One run's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def create(cls, root: Path, run: Run) -> Store:
        """A new run below ``root``."""
        directory = root / safe_name(run.id)
        if (directory / "run.json").exists():
            raise UsageError(f"the run '{run.id}' is already in {root}")
        try:
            # The folder itself may be there: other reporters of the same session make it for their files.
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the run cannot be kept in {root}: {error.strerror}") from error
        sync_directory(root)
        store = cls(directory)
        store.save_run(run)
        return store

    @classmethod
    def open(cls, root: Path, which: str) -> Store:
        """The run of that id below ``root``, in that directory or the newest below it, or the ``latest``.

        Its ``run.json`` is checked.
        """
        if not which:
            # A variable of a script's that is empty, and not the runs of the folder that it happens to be in.
            raise UsageError(f"there is no run '' in {root}")
        known = run_ids(root)
        if which == "latest":
            if not known:
                raise UsageError(f"there is no run in {root}")
            directory = root / known[-1]
        elif which in known:
            directory = root / which
        else:
            directory = Path(which)
            try:
                if below := _ids_in(directory):
                    # A folder of runs, which --runs was: the newest of them.
                    directory /= below[-1]
                there = (directory / "run.json").is_file()
            except OSError as error:
                raise UsageError(f"the run '{which}' cannot be read: {error.strerror or error}") from error
            if not there:
                near = get_close_matches(which, known, n=1)
                raise UsageError(
                    f"there is no run '{which}' in {root}" + (f"; did you mean '{near[0]}'?" if near else "")
                )
        store = cls(directory)
        store.run()
        return store

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process at a time writes a run; a lock dies with its process.

        :class:`~harness.errors.UsageError` where another one does, or where nobody can know.
        """
        held = FileLock(self.directory / ".lock", timeout=0)
        try:
            held.acquire()
        except Timeout:
            raise UsageError(f"another process is writing the run '{self.directory.name}'") from None
        except OSError as error:
            # Nobody writes where nobody may; but that it is so for others too is not known.
            why = error.strerror or error
            raise UsageError(f"the run '{self.directory.name}' cannot be locked: {why}") from error
        try:
            yield
        finally:
            held.release()

    # ----------------------------------------------------------------- the run

    def run(self) -> Run:
        """The run as last saved; a :class:`~harness.errors.UsageError` if it cannot be read."""
        try:
            return _load(_RUN, self.directory / "run.json")
        except _DamagedError as damage:
            raise UsageError(str(damage)) from damage
        except FileNotFoundError:
            raise UsageError(f"there is no run in {self.directory}: it has no run.json") from None

    def save_run(self, run: Run) -> None:
        """Keep the run; called again when something about it is known better."""
        write_atomic(self.directory / "run.json", dumped(run))

    # ----------------------------------------------------------------- its cells

    def begin(self, cell: Cell) -> Attempt:
        """The next attempt at ``cell``; :class:`~harness.errors.StoreError` where there is no room for it."""
        parent = self._cell(cell.id)
        make_directory(parent)
        number = max(self._numbers(cell.id), default=0) + 1
        attempt = Attempt(cell, number, parent / str(number))
        make_directory(attempt.directory, new=True)
        for directory in (parent, parent.parent, self.directory):
            sync_directory(directory)
        return attempt

    def was_begun(self, cell_id: str) -> bool:
        """Whether there is any attempt at the cell, whole or not; also where nobody may look."""
        try:
            return bool(self._numbers(cell_id))
        except UsageError:
            return True

    def newest(self, cell_id: str) -> tuple[Evidence, Path] | None:
        """The newest evidence of any repetition that is whole, and the directory with its raw files, or None."""
        for number in reversed(self._numbers(cell_id)):
            directory = self._cell(cell_id) / str(number)
            with suppress(_DamagedError, FileNotFoundError):
                return _load(_EVIDENCE, directory / "evidence.json"), directory
        return None

    def evidence(self, cell_id: str) -> Evidence | None:
        """The newest evidence that is whole, or None."""
        found = self.newest(cell_id)
        return found[0] if found else None

    def verdict(self, cell_id: str) -> Verdict | None:
        """The verdict kept beside the newest evidence, or None."""
        found = self.newest(cell_id)
        return self.kept_verdict(found[1]) if found else None

    def kept_verdict(self, directory: Path) -> Verdict | None:
        """The verdict kept in the folder of an attempt, or None."""
        with suppress(_DamagedError, FileNotFoundError):
            return _load(_VERDICT, directory / "verdict.json")
        return None

    def attempts(self, only: Container[str] | None = None) -> Iterator[tuple[Path, Evidence]]:
        """The folder and the evidence of every attempt that is whole, oldest first within a cell.

        ``only``: the ids of the cells that are meant; None for all.
        """
        for directory, found in self._read(only):
            if isinstance(found, Evidence):
                yield directory, found

    def attempt_folders(self) -> Iterator[tuple[str, Path]]:
        """The cell's id and the folder of every attempt, also of those that are not whole, oldest first in a cell."""
        for cell_id in filter(is_safe_name, self._cell_ids()):
            for number in self._numbers(cell_id):
                yield cell_id, self._cell(cell_id) / str(number)

    def every_attempt(self) -> tuple[Evidence, ...]:
        """The evidence of every attempt that is whole, oldest first within a cell."""
        return tuple(evidence for _, evidence in self.attempts())

    def damaged(self) -> tuple[str, ...]:
        """One sentence for every evidence that is there and cannot be read; it counts as missing."""
        return tuple(found for _, found in self._read() if isinstance(found, str))

    def whole_and_damaged(self) -> tuple[list[tuple[Path, Evidence]], tuple[str, ...]]:
        """What :meth:`attempts` and :meth:`damaged` say, each file read once."""
        found = list(self._read())
        return (
            [(folder, one) for folder, one in found if isinstance(one, Evidence)],
            tuple(one for _, one in found if isinstance(one, str)),
        )

    def _read(self, only: Container[str] | None = None) -> Iterator[tuple[Path, Evidence | str]]:
        """The folder of each attempt that has evidence, with it, or with a sentence where it cannot be read."""
        for cell_id in self._cell_ids():
            if only is not None and cell_id not in only:
                continue
            if not is_safe_name(cell_id):
                # Somebody's copy, perhaps; what is in it may be the worst of all.
                folder = self.directory / "cells" / cell_id
                yield folder, f"{folder} is not read: no cell is called so"
                continue
            try:
                numbers = self._numbers(cell_id)
            except UsageError as error:
                # Not as if nothing had been played: what is in it may be the worst of all.
                yield self._cell(cell_id), str(error)
                continue
            for number in numbers:
                directory = self._cell(cell_id) / str(number)
                try:
                    yield directory, _load(_EVIDENCE, directory / "evidence.json")
                except FileNotFoundError:
                    continue
                except _DamagedError as damage:
                    yield directory, str(damage)

    def _cell(self, cell_id: str) -> Path:
        """The cell's folder; in a run of an earlier schema it bears the name the cell had then."""
        directory = self.directory / "cells" / safe_name(cell_id)
        former = directory.with_name(former_id(cell_id))
        return former if former.is_dir() and not directory.is_dir() else directory

    def _cell_ids(self) -> tuple[str, ...]:
        planned = [cell.id for cell in self.run().cells]
        cells = self.directory / "cells"
        kept = sorted(present_id(name) for name in _listed(cells) if (cells / name).is_dir())
        return tuple(dict.fromkeys([*planned, *kept]))

    def _numbers(self, cell_id: str) -> list[int]:
        return sorted(int(name) for name in _listed(self._cell(cell_id)) if re.fullmatch(r"[1-9]\d*", name, re.ASCII))


# --------------------------------------------------------------------------- files


class _DamagedError(Exception):
    """A file is there and is not what it should be; says so in one sentence."""


def _listed(folder: Path) -> list[str]:
    """The names in ``folder``, none where it is not there; UsageError where nobody may look."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror or error}") from error


def _load(adapter: TypeAdapter[T], path: Path) -> T:
    """What is in ``path``; :class:`_DamagedError`, ``FileNotFoundError``, or UsageError for a newer schema."""
    try:
        found = json.loads(read_packed(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _DamagedError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{path} is damaged: it is not whole JSON") from error
    schema = found.get("schema", SCHEMA_VERSION) if isinstance(found, dict) else SCHEMA_VERSION
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise UsageError(
            f"{path} was written by a newer version of this program: its schema is {schema},"
            f" this version reads up to {SCHEMA_VERSION}"
        )
    try:
        return plausible(adapter.validate_python(upgraded(found)))
    except RecursionError as error:
        raise _DamagedError(f"{path} is damaged: its values are nested too deeply") from error
    except ImplausibleError as error:
        raise _DamagedError(f"{path} is damaged: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        # pydantic's own words for these are about classes of Python's.
        why = "it is missing" if first["type"] == "missing" else first["msg"]
        why = "it is no object of JSON" if first["type"].startswith("dataclass_") else why
        raise _DamagedError(f"{path} is damaged: {where}: {why}") from error


def read_packed(path: Path) -> bytes:
    """What is in ``path``, or packed beside it; ``ValueError`` where what is packed is damaged, ``OSError``."""
    packed = path.with_name(f"{path.name}{PACKED}")
    if path.exists() or not packed.exists():
        return read_file(path, MOST_STORED_BYTES)
    try:
        # A few bytes can say that they are the pack of any number of others.
        with open_file(packed) as file, gzip.open(file) as unpacked:
            return read_within(unpacked, packed, MOST_STORED_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from error


def dumped(value: Any) -> bytes:
    """``value`` as the store keeps it."""
    return (json.dumps(_plain(value), indent=1, ensure_ascii=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """``value`` as JSON can hold it and the model can read it again: also floats that are no number, and torn text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value
