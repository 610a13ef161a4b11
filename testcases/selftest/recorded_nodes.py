"""Two nodes that answer with what DRBD printed: a real Node each, over a runner with a kernel log and an events2.

Nothing here is a test.  What the recordings lack is said where it is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

from harness.lab.node import Node
from harness.remote.base import Completed
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.ssh import SshRunner
from harness.remote.stream import LineStream
from harness.render.drbd_conf import SIGNATURE

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

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        """Keep what the command is given on its standard input."""
        self.given += [stdin] if stdin else []
        return super().run(argv, stdin=stdin, timeout=timeout, ok=ok)

    def stream(self, argv: Sequence[str], name: str) -> LineStream:
        """The kernel log; or events2, which begins with what was so before anybody followed it."""
        if argv[0] == "cat":
            return self.kernel
        assert list(argv[:-1]) == ["drbdsetup", "events2", "--timestamps", "--statistics"]
        self.followed += 1
        self.events = LineStream(name)
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

    def _look_up(self, argv: tuple[str, ...]) -> Answer:
        text = " ".join(argv)
        if "> /dev/kmsg" in text:
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
