"""The canary: the controller's side of it, over both nodes and the guest, and the scripts that run there."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from canary_records import BLOCKS, RUN

from harness.config.lab_spec import GuestSpec
from harness.errors import CommandError, DeadlineError, InfrastructureError, LostGuestError
from harness.guest import canary as module
from harness.guest.canary import PORT, PROGRAM, CanaryWatch, Region
from harness.parse.canary import sealed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.stream import LineStream

SPEC = GuestSpec()


class NodeRunner(ScriptedRunner):
    """A node whose streams are fed by the test."""

    def __init__(self, host: str) -> None:
        super().__init__(lambda _: (0, "", ""), host)
        self.streams: list[LineStream] = []

    def stream(self, argv: Sequence[str], name: str) -> LineStream:
        self.ran.append(tuple(argv))
        self.streams.append(LineStream(f"{name} on {self.host}"))
        return self.streams[-1]


@dataclass
class FakeNode:
    name: str
    runner: NodeRunner

    def says(self, *texts: str, run: int = RUN) -> None:
        for text in texts:
            self.runner.streams[-1].append(sealed(text, run))


@pytest.fixture
def nodes() -> list[FakeNode]:
    return [FakeNode(name, NodeRunner(name)) for name in ("nodea", "nodeb")]


@pytest.fixture
def watch(nodes: list[FakeNode]) -> CanaryWatch:
    return CanaryWatch(nodes, Region(1000, BLOCKS), RUN, SPEC)


class GuestRunner(ScriptedRunner):
    """A guest with the port; its canary speaks through ``node`` when it starts and when it is stopped."""

    def __init__(self, node: FakeNode, check: str = "") -> None:
        super().__init__(self._do, "guest")
        self.node = node
        self.check = check
        self.port = "/dev/vport1p2\n"
        self.running = True
        self.silent = False

    def _do(self, argv: tuple[str, ...]) -> Answer:
        if argv[:2] == (PROGRAM, "check"):
            return 0, self.check, ""
        if argv[:2] == (PROGRAM, "run") and not self.silent:
            self.node.says("ack fsync 1 10", "ack dsync 1 11", "ack direct 1 12")
        if argv[0] == "sh" and argv[-1] == PORT:
            return 0, self.port, ""
        if argv[0] == "sh" and argv[-1] == SPEC.canary_pid_file:
            if not self.running:
                return 2, "", f"cat: {SPEC.canary_pid_file}: No such file or directory\nsh: 1: kill: Illegal number: \n"
            if not self.silent:
                self.node.says("tick 400 20 0", "done 4116 0")
        return 0, "", ""


def test_region_at_end_last_blocks_of_device() -> None:
    assert Region.at_end(10_000, 1536) == Region(10_000 - 1536, 1536)
    assert Region.at_end(100, 30) == Region(70, 30)
    with pytest.raises(InfrastructureError, match="a device of 30 blocks has no room for a canary's 30"):
        Region.at_end(30, 30)


def test_canary_watch_start_follows_both_nodes_first(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    for node in nodes:
        assert node.runner.ran[0] == ("truncate", "-s", "0", SPEC.canary_log)
        (followed,) = [argv for argv in node.runner.ran if SPEC.canary_log in argv and argv[0] == "sh"]
        assert "exec tail -n +1 -F" in followed[2]
    (started,) = [argv for argv in guest.ran if argv[:2] == (PROGRAM, "run")]
    options = dict(zip(started[2::2], started[3::2], strict=True))
    assert options == {
        "--device": "/dev/vdb", "--first-block": "1000", "--blocks": str(BLOCKS), "--port": "/dev/vport1p2",
        "--run": str(RUN), "--mebibytes": "16", "--pid-file": SPEC.canary_pid_file,
    }  # fmt: skip


def test_canary_watch_start_no_port_infrastructure_error(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    guest.port = "\n"
    with pytest.raises(InfrastructureError, match=f"no virtio port with the name {PORT}"):
        watch.start(guest, "/dev/vdb")
    assert not any(argv[0] == PROGRAM for argv in guest.ran)


def test_canary_watch_start_no_message_deadline_error(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_MESSAGE_SECONDS", 0.05)
    guest = GuestRunner(nodes[0])
    guest.silent = True
    watch.follow(nodes[0])
    nodes[0].says("ack fsync 1 10", run=RUN + 1)
    with pytest.raises(DeadlineError, match="the first acknowledgement of the canary"):
        watch.start(guest, "/dev/vdb")


def test_canary_watch_report_combines_both_nodes_and_disk(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0], "fsync 0 ok 1\nfsync 1 ok 2\ndsync 0 ok 1\n")
    watch.start(guest, "/dev/vdb")
    guest.node = nodes[1]
    nodes[1].says("ack fsync 2 30", "ack dsync 2 31", run=RUN)
    watch.stop(guest)
    found = watch.report(guest, "/dev/vdc")
    assert found.acknowledged == {"fsync": 2, "dsync": 2, "direct": 1}
    assert found.lost == {"fsync": 0, "dsync": 1, "direct": 1}
    assert (found.survived, found.memory_checked) == (True, 4116)
    checked = (PROGRAM, "check", "--device", "/dev/vdc", "--first-block", "1000", "--blocks", str(BLOCKS),
               "--run", str(RUN))  # fmt: skip
    assert guest.ran[-1] == checked
    lines = watch.transcript().splitlines()
    assert lines[0] == sealed("ack fsync 1 10", RUN) and lines[-1] == sealed("done 4116 0", RUN) and len(lines) == 7


def test_canary_watch_node_lost_and_back_lines_kept(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0], "fsync 0 ok 1\n")
    watch.start(guest, "/dev/vdb")
    nodes[0].says("ack fsync 2 30")
    nodes[0].runner.streams[0].append(sealed("ack fsync 3 50", RUN)[:-3])
    nodes[0].runner.streams[0].end("the node died")
    watch.follow(nodes[0])
    assert [argv[0] for argv in nodes[0].runner.ran].count("truncate") == 1
    nodes[0].says("ack fsync 1 10")
    found = watch.report(guest, "/dev/vdb")
    assert found.acknowledged["fsync"] == 2 and found.lost["fsync"] == 1 and not found.survived
    assert watch.report(guest, "/dev/vdb", survived=True).survived


def test_canary_watch_report_uses_arrival_times(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    time.sleep(0.5)
    # A guest that was paused: its clock stood still.
    nodes[0].says("ack fsync 2 30", "tick 40 1 0")
    guest.silent = True
    deadline = time.monotonic() + 10
    while len(watch._followed[0].arrivals) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0.4 < watch.report(guest, "/dev/vdb").longest_gap_seconds < 10


def test_canary_watch_stop_dead_canary_lost_guest(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    guest.running = False
    with pytest.raises(LostGuestError, match="the canary in guest is not running any more"):
        watch.stop(guest)


def test_canary_watch_stop_no_last_message_deadline_error(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = GuestRunner(nodes[0])
    watch.start(guest, "/dev/vdb")
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    guest.silent = True
    with pytest.raises(DeadlineError, match="the canary's last message"):
        watch.stop(guest)


def test_canary_watch_report_unreadable_region_infrastructure_error(watch: CanaryWatch, nodes: list[FakeNode]) -> None:
    with pytest.raises(InfrastructureError, match="what the canary found on the disk is unreadable"):
        watch.report(GuestRunner(nodes[0], "fsync 99 ok 1\n"), "/dev/vdb")
    broken = ScriptedRunner(lambda _: (1, "", "canary: read /dev/vdb at block 7: Input/output error\n"))
    with pytest.raises(CommandError, match="at block 7"):
        watch.report(broken, "/dev/vdb")


def test_canary_watch_close_ends_followers_dead_node_ignored(
    watch: CanaryWatch, nodes: list[FakeNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch.follow(nodes[0])
    watch.follow(nodes[1])
    tail_file = nodes[0].runner.ran[-1][-1]
    monkeypatch.setattr(nodes[1].runner, "_answer", lambda _: 1 / 0)
    monkeypatch.setattr(
        nodes[1].runner, "run", lambda *_, **__: (_ for _ in ()).throw(InfrastructureError("nodeb is gone"))
    )
    watch.close()
    assert nodes[0].runner.ran[-1][:2] == ("sh", "-c") and nodes[0].runner.ran[-1][-1] == tail_file
    assert "kill" in nodes[0].runner.ran[-1][2]


def shell(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    argv = ["sh", "-c", script, "sh", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_find_port_script_several_ports_named_one(tmp_path: Path) -> None:
    for port, name in (("vport1p1", "org.qemu.guest_agent.0"), ("vport1p2", PORT), ("vport1p3", f"{PORT}0")):
        (tmp_path / port).mkdir()
        (tmp_path / port / "name").write_text(f"{name}\n")
    (tmp_path / "vport1p0").mkdir()
    script = module._FIND_PORT.replace("/sys/class/virtio-ports", str(tmp_path))
    assert (found := shell(script, PORT)).stdout == "/dev/vport1p2\n" and found.returncode == 0
    assert (found := shell(script, "another")).stdout == "" and found.returncode == 0
    assert shell(script.replace(str(tmp_path), str(tmp_path / "none")), PORT).returncode == 0


def test_follow_script_growing_file_from_start_until_left(tmp_path: Path) -> None:
    acks_file, pid_file = tmp_path / "acks", tmp_path / "pid"
    argv = ["sh", "-c", module._FOLLOW, "sh", str(acks_file), str(pid_file)]
    acks_file.write_text("one\n")
    got: list[str] = []
    came = threading.Event()

    def read(stream: Iterator[str]) -> None:
        for line in stream:
            got.append(line)
            came.set()

    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        reader = threading.Thread(target=read, args=(tail.stdout,), daemon=True)
        reader.start()
        assert came.wait(10)
        with acks_file.open("a") as file:
            file.write("two\n")
        deadline = time.monotonic() + 10
        while len(got) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert shell(module._UNFOLLOW, pid_file).returncode == 0
        assert tail.wait(10) != 0
        reader.join(10)
    assert got == ["one\n", "two\n"] and not pid_file.exists()
