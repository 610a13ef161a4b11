"""The lease of a machine: who holds it, who is refused, and what becomes of one that nobody gives back."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.lease import KEPT_SECONDS, Holder, Lease, broken, held, kept, shown
from harness.lab.hardware.own import this_owner
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.util.deadline import Deadline, poll
from harness.util.process_identity import ProcessIdentity

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


def test_user_without_a_name_holds_a_lease_by_his_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a container that runs as a user whom nobody made there.
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert Holder.of_this_process("x").owner.startswith(f"{os.getuid()} on ")
    assert this_owner().startswith(f"{os.getuid()}@")


def test_lease_that_nobody_could_renew_for_as_long_as_it_lasts_ends_all_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after a controller that was suspended, before it could ask anybody.
    with kept([("1", machine("alpha"))], ADA, str(tmp_path), every=3600) as lease:
        lease.require()
        later = time.clock_gettime(time.CLOCK_BOOTTIME) + KEPT_SECONDS + 1
        monkeypatch.setattr("harness.lab.hardware.lease._now", lambda: later)
        with pytest.raises(ProtectedError, match="lease of alpha has run out unrenewed; nothing more is written"):
            lease.require()
        lease.renew()
        lease.require()


def test_lease_is_ensured_unless_somebody_else_has_it_by_now(tmp_path: Path) -> None:
    folder, one = str(tmp_path), machine("alpha")
    lease = Lease([one], ADA, folder)
    lease.ensure("alpha")
    assert shown(one, folder).startswith("ada on desk")
    lease.ensure("alpha")
    broken(one, BOB, folder)
    with held([("1", one)], BOB, 600, folder):
        with pytest.raises(ProtectedError, match="alpha is in use: bob on shelf"):
            lease.ensure("alpha")
        assert shown(one, folder).startswith("bob")
    lease.ensure("alpha")
    assert shown(one, folder).startswith("ada")


# --------------------------------------------------------------------------- of a process that has ended


# Another process takes the lease of this machine as a command of the harness does, and says so.
_HOLDS = """
import sys
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.lease import Holder, held
from harness.remote.local import LocalRunner
machine = Machine("alpha", LocalRunner(), sys.executable)
with held([("1", machine)], Holder.of_this_process("a run on lab"), 900, sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def another(folder: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """Another process of this controller, which holds the lease until it is killed; ``before`` runs it."""
    argv = [*before, sys.executable, "-c", _HOLDS, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def edit(folder: Path, **change: object) -> None:
    path = folder / "lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def refused(folder: Path) -> bool:
    try:
        with held([("1", machine("alpha"))], Holder.of_this_process("mine"), 600, str(folder)):
            return False
    except ProtectedError:
        return True


def test_lease_of_a_killed_process_of_this_controller_is_taken_over_said_and_kept_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = machine("alpha")
    with another(tmp_path) as process:
        assert refused(tmp_path), "it lives"
    assert shown(one, str(tmp_path)).endswith("has ended: the next command here takes it over")
    with caplog.at_level("INFO", "harness.progress"), held([("1", one)], BOB, 600, str(tmp_path)):
        assert shown(one, str(tmp_path)).startswith("bob on shelf holds its lease")
    (said,) = caplog.messages
    # The first words, since a line for people is cut.
    assert said.startswith(f"the lease of alpha is taken over: process {process.pid} here, of ")
    assert said.endswith("for 'a run on lab', has ended")
    (entry,) = (json.loads(line) for line in (tmp_path / "leases.log").read_text().splitlines())
    assert (entry["broken"]["what"], entry["broken"]["pid"]) == ("a run on lab", process.pid)
    assert (entry["by"]["owner"], entry["why"]) == ("bob on shelf", "its process has ended")


def test_lease_of_a_process_that_is_killed_and_that_nobody_has_waited_for_is_taken_over(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        poll(lambda: not refused(tmp_path) or None, Deadline.after(30, "the end of the process"))
        assert process.returncode is None, "it is a zombie"


def test_number_of_the_holder_that_is_another_process_s_by_now_is_no_holder(tmp_path: Path) -> None:
    with another(tmp_path) as process:
        started = ProcessIdentity.of_this_process().started
        edit(tmp_path, started=started)
        assert process.poll() is None and not refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"controller": "0" * 32}, {"controller": ""}, {"controller": 7}, {"pid": 0}, {"pid": -1}, {"pid": 2**70},
     {"pid": "1"}, {"started": None}],
)  # fmt: skip
def test_lease_of_which_it_cannot_be_told_is_not_taken_over(tmp_path: Path, change: dict[str, object]) -> None:
    with another(tmp_path):
        pass
    edit(tmp_path, **change)
    assert refused(tmp_path) and not (tmp_path / "leases.log").exists()
    assert "has ended" not in shown(machine("alpha"), str(tmp_path))


def test_lease_of_another_controller_is_never_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with another(tmp_path):
        pass
    # As if the same file system and numbers were another machine's.
    monkeypatch.setattr("harness.util.process_identity.platform.node", lambda: "elsewhere")
    assert refused(tmp_path)
    monkeypatch.undo()
    assert not refused(tmp_path)


@pytest.mark.parametrize("proc", [(), ("--mount-proc",)])
def test_lease_of_a_process_in_another_pid_namespace_is_not_taken_over(tmp_path: Path, proc: tuple[str, ...]) -> None:
    # As in a container: its numbers are others than those that are seen here, or /proc shows it those that are.
    apart = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", *proc)
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare of PID namespaces")
    with another(tmp_path, *apart):
        assert refused(tmp_path)
    assert refused(tmp_path)


def test_lease_that_somebody_took_in_the_meantime_is_not_taken_from_him(tmp_path: Path) -> None:
    class Slow(LocalRunner):
        def run(self, argv, **options):  # type: ignore[no-untyped-def]
            if "over" in json.loads(argv[-1]):
                edit(tmp_path, id="another", owner="eve on desk")
            return super().run(argv, **options)

    with another(tmp_path):
        pass
    taking = held([("1", Machine("alpha", Slow(), sys.executable))], BOB, 600, str(tmp_path))
    with pytest.raises(ProtectedError, match="alpha is in use: eve on desk holds its lease"):
        taking.__enter__()
    assert not (tmp_path / "leases.log").exists()


def test_lease_without_an_id_is_nobody_s_who_is_known_to_have_ended(tmp_path: Path) -> None:
    with held([("1", machine("alpha"))], ADA, 600, str(tmp_path)):
        edit(tmp_path, id=None)
        assert refused(tmp_path)
