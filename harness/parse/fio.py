"""fio's JSON, and what it prints when it reads back something else than it wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# EILSEQ: what fio's verify ends a job with.
VERIFY_ERROR = 84
_VERIFY_FAILURE = re.compile(r"^(?:verify: bad |\S+: verify failed at ).*", re.ASCII | re.MULTILINE)


@dataclass(frozen=True)
class FioSide:
    """What a job read, or wrote.  Latency is from submission to completion; percentiles are None if fio kept none."""

    ios: int
    bytes: int
    bandwidth_bytes: int
    iops: float
    latency_ns_mean: float
    p99_ns: int | None
    runtime_ms: int
    p50_ns: int | None = None


@dataclass(frozen=True)
class FioJob:
    """One job.  ``error`` is the errno it ended with, or met while it was told to go on; ``total_err`` how many."""

    name: str
    error: int
    read: FioSide
    write: FioSide
    total_err: int

    @property
    def verify_errors(self) -> int:
        """How many pieces of wrong data the job read back, as far as its own figures tell."""
        return max(1, self.total_err) if self.error == VERIFY_ERROR else 0


@dataclass(frozen=True)
class FioResult:
    """One run of fio.  An ``error`` of 0 in every job is no proof of work: look at ``ios`` too."""

    version: str
    jobs: tuple[FioJob, ...]

    @property
    def errors(self) -> tuple[int, ...]:
        """The errors of the jobs that had one."""
        return tuple(job.error for job in self.jobs if job.error)


def parse_fio(text: str) -> FioResult:
    """The result in ``fio --output-format=json``; text before and behind the JSON is passed over.

    :class:`ValueError` if there is no such JSON in ``text``, or it is not fio's.
    """
    found = _json(text)
    version, jobs = found.get("fio version"), found.get("jobs")
    if not isinstance(version, str) or not isinstance(jobs, list):
        raise ValueError("the JSON is not fio's: it has no 'fio version' or no 'jobs'")
    return FioResult(version, tuple(_job(job) for job in jobs))


def verify_failures(stderr: str) -> tuple[str, ...]:
    """fio's message on each wrong block: ``verify: bad ... header``, or ``crc32c: verify failed at ...``."""
    return tuple(_VERIFY_FAILURE.findall(stderr))


def _json(text: str) -> Mapping[str, Any]:
    """The first JSON object that starts a line."""
    decoder = json.JSONDecoder()
    for start in re.finditer(r"^\{", text, re.MULTILINE):
        try:
            found, _ = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    raise ValueError("fio printed no JSON")


def _job(job: Any) -> FioJob:
    if not isinstance(job, dict):
        raise ValueError("the JSON is not fio's: a job is not an object")
    error = int(_number(job, "error"))
    return FioJob(
        name=str(job.get("jobname", "")),
        error=error,
        read=_side(job.get("read")),
        write=_side(job.get("write")),
        total_err=int(_number(job, "total_err")) if "total_err" in job else int(bool(error)),
    )


def _side(side: Any) -> FioSide:
    side = side if isinstance(side, dict) else {}
    total = side.get("lat_ns")
    total = total if isinstance(total, dict) else {}
    return FioSide(
        ios=int(_number(side, "total_ios")),
        bytes=int(_number(side, "io_bytes")),
        bandwidth_bytes=int(_number(side, "bw_bytes")),
        iops=_number(side, "iops"),
        latency_ns_mean=_number(total, "mean"),
        p99_ns=_percentile(side, "99.000000"),
        runtime_ms=int(_number(side, "runtime")),
        p50_ns=_percentile(side, "50.000000"),
    )


def _percentile(side: Mapping[str, Any], which: str) -> int | None:
    """fio keeps the percentiles of the total or of the completion latency, whichever it was told to."""
    for kind in ("lat_ns", "clat_ns"):
        latency = side.get(kind)
        percentiles = latency.get("percentile") if isinstance(latency, dict) else None
        if isinstance(percentiles, dict) and which in percentiles:
            return int(_number(percentiles, which))
    return None


def _number(item: Mapping[str, Any], name: str) -> float:
    value = item.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise ValueError(f"the JSON is not fio's: '{name}' is '{value}'")
    return value
