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
)
from harness.model.observation import (
    Comparison,
    Failure,
    Observed,
    Ownership,
    PlantedChange,
    Repair,
    Sample,
    State,
    Verify,
    Witness,
    Work,
)

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class Evidence:
    """The facts of one attempt at one cell; no opinion.

    ``exposed_blocks`` counts 4 KiB block writes that DRBD sent to its peer while the workload had the device:
    each was a chance to diverge.  ``witness``: which of them changed in flight; None where nothing was asked, as in
    evidence of before there was such a program.
    ``log_holes`` counts kernel messages that were lost before they were read.
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
    work: Work | None = None
    exposed_blocks: int = 0
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
    alarms: Alarms | None = None
    fault_injected: bool = False
    event_log: tuple[str, ...] = ()
    console_errors: tuple[str, ...] = ()
    kernel_errors: tuple[str, ...] = ()
    log_holes: int = 0
    failure: Failure | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION
