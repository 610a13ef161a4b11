"""Why a node did not boot, from its serial console."""

import pytest

from harness.lab.nested.boot import last_message


@pytest.mark.parametrize(
    ("console", "message"),
    [
        (b"", "its console is empty"),
        (b"[ 0.1] one\r\n[ 0.2] two\r\n", "[ 0.2] two"),
        (
            b"[ 1.3] Kernel panic - not syncing: System is deadlocked on memory\n[ 1.4] Kernel Offset: disabled\n",
            "[ 1.3] Kernel panic - not syncing: System is deadlocked on memory",
        ),
        (
            b"DRBD-HARNESS-NODE-FAILED seed: no disk labelled SEED\nlogin:\n",
            "DRBD-HARNESS-NODE-FAILED seed: no disk labelled SEED",
        ),
        (b"\xff\xfe last", "\ufffd\ufffd last"),
    ],
)
def test_last_message_is_the_reason_or_else_the_last_line(console: bytes, message: str) -> None:
    assert last_message(console) == message
