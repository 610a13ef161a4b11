"""A suite that does not ask for the harness, in an environment that has it: nothing of ours is to be seen."""

from __future__ import annotations

import json
import re

import pytest

pytest_plugins = ("pytester",)

ASKS = 'pytest_plugins = ["harness.fixtures"]'
PASSES = "def test_one():\n    pass\n"
FAILS = "def test_one():\n    assert False\n"
BREAKS = "import pytest\n@pytest.fixture\ndef cell():\n    raise OSError\ndef test_one(cell):\n    pass\n"
# A name that is ours only where we are asked for.
OWN_CELL = "import pytest\n@pytest.fixture\ndef cell():\n    return 1\ndef test_one(cell):\n    assert cell == 1\n"
LOADED = """
import json, sys
def test_one():
    print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] in
        ("harness", "libvirt", "paramiko", "scipy", "pydantic", "rich", "jinja2", "lxml"))))
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A process of its own, without the other plugins of this environment."""
    others = ("-p", "no:cacheprovider", "-p", "no:html", "-p", "no:metadata", "-p", "no:hypothesispytest")
    return pytester.runpytest_subprocess(*others, *arguments)


def seen(result: pytest.RunResult) -> list[str]:
    """What was printed, without times and the list of plugins."""
    return [re.sub(r" in \d+\.\d+s", "", line) for line in result.outlines if not line.startswith("plugins: ")]


@pytest.mark.parametrize(
    ("text", "arguments", "status"),
    [
        (PASSES, (), 0),
        (FAILS, (), 1),
        (BREAKS, (), 1),
        (OWN_CELL, (), 0),
        (PASSES, ("-k", "nothing"), 5),
        ("", (), 5),
        (PASSES, ("--nosuchoption",), 4),
        (PASSES, ("--fixtures",), 0),
        ("import pytest\n@pytest.mark.lab\ndef test_one():\n    pass\n", ("--strict-markers",), 2),
    ],
    ids=["passes", "fails", "breaks", "own-cell", "deselected", "empty", "usage", "fixtures", "marker"],
)
def test_foreign_suite_with_and_without_the_plugin_is_the_same(
    pytester: pytest.Pytester, text: str, arguments: tuple[str, ...], status: int
) -> None:
    pytester.makepyfile(test_other=text)
    without = run(pytester, "-p", "no:drbd-harness", *arguments)
    result = run(pytester, *arguments)
    assert result.ret == without.ret == status
    assert seen(result) == seen(without)


def test_foreign_suite_loads_nothing_but_the_options(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other=LOADED)
    result = run(pytester, "-s", "-q")
    loaded = json.loads(result.outlines[0])
    assert loaded == ["harness", "harness.pytest_plugin", "harness.pytest_plugin.options"]


def test_options_of_a_foreign_suite_all_begin_with_drbd(pytester: pytest.Pytester) -> None:
    with_plugin, without = run(pytester, "--help"), run(pytester, "-p", "no:drbd-harness", "--help")
    added = set(with_plugin.outlines) - set(without.outlines)
    options = {found for line in added for found in re.findall(r"^ +(-[^ =]*)", line)}
    assert options and all(one.startswith("--drbd-") for one in options)


def test_option_given_to_a_foreign_suite_is_refused_in_one_sentence(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other=PASSES)
    result = run(pytester, "--drbd-matrix", "smoke")
    assert result.ret == 4
    said = result.stdout.str() + result.stderr.str()
    assert f"--drbd-matrix is for the DRBD harness, which no conftest.py here asks for: {ASKS}" in said
    assert "Traceback" not in said


def test_suite_that_asks_has_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_other=PASSES)
    pytester.makeconftest(ASKS)
    listed = run(pytester, "--fixtures").stdout.str()
    for name in ("lab", "resource", "guest", "disk", "fio", "migrate", "verify", "verdict"):
        assert re.search(rf"^{name}\b", listed, re.MULTILINE), name
    assert run(pytester, "-k", "nothing").ret == 3, "nothing ran, as the harness says it"
