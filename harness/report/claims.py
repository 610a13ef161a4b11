"""What may be said of the cells of a run, in the words that its repetitions allow; pure."""

from __future__ import annotations

from harness.judgement.claim_words import CellWords, Claim

#: In words.
CLAIMS = {
    Claim.HAPPENS: "that blocks diverge or data is lost",
    Claim.NEVER: "that nothing diverges or is lost",
}


def claim_line(words: CellWords) -> str:
    """``none-swap-reclaim, that blocks diverge or data is lost: observed (3 of 5)``."""
    return f"{words.cell_id}, {CLAIMS[words.claim]}: {words.text}"
