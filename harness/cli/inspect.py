"""The command ``inspect``: a resource of somebody's that is in use, looked at and not changed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.inventory import GroupOption
from harness.cli.options import warn
from harness.errors import HarnessError, UsageError
from harness.util import logs, resources
from harness.util.paths import log_dir, own_command

if TYPE_CHECKING:
    from harness.inspection.look import Looked
    from harness.inspection.verify import Snapshot
    from harness.judgement.claims import Assessment
    from harness.judgement.inspected import Kept
    from harness.model import CacheMode
    from harness.model.inspection import InspectedVolume


def inspect(
    inventory: Annotated[
        Path, typer.Option("--inventory", metavar="FILE", help="the two machines; how they are reached is enough")
    ],
    resource: Annotated[str, typer.Option("--resource", metavar="NAME", help="the DRBD resource")],
    group: GroupOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="run an online verify too; it says first what that leaves")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --verify: do not ask")] = False,
    watch: Annotated[
        int | None,
        typer.Option(min=1, metavar="SECONDS", help="count the writes that change in flight, on the Primary"),
    ] = None,
    snapshot: Annotated[
        str | None,
        typer.Option(metavar="HOST=PATH", help="with --verify: a read-only snapshot in which owners are looked for"),
    ] = None,
    volume: Annotated[int | None, typer.Option(min=0, help="of several volumes, only this one")] = None,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="write it for a program, without any names")
    ] = None,
    with_data: Annotated[bool, typer.Option("--with-data", help="with --json: with the names")] = False,
    pin: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST=SHA256:...", help="pin a machine's host key, which you have compared"),
    ] = None,
) -> None:
    """What runs on a DRBD resource in use, what is known of that, and what is out of sync; nothing is written."""
    from harness.config.inspected import load_cluster
    from harness.inspection.look import look
    from harness.inspection.machine import reached_cluster
    from harness.judgement.inspected import exit_code
    from harness.report.inspection import inspection_json, inspection_text
    from harness.util.atomic_file import write_named

    for option, given, needs, there in (
        ("--yes", yes, "--verify", verify), ("--snapshot", snapshot, "--verify", verify),
        ("--with-data", with_data, "--json", as_json),
    ):  # fmt: skip
        if given and not there:
            raise UsageError(f"{option} says how {needs} is done, which was not asked for")
    if not resource or resource.startswith("-"):
        raise UsageError(f"--resource is '{resource}', and no resource of DRBD's is called so")
    cluster = load_cluster(inventory, group)
    with logs.kept_below(log_dir(), "inspect"):
        if pin:
            from harness.cli.inventory import pin_keys

            pin_keys(cluster.hosts, cluster.path, cluster.known_hosts, pin)
            return
        again = f"{own_command()} inspect --inventory {inventory} --resource {resource}"
        with reached_cluster(cluster, f"{again}{f' --group {group}' if group else ''} --pin") as nodes:
            looked = look(nodes, resource)
            if volume is not None:
                looked = _only(looked, volume)
            if watch is not None:
                looked = _watched(looked, watch)
            if verify:
                looked = _verified(looked, _snapshot(snapshot, looked), yes=yes)
    kept, assessed = _kept(looked.seen.generation)
    for line in inspection_text(looked.seen, kept, assessed):
        print(line)
    if as_json is not None:
        write_named(as_json, inspection_json(looked.seen, with_data=with_data).encode())
        print(f"\n{as_json}: {'with names' if with_data else 'without names of machines, guests, files and devices'}")
    raise typer.Exit(exit_code(looked.seen))


def _only(looked: Looked, number: int) -> Looked:
    from dataclasses import replace

    found = tuple(one for one in looked.seen.volumes if one.number == number)
    if not found:
        there = ", ".join(str(one.number) for one in looked.seen.volumes)
        raise UsageError(f"--volume: {looked.seen.resource} has no volume {number}; there are {there}")
    return replace(looked, seen=replace(looked.seen, volumes=found))


def _snapshot(text: str | None, looked: Looked) -> Snapshot | None:
    from harness.inspection.verify import Snapshot

    if text is None:
        return None
    name, _, path = text.partition("=")
    machines = [node.name for node in looked.nodes]
    if name not in machines or not path.startswith("/"):
        raise UsageError(
            f"--snapshot: '{text}' is no HOST=PATH with an absolute path and one of {' and '.join(machines)}"
        )
    if len(looked.seen.volumes) > 1:
        raise UsageError(f"--snapshot: {looked.seen.resource} has several volumes; say which one with --volume")
    return Snapshot(name, path)


def _watched(looked: Looked, seconds: int) -> Looked:
    """All volumes watched where they are Primary, one after the other."""
    from dataclasses import replace

    from harness.inspection.watch import program, watched
    from harness.model.inspection import Watch

    built = program()
    done = []
    for volume in looked.seen.volumes:
        watches, unwatched = [], []
        for node, side in zip(looked.nodes, volume.sides, strict=True):
            if side.state.local_role != "Primary":
                continue
            print(f"volume {volume.number} is watched on {node.name} for {seconds} s ...", flush=True)
            try:
                watches.append(Watch(node.name, seconds, watched(node, side.minor, seconds, built)))
            except HarnessError as error:
                unwatched.append(str(error))
        if not watches and not unwatched:
            unwatched.append("it is Primary on neither machine: nobody writes to it")
        done.append(replace(volume, watches=tuple(watches), unwatched=tuple(unwatched)))
    print()
    return replace(looked, seen=replace(looked.seen, volumes=tuple(done)))


def _verified(looked: Looked, snapshot: Snapshot | None, *, yes: bool) -> Looked:
    """All volumes verified, one after the other, if that is agreed to."""
    from dataclasses import replace

    from harness.inspection.verify import require_verifiable, verified
    from harness.report.inspection import before_verify

    for volume in looked.seen.volumes:
        require_verifiable(looked.seen, volume)
    for volume in looked.seen.volumes:
        for line in before_verify(looked.seen, volume):
            print(line)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("there is nobody to ask here: give --yes beside --verify if that is what you want")
        typer.confirm("Verify now?", abort=True)
    done: list[InspectedVolume] = []
    for volume in looked.seen.volumes:
        print(f"the verify of volume {volume.number} runs ...", flush=True)
        done.append(verified(looked, volume, snapshot))
    print()
    return replace(looked, seen=replace(looked.seen, volumes=tuple(done)))


def _kept(generation: str) -> tuple[Mapping[CacheMode, Kept] | None, Sequence[Assessment]]:
    """What the runs say whose evidence is in the checkout; None and nothing where it is not there."""
    from harness.config.claims_file import load_claims
    from harness.judgement.claims import assess
    from harness.judgement.inspected import kept_counts
    from harness.judgement.stacks import PlayedRun
    from harness.store import Store, judged_results

    played: dict[str, PlayedRun] = {}
    for folder in resources.kept_runs():
        try:
            store = Store.open(folder.parent, folder.name)
            run = store.run()
            if run.stack.drbd.startswith(f"{generation}."):
                played.setdefault(run.id, PlayedRun(folder.name, run.stack, tuple(judged_results(store))))
        except HarnessError as error:
            warn(f"{folder} is not counted: {error}")
    if not played:
        return None, ()
    runs = list(played.values())
    return kept_counts(runs, generation), assess(load_claims(resources.claims()), runs)
