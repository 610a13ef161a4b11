"""The facts of one attempt at one cell; no opinion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.model.cell import Cell
from harness.model.disturbance_facts import (
    Alarms,
    Canary,
    CrashRecovery,
    Migration,
    Readback,
    RejoinComparison,
)
from harness.model.observation import (
    Comparison,
    Failure,
    Ownership,
    PlantedChange,
    Repair,
    Sample,
    State,
    Verify,
    Witness,
    Work,
    Written,
)
from harness.model.observed import Observed, ObservedAfterMove

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Evidence:
    """The facts of one attempt at one cell; no opinion.

    ``exposed_blocks`` counts 4 KiB block writes that DRBD sent to its peer from the beginning of the work until all of
    it was written, without what a resync copied: each was a chance to diverge.  ``written``: the distinct blocks that
    changed in the same time; None where they were not counted.
    ``witness``: which of the writes changed in flight; None where nothing was asked, as in evidence of before there was
    such a program.
    ``rejoin_comparisons`` were made each time before the replicas found together again, and a resync could have made
    equal what was not.
    ``log_holes`` counts kernel messages that were lost before they were read, and ``log_left_out`` those that came and
    were left out, as repetitions that no oracle reads; ``events_lost`` says what was lost of
    DRBD's events, from which the alarms are made, None where nobody looked; ``events_left_out`` counts those that came
    and were left out because they change no state.
    ``planted`` is what was changed below DRBD on purpose.  ``fault_injected``: the cell's crash or fault really
    happened.  ``event_log`` are sentences about what was done to the lab on purpose and how it was put right;
    ``console_errors`` are lines of the guest's console that report an error.
    ``phases`` maps phase names to seconds.
    """

    cell: Cell
    attempt: int
    started_at: str
    finished_at: str = ""
    lab: str = ""
    device_blocks: int = 0
    before: State | None = None
    after: State | None = None
    equal_before: bool | None = None
    observed: Observed = field(default_factory=Observed)
    observed_after_moves: tuple[ObservedAfterMove, ...] = ()
    work: Work | None = None
    exposed_blocks: int = 0
    written: Written | None = None
    witness: Witness | None = None
    verify: Verify | None = None
    counter_kib: int | None = None
    comparison: Comparison | None = None
    planted: tuple[PlantedChange, ...] = ()
    samples: tuple[Sample, ...] = ()
    ownership: Ownership = field(default_factory=Ownership)
    repair: Repair | None = None
    migrations: tuple[Migration, ...] = ()
    readback: Readback | None = None
    canary: Canary | None = None
    crash_recovery: CrashRecovery | None = None
    rejoin_comparisons: tuple[RejoinComparison, ...] = ()
    alarms: Alarms | None = None
    fault_injected: bool = False
    event_log: tuple[str, ...] = ()
    console_errors: tuple[str, ...] = ()
    kernel_errors: tuple[str, ...] = ()
    log_holes: int = 0
    log_left_out: int = 0
    events_lost: tuple[str, ...] | None = None
    events_left_out: int = 0
    failure: Failure | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
