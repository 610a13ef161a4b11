"""The command ``drbd-harness``.

Exit codes: 0 as expected, 1 a finding, 2 inconclusive or machinery, 3 nothing ran, 4 usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from harness import __version__
from harness.config import matrix as matrices
from harness.config.controls import with_controls
from harness.errors import HarnessError, NothingRanError, UsageError
from harness.model import VerdictKind
from harness.util.progress import Progress
from harness.util.resources import testcases
from harness.util.signals import stop_like_ctrl_c

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Do two DRBD replicas still hold the same data, and if not, why?")  # fmt: skip
images_app = typer.Typer(no_args_is_help=True, help="The node and guest images.")
lab_app = typer.Typer(no_args_is_help=True, help="The nested lab: two virtual nodes on this machine.")
app.add_typer(images_app, name="images")
app.add_typer(lab_app, name="lab")

console = Console(highlight=False)
SuiteOption = Annotated[str, typer.Option(help="Debian suite of the nodes: trixie or bookworm")]
RunsOption = Annotated[Path, typer.Option(help="where runs are kept")]


say = Progress()
# What typer makes of a Ctrl-C inside of a command.
_INTERRUPTED = 130


def main() -> None:
    """Entry point: one sentence and the right exit code for everything that goes wrong on purpose."""
    stop_like_ctrl_c()
    try:
        # Outside its standalone mode the exit code of typer.Exit comes back as the value of the call.
        code = app(standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except HarnessError as error:
        print(f"drbd-harness: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("drbd-harness: interrupted", file=sys.stderr)
        sys.exit(2)
    except Exception as wrong:
        # click's own class of errors is a dependency of typer in some versions and a private part of it in others.
        words = getattr(wrong, "format_message", None)
        if words is None:
            raise
        print(f"drbd-harness: {words()} (drbd-harness --help lists what there is)", file=sys.stderr)
        sys.exit(UsageError.exit_code)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    fresh: Annotated[bool, typer.Option(help="probe again instead of using what was probed before")] = False,
) -> None:
    """Check everything a run needs; each failed check names the one command that mends it."""
    from harness.doctor import run_doctor

    raise typer.Exit(run_doctor(json_output=as_json, fresh=fresh))


# --------------------------------------------------------------------------- images


@images_app.command("build")
def images_build(suite: SuiteOption = "trixie") -> None:
    """Build the images of a suite that the cache lacks."""
    from harness.images import ensure_all
    from harness.util.paths import cache_dir

    for image in ensure_all([("node", suite), ("guest", suite)], cache_dir(), say):
        print(f"{image.role} {image.suite} {image.digest[:12]} {image.directory}")


@images_app.command("list")
def images_list() -> None:
    """List the images in the cache."""
    from harness.images import current_digests, list_images
    from harness.util.paths import cache_dir

    table = Table("role", "suite", "digest", "size (MiB)", "age (h)", "kernel", "recipe")
    current = current_digests()
    for image in list_images(cache_dir()):
        table.add_row(
            image.role, image.suite, image.digest[:12], f"{image.size_bytes / 2**20:.0f}",
            f"{image.age_seconds / 3600:.1f}", image.kernel_version,
            "current" if image.digest in current else "old",
        )  # fmt: skip
    console.print(table)


@images_app.command("prune")
def images_prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove images that no present recipe makes."""
    from harness.images import current_digests, prune
    from harness.util.paths import cache_dir

    for image in prune(cache_dir(), current_digests(), dry_run):
        print(f"{'would remove' if dry_run else 'removed'} {image.directory}")


# --------------------------------------------------------------------------- lab


@lab_app.command("up")
def lab_up(
    suite: SuiteOption = "trixie",
    device_mib: Annotated[int, typer.Option(help="size of the DRBD device in MiB")] = 128,
) -> None:
    """Bring a lab up and leave it up; a lab that is up is found."""
    from harness.lab.nested.provider import LabOptions, nested_lab

    with nested_lab(LabOptions(suite=suite, device_mib=device_mib, keep=True), say) as lab:
        stack = lab.stack
        print(f"lab {lab.id} is up: kernel {stack.kernel}, DRBD {stack.drbd}, QEMU {stack.qemu}, {stack.accelerator}")
    print("drbd-harness lab ssh a | lab console a | lab down")


@lab_app.command("down")
def lab_down() -> None:
    """Take the lab down that 'lab up' left."""
    from harness.lab.nested.leftovers import clean

    gone = clean(only_kept=True)
    if not gone:
        raise NothingRanError("no lab is up")
    for what in gone:
        print(f"took down {what}")


@lab_app.command("ssh", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab_ssh(context: typer.Context, node: Annotated[str, typer.Argument(help="a or b")]) -> None:
    """A shell, or a command, on a node of the lab that is up."""
    from harness.lab.nested.leftovers import the_lab

    directory, record = the_lab()
    known = {one.name[-1]: one.name for one in record.nodes}
    if node not in known:
        raise UsageError(f"there is no node '{node}' in the lab; there are {', '.join(known)}")
    argv = ["ssh", "-F", str(directory / "ssh_config"), known[node], *context.args]
    os.execvp(argv[0], argv)


@lab_app.command("console")
def lab_console(
    node: Annotated[str, typer.Argument(help="a or b")],
    follow: Annotated[bool, typer.Option(help="attach to it instead of printing what it said")] = False,
) -> None:
    """What a node said on its serial console; --follow attaches to it with virsh."""
    from harness.lab.nested.leftovers import the_lab

    directory, record = the_lab()
    known = {one.name[-1]: one for one in record.nodes}
    if node not in known:
        raise UsageError(f"there is no node '{node}' in the lab; there are {', '.join(known)}")
    if follow:
        argv = ["virsh", "-c", record.uri, "console", known[node].domain]
        os.execvp(argv[0], argv)
    sys.stdout.write((directory / f"console-{node}.log").read_text(errors="replace"))


# --------------------------------------------------------------------------- runs


@app.command()
def run(
    matrix: Annotated[
        str | None,
        typer.Option(help="smoke, quick, natural, full, migration, failover, alarms, faults, or a TOML file"),
    ] = None,
    resume: Annotated[str | None, typer.Option(help="go on with a run: its id, its folder, or 'latest'")] = None,
    suite: Annotated[str | None, typer.Option(help="Debian suite of the nodes: trixie or bookworm")] = None,
    runs: RunsOption = Path("runs"),
    select: Annotated[str, typer.Option("-k", help="only cells whose id matches, as pytest's -k")] = "",
    device_mib: Annotated[int | None, typer.Option(help="size of the DRBD device in MiB (default: 128)")] = None,
) -> None:
    """Play a matrix on a lab of its own (or the one that is up), and print the heat map and the report's path."""
    from harness.store import Store, new_run_id

    if resume and (matrix or suite or device_mib):
        raise UsageError("--resume goes on with the matrix, the suite and the device the run has; leave them out")
    if resume:
        directory = Store.open(runs, resume).directory
        chosen = ["--drbd-resume", str(directory), "--drbd-runs", str(directory.parent)]
    else:
        run_id = new_run_id()
        directory = runs / run_id
        chosen = ["--drbd-matrix", matrix or "quick", "--drbd-run-id", run_id, "--drbd-runs", str(runs)]
    lab = ["--drbd-suite", suite] if suite else []
    lab += ["--drbd-device-mib", str(device_mib)] if device_mib else []
    kept = [f"--junitxml={directory}/junit.xml", f"--html={directory}/pytest.html", "--self-contained-html"]
    # What stands around the installed package, a user's conftest or settings of pytest say, is no part of a run.
    here = testcases()
    alone = ["-c", os.devnull, f"--rootdir={here.parent}", f"--confcutdir={here}", "-p", "no:cacheprovider"]
    argv = [str(here / "lab"), *alone, "-ra", *chosen, *lab, *kept]
    argv += ["-k", select] if select else []
    # A process of its own, so that pytest starts from nothing and Ctrl-C reaches it as it reaches any pytest.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *argv])


@app.command("list")
def list_runs(
    matrix: Annotated[str | None, typer.Option(help="list the cells of this matrix instead of the runs")] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """The runs there are and how they ended, or the cells of a matrix."""
    from harness.store import Store, judged_results, run_ids
    from harness.workloads import WORKLOADS

    if matrix:
        for cell in with_controls(matrices.load(matrix, WORKLOADS, testcases() / "matrices").cells):
            print(cell.id)
        return
    table = Table(Column("run", no_wrap=True, min_width=21), "matrix", "suite", "kernel", "DRBD", "verdicts")
    for run_id in run_ids(runs):
        with shown(run_id):
            store = Store.open(runs, run_id)
            stored = store.run()
            kinds = [str(one.verdict.kind) if one.verdict else "not run" for one in judged_results(store)]
            counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
            table.add_row(run_id, stored.matrix, stored.stack.suite, stored.stack.kernel, stored.stack.drbd, counted)
    if not table.row_count:
        raise NothingRanError(f"there is no run in {runs}")
    console.print(table)


@contextmanager
def shown(run_id: str) -> Iterator[None]:
    """A run that cannot be read is said and passed over."""
    try:
        yield
    except HarnessError as error:
        print(f"{run_id}: {error}", file=sys.stderr)


@app.command()
def judge(
    which: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, its folder, or 'latest'")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Judge a stored run again from its evidence; needs no lab."""
    from harness.report.terminal import print_report
    from harness.store import Store, judged_results

    store = Store.open(runs, which)
    for sentence in store.damaged():
        print(f"drbd-harness: {sentence}", file=sys.stderr)
    results = judged_results(store)
    print_report(store.run(), results, console)
    verdicts = [(one.verdict, one.cell) for one in results if one.verdict is not None]
    if not verdicts:
        raise NothingRanError(f"no cell of {store.directory} has evidence")
    if any(v.kind is not VerdictKind.INCONCLUSIVE and not v.meets(cell.expected) for v, cell in verdicts):
        raise typer.Exit(1)
    if any(v.kind is VerdictKind.INCONCLUSIVE for v, _ in verdicts) or len(verdicts) < len(results):
        raise typer.Exit(2)


@app.command()
def report(
    which: Annotated[str, typer.Argument(metavar="RUN", help="a run's id, its folder, or 'latest'")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Write a stored run's report.html again and print where it is."""
    from harness.report.html import write_html
    from harness.store import Store, judged_results

    store = Store.open(runs, which)
    path = store.directory / "report.html"
    write_html(path, store.run(), judged_results(store))
    print(path.resolve())


@app.command()
def compare(
    one: Annotated[str, typer.Argument(metavar="RUN", help="the run to compare with")],
    other: Annotated[str, typer.Argument(metavar="RUN", help="the run to compare")],
    runs: RunsOption = Path("runs"),
) -> None:
    """Compare the verdicts and rates of two runs, cell by cell; 1 when a verdict changed."""
    from harness.judgement.stats import compare as compare_rates
    from harness.store import Store, judged_results

    left, right = ({r.cell.id: r.verdict for r in judged_results(Store.open(runs, name))} for name in (one, other))
    table = Table("cell", one, other, "rate changed? (p)")
    changed = False
    for cell_id in dict.fromkeys([*left, *right]):
        a, b = left.get(cell_id), right.get(cell_id)
        if a is None or b is None:
            table.add_row(cell_id, str(a.kind if a else "not run"), str(b.kind if b else "not run"), "")
            continue
        changed |= a.kind is not b.kind
        rates = compare_rates(
            min(a.differing_blocks, a.exposed_blocks), a.exposed_blocks,
            min(b.differing_blocks, b.exposed_blocks), b.exposed_blocks,
        )  # fmt: skip
        mark = "" if a.kind is b.kind else "[bold red]"
        table.add_row(
            cell_id, f"{mark}{a.kind} {a.differing_blocks}/{a.exposed_blocks}",
            f"{mark}{b.kind} {b.differing_blocks}/{b.exposed_blocks}", f"{rates.p_value:.2g}" if rates else "",
        )  # fmt: skip
    console.print(table)
    raise typer.Exit(1 if changed else 0)


# --------------------------------------------------------------------------- what was left behind


@app.command()
def status() -> None:
    """What the harness has on this machine: labs, domains, runs that hold the lease.  0 when there is nothing."""
    from harness.lab.nested.leftovers import leftovers

    found = leftovers()
    for what in found:
        print(what.sentence)
    if not found:
        print("nothing is left running")
    raise typer.Exit(0 if not found else 1)


@app.command()
def clean() -> None:
    """End and remove every lab of this user on this machine, found by its label."""
    from harness.lab.nested.leftovers import clean as remove

    gone = remove()
    for what in gone:
        print(f"removed {what}")
    if not gone:
        print("nothing was left")


if __name__ == "__main__":
    main()
