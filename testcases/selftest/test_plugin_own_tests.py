"""The front door, through pytest itself: tests of one's own with its fixtures, and tests without any."""

from __future__ import annotations

import libvirt
import pytest
from fake_libvirt import LibvirtSaid
from fake_story import in_order
from lxml import etree
from plugin_world import OWN, Runs, World, run, suite, world

from harness.errors import InfrastructureError
from harness.model import Observed

__all__ = ["run", "suite", "world"]

pytest_plugins = ("pytester",)


# --------------------------------------------------------------------------- tests of one's own


def test_own_cell_failing_test_is_concluded(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_breaks(own_cell, disk):
            assert disk.path == "/dev/vdb"
            raise ZeroDivisionError("the test's own")
        """
    )
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"failed": 1})
    assert in_order(world.story.steps, "attach", "detach", "verify")
    found = ran.store.evidence("none-breaks")
    assert found is not None and found.verify is not None and found.failure is None


def test_verdict_inconclusive_is_an_error_of_the_test(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.story.broken["verify"] = InfrastructureError("the verify did not end")
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_asks(verdict):
            verdict()
        """
    )
    ran = run("--junitxml", "junit.xml")
    assert (ran.status, ran.outcomes) == (2, {"errors": 1})
    assert "INCONCLUSIVE: verify: the verify did not end" in ran.out and "Traceback" not in ran.out
    (suite,) = etree.fromstring((ran.folder / "junit.xml").read_bytes()).iter("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("0", "1")


def test_migrate_own_test_moves_its_guest(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.moves = True
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_moves(migrate, verify):
            assert [migrate().target, migrate().target] == ["nodeb", "nodea"]
            assert len(verify().migrations) == 2
        """
    )
    ran = run()
    assert ran.outcomes == {"passed": 1}, ran.out
    assert in_order(world.story.steps, "attach", "moved to nodeb", "moved to nodea", "detach", "verify")
    found = ran.store.evidence("none-moves")
    assert found is not None and [one.number for one in found.migrations] == [1, 2] and found.failure is None
    assert [(one.source, one.target, one.during) for one in found.migrations] == [
        ("nodea", "nodeb", "work"), ("nodeb", "nodea", "work")
    ]  # fmt: skip
    assert len(found.event_log) == 2 and found.event_log[0].startswith("migration 1 from nodea to nodeb completed")


def test_migrate_refused_is_an_outcome(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    world.moves = True
    refusal = LibvirtSaid("Unsafe migration: Migration may lead to data corruption", libvirt.VIR_ERR_MIGRATE_UNSAFE)
    world.story.when["attach"] = lambda: setattr(world.guests[-1].domain, "error", refusal)
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(cache="none")
        def test_stays(migrate, verdict):
            assert migrate().outcome == "refused"
            assert "Unsafe migration" in verdict().sentence
        """
    )
    ran = run()
    assert ran.outcomes == {"passed": 1}, ran.out
    found = ran.store.evidence("none-stays")
    assert found is not None and "Unsafe migration" in found.migrations[0].message and found.failure is None


def test_migrate_host_cell_has_no_guest(
    run: Runs, pytester: pytest.Pytester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.cell_steps.observe_node", lambda node, device: Observed(scatter_gather=True))
    pytester.makepyfile(
        test_own="""
        import pytest
        @pytest.mark.cell(client="host")
        def test_stays(migrate):
            migrate()
        """
    )
    ran = run()
    assert "a cell with client=host has no disk in a guest" in ran.out and ran.status != 0


def test_own_cell_host_has_evidence(
    run: Runs, pytester: pytest.Pytester, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.engine.cell_steps.observe_node", lambda node, device: Observed(scatter_gather=True))
    pytester.makepyfile(test_own=OWN.format(keys='client="host"'))
    ran = run()
    assert "Traceback" not in ran.out and "AssertionError" not in ran.out
    assert ran.store.evidence("host-my-own") is not None


# --------------------------------------------------------------------------- beside other people's tests


def test_other_tests_are_left_alone(run: Runs, pytester: pytest.Pytester, world: World) -> None:
    pytester.makepyfile(test_other="def test_one():\n    pass\ndef test_two():\n    assert False\n")
    ran = run()
    assert (ran.status, ran.outcomes) == (1, {"passed": 1, "failed": 1})
    assert world.labs == [] and not (ran.folder / "runs").exists()


def test_cell_parameter_of_a_foreign_test_is_left_alone(run: Runs, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_other="""
        import pytest
        @pytest.fixture
        def cell():
            return "A1"
        def test_of_a_spreadsheet(cell):
            assert cell == "A1"
        """
    )
    assert run().outcomes == {"passed": 1}
    pytester.makepyfile(
        test_other="""
        import pytest
        @pytest.mark.parametrize("cell", ["A1", "B2"])
        def test_of_a_spreadsheet(cell):
            assert cell in ("A1", "B2")
        """
    )
    assert run().outcomes == {"passed": 2}
