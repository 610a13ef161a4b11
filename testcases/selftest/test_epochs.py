"""Epochs that DRBD 8.4 does not end are found before a cell, and the connection is made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from fake_drbd import FakeResource
from fake_lab import FakeLab
from fake_stage import Stage
from fake_story import in_order
from recorded_nodes import DRBD_9, DRBD_84
from staged_cell import staged

from harness.drbd import epochs
from harness.drbd.dialect import dialect_of
from harness.drbd.resource import Resource
from harness.parse.drbd_status import parse_proc
from harness.render.drbd_conf import ResourceSpec

__all__ = ["staged"]

# As a node printed it two minutes after the last write; what a peer wrote to a block of its own write is the reason.
STUCK = """\
version: 8.4.11 (api:1/proto:86-101)
srcversion: 637677C4EAFCF5D1D5446B0 

 7: cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate C r-----
    ns:12 nr:24 dw:28 dr:0 al:10 bm:0 lo:0 pe:0 ua:0 ap:0 ep:3 wo:f oos:0
"""  # noqa: W291


@pytest.fixture
def resource(monkeypatch: pytest.MonkeyPatch) -> FakeResource:
    monkeypatch.setattr(epochs, "SETTLE_SECONDS", 0.01)
    return FakeResource(FakeLab())


def drop_stuck(resource: FakeResource) -> str | None:
    return epochs.drop_stuck(cast(Resource, cast(Any, resource)))


def test_epochs_of_8_4_are_read_from_proc_drbd() -> None:
    assert dialect_of("8.4.11").parse_epochs(STUCK, ResourceSpec(minor=7)) == 3
    quiet = (DRBD_84 / "proc-drbd-planted-nodea.txt").read_text()
    assert dialect_of("8.4.11").parse_epochs(quiet, ResourceSpec()) == 1
    with pytest.raises(ValueError, match="minor 0 of resource 'r0' is not configured"):
        dialect_of("8.4.11").parse_epochs(STUCK, ResourceSpec())


def test_epochs_of_9_are_not_told() -> None:
    assert dialect_of("9.3.3").parse_epochs((DRBD_9 / "status-after-verify.json").read_text(), ResourceSpec()) == 1


def test_device_without_a_line_of_counters_has_one_epoch() -> None:
    text = STUCK.replace(" ep:3", "")
    assert parse_proc(text).devices[7].epochs == 1


def test_nothing_is_done_where_each_side_has_its_open_epoch(resource: FakeResource) -> None:
    assert drop_stuck(resource) is None
    assert resource.lab.story.steps == []


def test_epochs_that_stay_are_left_behind_with_the_connection(resource: FakeResource) -> None:
    resource.open_epochs["nodeb"] = 3
    said = drop_stuck(resource)
    assert said == "DRBD held epochs that it does not end (nodeb ep:3); the resource was taken down and up"
    first, *then = resource.lab.story.steps
    assert first == "down" and sorted(then) == ["rejoin nodea", "rejoin nodeb"]
    assert drop_stuck(resource) is None


def test_epochs_that_are_just_ending_are_waited_for(resource: FakeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "SETTLE_SECONDS", 60.0)
    looks = iter([2, 1, 1, 1])
    monkeypatch.setattr(resource, "epochs", lambda node: next(looks))
    assert drop_stuck(resource) is None
    assert resource.lab.story.steps == []


def test_cell_begins_with_a_connection_without_stuck_epochs(
    staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "SETTLE_SECONDS", 0.01)
    stage = staged()
    stage.resource.open_epochs["nodea"] = 2
    found = stage.play()
    assert found.failure is None and found.before is not None and found.before.healthy
    assert in_order(stage.steps, "down", "mark nodea: none-swap-pressure-link20ms begins", "work 10")
    assert any("DRBD held epochs" in text for text in found.event_log)
