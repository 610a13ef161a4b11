"""What tc and dmsetup say of the delays that are on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.delays import dm_write_delay_ms, netem_delay_ms


@pytest.mark.parametrize(
    ("said", "delay"),
    [
        ("qdisc netem 8001: root refcnt 2 limit 20000 delay 20ms", 20),
        ("qdisc netem 8001: root refcnt 2 limit 20000 delay 20.0ms\n", 20),
        ("qdisc netem 8001: root refcnt 2 limit 1000 delay 1s", 1000),
        ("qdisc netem 8001: root refcnt 2 limit 1000 delay 1.5s", 1500),
        ("qdisc netem 8001: root refcnt 2 limit 1000 delay 2000us", 2),
        ("qdisc netem 8001: root refcnt 2 limit 1000 delay 20ms  3ms 25%", 20),
        ("qdisc netem 8001: root refcnt 2 limit 1000 loss 1% delay 7ms rate 1Mbit", 7),
        ("qdisc netem 8001: root refcnt 2 limit 1000 loss 1%", 0),
        ("qdisc pfifo_fast 0: root refcnt 2 bands 3 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1", 0),
        ("qdisc fq_codel 0: root limit 10240p target 5ms interval 100ms delay 9ms", 0),
        ("qdisc noqueue 0: dev eth0 root refcnt 2\nqdisc netem 1: dev eth1 root delay 5ms", 5),
        ("qdisc netem 1: root limit 5\nqdisc other 2: parent 1 delay 5ms", 0),
        ("", 0),
    ],
)
def test_the_delay_of_the_link(said: str, delay: int) -> None:
    assert netem_delay_ms(said) == delay


@pytest.mark.parametrize(
    ("table", "delay"),
    [
        ("0 262144 linear 254:16 0", 0),
        ("0 262144 delay 254:16 0 0 254:16 0 20", 20),
        ("0 262144 delay 254:16 0 3 254:16 0 20 254:16 0 40\n", 20),
        ("0 262144 delay 254:16 0 15", 15),
        ("0 262144 delay 254:16 0 15 254:16 0 0", 0),
        ("0 262144 error", 0),
        ("", 0),
        ("\n0 262144 linear 254:16 0\n", 0),
    ],
)
def test_the_delay_of_the_disk_is_that_of_its_writes(table: str, delay: int) -> None:
    assert dm_write_delay_ms(table) == delay


@given(st.integers(0, 10**6))
def test_what_was_asked_in_milliseconds_is_read_back(delay: int) -> None:
    assert netem_delay_ms(f"qdisc netem 8001: root refcnt 2 limit 20000 delay {delay}ms") == delay
    assert dm_write_delay_ms(f"0 8 delay 8:0 0 0 8:0 0 {delay}") == delay


@given(st.text(max_size=80))
def test_other_text_is_no_delay_and_no_error(text: str) -> None:
    assert netem_delay_ms(text) >= 0
    assert dm_write_delay_ms(text) == 0
