"""The command ``report``: a stored run as a page, for a program, for an issue, or as one file to send."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import RunArgument, RunsOption, print_document, warn
from harness.errors import UsageError


def report(
    which: RunArgument,
    runs: RunsOption = Path("runs"),
    show: Annotated[bool, typer.Option("--open", help="show the page in the browser")] = False,
    json: Annotated[bool, typer.Option("--json", help="print the answers as JSON: docs/report-formats.md")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="print a line for each play")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print what one pastes into an issue")] = False,
    zipped: Annotated[bool, typer.Option("--zip", help="write all of it as one file, to be attached")] = False,
    without_data: Annotated[
        bool | None,
        typer.Option(
            "--without-data/--with-data",
            help="leave out content of blocks, what machines printed, names of hosts, addresses"
            " (default: on for runs on hardware)",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="write to FILE instead of RUN's folder")
    ] = None,
) -> None:
    """Write a stored run's report.html again and print where it is; or print it, or pack it, in another form."""
    from harness.report.bundle import StoredReport
    from harness.report.without_data import on_hardware
    from harness.store import KEPT, Store
    from harness.util.atomic_file import led_to, write_named

    chosen = [name for name, is_chosen in (("--open", show), ("--json", json), ("--csv", csv),
                                           ("--markdown", markdown), ("--zip", zipped)) if is_chosen]  # fmt: skip
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} are two forms of the report: choose one of them")
    store = Store.open(runs, which)
    end = led_to(output) if output is not None else None
    if end is not None and store.directory.resolve() in end.parents and end.name in KEPT:
        raise UsageError(f"--output: {output} is what the report is made from; name another file")
    without = on_hardware(store.run()) if without_data is None else without_data
    found = StoredReport(store, without=without)
    for sentence in found.unreadable:
        warn(sentence)
    if json or csv or markdown:
        text = found.json() if json else found.csv() if csv else found.markdown()
        if output is None:
            print_document(text)
            return
        path = output
        write_named(path, text.encode("utf-8", "backslashreplace"))
    elif zipped:
        path = output or _in_its_folder(store.directory, f"{found.run.id}{'-without-data' if without else ''}.zip")
        found.write_zip(path)
    else:
        beside = output is None or output.parent.resolve() == store.directory.resolve()
        name = "report-without-data.html" if without_data else "report.html"
        path = output or _in_its_folder(store.directory, name)
        write_named(path, found.html(raw=beside).encode("utf-8", "backslashreplace"))
    print(path.resolve())
    if show and not webbrowser.open(path.resolve().as_uri()):
        warn("no browser could be started; the page is where the line above says")


def _in_its_folder(folder: Path, name: str) -> Path:
    """The file ``name`` of a run; that may be somebody's, and no link in it says what is written elsewhere."""
    from harness.store import KEPT
    from harness.util.atomic_file import led_to

    path = folder / name
    end = led_to(path)
    if folder.resolve() not in end.parents or end.name in KEPT:
        raise UsageError(f"{path} leads to {end} by a link; remove it, or name that file with --output")
    return path
