"""``drbd-harness clean --inventory``: what is noted on two machines is listed and put back, also where one is gone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from journal_machine import ADA
from test_inventory_command import OneMachine, Two, two

from harness.cli import main as cli
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.guest_image import images_journal
from harness.lab.hardware.journal import Journal
from harness.model.changes import ChangeKind
from harness.remote.local import LocalRunner

__all__ = ["two"]


@dataclass
class Noted:
    """The journals of both machines in folders of the test's, which their real programs keep."""

    two: Two
    folder: Path

    def journal(self, name: str, lab: str = "test") -> Journal:
        return Journal(Machine(name, LocalRunner()), lab, ADA, folder=str(self.folder / name))

    def clean(self, *options: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["drbd-harness", "clean", "--inventory", str(self.two.path), *options])
            with pytest.raises(SystemExit) as caught:
                cli.main()
        return int(caught.value.code or 0)

    def made(self, name: str, lab: str = "test") -> Path:
        """A file that a run of the lab, which was killed, made on a machine."""
        path = self.folder / f"made-on-{name}-by-{lab}"
        self.journal(name, lab).note(ChangeKind.FILE, str(path), "begins # ours")
        path.write_text("# ours\n")
        return path


@pytest.fixture
def noted(two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Noted:
    two.pin()
    found = Noted(two, tmp_path / "machines")
    found.folder.mkdir()

    def answer(machine: OneMachine, argv: tuple[str, ...]) -> tuple[int, str, str]:
        asked = json.loads(argv[-1]) if argv[0] == "python3" else {}
        if asked.get("act") not in ("note", "list", "put-back", "drop", "end-commands"):
            return before(machine, argv)
        name = "alpha" if machine is two.machines[0] else "beta"
        assert asked["folder"] == "/var/lib/drbd-harness"
        kept = found.journal(name, asked["lab"])._run(
            asked.pop("act"), 60, **{key: value for key, value in asked.items() if key in ("skip", "stuck", "number")}
        ) if asked["act"] != "end-commands" else None  # fmt: skip
        return (kept.status, kept.stdout, kept.stderr) if kept is not None else (0, '{"failed": []}', "")

    before = OneMachine._answer
    monkeypatch.setattr(OneMachine, "_answer", answer)
    capsys.readouterr()
    return found


def test_clean_puts_back_what_a_killed_run_of_this_lab_noted_and_no_other_labs(
    noted: Noted, capsys: pytest.CaptureFixture[str]
) -> None:
    on_alpha, on_beta, of_another = noted.made("alpha"), noted.made("beta"), noted.made("beta", "other")
    assert noted.clean("--dry-run") == 0
    said = capsys.readouterr().out
    assert f"alpha: 1: file {on_alpha}, by ada on desk on 20" in said and f"by hand: rm {on_beta}\n" in said
    assert "other" not in said and on_alpha.exists() and noted.two.machines[0].leases == []
    assert noted.clean() == 0
    said = capsys.readouterr().out
    # What a comparison brought there too.
    programs = ("rm", "-rf", "--", "/var/lib/drbd-harness/programs")
    assert all(machine.ran.count(programs) == 1 for machine in noted.two.machines), "not for --dry-run"
    assert f"alpha: file {on_alpha}: put back\n" in said and f"beta: file {on_beta}: put back\n" in said
    assert not on_alpha.exists() and not on_beta.exists() and of_another.exists()
    assert noted.two.machines[0].leases == noted.two.machines[1].leases == ["take", "give"]
    assert noted.clean() == 0
    assert "beta: nothing of the lab test is noted\n" in capsys.readouterr().out


def test_clean_takes_the_image_of_guests_back_which_runs_leave_there(
    noted: Noted, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = noted.folder / "beta"
    journal = images_journal(Machine("beta", LocalRunner()), "test", ADA, str(folder))
    journal.note(ChangeKind.PROGRAMS, f"{folder}/images")
    (folder / "images" / "d").mkdir(parents=True)
    assert noted.journal("beta").entries() == (), "what keeps no later run from beginning"
    assert noted.clean("--dry-run") == 0 and f"programs {folder}/images, by ada on desk" in capsys.readouterr().out
    assert noted.clean() == 0 and not (folder / "images").exists()
    assert f"beta: programs {folder}/images: put back\n" in capsys.readouterr().out


def test_clean_with_one_machine_out_of_reach_does_the_other_and_says_so(
    noted: Noted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.lab.hardware.machines.CONNECT_SECONDS", 1.0)
    on_alpha, on_beta = noted.made("alpha"), noted.made("beta")
    noted.two.machines[0].close()
    assert noted.clean() == 2
    said = capsys.readouterr().out
    assert said.startswith("not reached: ") and "what was changed there stays as it is, and noted there" in said
    assert on_alpha.exists() and not on_beta.exists() and "power" not in said
    text = noted.two.path.read_text()
    noted.two.path.write_text(text.replace("[hosts.alpha]", '[hosts.alpha]\npower = { command = ["./switch"] }'))
    assert noted.clean("--dry-run") == 2
    assert f"inventory {noted.two.path} --power-status' says whether they have power\n" in capsys.readouterr().out


def test_clean_leaves_all_as_it_is_while_somebody_holds_the_lease(
    noted: Noted, capsys: pytest.CaptureFixture[str]
) -> None:
    made = noted.made("beta")
    noted.two.machines[1].lease = {"owner": "bob on shelf", "what": "run 2"}
    assert noted.clean() == 2
    assert "beta is in use: bob on shelf holds its lease for 'run 2'" in capsys.readouterr().err
    assert made.exists() and noted.clean("--dry-run") == 0


def test_clean_that_cannot_put_one_back_ends_with_2_and_it_stays_noted(
    noted: Noted, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = noted.made("beta")
    theirs.unlink()
    theirs.mkdir()
    noted.journal("beta").note(ChangeKind.FILE, str(noted.folder / "x"), "begins # ours")
    (path,) = (noted.folder / "beta" / "journal").glob("*2.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "firewall", "what": "ipchains input -j ACCEPT"}))
    assert noted.clean() == 2
    said = capsys.readouterr().out
    assert "beta: firewall ipchains input -j ACCEPT cannot be put back: there is no firewall 'ipchains'\n" in said
    assert f"beta: file {theirs} stays: somebody else has changed it since\n" in said
    assert [one.what for one in noted.journal("beta").entries()] == ["ipchains input -j ACCEPT"]


def test_clean_on_this_machine_takes_no_option_of_inventories(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["drbd-harness", "clean", "--dry-run"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 4
    assert "--group and --dry-run belong to --inventory" in capsys.readouterr().err
