"""Two nodes that answer with what DRBD printed: a real Node each, over a runner with a kernel log and an events2.

Nothing here is a test.  What the recordings lack is said where it is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from harness.drbd.resource import Resource
from harness.lab.node import Node
from harness.remote.base import Completed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.ssh import SshRunner
from harness.remote.stream import LineStream
from harness.render.drbd_conf import SIGNATURE, ResourceSpec

RECORDINGS = Path(__file__).parent / "recordings"
DRBD_84 = RECORDINGS / "drbd-8.4.11-linux-6.12"
DRBD_9 = RECORDINGS / "drbd-9.3.3-linux-6.12"

Answers = Mapping[str, Answer | str]

ADDRESSES = {"nodea": "192.168.77.1", "nodeb": "192.168.77.2"}

# Written after the source of drbd-utils: no `drbdsetup show` of DRBD 9 was recorded.
SHOW_9 = """\
resource "r0" {
    _this_host {
        node-id\t\t\t0;
        volume 0 {
            device\t\t\tminor 0;
            disk\t\t\t"/dev/mapper/drbd-lower";
            meta-disk\t\t\tinternal;
            disk {
                disk-flushes    \tno;
            }
        }
    }
    connection {
        _peer_node_id 1;
        path {
            _this_host ipv4 192.168.77.1:7789;
            _remote_host ipv4 192.168.77.2:7789;
        }
        net {
            max-buffers     \t8192;
            verify-alg      \t"crc32c";
            _name           \t"nodeb";
        }
        volume 0 {
            disk {
                resync-rate     \t716800k; # bytes/second
            }
        }
    }
}
"""
SHOW_84 = (DRBD_84 / "show-defaults.txt").read_text()


def mirrored(show: str) -> str:
    """As the other node shows it: the addresses swapped.  The recordings are of one node."""
    a, b = ADDRESSES.values()
    swapped = show.replace(a, "a.a.a.a").replace(b, a).replace("a.a.a.a", b)
    return swapped.replace('"nodeb"', '"nodea"').replace("_peer_node_id 1", "_peer_node_id 0")


def mirrored_status(text: str) -> str:
    """The JSON status as the other node prints it.  The recording is of one node."""
    a = text.replace('"role": "Primary"', '"role": "was"').replace('"peer-role": "Secondary"', '"peer-role": "Primary"')
    return a.replace('"role": "was"', '"role": "Secondary"').replace('"name": "nodeb"', '"name": "nodea"')


def kmsg(dmesg: str, first: int = 1000) -> str:
    """The lines of ``dmesg`` as ``/dev/kmsg`` prints them; of DRBD 9 only the former was recorded."""
    records = [line.removeprefix("[").split("] ", 1) for line in dmesg.splitlines() if line.startswith("[")]
    return "".join(
        f"6,{number},{round(float(seconds) * 1e6)},-;{text}\n" for number, (seconds, text) in enumerate(records, first)
    )


class RecordedRunner(ScriptedRunner):
    """Runs nothing: looks a command up in ``answers`` and lets ``happens`` follow, by a piece of the command line.

    ``happens`` maps to what the command brings about in events2 and the kernel log; ``given`` is what commands got on
    their standard input.
    """

    def __init__(self, name: str) -> None:
        super().__init__(self._look_up, name)
        self.given: list[str] = []
        self.answers: dict[str, Answer | str] = {}
        self.happens: dict[str, Callable[[], object]] = {}
        self.kernel = LineStream("kernel log")
        self.events = LineStream("events2")
        self.before: list[str] = []
        self.followed = 0
        self.read = True

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Keep what the command is given on its standard input."""
        self.given += [stdin] if stdin else []
        return super().run(argv, stdin=stdin, timeout=timeout, ok=ok)

    def stream(self, argv: Sequence[str], name: str, sift: Callable[[str], Iterable[str]] | None = None) -> LineStream:
        """The kernel log; or events2, which begins with what was so before anybody followed it."""
        if name == "kernel log":
            return self.kernel
        assert list(argv[:-1]) == ["drbdsetup", "events2", "--timestamps", "--statistics"]
        self.followed += 1
        self.events = LineStream(name, sift)
        self.tell(*self.before)
        return self.events

    def tell(self, *lines: str) -> None:
        """Events2 prints ``lines``."""
        for line in lines:
            self.events.append(line)

    def log(self, text: str) -> None:
        """The kernel logs ``text``."""
        for line in text.splitlines():
            self.kernel.append(line)

    def lose(self, stream: str, why: str) -> None:
        """The connection over which ``stream`` (events or kernel) comes is lost; nothing more comes over it."""
        lost: LineStream = getattr(self, stream)
        lost.end(why)
        self.read = self.read and stream != "kernel"

    def _look_up(self, argv: tuple[str, ...]) -> Answer:
        text = " ".join(argv)
        if "> /dev/kmsg" in text:
            if not self.read:
                return 0, "", ""
            self.kernel.append(f"12,{self.kernel.cursor()},1,-;{argv[-1]}")
            return 0, "", ""
        for piece, follow in self.happens.items():
            if piece in text:
                follow()
        for piece, answer in self.answers.items():
            if piece in text:
                return (0, answer, "") if isinstance(answer, str) else answer
        return 0, "", ""

    def drbd(self) -> list[str]:
        """The commands of DRBD that were run, in order, without those that only read."""
        ran = [" ".join(argv) for argv in self.ran]
        reading = ("drbdsetup status", "drbdsetup show")
        return [line for line in ran if line.startswith("drbd") and not line.startswith(reading)]


def node(name: str) -> tuple[Node, RecordedRunner]:
    """A node of the lab and the runner behind it."""
    runner = RecordedRunner(name)
    return Node(name, cast(SshRunner, runner), "repl0", ADDRESSES[name], "/dev/vdb", "test:///default"), runner


def running(
    name: str, generation: str, answers: Mapping[str, Answer | str] | None = None
) -> tuple[Node, RecordedRunner]:
    """A node on which the harness's resource runs, Connected, after a verify; ``answers`` come first."""
    one, runner = node(name)
    proc = (DRBD_84 / f"proc-drbd-planted-{name}.txt") if generation == "8.4" else (DRBD_9 / "proc-drbd.txt")
    status = (DRBD_9 / "status-after-verify.json").read_text()
    show = SHOW_84 if generation == "8.4" else SHOW_9
    if name == "nodeb":
        show, status = mirrored(show), mirrored_status(status)
    recorded = {
        "/proc/drbd": proc.read_text(),
        "drbdsetup status": status,
        # With --show-defaults or without: the same text, which is what the former prints for 8.4.
        "--show-defaults": f"{show}== parameter\nN\n== link\nscatter-gather: on\n",
        "drbdsetup show": f"{show}== file\n{SIGNATURE}\n",
        "dmsetup table": "254:16\n0 262144 linear 254:16 0\n",
        "/sys/class/block/drbd0/size": "262064\n",
    }
    runner.answers = {**(answers or {}), **recorded, **(answers or {})}
    recorded = (
        DRBD_84 / f"events2-planted-{name}.txt" if generation == "8.4" else DRBD_9 / "events2-first-sync-and-verify.txt"
    )
    runner.before = recorded.read_text().splitlines()
    return one, runner


def adopted(generation: str, spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource that runs, with nothing recorded of how it was taken over."""
    (a, on_a), (b, on_b) = running("nodea", generation), running("nodeb", generation)
    resource = Resource.adopt(a, b, spec=spec)
    on_a.ran.clear()
    on_b.ran.clear()
    return resource, on_a, on_b


def events_between(name: str, begin: str, end: str, behind: str = "") -> list[str]:
    """The recorded events from the first line with ``begin`` (behind the line ``behind``) to the next with ``end``."""
    lines = (DRBD_84 / name if "planted" in name else DRBD_9 / name).read_text().splitlines()
    lines = lines[lines.index(behind) + 1 :] if behind else lines
    first = next(number for number, line in enumerate(lines) if begin in line)
    last = next(number for number, line in enumerate(lines[first + 1 :], first + 1) if end in line)
    return lines[first : last + 1]


@dataclass
class RecordedVerify:
    """A verify that ran to its end: what events2 told on the node that began it, and the lines of both kernel logs."""

    events: list[str]
    source: list[str]
    target: list[str]

    @property
    def logs(self) -> tuple[list[str], list[str]]:
        """Both kernel logs, to be changed in place."""
        return self.source, self.target


def recorded_verify(generation: str) -> RecordedVerify:
    """The verify of planted changes (8.4), and the one after a workload that modified its buffers (9)."""
    name = "events2-planted-nodea.txt" if generation == "8.4" else "events2-first-sync-and-verify.txt"
    events = events_between(name, "replication:VerifyS", "replication:Established")
    sides = ("source", "target")
    if generation == "8.4":
        logs = [(DRBD_84 / f"kmsg-planted-verify-{side}.txt").read_text() for side in sides]
    else:
        logs = [kmsg((DRBD_9 / f"dmesg-verify-{side}.txt").read_text()) for side in sides]
    return RecordedVerify(events, *(log.splitlines() for log in logs))


#: A piece of the command that begins a verify.
START_VERIFY = {"8.4": "--start=0 verify r0/0", "9": "verify --start=0 r0/0"}


def verified(
    generation: str, spec: ResourceSpec | None = None, change: Callable[[RecordedVerify], object] = lambda _: None
) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource whose next verify goes as the recorded one did, but for what ``change`` makes of it."""
    resource, on_a, on_b = adopted(generation, spec)
    recorded = recorded_verify(generation)
    change(recorded)

    def begin() -> None:
        on_a.log("\n".join(recorded.source))
        on_b.log("\n".join(recorded.target))
        on_a.tell(*recorded.events)

    on_a.happens[START_VERIFY[generation]] = begin
    return resource, on_a, on_b
