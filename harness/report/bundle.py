"""A run as one file to send: the page, what programs read of it, and its evidence, with data or without."""

from __future__ import annotations

import os
import platform
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from harness.errors import StoreError
from harness.model import Evidence, Result, Run
from harness.report.export import as_csv, as_json, as_markdown
from harness.report.html import render_html
from harness.report.without_data import Anonymous, without_data
from harness.store import Store, dumped, judged_run
from harness.util.atomic_file import led_to, named_file
from harness.util.redact import redacted

_WITH = (
    "All files of the run, and what was made of them. Blocks that differ are in it in hex, and what machines logged,"
    " with the names and addresses of hosts. DRBD's shared secret is not."
)
_WITHOUT = (
    "Without data: no content of a block, no name of a host or a file, no address, and nothing that a machine printed"
    " is in it. Names of hosts are (host 1), (host 2), the same everywhere. verdict.json is what was judged from the"
    " whole evidence; judged again from what is here, a play may be INCONCLUSIVE."
)
# A lock, what was made by this command, and what is written beside its place, or was when somebody was killed.
_NOT_PACKED = re.compile(r"\.lock|.*\.zip|\..+\.\d+\.[0-9a-f]{8}", re.DOTALL)
# The same run gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
# What is in a file; None where it is not there any more.
_Content = Callable[[], bytes | None]


class StoredReport:
    """What is to be shown of a stored run, with data or ``without``."""

    def __init__(self, store: Store, *, without: bool) -> None:
        self.store, self.without = store, without
        found = judged_run(store)
        self.run: Run = found.run
        self.results: Sequence[Result] = found.results
        self.attempts: Sequence[Evidence] = found.attempts
        self._anonymous: Anonymous = lambda text: text
        if without:
            own = [platform.node(), platform.node().split(".")[0]]
            self.run, self.results, self.attempts, self._anonymous = without_data(
                self.run, self.results, self.attempts, own
            )
        # Where a run lies says who its owner is, and nothing else.
        place = f"{store.directory}{os.sep}"
        self.unreadable = tuple(self._anonymous(one.replace(place, "")) for one in found.damaged)

    def html(self, *, raw: bool = True) -> str:
        """The page; ``raw``: the attempts' files lie beside it."""
        return render_html(self.run, self.results, attempts=self.attempts, unreadable=self.unreadable, raw=raw)

    def json(self) -> str:
        """As :func:`~harness.report.export.as_json`."""
        return as_json(self.run, self.results, self.unreadable)

    def csv(self) -> str:
        """As :func:`~harness.report.export.as_csv`."""
        return as_csv(self.run, self.results)

    def markdown(self) -> str:
        """As :func:`~harness.report.export.as_markdown`."""
        return as_markdown(self.run, self.results, self.unreadable)

    def write_zip(self, path: Path) -> None:
        """All of it as ``path``, one file in memory at a time; :class:`~harness.errors.StoreError` for no room."""
        name = self.run.id
        made = dict(self._evidence_files() if self.without else self._own_files(path))
        texts: Mapping[str, str] = {
            "README.txt": f"Run {name} of drbd-harness.\n\n{_WITHOUT if self.without else _WITH}\n",
            "report.html": self.html(),
            "report.json": self.json(),
            "report.csv": self.csv(),
            "report.md": self.markdown(),
        }
        made |= {inside: partial(str.encode, text, "utf-8", "backslashreplace") for inside, text in texts.items()}
        with named_file(path) as packed, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for inside, content_of in sorted(made.items()):
                if (content := content_of()) is not None:
                    # A name that is no text, as that of any file may be.
                    called = f"{name}/{inside}".encode("utf-8", "backslashreplace").decode()
                    archive.writestr(zipfile.ZipInfo(called, _DATE), content, zipfile.ZIP_DEFLATED)

    def _evidence_files(self) -> Iterator[tuple[str, _Content]]:
        yield "run.json", partial(dumped, self.run)
        for one in self.attempts:
            yield f"cells/{one.cell.id}/{one.attempt}/evidence.json", partial(dumped, one)
        for result in self.results:
            if result.evidence is not None and result.verdict is not None:
                path = f"cells/{result.cell.id}/{result.evidence.attempt}/verdict.json"
                yield path, partial(dumped, result.verdict)

    def _own_files(self, target: Path) -> Iterator[tuple[str, _Content]]:
        """The files of the run; a link leads nowhere, for what it leads to is not the run's."""
        end = led_to(target)
        for path in sorted(self.store.directory.rglob("*")):
            if path.is_symlink() or not path.is_file() or _NOT_PACKED.fullmatch(path.name):
                continue
            if path.resolve() != end:
                yield path.relative_to(self.store.directory).as_posix(), partial(_without_secret, path)


def _without_secret(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        # A run that goes on: what was written beside its place is there by now.
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return redacted(content.decode()).encode()
    except UnicodeDecodeError:
        return content
