"""A made-up run with a result of each kind, and how to read what is reported of it.  Nothing here is a test."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any, cast

from lxml import etree
from lxml import html as lxml_html
from rich.console import Console

from harness.model import (
    BlockOwner,
    CacheMode,
    Cell,
    ClientKind,
    Comparison,
    Control,
    DelayProfile,
    Evidence,
    Expectation,
    Failure,
    FilesystemKind,
    NodeVerify,
    Observed,
    Ownership,
    PlantedChange,
    Repair,
    Result,
    Run,
    Sample,
    Stack,
    State,
    Verdict,
    VerdictKind,
    Verify,
    Work,
    extents_of,
)
from harness.report.terminal import print_report

BLOCKS = 32768
HOSTILE = "<script>alert('x')</script> \x1b[31m & \"quoted\" [red]not markup[/red] \udcff"
SWAPPED = [*range(2048, 2048 + 600), *range(9000, 9300), *range(20000, 20030)]
HEALTHY = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")


def evidence(cell: Cell, marked: list[int], differing: list[int], **changes: object) -> Evidence:
    """Evidence of a cell that ran to its end: ``marked`` by verify and the counter, ``differing`` at the comparison."""
    extents = extents_of(marked)
    cache = cell.cache or CacheMode.NONE
    seen = Observed(
        open_flags=0o2140002 if cache.direct else 0o2100002,
        o_direct=cache.direct,
        o_sync=False,
        qemu_cache={
            "writeback": cache.guest_write_cache == "write back",
            "direct": cache.direct,
            "no-flush": cache.no_flush,
        },
        qemu_aio=cell.aio.value,
        guest_write_cache=cache.guest_write_cache,
        guest_stable_writes=False,
        drbd_stable_writes=True,
        scatter_gather=True,
        link_delay_ms=cell.delays.link_delay_ms,
    )
    made = Evidence(
        cell=cell,
        attempt=1,
        started_at="2025-03-04T10:00:00Z",
        finished_at="2025-03-04T10:00:41Z",
        lab="nested",
        device_blocks=BLOCKS,
        before=HEALTHY,
        after=HEALTHY,
        equal_before=True,
        observed=seen,
        work=Work(10.2, {"pages dirtied": 812345.0, "MiB swapped": 48.6}),
        exposed_blocks=12400,
        verify=Verify(
            NodeVerify("node-a", True, True, extents, len(marked)),
            NodeVerify("node-b", True, True, extents, None),
            9.4,
        ),
        counter_kib=4 * len(marked),
        comparison=Comparison(BLOCKS, extents_of(differing), 0.31, "on the controller"),
        repair=Repair("disconnect and connect", 1.9, 0),
        phases={"attach": 1.4, "prepare": 2.1, "work": 10.2, "verify": 9.4, "compare": 0.3, "repair": 1.9},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def verdict(kind: VerdictKind, sentence: str, blocks: int = 0, bound: float | None = None) -> Verdict:
    return Verdict(kind, sentence, ("A reason.",), blocks, 12400, bound)


def expecting(cell: Cell, *kinds: VerdictKind) -> Cell:
    return replace(cell, expected=Expectation(kinds, "by the predictions."))


SWAP_NONE = expecting(
    Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, delays=DelayProfile(link_delay_ms=20)),
    VerdictKind.DIVERGED,
)
PLANTED = Cell("planted", ClientKind.HOST, control=Control.PLANTED)
IN_FLIGHT = Cell("inflight-modify", ClientKind.HOST, control=Control.IN_FLIGHT)
IDLE = Cell("no-writes", ClientKind.HOST, control=Control.IDLE)


def changes(blocks: list[int]) -> tuple[PlantedChange, ...]:
    return tuple(PlantedChange(one.start, one.size, "node-b") for one in extents_of(blocks))


def planted() -> Result:
    found = evidence(PLANTED, [5, 6, 700], [5, 6, 700], planted=changes([5, 6, 700]), exposed_blocks=0)
    return Result(PLANTED, verdict(VerdictKind.DIVERGED, "Exactly the planted blocks differ.", 3), found)


def in_flight() -> Result:
    blocks = list(range(0, 16000, 2))
    return Result(IN_FLIGHT, verdict(VerdictKind.DIVERGED, "8 000 differ.", 8000), evidence(IN_FLIGHT, blocks, blocks))


def idle() -> Result:
    return Result(IDLE, verdict(VerdictKind.CLEAN, "Nobody wrote, nothing differs."), evidence(IDLE, [], []))


def diverged() -> Result:
    samples = tuple(
        Sample(block, 1024, 7, "00112233445566778899aabbccddeeff" * 2, "00112233445566ff8899aabbcc00eeff" * 2,
               BlockOwner.FREE, f"freed swap slot {block}")
        for block in SWAPPED[:20]
    )  # fmt: skip
    found = evidence(
        SWAP_NONE, SWAPPED, SWAPPED,
        ownership=Ownership(free=930, method="/proc/swaps and the swap map", names=("swap slot, freed",)),
        samples=samples,
    )  # fmt: skip
    return Result(SWAP_NONE, verdict(VerdictKind.DIVERGED, "930 blocks still differ.", 930), found)


def clean_result(cache: CacheMode = CacheMode.WRITEBACK) -> Result:
    cell = expecting(replace(SWAP_NONE, cache=cache), VerdictKind.CLEAN)
    return Result(cell, verdict(VerdictKind.CLEAN, "Nothing differs.", 0, 0.0002412), evidence(cell, [], []))


def transient() -> Result:
    cell = Cell("ext4", cache=CacheMode.NONE)
    found = evidence(cell, [10, 11, 12], [])
    return Result(cell, verdict(VerdictKind.TRANSIENT, "3 blocks were equal again."), found)


def corrupt() -> Result:
    cell = expecting(Cell("ext4", cache=CacheMode.DIRECTSYNC), VerdictKind.CLEAN)
    found = evidence(cell, [77], [77], work=Work(10.0, {}, 3), ownership=Ownership(allocated=1, names=("/mnt/a.db",)))
    return Result(cell, verdict(VerdictKind.CORRUPT, "3 reads returned something else.", 1), found)


def refused() -> Result:
    cell = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.WRITETHROUGH)
    failure = Failure("refused", "attach", "QEMU refused: aio=native needs cache.direct=on")
    return Result(cell, verdict(VerdictKind.REFUSED, "QEMU would not."), Evidence(cell, 1, "", failure=failure))


def inconclusive() -> Result:
    cell = Cell(HOSTILE, cache=CacheMode.UNSAFE)
    found = Evidence(
        cell, 2, "2025-03-04T10:00:00Z",
        failure=Failure("lost node", "work", HOSTILE),
        kernel_errors=(HOSTILE, "BUG: soft lockup"),
        ownership=Ownership(method=HOSTILE, names=(HOSTILE,)),
        work=Work(3.0, {HOSTILE: 1.0}, 0, (HOSTILE,)),
        samples=(Sample(1, 0, 1, "<b>&", "\x00", detail=HOSTILE),),
        phases={HOSTILE: 1.5},
    )  # fmt: skip
    return Result(cell, Verdict(VerdictKind.INCONCLUSIVE, HOSTILE, (HOSTILE,)), found)


def not_run() -> Result:
    return Result(Cell("ext4", ClientKind.HOST), None, None)


def everything() -> list[Result]:
    return [
        planted(), in_flight(), idle(), diverged(), clean_result(), clean_result(CacheMode.WRITETHROUGH),
        transient(), corrupt(), refused(), inconclusive(), not_run(),
    ]  # fmt: skip


def run_of(results: list[Result], **changes: object) -> Run:
    made = Run(
        id="20250304T100000Z-3f9c",
        matrix="quick",
        started_at="2025-03-04T09:58:00Z",
        finished_at="2025-03-04T10:10:00Z",
        cells=tuple(result.cell for result in results),
        stack=Stack("bookworm", "6.1.0-37-amd64", "8.4.11", "9.22.0", "7.2.17", "9.0.0", "6.1.0-37-amd64", "kvm", "x"),
        lab_seconds={"images": 3.0, "bring-up": 47.0},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def text_of(page: str) -> str:
    pieces = lxml_html.document_fromstring(page).xpath("//text()[not(parent::style)]")
    return " ".join(" ".join(cast(list[str], pieces)).split())


def nodes(page: str, path: str) -> list[Any]:
    """What ``path`` selects in ``page``, which has to be well-formed XML."""
    return cast(list[Any], etree.fromstring(page.encode()).xpath(path))


def terminal(results: list[Result], width: int = 80) -> str:
    out = io.StringIO()
    print_report(run_of(results), results, Console(file=out, width=width))
    return out.getvalue()
