"""fio's JSON and its complaints about wrong data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.parse.fio import VERIFY_ERROR, parse_fio, verify_failures

FIO = Path(__file__).parent / "recordings" / "fio"
GOOD = (FIO / "write-then-verify.json").read_text()


def read(name: str) -> str:
    return (FIO / name).read_text()


def test_parse_fio_recorded_run_figures() -> None:
    found = parse_fio(GOOD)
    (job,) = found.jobs
    raw = json.loads(GOOD)["jobs"][0]
    assert (found.version, found.errors, job.name, job.error, job.verify_errors) == ("fio-3.33", (), "writer", 0, 0)
    assert (job.write.ios, job.write.bytes, job.read.bytes) == (1024, 4 << 20, 4 << 20)
    assert job.write.bandwidth_bytes == raw["write"]["bw_bytes"] > 0
    assert job.write.iops == raw["write"]["iops"] > 0
    assert job.write.latency_ns_mean == raw["write"]["lat_ns"]["mean"] > 0
    assert job.write.p99_ns == raw["write"]["clat_ns"]["percentile"]["99.000000"] > 0
    assert job.write.runtime_ms == raw["write"]["runtime"] > 0


def test_parse_fio_verify_error_text_before_json_skipped() -> None:
    text = read("verify-failed.txt")
    assert not text.startswith("{")
    (job,) = parse_fio(text).jobs
    assert (job.error, job.verify_errors) == (VERIFY_ERROR, 1)
    assert len(verify_failures(read("verify-failed.stderr.txt"))) == 1


def test_parse_fio_continue_on_error_all_verify_errors_counted() -> None:
    (job,) = parse_fio(read("verify-failed-three-times.txt")).jobs
    assert (job.error, job.total_err, job.verify_errors) == (VERIFY_ERROR, 3, 3)
    messages = verify_failures(read("verify-failed-three-times.stderr.txt"))
    assert len(messages) == 3 and messages[0].startswith("verify: bad magic header 6167, wanted acca at file")
    assert [line.partition("offset ")[2].partition(",")[0] for line in messages] == ["40960", "81920", "163840"]


def test_parse_fio_other_error_no_verify_error() -> None:
    (job,) = parse_fio(GOOD.replace('"error" : 0', '"error" : 5')).jobs
    assert (job.error, job.total_err, job.verify_errors) == (5, 1, 0)
    assert verify_failures("fio: pid=1, err=5/file:io_u.c:1, func=sync, error=Input/output error\n") == ()


def test_parse_fio_no_percentiles_none() -> None:
    (job,) = parse_fio(GOOD.replace('"99.000000"', '"98.000000"')).jobs
    assert job.write.p99_ns is None
    (job,) = parse_fio('{"fio version": "fio-3.33", "jobs": [{"jobname": "empty"}]}').jobs
    assert (job.read.ios, job.read.p99_ns, job.error) == (0, None, 0)


@pytest.mark.parametrize(
    "text", ["", "fio: failed to parse\n", "{", '{"jobs": []}', '{"fio version": "fio-3.33"}', '{"a": {"b": 1}}']
)
def test_parse_fio_other_text_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="fio"):
        parse_fio(text)


@pytest.mark.parametrize("value", ["true", "NaN", "Infinity", '"84"', "null"])
def test_parse_fio_figure_not_a_number_value_error(value: str) -> None:
    with pytest.raises(ValueError, match="not fio's: 'error' is"):
        parse_fio(GOOD.replace('"error" : 0', f'"error" : {value}'))


def test_parse_fio_torn_json_value_error() -> None:
    for cut in range(0, len(GOOD.rstrip()), 97):
        with pytest.raises(ValueError):
            parse_fio(GOOD[:cut])


@given(st.text(), st.text())
def test_parse_fio_text_around_json_same_result(before: str, after: str) -> None:
    noise = "\n".join(line for line in before.splitlines() if not line.startswith("{"))
    assert parse_fio(f"{noise}\n{GOOD}{after}") == parse_fio(GOOD)


KEYS = st.sampled_from(["jobname", "error", "read", "write", "lat_ns", "mean", "percentile", "99.000000", "total_err"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
)


@settings(max_examples=40)
@given(st.lists(JSON))
def test_parse_fio_any_json_result_or_value_error(jobs: list[Any]) -> None:
    try:
        parse_fio(json.dumps({"fio version": "fio-3.33", "jobs": jobs}))
    except ValueError as error:
        assert "fio" in str(error)
