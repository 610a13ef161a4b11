"""Stored evidence or a run that is damaged, or of a newer version, is one sentence and counts as missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stored_evidence import BARE, FULL, SWAP, store

from harness.errors import UsageError
from harness.model import SCHEMA_VERSION
from harness.store import Store

__all__ = ["store"]


def edited(path: Path, **changes: Any) -> str:
    return json.dumps({**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize("content", ["", "{", '{"cell"', "null", "[]", '{"schema": 1}', "\x00", '{"attempt": "x"}'])
def test_store_damaged_evidence_one_sentence_missing(store: Store, content: str) -> None:
    store.begin(SWAP).save(BARE)
    path = store.begin(SWAP).directory / "evidence.json"
    path.write_text(content)
    (sentence,) = store.damaged()
    assert str(path) in sentence and "damaged" in sentence and "\n" not in sentence
    assert store.evidence(SWAP.id) == BARE, "the older one is still good"
    (store.directory / "cells" / SWAP.id / "1" / "evidence.json").unlink()
    assert store.evidence(SWAP.id) is None


def test_store_torn_evidence_every_length_damaged(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    content = path.read_bytes().rstrip()
    for cut in range(0, len(content), 41):
        path.write_bytes(content[:cut])
        assert store.evidence(SWAP.id) is None
        assert len(store.damaged()) == 1


def test_store_wrong_value_named(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    path.write_text(edited(path, exposed_blocks="many"))
    assert "exposed_blocks" in store.damaged()[0]


@pytest.mark.parametrize("content", ["[]", "null", "7", '"run"', "{}", '{"cell": 7}', '{"cell": {}}'])
def test_store_wrong_shape_is_told_without_names_of_classes(store: Store, content: str) -> None:
    for path in (store.directory / "run.json", store.begin(SWAP).directory / "evidence.json"):
        path.write_text(content)
    with pytest.raises(UsageError, match=r"it is no object of JSON$|: it is missing$") as told:
        store.run()
    assert "instance" not in str(told.value) and "Run" not in str(told.value)


def test_store_newer_schema_usage_error(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    path = attempt.directory / "evidence.json"
    path.write_text(edited(path, schema=SCHEMA_VERSION + 1))
    for ask in (lambda: store.evidence(SWAP.id), store.damaged, store.every_attempt):
        with pytest.raises(
            UsageError, match=rf"newer version .* schema is {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}"
        ):
            ask()


def test_store_damaged_or_newer_run_usage_error(store: Store) -> None:
    path = store.directory / "run.json"
    good = path.read_text()
    path.write_text(edited(path, schema=7))
    with pytest.raises(UsageError, match="schema is 7"):
        Store.open(store.directory.parent, "latest")
    path.write_text(good[:-9])
    with pytest.raises(UsageError, match="damaged"):
        Store.open(store.directory.parent, "latest")
    path.unlink()
    with pytest.raises(UsageError, match=r"no run\.json"):
        store.run()
