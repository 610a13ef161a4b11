"""The guest's programs that dirty memory: what they leave behind, and what they say to bad input."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.images.programs import compile_program

PAGE, PAGES = 4096, 256
SOURCES = Path(__file__).parents[2] / "vm_images" / "src"

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {name: compile_program(SOURCES / f"{name}.c", folder) for name in ("mapstorm", "swapstorm")}


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def storm(program: Path, file: Path, enough: Callable[[dict[str, float]], bool], *arguments: str) -> dict[str, float]:
    """A mapstorm of 1 MiB that had enough of a processor; how much a second holds is for a busy machine to say."""
    facts: dict[str, float] = {}
    for seconds in ("1", "4", "16", "64"):
        argv = (program, "--file", str(file), "--mebibytes", "1", "--seconds", seconds, *arguments)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60 + 4 * int(seconds), check=True)
        facts = json.loads(done.stdout)
        if enough(facts):
            break
    return facts


def test_mmap_storm_file_size_kept_all_blocks_changed(programs: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    untouched = b"\xa5" * PAGE

    def changed() -> int:
        content = file.read_bytes()
        assert len(content) == PAGES * PAGE
        return sum(content[at : at + PAGE] != untouched for at in range(0, len(content), PAGE))

    enough = lambda facts: changed() > 200 and facts["rounds"] > 1  # noqa: E731
    facts = storm(programs["mapstorm"], file, enough, "--threads", "2")
    assert facts["pages_dirtied"] > 0 and facts["rounds"] > 1 and facts["cuts"] == facts["pages_truncated"] == 0
    assert changed() > 200, "of 256 pages, picked at random"


def test_truncate_storm_file_removed(programs: dict[str, Path], tmp_path: Path) -> None:
    def enough(facts: dict[str, float]) -> bool:
        assert list(tmp_path.iterdir()) == [], "else its blocks were not free and could not be dead"
        assert facts["pages_truncated"] <= facts["cuts"] * PAGES
        # A file that is laid out again takes some of the time, and its threads have to get a turn in 200 ms.
        return facts["cuts"] > 1 and facts["pages_truncated"] > PAGES

    facts = storm(programs["mapstorm"], tmp_path / "mapped", enough, "--cut-every", "200")
    assert enough(facts), f"also a second file is cut with changed pages: {facts}"


def test_pressure_storm_reclaims_only_when_requested(programs: dict[str, Path]) -> None:
    plain = run(programs["swapstorm"], "--mebibytes", "4", "--threads", "2", "--seconds", "1")
    asked = run(programs["swapstorm"], "--mebibytes", "4", "--threads", "2", "--seconds", "1", "--reclaim-every", "5")
    assert json.loads(plain.stdout)["pages_reclaimed"] == 0
    facts = json.loads(asked.stdout)
    # One pick in five is reclaimed and changed 16 times more; the last picks of two threads are no whole five.
    assert facts["pages_reclaimed"] * (5 + 16) == pytest.approx(facts["pages_dirtied"], rel=0.001, abs=2 * 4)


# --------------------------------------------------------------------------- a page that is not what was written


class Storm:
    """A swapstorm of 1 MiB that runs, and its memory."""

    def __init__(self, program: Path, *arguments: str) -> None:
        argv = [program, "--mebibytes", "1", "--threads", "2", *arguments]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        begins = time.monotonic()
        while self.start is None or self.page(PAGES - 1)[8:16] != (PAGES - 1).to_bytes(8, "little"):
            assert time.monotonic() < begins + 30, "its pages were never filled"
            time.sleep(0.01)

    @property
    def start(self) -> int | None:
        maps = Path(f"/proc/{self.process.pid}/maps").read_text()
        found = (re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line) for line in maps.splitlines())
        begins_and_ends = ((int(one[1], 16), int(one[2], 16)) for one in found if one)
        return next((begin for begin, end in begins_and_ends if end - begin == PAGES * PAGE), None)

    def page(self, number: int) -> bytes:
        assert self.start is not None
        with Path(f"/proc/{self.process.pid}/mem").open("rb", buffering=0) as memory:
            memory.seek(self.start + number * PAGE)
            return memory.read(PAGE)

    def change(self, number: int, offset: int, content: bytes) -> None:
        assert self.start is not None
        with Path(f"/proc/{self.process.pid}/mem").open("r+b", buffering=0) as memory:
            memory.seek(self.start + number * PAGE + offset)
            memory.write(content)

    def ended(self) -> tuple[dict[str, float], str]:
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return json.loads(out), err


def flipped_bit(storm: Storm) -> int:
    # The threads change the last word of each 64 bytes.
    storm.change(77, 128, bytes([storm.page(77)[128] ^ 4]))
    return 77


def another_page(storm: Storm) -> int:
    storm.change(77, 0, storm.page(80))
    return 77


def older_state(storm: Storm) -> int:
    older = storm.page(77)
    while storm.page(77)[16:24] == older[16:24]:
        time.sleep(0.01)
    storm.change(77, 0, older)
    return 77


@pytest.mark.parametrize("wrong", [flipped_bit, another_page, older_state])
def test_swapstorm_page_not_as_written_counted_and_named(
    programs: dict[str, Path], wrong: Callable[[Storm], int]
) -> None:
    storm = Storm(programs["swapstorm"], "--seconds", "2")
    number = wrong(storm)
    facts, errors = storm.ended()
    assert facts["pages_wrong"] == 1, "filled anew, it is right again"
    assert facts["pages_checked"] > 10 * PAGES and errors.startswith(f"swapstorm: page {number} is wrong: "), errors
    assert len(errors.splitlines()) == 1


def test_swapstorm_undisturbed_every_meeting_checked_nothing_wrong(programs: dict[str, Path]) -> None:
    done = run(
        programs["swapstorm"], "--mebibytes", "1", "--threads", "3", "--seconds", "1", "--reclaim-every", "5"
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert (facts["pages_wrong"], done.stderr) == (0, "")
    assert facts["pages_checked"] == facts["pages_dirtied"] and facts["pages_swapped_in_checked"] >= 0


def test_swapstorm_sweep_finds_page_that_storm_did_not_meet_again(programs: dict[str, Path]) -> None:
    plain = json.loads(run(programs["swapstorm"], "--mebibytes", "1", "--seconds", "1").stdout)
    swept = json.loads(run(programs["swapstorm"], "--mebibytes", "1", "--seconds", "1", "--sweep-seconds", "9").stdout)
    assert plain["pages_checked"] == plain["pages_dirtied"] and plain["sweep_seconds"] < 0.1
    assert swept["pages_checked"] == swept["pages_dirtied"] + PAGES and swept["sweep_seconds"] < 5, "once, not for 9 s"


# --------------------------------------------------------------------------- a page across a move of the machine

# In place of the kernel's: every second page is on the swap device and nowhere in memory, always; so is a page from the
# second time on that it is asked to go.
MINCORE = """
#include <stddef.h>
#include <sys/mman.h>
static unsigned char asked[65536];
int madvise(void *start, size_t length, int advice)
{
    for (size_t i = 0; advice == MADV_PAGEOUT && i < length / 4096; i++)
        asked[((unsigned long)start / 4096 + i) % 65536]++;
    return 0;
}
int mincore(void *start, size_t length, unsigned char *resident)
{
    for (size_t i = 0; i < length / 4096; i++) {
        unsigned long page = (unsigned long)start / 4096 + i;
        resident[i] = page % 2 && asked[page % 65536] < 2;
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def swapped_storm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swapped")
    (folder / "mincore.c").write_text(MINCORE)
    binary = folder / "swapstorm"
    sources = [str(SOURCES / "swapstorm.c"), str(folder / "mincore.c")]
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-pthread", "-o", binary, *sources], check=True)
    return binary


def told(moves: Path, mark: str) -> None:
    with moves.open("a") as file:
        file.write(mark)


def moved(program: Path, moves: Path, *marks: str, wrong: bool = False) -> tuple[dict[str, float], str]:
    """What a storm counts that is told ``marks`` once its time is over; ``wrong``: a page changes while it moves."""
    moves.unlink(missing_ok=True)
    storm = Storm(program, "--seconds", "1", "--sweep-seconds", "9", "--moves", str(moves))
    begins = time.monotonic()
    while not moves.exists():
        assert time.monotonic() < begins + 30, "it never stormed"
        time.sleep(0.001)
    # Its time goes on while it is stopped: when it goes on it is over, and nobody touches a page during the move.
    time.sleep(0.3)
    storm.process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    told(moves, marks[0])
    storm.process.send_signal(signal.SIGCONT)
    time.sleep(0.6)
    if wrong:
        assert storm.start is not None
        # Either of two neighbours is swapped out.
        for number in (76, 77):
            storm.change(number, 128, bytes([storm.page(number)[128] ^ 4]))
    for mark in marks[1:]:
        told(moves, mark)
    return storm.ended()


def test_swapstorm_pages_out_before_a_move_and_read_after_it_counted(swapped_storm: Path, tmp_path: Path) -> None:
    moves = tmp_path / "moves"
    facts, errors = moved(swapped_storm, moves, "b", "e")
    assert (facts["moves"], facts["pages_moved_wrong"], errors) == (1, 0, "")
    # The first eight pages are set aside; half of them were out already.
    assert facts["pages_put_out"] == 4
    out = PAGES / 2 + facts["pages_put_out"]
    assert facts["pages_out_before_moves"] == out
    assert out - 2 <= facts["pages_moved_checked"] <= out, "but for what two threads were busy with"
    assert not moves.exists(), "the next storm's is not there before it storms"


def test_swapstorm_page_wrong_after_a_move_counted(swapped_storm: Path, tmp_path: Path) -> None:
    facts, errors = moved(swapped_storm, tmp_path / "moves", "b", "e", wrong=True)
    assert (facts["pages_wrong"], facts["pages_moved_wrong"]) == (2, 1), errors
    assert "read from swap, is wrong" in errors


@pytest.mark.parametrize("marks", [("b", "x"), ("be",), ("x",), ("e",)])
def test_swapstorm_no_move_seen_from_before_it_to_its_end_counts_nothing(
    swapped_storm: Path, tmp_path: Path, marks: tuple[str, ...]
) -> None:
    facts, _ = moved(swapped_storm, tmp_path / "moves", *marks)
    assert facts["moves"] == facts["pages_moved_checked"] == 0


def test_swapstorm_page_met_during_a_move_is_no_page_that_moved(swapped_storm: Path, tmp_path: Path) -> None:
    moves = tmp_path / "moves"
    storm = Storm(swapped_storm, "--seconds", "3", "--sweep-seconds", "9", "--moves", str(moves))
    while not moves.exists():
        time.sleep(0.001)
    told(moves, "b")
    # Each of its 256 pages is met in a few milliseconds, even on a busy machine.
    time.sleep(2)
    told(moves, "e")
    facts, _ = storm.ended()
    assert facts["moves"] == 1 and facts["pages_out_before_moves"] == PAGES / 2 + facts["pages_put_out"]
    assert facts["pages_moved_checked"] == 8, "nobody meets those that are set aside"


def test_swapstorm_without_moves_says_nothing_of_them(programs: dict[str, Path]) -> None:
    facts = json.loads(run(programs["swapstorm"], "--mebibytes", "1", "--seconds", "1").stdout)
    assert not {"moves", "pages_moved_checked"} & set(facts)


@pytest.mark.parametrize(
    ("program", "arguments", "status", "sentence"),
    [
        ("mapstorm", ("--file", "/nowhere/x", "--mebibytes", "1"), 1, "mapstorm: cannot open /nowhere/x: "),
        ("mapstorm", ("--file", "x", "--mebibytes", "0"), 4, "--mebibytes must be a whole number from 1 to"),
        ("mapstorm", ("--mebibytes", "1"), 4, "usage: mapstorm"),
        ("swapstorm", ("--mebibytes", "1", "--reclaim-every", "-1"), 4, "--reclaim-every must be a whole number"),
        ("swapstorm", ("--mebibytes", "1", "--sweep-seconds", "0"), 4, "--sweep-seconds must be a whole number"),
        ("swapstorm", ("--mebibytes", "1", "--threads", "300"), 4, "--threads must be at most 256, the pages of"),
        ("swapstorm", ("--mebibytes", "1", "--moves", "/proc/x"), 1, "swapstorm: cannot "),
        ("swapstorm", (), 4, "usage: swapstorm"),
    ],
)
def test_storms_bad_input_one_sentence(
    programs: dict[str, Path], program: str, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    done = run(programs[program], *arguments)
    assert done.returncode == status and sentence in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", ["mapstorm", "swapstorm"])
def test_storm_seed_is_taken_and_a_wrong_one_refused(programs: dict[str, Path], tmp_path: Path, program: str) -> None:
    file = ("--file", str(tmp_path / "mapped")) if program == "mapstorm" else ()
    arguments = (*file, "--mebibytes", "2", "--threads", "2", "--seconds", "1", "--seed")
    done = run(programs[program], *arguments, "2147483647")
    assert done.returncode == 0 and json.loads(done.stdout)["pages_dirtied"] > 0
    for wrong in ("0", "2147483648", "seven"):
        refused = run(programs[program], *arguments, wrong)
        assert refused.returncode == 4 and "--seed must be a whole number from 1 to 2147483647" in refused.stderr


# The page is taken away before it is met: which access comes first is what the processor says of the fault.
_FIRST_ACCESS = """
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>
#define main storm_main
#include "swapstorm.c"
#undef main

enum { WRITES = 2 };

static void tell(int number, siginfo_t *about, void *context)
{
    (void)number, (void)about;
    _exit(((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & WRITES ? 0 : 9);
}

int main(void)
{
    struct sigaction action = { .sa_sigaction = tell, .sa_flags = SA_SIGINFO };
    struct tally tally = { 0 };
    thread_count = 1;
    set_up(PAGE, 0);
    fill(0);
    sigaction(SIGSEGV, &action, NULL);
    return mprotect(memory, PAGE, PROT_NONE) ? 1 : (meet(0, &tally), 2);
}
"""


def test_pressure_storm_writes_a_page_before_it_reads_it(tmp_path: Path) -> None:
    """Linux before 5.19 copies a page of the swap cache that was read first: a CLEAN that says nothing of DRBD."""
    (tmp_path / "first_access.c").write_text(_FIRST_ACCESS)
    for optimized in ("-O0", "-O2"):
        program = tmp_path / f"first-access{optimized}"
        source = tmp_path / "first_access.c"
        command = ["gcc", optimized, "-D_FORTIFY_SOURCE=0", "-pthread", "-I", SOURCES, "-o", program, source]
        subprocess.run(command, check=True)
        done = subprocess.run([program], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, {9: "read first", 2: "not met", 1: "mprotect"}.get(done.returncode)
