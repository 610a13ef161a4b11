"""The file that ties claims to cells: its commands play cells that decide them, and what is wrong in it is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from claimed_plays import GOLDEN, LATE, SWAP, claim, command, played_by

from harness.config.claims_file import load_claims
from harness.errors import UsageError
from harness.model import CacheMode, Control, Layout, ReplicationProfile, Sabotage
from harness.report.claims import own_claims
from harness.util import resources
from harness.workloads import WORKLOADS

CLAIM = """
id = "X1"
claim = "swap diverges"
[[ask]]
of = "swap"
cells = [{ cache = "none", filesystem = "swap", workload = "reclaim" }]
"""


def test_claims_file_has_the_claims_of_the_sources() -> None:
    claims = load_claims(resources.claims(), WORKLOADS)
    assert [one.id for one in claims][:14] == [f"C{number}" for number in range(1, 15)]
    assert own_claims() == claims


def commands() -> list[tuple[str, int, str]]:
    return [(one.id, at, ask.play) for one in own_claims() for at, ask in enumerate(one.asks)]


@pytest.mark.parametrize(("claim_id", "at", "command"), commands())
def test_command_of_a_claim_plays_cells_that_decide_it(claim_id: str, at: int, command: str) -> None:
    assert command, "what nobody has asked yet needs a command that asks it"
    ask = next(one for one in own_claims() if one.id == claim_id).asks[at]
    cells = played_by(command)
    decided = [cell.id for cell in cells if ask.decided_by(cell)]
    assert decided or not ask.cells, f"{command} plays {[cell.id for cell in cells]}"


def test_claim_about_a_plain_cell_is_not_decided_by_what_was_done_against_it() -> None:
    ask = claim().asks[0]
    assert ask.decided_by(SWAP) and ask.decided_by(LATE) and ask.decided_by(replace(SWAP, seconds=77))
    others = (
        replace(SWAP, layout=Layout.CRYPT),
        replace(SWAP, replication=ReplicationProfile(integrity="crc32c")),
        replace(SWAP, replication=ReplicationProfile(scatter_gather=False)),
        replace(SWAP, migrations=2),
        replace(SWAP, control=Control.STEADY),
        replace(SWAP, sabotage=Sabotage.SILENT_VERIFY),
        replace(SWAP, cache=CacheMode.DIRECTSYNC),
    )
    assert not [cell.id for cell in others if ask.decided_by(cell)]
    anything = claim(ask=[{"of": "x", "cells": [{"any": "*", "cache": "none"}]}]).asks[0]
    assert [anything.decided_by(cell) for cell in others] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("[[ask]]", "[[asks]]"), "'asks' is no key; did you mean 'ask'?"),
        (('of = "swap"\n', ""), "[[claims.ask]] number 1: 'of' is missing"),
        (('cache = "none"', 'cache = "nonne"'), "'nonne' is no value of 'cache'; did you mean 'none'?"),
        (('"reclaim"', '"reclame"'), "'reclame' is no value of 'workload'; did you mean 'reclaim'?"),
        (("cells = [", "event = 'difers'\ncells = ["), "'difers' is no value of 'event'; did you mean 'differs'?"),
        (("cells = [", "says = 'newer'\ncells = ["), "'newer' is no value of 'says'; did you mean 'never'?"),
        (('workload = "reclaim"', 'any = "buss"'), "'buss' in 'any' is no key of a cell; did you mean 'bus'?"),
        (('workload = "reclaim"', f'any = "{"x" * 9000}"'), f"'{'x' * 75}...' in 'any' is no key of a cell; allowed: "),
        ((CLAIM[CLAIM.index("[[ask") :], ""), "number 1 ('X1'): no cell decides it; give it at least one"),
        (
            ('[{ cache = "none", filesystem = "swap", workload = "reclaim" }]', "[]"),
            "ask 'swap': no cell decides it; 'cells' is missing or empty",
        ),
        (('filesystem = "swap"', 'filesystem = "ext4"'), "no cell decides it: number 1 of 'cells' matches none, for the"
         " workload 'reclaim' does not go with filesystem = \"ext4\""),
        (('cache = "none"', 'client = "host", cache = "none"'), "no cell decides it: number 1 of 'cells' matches none"),
        (('id = "X1"', "id = 1"), "'id' is 1, not text"),
    ],
)  # fmt: skip
def test_claims_file_that_is_wrong_one_sentence(
    change: tuple[str, str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert change[0] in CLAIM
    body = CLAIM.replace(*change, 1).replace("[[ask", "[[claims.ask")
    (tmp_path / "mine.toml").write_text(f"schema = 1\n[[claims]]\n{body}")
    code, _, err = command(capsys, GOLDEN / "quick-drbd-8.4", "--claims", tmp_path / "mine.toml")
    assert code == 4 and sentence in err and len(err.splitlines()) == 1 and err.startswith("drbd-harness: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("schema = 2", "'schema' is 2; this program reads schema = 1"),
        ("schema = 1", "there is no claim in it; write [[claims]]"),
        ("schema = ", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
        (
            f"schema = 1\n[[claims]]{CLAIM}\n[[claims]]{CLAIM}".replace("[[ask", "[[claims.ask"),
            "another claim has this id",
        ),
    ],
)
def test_claims_file_that_is_none_one_sentence(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        load_claims(tmp_path / "mine.toml", WORKLOADS)
    assert sentence in str(refused.value)
