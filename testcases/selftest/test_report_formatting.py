"""What the report says of a run: its numbers, and text that anything may be in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from harness.report.formatting import clean, seconds, size


def test_formatting_units_known_values() -> None:
    assert [seconds(s) for s in (0.42, 12.34, 119.96, 185)] == ["0.42 s", "12.3 s", "2 min 00 s", "3 min 05 s"]
    assert [size(b) for b in (512, 4096, 3 * 1024**2 + 1024**2 // 2)] == ["512 B", "4 KiB", "3.5 MiB"]


@given(st.text(st.characters()))
def test_clean_any_text_storable_and_parseable(text: str) -> None:
    made = clean(text)
    assert etree.fromstring(f"<a>{made.replace('&', '').replace('<', '')}</a>".encode()) is not None
    assert "\x1b" not in made
