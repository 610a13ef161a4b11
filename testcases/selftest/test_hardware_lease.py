"""The lease of a machine: who holds it, who is refused, and what becomes of one that nobody gives back."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path

import pytest

from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.lease import Holder, Lease, broken, held, kept, shown
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.util.deadline import Deadline, poll

ADA, BOB = Holder("aa", "ada on desk", "run 1"), Holder("bb", "bob on shelf", "run 2")


def machine(name: str) -> Machine:
    """This one: the program needs no root for a folder of ours."""
    return Machine(name, LocalRunner(), sys.executable)


def test_lease_is_taken_shown_and_given_back(tmp_path: Path) -> None:
    folder, one = str(tmp_path / "lease"), machine("alpha")
    assert shown(one, folder) == "nobody holds its lease"
    assert not (tmp_path / "lease").exists(), "who only looks leaves nothing"
    with held([("1", one)], ADA, 600, folder):
        assert shown(one, folder).startswith("ada on desk holds its lease for 'run 1' until 20")
        with pytest.raises(
            ProtectedError, match=r"alpha is in use: ada on desk holds its lease .*; nothing was written"
        ):
            held([("1", one)], BOB, 600, folder).__enter__()
    assert shown(one, folder) == "nobody holds its lease"
    assert (tmp_path / "lease").stat().st_mode & 0o777 == 0o700


def test_second_of_two_machines_that_is_held_leaves_the_first_free(tmp_path: Path) -> None:
    # Both are this machine, so that the folder tells them apart.
    class Elsewhere(LocalRunner):
        def run(self, argv, **options):  # type: ignore[no-untyped-def]
            asked = json.loads(argv[-1])
            asked["folder"] += "-b"
            return super().run([*argv[:-1], json.dumps(asked)], **options)

    folder, a, b = str(tmp_path / "lease"), machine("alpha"), Machine("beta", Elsewhere(), sys.executable)
    with held([("2", b)], ADA, 600, folder):
        with pytest.raises(ProtectedError, match="beta is in use"):
            held([("2", b), ("1", a)], BOB, 600, folder).__enter__()
        assert shown(a, folder) == "nobody holds its lease"


@pytest.mark.parametrize("change", [{"until": 1}, {"boot": "before"}])
def test_lease_that_ended_or_is_of_an_earlier_boot_holds_nobody_off(tmp_path: Path, change: dict[str, object]) -> None:
    folder, one = str(tmp_path), machine("alpha")
    left = held([("1", one)], ADA, 600, folder)
    left.__enter__()
    path = tmp_path / "lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert shown(one, folder) == "nobody holds its lease"
    with held([("1", one)], BOB, 600, folder):
        assert shown(one, folder).startswith("bob")


def test_lease_that_is_broken_is_kept_in_a_log_and_not_given_back_by_its_former_holder(tmp_path: Path) -> None:
    folder, one = str(tmp_path), machine("alpha")
    with held([("1", one)], ADA, 600, folder):
        assert broken(one, BOB, folder).startswith("ada on desk holds its lease")
        taken = held([("1", one)], BOB, 600, folder)
        taken.__enter__()
    assert shown(one, folder).startswith("bob"), "ada's giving back did not take it from him"
    (entry,) = (json.loads(line) for line in (tmp_path / "leases.log").read_text().splitlines())
    assert (entry["broken"]["owner"], entry["by"]["owner"]) == ("ada on desk", "bob on shelf")


def test_lease_is_given_to_one_of_many_who_take_it_at_once(tmp_path: Path) -> None:
    one, won = machine("alpha"), []

    def take(number: int) -> None:
        lease = held([("1", one)], Holder(str(number), "x", "y"), 600, str(tmp_path))
        with contextlib.suppress(ProtectedError):
            lease.__enter__()
            won.append(lease)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_lease_that_cannot_be_read_is_an_error_and_no_lease() -> None:
    for answer in ((1, "", "Permission denied"), (0, "what?", ""), (0, "[1]", "")):
        runner = ScriptedRunner(lambda argv, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(InfrastructureError, match="the lease of alpha cannot be read"):
            shown(Machine("alpha", runner))


def test_lease_of_a_run_is_renewed_until_its_end_and_a_broken_one_ends_all_writing(tmp_path: Path) -> None:
    folder, one = str(tmp_path), machine("alpha")
    path = tmp_path / "lease.json"
    with kept([("1", one)], ADA, folder, every=0.05) as lease:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"until": 2**40}))
        poll(lambda: json.loads(path.read_text())["until"] < 2**40 or None, Deadline.after(30, "a renewal"))
        lease.require()
        broken(one, BOB, folder)
        with held([("1", one)], BOB, 600, folder):
            poll(lambda: lost(lease), Deadline.after(30, "the loss of the lease"))
            with pytest.raises(ProtectedError, match=r"alpha.*nothing more is written"):
                lease.require()
    assert shown(one, folder) == "nobody holds its lease"


def lost(lease: Lease) -> bool | None:
    try:
        lease.require()
    except ProtectedError:
        return True
    return None


def test_lease_that_nobody_holds_is_not_renewed(tmp_path: Path) -> None:
    folder, one = str(tmp_path), machine("alpha")
    with kept([("1", one)], ADA, folder, every=0.05) as lease:
        broken(one, BOB, folder)
        poll(lambda: lost(lease), Deadline.after(30, "the loss of the lease"))
        assert shown(one, folder) == "nobody holds its lease"
