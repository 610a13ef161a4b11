"""Matrix files: each mistake is told in one sentence."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_matrix import CELL, HOST, SHIPPED, TWO_OF, written

from harness.config.matrix import cells_from, expand, load
from harness.config.matrix_entry import Axes
from harness.errors import UsageError
from harness.model import CacheMode, Cell, DelayProfile, DiskOptions, GuestOptions, ReplicationProfile
from harness.workloads import WORKLOADS

__all__ = ["written"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("schema = 2\n" + CELL, ["'schema' is 2", "schema = 1"]),
        (CELL, ["'schema' is missing"]),
        ("schema = 1\n", ["empty"]),
        ("schema = 1\n" + CELL + '[[exclude]]\ncache = "none"\n', ["empty"]),
        ("schema = 1\ncell = 1\n" + CELL, ["the top level", "'cell'", "did you mean 'cells'?", "exclude"]),
        ("schema = 1\ndescription = 3\n" + CELL, ["'description' is 3"]),
        ("schema = 1\n" + CELL + "second = 3\n", ["[[cells]] number 1", "'second'", "did you mean 'seconds'?"]),
        ("schema = 1\n[defaults]\ncach = 1\n" + CELL, ["[defaults]", "'cach'", "did you mean 'cache'?"]),
        ("schema = 1\n" + CELL + "[[exclude]]\nreason = 'x'\n", ["[[exclude]] number 1", "'reason' is no key"]),
        ("schema = 1\ncells = 3\n", ["'cells'", "[[cells]]"]),
        ("schema = 1\n" + CELL.replace("none", "nonne"), ["'nonne'", "'cache'", "did you mean 'none'?", "unsafe"]),
        ("schema = 1\n" + CELL.replace("pressure", "presure"), ["'presure'", "did you mean 'pressure'?", "buffered"]),
        ("schema = 1\n" + CELL.replace('"pressure"', "{a = 1}"), ["workload"]),
        ("schema = 1\n" + CELL + 'client = "gest"\n', ["'gest'", "did you mean 'guest'?"]),
        ("schema = 1\n" + CELL + 'aio = "thread"\n', ["'thread'", "did you mean 'threads'?"]),
        ("schema = 1\n" + CELL + 'bus = "ide"\n', ["'ide'", "virtio, scsi"]),
        ("schema = 1\n" + CELL + 'control = "corrupt_below"\n', ["'corrupt_below'", "planted"]),
        ("schema = 1\n" + CELL + 'seconds = "8"\n', ["'seconds' is '8'", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = 1.5\n", ["'seconds' is 1.5", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = true\n", ["'seconds' is True", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = 0\n", ["'seconds' is 0", "least it may be is 1"]),
        ("schema = 1\n" + CELL + "link_delay_ms = -1\n", ["'link_delay_ms' is -1", "least it may be is 0"]),
        ("schema = 1\n" + CELL + "seconds = 10\ndeadline = 10\n", ["'deadline' is 10"]),
        ("schema = 1\n" + CELL + "link_delay_ms = []\n", ["'link_delay_ms' is an empty list"]),
        ("schema = 1\n" + CELL + CELL, ["[[cells]] number 2", "'none-swap-pressure'", "[[cells]] number 1"]),
        ("schema = 1\n" + CELL + 'client = "host"\n', ["'cache' is given", "host"]),
        ("schema = 1\n" + CELL + 'client = ["guest", "host"]\n', ["'cache' is given", "host"]),
        ('schema = 1\n[[cells]]\nworkload = "swap"\n', ["'cache' is missing", "writethrough"]),
        ('schema = 1\n[[cells]]\ncache = "none"\n', ["'workload' is missing", "pressure"]),
        ("schema = 1\n" + CELL + 'verdicts = ["CLEEN"]\nreason = "x"\n', ["'CLEEN'", "did you mean 'CLEAN'?"]),
        ("schema = 1\n" + CELL + 'verdicts = "CLEAN"\nreason = "x"\n', ["'verdicts' is 'CLEAN'", "list"]),
        ("schema = 1\n" + CELL + 'verdicts = ["CLEAN"]\n', ["'reason' is missing"]),
        ("schema = 1\n" + CELL + '[[expect]]\ncache = "none"\n', ["[[expect]] number 1", "'verdicts' is missing"]),
        (
            "schema = 1\n" + CELL + '[[deciding]]\ncache = "none"\nrepeat = 3\n',
            ["[[deciding]] number 1", "'reason' is missing"],
        ),
        ("schema = 1\n" + CELL + '[[deciding]]\nreason = "x"\nrepeat = 1\n', ["'repeat' is 1", "least it may be is 2"]),
        (
            "schema = 1\n" + CELL + '[[deciding]]\ncache = "unsafe"\nrepeat = 3\nreason = "x"\n',
            ["[[deciding]] number 1", "no cell of the matrix matches it"],
        ),
        ("schema = 1\nx = [\n", ["not valid TOML"]),
        ("schema = 1\n" + CELL + 'protocol = "c"\n', ["'c'", "'protocol'", "allowed: A, B, C"]),
        ("schema = 1\n" + CELL + 'integrity = "crc32"\n', ["'crc32'", "'integrity'", "did you mean 'crc32c'?", "none"]),
        ("schema = 1\n" + CELL + "integrity = false\n", ["False", "'integrity'", "none, crc32c, md5, sha1, sha256"]),
        ("schema = 1\n" + CELL + 'integrity = ""\n', ["''", "'integrity'", "none"]),
        ("schema = 1\n" + CELL + 'crash = "nod"\n', ["'nod'", "'crash'", "did you mean 'node'?", "reset"]),
        ("schema = 1\n" + CELL + 'fault = "linkcut"\n', ["'linkcut'", "did you mean 'link-cut'?", "standalone"]),
        ("schema = 1\n" + CELL + 'disable_sendpage = "Y"\n', ["'disable_sendpage' is 'Y'", "not true or false"]),
        ("schema = 1\n" + CELL + "scatter_gather = 1\n", ["'scatter_gather' is 1", "not true or false"]),
        ("schema = 1\n" + CELL + "two_primaries = 0\n", ["'two_primaries' is 0", "not true or false"]),
        ("schema = 1\n" + CELL + 'unsafe_migration = "yes"\n', ["'unsafe_migration' is 'yes'", "not true or false"]),
        ("schema = 1\n" + CELL + "migrations = -1\n", ["'migrations' is -1", "least it may be is 0"]),
        ("schema = 1\n" + CELL + "migrations = true\n", ["'migrations' is True", "whole number"]),
        ("schema = 1\n" + CELL + "migration_deadline = 4\n", ["'migration_deadline' is 4", "least it may be is 5"]),
        ("schema = 1\n" + CELL + "migration = 2\n", ["'migration' is no key", "did you mean 'migrations'?"]),
        (
            "schema = 1\n" + CELL + 'crash = "node"\nmigrations = 1\n',
            ["'crash'", "'migrations'", "one thing at a time"],
        ),
        ("schema = 1\n" + CELL + 'crash = "node"\nfault = "io-error"\n', ["'crash'", "'fault'", "one thing"]),
        *(
            (
                'schema = 1\n[[cells]]\ncache = "none"\nworkload = "truncate"\ncrash = "reset"\n'
                f'filesystem = "{filesystem}"\n',
                [f"'crash' does not go with filesystem = \"{filesystem}\"", "may break on any disk"],
            )
            for filesystem in ("ntfs3", "ntfs-3g", "vfat", "exfat")
        ),
        *(
            ("schema = 1\n" + CELL + f'fault = "{fault}"\n', [f"'fault' is '{fault}'", "give 'migrations' too"])
            for fault in ("link-cut", "target-kill", "libvirtd-restart", "stall")
        ),
        *(
            ("schema = 1\n" + HOST + f"{key}\n", [f"'{key.partition(' ')[0]}' is", "host"])
            for key in (
                "migrations = 1",
                "unsafe_migration = true",
                "migration_deadline = 9",
                "crash = 'qemu'",
                "fault = 'io-error'",
            )
        ),
        ("schema = 1\n" + CELL + "unsafe_migration = true\n", ["'unsafe_migration' is given without 'migrations'"]),
        *(
            (
                "schema = 1\n" + CELL + f"migrations = 1\nmigration_deadline = {least}\ndeadline = 90\n",
                ["'deadline' is 90", f"'migration_deadline', {least}"],
            )
            for least in (90, 91)
        ),
        *(
            ("schema = 1\n" + CELL + f"two_primaries = true\n{happening}\n", ["'two_primaries' goes with none of"])
            for happening in ("migrations = 1", "crash = 'qemu'", "fault = 'standalone'")
        ),
        ("schema = 1\n" + HOST + 'layout = "crypt-node"\n', ["'layout' is 'crypt-node'", 'write layout = "crypt"']),
        ("schema = 1\n" + HOST + 'layout = "raw-on-ext4"\n', ["a file that QEMU opens", "there is no QEMU"]),
        *(
            ("schema = 1\n" + CELL + f"layout = '{layout}'\n{happening}\n", [f"'layout' is '{layout}'", why])
            for layout, why in (("partitioned", "is a partition already"),)
            for happening in ("migrations = 1", "crash = 'node'", "crash = 'reset'", "fault = 'io-error'")
        ),
        *(
            ("schema = 1\n" + CELL + f"layout = '{layout}'\n{happening}\n", [f"'layout' is '{layout}'", why])
            for layout in ("crypt-node", "qcow2-on-xfs")
            for happening, why in (
                ("migrations = 1", "only one node may have in use; it does not go with 'migrations'"),
                ("crash = 'node'", "which went with its node"),
                ("fault = 'io-error'", "'fault' is \"standalone\" only"),
            )
        ),
        (
            "schema = 1\n" + CELL + "layout = 'crypt-node'\ntwo_primaries = true\n",
            ["it does not go with 'two_primaries'"],
        ),
        (
            "schema = 1\n" + CELL + "layout = 'lvm'\nsabotage = 'swap-left-on'\n",
            ["'sabotage' is 'swap-left-on', which goes with layout = \"raw\" only, and 'layout' is 'lvm'"],
        ),
    ],
)
def test_load_mistake_one_sentence_with_file_place_and_what_is_allowed(
    written: Any, text: str, parts: list[str]
) -> None:
    with pytest.raises(UsageError) as told:
        written(text)
    sentence = str(told.value)
    assert "mine.toml" in sentence and "\n" not in sentence
    assert [part for part in parts if part not in sentence] == [], sentence


@pytest.mark.parametrize(
    "entry",
    [
        *(HOST + f"layout = '{layout}'\n" for layout in ("partitioned", "lvm", "crypt")),
        *(CELL + f"layout = '{layout}'\nmigrations = 1\n" for layout in ("lvm", "crypt")),
        CELL + "layout = 'crypt'\ncrash = 'node'\n",
        CELL + "layout = 'crypt-node'\n",
        *(CELL + f"layout = 'raw-on-ext4'\ncrash = '{crash}'\n" for crash in ("qemu", "reset")),
        CELL + "layout = 'raw-on-ext4'\nfault = 'standalone'\n",
    ],
)
def test_load_layout_goes_with_what_it_works_with(written: Any, entry: str) -> None:
    assert written("schema = 1\n" + entry)


def test_load_missing_matrix_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no matrix 'quik' in .*did you mean 'quick'\? allowed: alarms, .*, quick"):
        load("quik", WORKLOADS, SHIPPED)
    with pytest.raises(UsageError, match=r"no matrix file .*gone\.toml"):
        load(str(tmp_path / "gone.toml"), WORKLOADS, SHIPPED)


def test_load_file_that_is_not_text_is_not_valid_toml(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load("m", WORKLOADS, tmp_path)


@given(st.recursive(st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_expand_any_value_of_any_key_cells_or_usage_error(value: object) -> None:
    for key in ("schema", "description", "defaults", "cells", "exclude", "expect", "deciding"):
        table: dict[str, Any] = {
            "schema": 1,
            "cells": [{"cache": "none", "filesystem": "swap", "workload": "pressure"}],
            key: value,
        }
        inner = {
            "schema": 1,
            "cells": [
                {"cache": "none", "filesystem": "swap", "workload": "pressure", "seconds": value, "client": value}
            ],
        }
        new = [
            {"schema": 1, "cells": [{"cache": "none", "filesystem": "swap", "workload": "pressure", name: value}]}
            for name in TWO_OF
        ]
        for tried in (table, inner, *new):
            try:
                expand(tried, WORKLOADS, "m.toml")
            except UsageError:
                continue


def test_load_wrong_default_is_told_of_the_defaults(written: Any) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml, \[defaults\]: 'seconds' is 0; the least it may be is 1$"):
        written(f"schema = 1\ndefaults = {{ seconds = 0 }}\n{CELL}")


@pytest.mark.parametrize(
    ("number", "what"),
    [
        ("1000000001", r"'seconds' is 1000000001; the most it may be is 1000000000$"),
        ("0x1" + 6000 * "0", r"'seconds' is a very large number; the most it may be is 1000000000$"),
        (6000 * "9", r"is not valid TOML: "),
    ],
)
def test_load_number_that_is_too_large_is_one_sentence(written: Any, number: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        written(f"schema = 1\n{CELL}seconds = {number}\n")


def test_load_other_schema_is_told_before_keys_that_only_it_has(written: Any) -> None:
    with pytest.raises(UsageError, match=r"the top level: 'schema' is 2; this program reads schema = 1$"):
        written(f"schema = 2\nnew = 1\n{CELL}")


@pytest.mark.parametrize("wrong", [True, 1.0, "1", [1], {"a": 1}, None])
def test_expand_schema_that_is_like_1_is_not_1(wrong: object) -> None:
    with pytest.raises(UsageError, match="'schema'"):
        expand({"schema": wrong, "cells": [{"cache": "none", "workload": "no-writes"}]}, WORKLOADS, "mine.toml")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("migrations", True, "'migrations' is True, not a whole number"),
        ("seconds", "7", "'seconds' is '7', not a whole number"),
        ("seconds", 7.0, "'seconds' is 7.0, not a whole number"),
        ("seconds", None, "'seconds' is None, not a whole number"),
        ("two_primaries", 1, "'two_primaries' is 1, not true or false"),
        ("cache", {"none"}, "a value of the type set is no value of 'cache'; allowed: none, "),
        ("cache", None, "None is no value of 'cache'; allowed: none, "),
        ("cache", [["none"]], "['none'] is no value of 'cache'; allowed: none, "),
        ("workload", {}, "a table is no value of 'workload'; allowed: append-delete, "),
        ("control", [[]], "[] is no value of 'control'; allowed: planted, "),
        ("integrity", b"md5", "a value of the type bytes is no value of 'integrity'; allowed: none, "),
        ("verdicts", {"CLEAN"}, "'verdicts' is a value of the type set, not a list; allowed: CLEAN, "),
        ("reason", 3, "'reason' is 3, not text"),
        ("secunds", 7, "'secunds' is no key; did you mean 'seconds'? allowed: workload, "),
    ],
)
def test_cells_from_value_that_is_like_the_right_one_is_refused(key: str, value: object, what: str) -> None:
    entry = {"cache": "none", "workload": "no-writes", key: value}
    with pytest.raises(UsageError) as raised:
        cells_from(entry, WORKLOADS, "the cell marker of test_x")
    assert str(raised.value).startswith(f"the cell marker of test_x, its keys: {what}")


def test_cells_from_members_of_an_enumeration_are_their_values() -> None:
    (cell,) = cells_from({"cache": CacheMode.NONE, "workload": "no-writes", "seconds": 3}, WORKLOADS, "x").cells
    assert cell == Cell("no-writes", cache=CacheMode.NONE, seconds=3)


def test_matrix_entry_has_a_key_for_each_field_of_a_cell() -> None:
    parts = {
        "delays": DelayProfile,
        "replication": ReplicationProfile,
        "disk_options": DiskOptions,
        "guest_options": GuestOptions,
    }
    # Which play of the cell it is comes from the run, and a file of the user's from an option, not from a matrix.
    wanted = {each.name for each in fields(Cell)} - {"expected", "repetition", "seed", "user_file", *parts}
    assert set(Axes.model_fields) == wanted | {each.name for part in parts.values() for each in fields(part)}
