"""The commands for runs: play one, list them, judge what is stored."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from harness.cli import baseline as known_failures
from harness.cli.baseline import BaselineOption
from harness.cli.options import (
    DrbdOption,
    GuestBootSecondsOption,
    GuestDiskBusOption,
    GuestFirmwareOption,
    GuestImageOption,
    GuestMemoryOption,
    GuestVcpusOption,
    OptionalSuiteOption,
    RunArgument,
    RunsOption,
    StackOption,
    check_image_choices,
    console,
    print_document,
    stack_options,
    warn,
)
from harness.config.shards import Shard
from harness.errors import HarnessError, NothingRanError, UsageError
from harness.judgement.baseline import fails, is_known
from harness.judgement.rejudge import conclusive, workload_failed
from harness.model import Result
from harness.model.baseline import Baseline
from harness.util import resources
from harness.util.logs import one_line


def run(
    matrix: Annotated[
        str | None,
        typer.Option(
            help="smoke, quick, natural, full, migration, failover, database, cuts, alarms, faults, drbd-9, figures,"
            " flush, mitigations, proxmox-ve, meta, owners, or a TOML file (quick)"
        ),
    ] = None,
    resume: Annotated[str | None, typer.Option(help="go on with a run: its id, its folder, or 'latest'")] = None,
    suite: OptionalSuiteOption = None,
    stack: StackOption = None,
    drbd: DrbdOption = None,
    runs: RunsOption = Path("runs"),
    select: Annotated[str, typer.Option("-k", help="only cells whose id matches, as pytest's -k")] = "",
    inventory: Annotated[
        Path | None, typer.Option(metavar="FILE", help="play on the two real machines of an inventory")
    ] = None,
    group: Annotated[str | None, typer.Option(help="the two hosts, in an inventory of Ansible's")] = None,
    device_mib: Annotated[int | None, typer.Option(help="least size of the DRBD device in MiB (128)")] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="play each cell N times, all once before one is played again")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=1, help="the seed of a run to repeat (default: a new one, which is recorded)")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="play only the I-th of N parts of the plays; 'merge' joins them")
    ] = None,
    stop_at: Annotated[
        list[str] | None,
        typer.Option(metavar="VERDICT", help="play nothing more once a cell ended so; several times for several"),
    ] = None,
    controls_every: Annotated[
        int | None,
        typer.Option(min=1, metavar="SECONDS", help="play all controls again after so many seconds (default: 3600)"),
    ] = None,
    fio_job: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a fio job file of yours as the workload")
    ] = None,
    guest_script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a script of yours that runs in the guest as the workload")
    ] = None,
    cache: Annotated[
        list[str] | None,
        typer.Option(metavar="MODE", help="for your file: a cache mode, several times for several (none, writeback)"),
    ] = None,
    filesystem: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="for your file: a filesystem, several times for several (ext4)"),
    ] = None,
    client: Annotated[str | None, typer.Option(metavar="WHO", help="for your file: guest or host (guest)")] = None,
    work_seconds: Annotated[
        int | None, typer.Option("--seconds", min=1, metavar="N", help="for your file: how long it works (10)")
    ] = None,
    guest_image: GuestImageOption = None,
    guest_firmware: GuestFirmwareOption = None,
    guest_disk_bus: GuestDiskBusOption = None,
    guest_memory_mib: GuestMemoryOption = None,
    guest_vcpus: GuestVcpusOption = None,
    guest_boot_seconds: GuestBootSecondsOption = None,
    baseline: BaselineOption = None,
    like: Annotated[
        str | None, typer.Option(metavar="RUN", help="play that run's cells again, on its kind of lab and its stack")
    ] = None,
    cell: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="with --like: only this cell, several times for several")
    ] = None,
) -> None:
    """Play a matrix on a lab of its own (or the one that is up), and print the heat map and the report's path."""
    from harness.store import Store, new_run_id
    from harness.util.atomic_file import require_room_for

    named = {"--matrix": matrix, "--resume": resume, "--like": like, "--group": group, "--client": client}
    if empty := next((option for option, value in named.items() if value == ""), None):
        # A variable of a script's that is empty: not as if nothing had been said, which plays something else.
        raise UsageError(f"{empty} is empty; give it a value, or leave it out")
    software = stack_options(stack, drbd, suite)
    if inventory is None and group is not None:
        raise UsageError("--group is a group in an inventory: give it with --inventory FILE")
    if resume and inventory:
        raise UsageError("--resume goes on on the machines that the run has; leave --inventory out")
    if resume and (matrix or software or device_mib is not None):
        raise UsageError("--resume goes on with the matrix, the stack and the device the run has; leave them out")
    if resume and (repeat or seed or shard):
        raise UsageError(
            "--resume plays the repetitions that the run lacks, with their seeds, in its own part of the plays;"
            " leave --repeat and --seed out, and --shard"
        )
    if shard is not None:
        Shard.parse(shard, "--shard")
    own = _own_work(fio_job, guest_script)
    choices = {"cache": cache, "filesystem": filesystem, "client": client, "seconds": work_seconds}
    chosen_here = [f"--{name}" for name, value in choices.items() if value]
    if resume and (own or chosen_here):
        raise UsageError("--resume goes on with the job or the script that the run has; leave it out")
    if chosen_here and (matrix or not own):
        raise UsageError(
            f"{chosen_here[0]} is for --fio-job and --guest-script without --matrix; a matrix says it itself"
        )
    image = _guest_image(
        guest_image, guest_firmware, guest_disk_bus,
        {"memory-mib": guest_memory_mib, "vcpus": guest_vcpus, "boot-seconds": guest_boot_seconds},
    )  # fmt: skip
    if resume and image:
        raise UsageError("--resume goes on with the guest image that the run has; leave it out")
    if like and (resume or matrix or device_mib is not None or own or image or inventory):
        raise UsageError("--like plays what that run has, on a lab like its own; only the stack may be another")
    if cell and not like:
        raise UsageError("--cell chooses among the cells of a run: give it with --like RUN")
    if resume:
        directory = Store.open(runs, resume).directory
        chosen = ["--drbd-resume", str(directory), "--drbd-runs", str(directory.parent)]
    else:
        run_id = new_run_id()
        directory = runs / run_id
        played = [] if own and not matrix else ["--drbd-matrix", matrix or "quick"]
        if like:
            again = Store.open(runs, like).directory.resolve()
            played = ["--drbd-like", str(again), *(f"--drbd-cell={one}" for one in cell or ())]
        chosen = [*played, "--drbd-run-id", run_id, "--drbd-runs", str(runs)]
        require_room_for(directory)
    lab = [word for name, value in software.items() for word in (f"--drbd-{name}", value)]
    lab += ["--drbd-device-mib", str(device_mib)] if device_mib is not None else []
    lab += ["--drbd-inventory", str(inventory.absolute())] if inventory else []
    lab += ["--drbd-inventory-group", group] if group else []
    lab += ["--drbd-repeat", str(repeat)] if repeat else []
    lab += ["--drbd-seed", str(seed)] if seed else []
    lab += ["--drbd-shard", shard] if shard else []
    lab += [f"--drbd-stop-at={one}" for one in stop_at or ()]
    lab += ["--drbd-controls-every", str(controls_every)] if controls_every else []
    lab += own + image
    if known_failures.read(baseline) is not None and baseline is not None:
        lab += [f"--drbd-baseline={baseline.resolve()}"]
    lab += [f"--drbd-{name}={one}" for name, values in choices.items() for one in _listed(values)]
    kept = [f"--junitxml={directory}/junit.xml", f"--html={directory}/pytest.html", "--self-contained-html"]
    # What stands around the installed package, a user's conftest or settings of pytest say, is no part of a run.
    here = resources.testcases()
    alone = ["-c", os.devnull, f"--rootdir={here.parent}", f"--confcutdir={here}", "-p", "no:cacheprovider"]
    argv = [str(here / "lab"), *alone, "-ra", *chosen, *lab, *kept]
    argv += ["-k", select] if select else []
    # A process of its own, so that pytest starts from nothing and Ctrl-C reaches it as it reaches any pytest.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *argv])


def _own_work(fio_job: Path | None, guest_script: Path | None) -> list[str]:
    """The options of pytest for a user's own files; what is wrong with them is said now."""
    from harness.config.user_work import FIO_JOB, GUEST_SCRIPT, OPTIONS, read_user_file
    from harness.workloads.user_work import check_user_files

    given = {workload: path for workload, path in ((FIO_JOB, fio_job), (GUEST_SCRIPT, guest_script)) if path}
    check_user_files({workload: read_user_file(path, OPTIONS[workload]) for workload, path in given.items()}, OPTIONS)
    return [f"--drbd-{OPTIONS[workload].removeprefix('--')}={path.resolve()}" for workload, path in given.items()]


def _guest_image(
    image: Path | None, firmware: str | None, bus: str | None, numbers: Mapping[str, int | None]
) -> list[str]:
    """The options of pytest for a user's guest image; what is wrong with it is said now."""
    check_image_choices(image, firmware, bus, numbers.values())
    if image is None:
        return []
    from harness.images.user_image import look_at

    look_at(image, "--guest-image")
    chosen = {"image": image.resolve(), "firmware": firmware, "disk-bus": bus, **numbers}
    return [f"--drbd-guest-{name}={value}" for name, value in chosen.items() if value is not None]


def _listed(values: object) -> list[object]:
    return values if isinstance(values, list) else [values] if values else []


def list_runs(
    matrix: Annotated[str | None, typer.Option(help="list the cells of this matrix instead of the runs")] = None,
    fio_job: Annotated[
        str | None, typer.Option(metavar="NAME", help="print fio's job file of this workload, to copy and change")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """The runs there are and how they ended, or the cells of a matrix, or a job file of fio's."""
    # An empty one names nothing, and is not as if it had been left out.
    if fio_job is not None:
        from harness.workloads.job_files import job_text

        print_document(job_text(fio_job))
    elif matrix is not None:
        _list_cells(matrix, runs)
    else:
        _list_stored(runs)


def _list_cells(matrix: str, runs: Path) -> None:
    from harness.cli.estimates import estimated
    from harness.config.controls import with_controls
    from harness.config.lab_spec import LabSpec
    from harness.config.matrix import load
    from harness.report.estimate import estimate_lines
    from harness.workloads import WORKLOADS

    loaded = load(matrix, WORKLOADS, resources.matrices())
    for line in loaded.deprecated:
        warn(line)
    cells = with_controls(loaded.cells)
    for cell in cells:
        if cell.repetition == 1:
            print(cell.id)
    # Not among the ids, which a script may read.
    made = estimated(cells, LabSpec(), runs)
    for line in estimate_lines(made) if made else ():
        print(line, file=sys.stderr)


def _list_stored(runs: Path) -> None:
    from harness.report.worth import label
    from harness.store import Store, judged_results, run_ids

    table = Table(Column("run", no_wrap=True, min_width=21), "matrix", "suite", "kernel", "DRBD", "verdicts")
    there = run_ids(runs)
    for run_id in there:
        try:
            store = Store.open(runs, run_id)
            stored, results = store.run(), judged_results(store)
        except HarnessError as error:
            # One run that cannot be read hides no other.
            print(one_line(f"{run_id}: {error}"), file=sys.stderr)
            continue
        kinds = [label(result) for result in results]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        row = (run_id, stored.matrix, stored.stack.suite, stored.stack.kernel, stored.stack.drbd, counted)
        # No markup, and no escape of a terminal's: a run may be somebody else's.
        table.add_row(*(Text(one_line(value)) for value in row))
    if not table.row_count:
        raise NothingRanError(f"no run in {runs} can be read" if there else f"there is no run in {runs}")
    console.print(table)


def judge(
    which: RunArgument,
    runs: RunsOption = Path("runs"),
    samples: Annotated[
        int, typer.Option(min=0, max=16, help="also print so many differing blocks of each cell in hex")
    ] = 0,
    baseline: BaselineOption = None,
) -> None:
    """Judge a stored run again from its evidence; needs no lab."""
    from harness.report.terminal import print_report, print_samples
    from harness.store import Store, judged_run

    known = known_failures.read(baseline)
    store = Store.open(runs, which)
    found = judged_run(store)
    for sentence in found.damaged:
        warn(sentence)
    results = found.results
    print_report(found.run, results, console, found.attempts)
    print_samples(results, samples, console)
    if known is not None:
        known_failures.print_outcome(known, found.run, results)
    if not any(result.verdict for result in results):
        raise NothingRanError(f"no cell of {store.directory} has evidence")
    raise typer.Exit(_exit_code(results, known))


def _exit_code(results: Sequence[Result], known: Baseline | None = None) -> int:
    """1: an answer is not as expected, or a workload failed; 2: one is missing, or a control failed; 0 otherwise.

    What is ``known`` to fail is as expected.
    """
    own = [result for result in results if result.cell.control is None]
    if any(workload_failed(result) is not None for result in own):
        return 1
    if any(fails(result) and not is_known(known, result, date.today()) for result in own):
        return 1
    answered = all(conclusive(result) for result in results)
    return 0 if answered else 2
