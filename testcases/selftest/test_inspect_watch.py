"""Watching the writes of a cluster in use: the program is run from memory, here with a script in its place."""

from __future__ import annotations

import base64
import sys
from dataclasses import replace
from typing import Any, cast

import pytest
from recorded_nodes import DRBD_84
from test_inspection import inspected

from harness.config.inspected import InspectedHost
from harness.errors import InfrastructureError
from harness.inspection.machine import InspectedNode
from harness.inspection.watch import watched
from harness.judgement.inspected import FOUND, NOTHING, UNTOLD, exit_code
from harness.model import Witness
from harness.model.inspection import Inspection, Watch
from harness.parse.machine import MachineFacts
from harness.remote.local import LocalRunner
from harness.report.inspection import inspection_json, inspection_text

RECORDED = (DRBD_84 / "witness-none-swap-reclaim-link20ms.txt").read_text().splitlines()
REPORT = next(line for line in RECORDED if line.startswith("{"))


def node(machine: str = "x86_64") -> InspectedNode:
    host = InspectedHost(name="stor17", address="stor17", port=22, user="root", key=None, nic="")
    facts = MachineFacts({"python": sys.executable, "machine": machine}, (), ())
    return InspectedNode(host, cast(Any, LocalRunner()), facts)


def script(text: str) -> str:
    return f"BINARY = '{base64.b64encode(text.encode()).decode()}'\n"


def test_watched_runs_it_from_memory_for_its_time_and_reads_its_report() -> None:
    built = script(f"""#!/bin/sh
[ "$1 $2" = "--minor 7" ] || exit 3
trap 'printf "%s\\n" "$REPORT"; exit 0' TERM
REPORT='{REPORT}'
echo "ready drbd_send_and_submit complete_master_bio 0.5"
while :; do sleep 0.1; done
""")
    found = watched(node(), 7, 1, built)
    assert found.writes > 0 and found.changed_writes > 0 and found.nodes == ("stor17",)


@pytest.mark.parametrize(
    "text, why",
    [
        (
            "#!/bin/sh\necho 'unwatched the kernel has no BTF'\nexit 1\n",
            "stor17 cannot be watched: the kernel has no BTF",
        ),
        ("#!/bin/sh\necho broken >&2\nexit 1\n", "stor17 cannot be watched: broken"),
        ("#!/bin/sh\necho 'ready a b 0.1'\n", "the report cannot be read"),
    ],
)
def test_watched_that_cannot_says_why(text: str, why: str) -> None:
    with pytest.raises(InfrastructureError, match=why):
        watched(node(), 0, 1, script(text))


def test_watched_on_another_processor_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InfrastructureError, match="has the processor aarch64"):
        watched(node("aarch64"), 0, 1, script("exit 1"))


def seen_with(*watches: Watch, unwatched: tuple[str, ...] = ()) -> Inspection:
    seen = inspected()
    (volume,) = seen.volumes
    a, b = (replace(side, out_of_sync_kib=0) for side in volume.sides)
    return replace(seen, volumes=(replace(volume, sides=(a, b), watches=watches, unwatched=unwatched),))


def test_writes_that_changed_are_a_finding_with_whose_disk_it_is() -> None:
    witness = Witness(True, nodes=("stor17",), hooks=("x", "y"), writes=9, changed_writes=2, changed_blocks=2)
    seen = seen_with(Watch("stor17", 60, witness))
    told = "\n".join(inspection_text(seen))
    assert "watched on stor17 for 60 s: of 9 writes 2 changed between" in told and "from the guest payroll-vm" in told
    assert exit_code(seen) == FOUND
    assert "stor17" not in inspection_json(seen, with_data=False)
    assert exit_code(seen_with(Watch("stor17", 60, replace(witness, changed_writes=0)))) == NOTHING
    assert exit_code(seen_with(unwatched=("stor17 has no BTF",))) == UNTOLD


def test_writes_that_were_not_watched_are_counted_by_their_reason() -> None:
    missed = {"too_long": 0, "no_room": 3, "in_flight": 1, "unreadable": 0}
    told = inspection_text(
        seen_with(Watch("stor17", 60, Witness(True, nodes=("stor17",), writes=9, not_watched=missed)))
    )
    assert [line.strip() for line in told if "not watched" in line] == [
        "4 writes not watched: 3 more in flight than could be kept, 1 not completed yet"
    ]
    all_seen = inspection_text(
        seen_with(Watch("stor17", 60, Witness(True, nodes=("stor17",), not_watched={"no_room": 0})))
    )
    assert not any("not watched" in line for line in all_seen)
