"""The words of the harness: enumerations and frozen dataclasses, standard library only.

Times are seconds; moments are ISO 8601 in UTC.
"""

from harness.model.axes import AioMode, CacheMode, ClientKind, Control, Crash, DiskBus, Fault, Protocol, VerdictKind
from harness.model.cell import Arm, Cell, Expectation, Widener
from harness.model.device import BLOCK_BYTES, SECTOR_BYTES, SECTORS_PER_BLOCK, Extent, blocks_of, extents_of
from harness.model.evidence import SCHEMA_VERSION, Evidence
from harness.model.observation import (
    Aftermath,
    Alarms,
    Canary,
    Comparison,
    Counters,
    Failure,
    Migration,
    MigrationOutcome,
    NodeVerify,
    Observed,
    Owner,
    Ownership,
    Readings,
    Repair,
    Sample,
    SplitBrain,
    State,
    Verify,
    Work,
)
from harness.model.run import Run, Stack
from harness.model.verdict import Result, Verdict

__all__ = [
    "BLOCK_BYTES",
    "SCHEMA_VERSION",
    "SECTORS_PER_BLOCK",
    "SECTOR_BYTES",
    "Aftermath",
    "AioMode",
    "Alarms",
    "Arm",
    "CacheMode",
    "Canary",
    "Cell",
    "ClientKind",
    "Comparison",
    "Control",
    "Counters",
    "Crash",
    "DiskBus",
    "Evidence",
    "Expectation",
    "Extent",
    "Failure",
    "Fault",
    "Migration",
    "MigrationOutcome",
    "NodeVerify",
    "Observed",
    "Owner",
    "Ownership",
    "Protocol",
    "Readings",
    "Repair",
    "Result",
    "Run",
    "Sample",
    "SplitBrain",
    "Stack",
    "State",
    "Verdict",
    "VerdictKind",
    "Verify",
    "Widener",
    "Work",
    "blocks_of",
    "extents_of",
]
