"""A node's connections: ssh, its kernel log, two to its libvirt; each opened again when it is gone."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import libvirt
import pytest
from fake_libvirt import LibvirtSaid

from harness.drbd.resource import Resource, follow_again
from harness.errors import LostNodeError
from harness.lab import node as module
from harness.lab.node import Node
from harness.parse.kernel_log import missing, parse_kmsg
from harness.parse.log_flood import LogSift
from harness.remote.stream import LineStream


@dataclass
class Connection:
    """``known``: whether its end was noticed here."""

    gone: bool = False
    known: bool = True
    closed: bool = False

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return int(not (self.gone and self.known))

    def getLibVersion(self) -> int:  # noqa: N802 - libvirt's name
        if self.gone:
            raise LibvirtSaid("Cannot write data: Broken pipe")
        return 11_003_000

    def setKeepAlive(self, interval: int, count: int) -> int:  # noqa: N802 - libvirt's name
        return 0

    def close(self) -> int:
        self.closed = True
        return 0


@dataclass
class Opened:
    """What was opened, in order."""

    connections: list[Connection] = field(default_factory=list)
    error: BaseException | None = None

    def __call__(self, uri: str) -> Connection:
        assert uri == "qemu+ssh://nodea/system"
        if self.error is not None:
            raise self.error
        self.connections.append(Connection())
        return self.connections[-1]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    made = Opened()
    monkeypatch.setattr(module.libvirt, "open", made)
    return made


class Runner:
    """An ssh connection that only remembers; each one opened has streams of its own."""

    host = "nodea"
    lab = "lab1"
    silent = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: BaseException | None = None

    def connect(self, patience: float) -> None:
        self.calls.append(f"connect within {patience:.0f} s")
        if self.error is not None:
            raise self.error

    def stream(self, argv: list[str], name: str, sift: Callable[[str], Iterable[str]] | None = None) -> LineStream:
        self.calls.append(f"stream the {name}")
        return LineStream(name)

    def close(self) -> None:
        self.calls.append("close")


def node(runner: Runner | None = None) -> Node:
    made = cast(Any, runner or Runner())
    return Node("nodea", made, "repl0", "192.0.2.1", "/dev/vdb", "qemu+ssh://nodea/system")


def test_connections_of_a_node_are_opened_once_and_are_two(opened: Opened) -> None:
    one = node()
    assert one.libvirt is one.libvirt and one.monitor_connection is one.monitor_connection
    assert one.libvirt is not one.monitor_connection and len(opened.connections) == 2


def test_libvirt_connection_whose_end_is_known_is_opened_again(opened: Opened) -> None:
    one = node()
    one.libvirt.raw.gone = True
    assert not one.libvirt.raw.gone and len(opened.connections) == 2


def test_monitor_connection_whose_end_went_unnoticed_is_opened_again(opened: Opened) -> None:
    one = node()
    seen = one.monitor_connection.raw
    seen.gone, seen.known = True, False
    assert not one.monitor_connection.raw.gone and len(opened.connections) == 2


def test_connections_to_no_libvirt_are_a_lost_node(opened: Opened) -> None:
    opened.error = LibvirtSaid("Connection refused", libvirt.VIR_ERR_SYSTEM_ERROR)
    for name in ("libvirt", "monitor_connection"):
        with pytest.raises(LostNodeError, match="no libvirt on nodea: Connection refused"):
            getattr(node(), name)


def test_forget_ends_connections_without_closing_them_and_close_closes_them(opened: Opened) -> None:
    one = node()
    before = (one.libvirt, one.monitor_connection)
    one.forget()
    assert not any(connection.closed for connection in opened.connections)
    assert not any(connection.alive for connection in before), "a call over one returns with an error"
    assert one.libvirt and one.monitor_connection
    one.close()
    assert [connection.closed for connection in opened.connections] == [False, False, True, True]


def test_libvirt_connection_is_logged_when_it_is_opened(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness.connection")
    one = node()
    assert one.libvirt is one.libvirt
    opened.error = LibvirtSaid("Connection refused", libvirt.VIR_ERR_SYSTEM_ERROR)
    with pytest.raises(LostNodeError):
        node().monitor_connection  # noqa: B018 - opened when it is read
    columns = [message.split("\t") for message in caplog.messages]
    assert [column[:2] + column[4:] for column in columns] == [
        ["lab1", "nodea", "qemu+ssh://nodea/system"],
        ["lab1", "nodea", "qemu+ssh://nodea/system", "Connection refused"],
    ]


def test_reconnect_to_a_node_that_was_away_renews_every_connection(opened: Opened) -> None:
    runner = Runner()
    one = node(runner)
    one.reconnect()
    before = (one.log, one.libvirt, one.monitor_connection)
    one.reconnect()
    after = (one.log, one.libvirt, one.monitor_connection)
    assert not any(old is new for old, new in zip(before, after, strict=True))
    assert runner.calls == ["close", "connect within 60 s", "stream the kernel log"] * 2
    assert not any(connection.closed for connection in opened.connections), "a thread may be in a call over one"


def test_listen_again_reads_a_log_anew_only_where_its_reader_has_ended(opened: Opened) -> None:
    runner = Runner()
    one = node(runner)
    assert not one.listen_again(), "nobody has asked for it yet"
    first = one.log
    assert not one.listen_again() and one.log is first
    first.stream.end("the command ended")
    assert one.listen_again() and one.log is not first and one.log.stream.ended is None
    assert runner.calls == ["stream the kernel log"] * 2


def test_follow_again_is_of_the_node_whose_events_have_ended(opened: Opened) -> None:
    runner = Runner()
    a = node(runner)
    b = replace(a, name="nodeb")
    resource = Resource.for_nodes(a, b)
    resource._follow(a)
    resource._follow(b)
    kept = resource.events(a)
    assert follow_again(resource) == ()
    resource.events(b).stream.end("the command ended")
    assert follow_again(resource) == ("nodeb",) and resource.events(b).stream.ended is None
    assert resource.events(a) is kept and runner.calls == ["stream the events2"] * 3


def test_reconnect_to_a_node_that_does_not_answer_is_a_lost_node(opened: Opened) -> None:
    runner = Runner()
    one = node(runner)
    assert one.libvirt
    runner.error = LostNodeError("no ssh to nodea")
    with pytest.raises(LostNodeError, match="no ssh to nodea"):
        one.reconnect()
    assert runner.calls[0] == "close", "nothing of the old connection is left"


def test_connect_again_renews_what_the_connection_carried_and_no_libvirt(opened: Opened) -> None:
    runner = Runner()
    one = node(runner)
    one.reconnect()
    log, libvirt = one.log, one.libvirt
    forgotten: list[bool] = []
    one.journal = cast(Any, SimpleNamespace(forget=lambda: forgotten.append(True)))
    assert one.connect_again()
    assert one.log is not log and one.libvirt is libvirt
    assert forgotten, "it may have booted, and what is changed now has to be noted again"
    assert runner.calls[-3:] == ["close", "connect within 5 s", "stream the kernel log"]
    runner.error = LostNodeError("no ssh to nodea")
    assert not one.connect_again()


@pytest.mark.parametrize("why", ["silent", "away"])
def test_connect_again_not_to_a_node_that_was_silent_or_has_no_power(opened: Opened, why: str) -> None:
    runner = Runner()
    one = node(runner)
    if why == "silent":
        cast(Any, runner).silent = "nodea has answered nothing for 30 s"
    else:
        one.away = True
    assert not one.connect_again() and runner.calls == []


# --------------------------------------------------------------------------- a kernel log that was overrun


def followed(tmp_path: Path, *cats: str) -> str:
    """What is followed where ``cat`` does one of ``cats`` after the other."""
    for number, what in enumerate(cats):
        (tmp_path / f"{number}.sh").write_text(what)
    fake = tmp_path / "cat"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = /dev/kmsg ] || exit 9\ncd {tmp_path}\nn=$(ls | grep -c done); touch $n.done\n. ./$n.sh\n'
    )
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    argv = ["sh", "-c", module._FOLLOW]
    return subprocess.run(argv, capture_output=True, text=True, env={"PATH": path}, timeout=20, check=False).stdout


RECORDS = [f"6,{number},{number}000,-;line {number}\n" for number in range(6)]
OVERRUN = "echo 'cat: /dev/kmsg: Broken pipe' >&2; exit 1"


def echoed(*lines: str) -> str:
    return "printf '%s' '" + "".join(lines) + "'\n"


def test_kernel_log_that_was_overrun_is_opened_again(tmp_path: Path) -> None:
    text = followed(tmp_path, echoed(*RECORDS[:3]) + OVERRUN, echoed(*RECORDS[4:]) + "kill -PIPE $$")
    assert text == "".join([*RECORDS[:3], "\n", *RECORDS[4:]])


def test_kernel_log_whose_reader_is_gone_is_not_opened_again(tmp_path: Path) -> None:
    assert followed(tmp_path, echoed(RECORDS[0]) + "kill -PIPE $$", echoed(RECORDS[1])) == RECORDS[0]


def test_kernel_log_opened_again_has_each_record_once_and_shows_the_hole() -> None:
    stream = LineStream("kernel log", LogSift())
    dictionary = " SUBSYSTEM=block\n"
    again = [
        *RECORDS[:1],
        dictionary,
        *RECORDS[1:2],
        "\n",
        *RECORDS[:1],
        dictionary,
        *RECORDS[1:2],
        RECORDS[4],
        dictionary,
    ]
    for line in again:
        stream.append(line.removesuffix("\n"))
    lines = parse_kmsg("\n".join(stream.since(0)))
    assert [line.seq for line in lines] == [0, 1, 4] and missing(lines) == 2
    assert len(stream.since(0)) == 5, "a dictionary stays with its record"
