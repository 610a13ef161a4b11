"""Power that is cut on the machines of an inventory's lab: who loses it, what is there again, what is noted anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from played_machines import lab, machines, stories
from test_inventory_command import Two

from harness.errors import InfrastructureError, LostNodeError, ProtectedError, RefusedError
from harness.lab.hardware import lab_power

__all__ = ["machines"]

RULES = "write /run/udev/rules.d/12-drbd-harness-test.rules"
# A machine's power, and each time that it was switched.
SWITCH = """\
#!/bin/sh
here=$(dirname "$0")
case $2 in
    status) cat "$here/$1.power" ;;
    *) [ -e "$here/$1.stuck" ] || echo "$2" > "$here/$1.power"; echo "$2" >> "$here/$1.switched" ;;
esac
"""


@dataclass
class Switched:
    """The two machines, and the folder of what switches them."""

    two: Two
    folder: Path

    def of(self, name: str) -> list[str]:
        """What was done to a machine's power."""
        path = self.folder / f"{name}.switched"
        return path.read_text().split() if path.exists() else []

    def boots(self, name: str) -> int:
        return 0 if (self.folder / f"{name}.same").exists() else self.of(name).count("on")


@pytest.fixture
def switched(machines: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Switched]:
    (tmp_path / "switch").write_text(SWITCH)
    (tmp_path / "switch").chmod(0o755)
    made = Switched(machines, tmp_path)
    text = machines.path.read_text()
    for name, machine in zip(("alpha", "beta"), machines.machines, strict=True):
        (tmp_path / f"{name}.power").write_text("on\n")
        text = text.replace(f"[hosts.{name}]", f'[hosts.{name}]\npower = {{ command = ["./switch", "{name}"] }}')
        answers = machine._answer

        def answer(argv: tuple[str, ...], name: str = name, answers: object = answers) -> tuple[int, str, str]:
            if argv[0] == "cat":
                return 0, f"boot {made.boots(name)} of {name}\n", ""
            return answers(argv)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(machine, "_answer", answer)
    machines.path.write_text(text)
    monkeypatch.setattr(lab_power, "_AGAIN_SECONDS", 0.01)
    yield made


def test_power_is_cut_and_given_back_and_what_the_boot_took_is_made_and_noted_anew(switched: Switched) -> None:
    with lab(switched.two) as made:
        (story, others) = stories(switched.two)
        assert made.readable(made.a) and made.boot_seconds > 0
        made.power_off(made.a)
        assert made.a.away and not made.readable(made.a) and made.readable(made.b)
        assert (switched.of("alpha"), switched.of("beta")) == (["off"], [])
        begun = len(story)
        made.power_on(made.a)
        assert not made.a.away and made.readable(made.a) and made.a.lower == "/dev/theirs/drbd-harness-test"
        again = story[begun:]
        # The lease first; the modules, which the boot took, before anything loads them.
        assert again[0] == "take the lease" and again[1] == "note module drbd" and again[-1] == RULES
        assert "note resource drbd-harness-test" in again and "lvcreate" not in again
        assert others.count("take the lease") == 1
    assert [story[-1] for story in stories(switched.two)] == ["give the lease"] * 2


def test_power_that_was_not_given_back_is_so_at_the_end_of_the_run(switched: Switched) -> None:
    with pytest.raises(KeyboardInterrupt), lab(switched.two) as made:
        made.power_off(made.b)
        raise KeyboardInterrupt
    assert switched.of("beta") == ["off", "on"]
    assert all("lvremove" in story and story[-1] == "give the lease" for story in stories(switched.two))


def test_power_of_another_machine_is_found_out(switched: Switched) -> None:
    (switched.folder / "alpha.same").touch()
    with lab(switched.two) as made:
        made.power_off(made.a)
        with pytest.raises(InfrastructureError, match="alpha has not booted since its power was cut"):
            made.power_on(made.a)
        (switched.folder / "beta.power").write_text("off\n")
        with pytest.raises(
            InfrastructureError, match=r"beta answers, and it is said to have no power.*nothing was cut"
        ):
            made.power_off(made.b)
        assert switched.of("beta") == [] and not made.b.away


def test_power_that_stays_on_is_an_error_and_is_given_back(switched: Switched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.lab.hardware.power.SETTLE_SECONDS", 0.1)
    (switched.folder / "alpha.stuck").touch()
    with lab(switched.two) as made:
        with pytest.raises(InfrastructureError, match="is still on"):
            made.power_off(made.a)
        assert made.a.away, "nobody knows what became of it"
    assert switched.of("alpha") == ["off", "on"]


def test_power_of_a_machine_whose_lease_somebody_took_meanwhile_ends_all_writing(switched: Switched) -> None:
    with lab(switched.two) as made:
        made.power_off(made.a)
        switched.two.machines[0].lease = {"owner": "bob on shelf", "what": "a run on two"}
        with pytest.raises(ProtectedError, match="alpha is in use: bob on shelf"):
            made.power_on(made.a)
        switched.two.machines[0].lease = {}
        assert made.b.guard is not None
        with pytest.raises(ProtectedError, match="nothing more is written"):
            made.b.guard.require("a mapping on it")


def test_power_of_a_machine_that_does_not_come_up_is_a_lost_node(
    switched: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_power, "BOOT_SECONDS", 0.1)
    with lab(switched.two) as made:
        made.power_off(made.a)
        monkeypatch.setattr("harness.lab.node.CONNECT_SECONDS", 0.1)
        monkeypatch.setattr(made.a.runner, "_address", ("127.0.0.1", 1))
        with pytest.raises(LostNodeError, match="alpha has its power again and does not come up"):
            made.power_on(made.a)
        monkeypatch.undo()


def test_lease_of_a_machine_that_boots_is_not_renewed_before_it_is_taken_again(
    switched: Switched, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab(switched.two) as made:
        one, lease = switched.two.machines[0], made.power.lease
        made.power_off(made.a)
        answers = one._answer

        def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
            if argv[0] == "cat":
                # It answers already, and a lease that a boot has ended cannot be renewed.
                lease.renew()
            return answers(argv)

        monkeypatch.setattr(one, "_answer", answer)
        for machine in switched.two.machines:
            machine.leases.clear()
        made.power_on(made.a)
        assert one.leases[0] == "take" and switched.two.machines[1].leases == ["renew"]
        lease.renew()
        assert [machine.leases[-1] for machine in switched.two.machines] == ["renew", "renew"]
        lease.require()


def test_power_of_a_machine_for_which_there_is_none_is_refused(machines: Two) -> None:
    with lab(machines) as made:
        with pytest.raises(RefusedError, match="it has no 'power' for alpha"):
            made.power_off(made.a)
        assert not made.a.away


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            "drbd_resources=data drbd-harness-test \n",
            "power of alpha refused: the resource data is up there, and would",
        ),
        ("domains=web 101 drbd-harness-test-guest\n", "the guest web and 2 more are up there, and would"),
        ("domains=web\n", "the guest web is up there, and would lose it too; nothing was cut"),
    ],
)
def test_power_is_not_cut_of_a_machine_where_somebody_has_started_something_since(
    switched: Switched, facts: str, words: str
) -> None:
    with lab(switched.two) as made:
        before = switched.two.machines[0].facts
        switched.two.machines[0].facts += facts
        with pytest.raises(RefusedError, match=words):
            made.power_off(made.a)
        assert switched.of("alpha") == [] and not made.a.away
        switched.two.machines[0].facts = before
        made.power_off(made.a)
        made.power_on(made.a)


def test_volume_that_is_gone_after_the_boot_is_not_made_anew(switched: Switched) -> None:
    with lab(switched.two) as made:
        made.power_off(made.a)
        one = switched.two.machines[0]
        one.look, one.made = one.made, one.look
        with pytest.raises(ProtectedError, match="is not there since it has booted"):
            made.power_on(made.a)
        one.look, one.made = one.made, one.look
