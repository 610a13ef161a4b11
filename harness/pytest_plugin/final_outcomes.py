"""What pytest said of an item, changed where its verdict did not last to the end of the session.

An item reports what the controls before its cell allow.  When the closing ones were played all is judged again, and an
answer that is none any more becomes an ERROR: in the terminal's summary, in junit's file, in the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import pytest
from _pytest.junitxml import xml_key

from harness.judgement.controls import control_outcome
from harness.judgement.rejudge import workload_failed
from harness.model import Result

Play = tuple[str, int]


@dataclass(frozen=True)
class ReportedItem:
    """An item and the result that it reported; ``verdict_alone``: it asks for nothing beside its cell's verdict."""

    nodeid: str
    result: Result
    verdict_alone: bool


@dataclass
class FinalOutcomes:
    """The items that were reported in a session of pytest."""

    items: list[ReportedItem] = field(default_factory=list)
    #: One sentence for each item whose outcome did not last.
    changed: list[str] = field(default_factory=list)
    _junit: dict[str, Any] = field(default_factory=dict)

    def add(self, config: pytest.Config, report: pytest.TestReport, item: ReportedItem) -> None:
        """An item and its last report, which was not logged yet: then junit's plugin closes the item's entry."""
        self.items.append(item)
        log = config.stash.get(xml_key, None)
        if log is not None:
            self._junit[item.nodeid] = log.node_reporter(report)

    def withdraw(self, config: pytest.Config, final: Mapping[Play, Result]) -> None:
        """Turn each item into an ERROR that reported an answer which is none in ``final``.

        A user's own test that failed stays FAILED: it may have failed for reasons of its own.
        """
        for item in self.items:
            before, now = no_answer(item.result), no_answer(final.get(item.result.cell.play, item.result))
            if now is not None and before is None and self._withdraw_one(config, item, now):
                self.changed.append(f"{item.nodeid}: {now}")

    def _withdraw_one(self, config: pytest.Config, item: ReportedItem, sentence: str) -> bool:
        categories = ("passed", "failed", "xfailed") if item.verdict_alone else ("passed",)
        terminal = config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            reports = _taken(terminal.stats, categories, item.nodeid)
            for report in reports:
                report.outcome, report.when, report.longrepr = "failed", "setup", sentence
                terminal.stats.setdefault("error", []).append(report)
            if not reports:
                return False
        if item.nodeid in self._junit:
            _junit_error(config.stash[xml_key], self._junit[item.nodeid], sentence)
        return True


def no_answer(result: Result) -> str | None:
    """Why ``result`` is no answer: INCONCLUSIVE, or a control that did not hold; None where it is one.

    A workload that could not do its work is none of these: that is the cell's failure.
    """
    verdict = result.verdict
    if result.cell.control is not None and result.evidence is not None:
        outcome = control_outcome(result.evidence)
        return None if outcome.held else f"the {outcome.control} control failed: {outcome.sentence}"
    if verdict is None or verdict.answers(result.cell.expected):
        return None
    if workload_failed(result) is not None:
        # A finding about what the user brought, not an error of the machinery.
        return None
    return f"{result.cell.id}: INCONCLUSIVE: {verdict.sentence}"


def _taken(stats: dict[str, list[Any]], categories: Iterable[str], nodeid: str) -> list[Any]:
    found: list[Any] = []
    for category in categories:
        mine = [one for one in stats.get(category, []) if one.nodeid == nodeid and one.when == "call"]
        if mine:
            stats[category] = [one for one in stats[category] if one not in mine]
            if not stats[category]:
                del stats[category]
        found += mine
    return found


def _junit_error(log: Any, place: Any, sentence: str) -> None:
    """Put ``sentence`` as an error where junit's file has a test that passed or failed."""
    case = place.to_xml()
    said = [child for child in case if child.tag in ("failure", "skipped")]
    for child in said:
        case.remove(child)
    ElementTree.SubElement(case, "error", message=sentence).text = sentence
    log.stats[said[0].tag if said else "passed"] -= 1
    log.stats["error"] += 1
