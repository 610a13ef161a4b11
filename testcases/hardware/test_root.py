"""Root on a foreign machine by way of ``sudo -n``: arguments, input, output, statuses and limits are those of ssh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from foreign import Foreign

from harness.errors import DeadlineError, LostNodeError
from harness.remote.ssh import SshRunner


def runner_of(foreign: Foreign, user: str) -> SshRunner:
    return SshRunner(
        "127.0.0.1", foreign.port, key=foreign.directory / "user_key", known_hosts=foreign.run / "known_hosts",
        name=user, user=user, before=("sudo", "-n", "--", "env", "LC_ALL=C"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def admin(foreign: Foreign) -> Iterator[SshRunner]:
    runner = runner_of(foreign, "admin")
    runner.connect(120)
    try:
        yield runner
    finally:
        runner.close()


def test_sudo_keeps_arguments_input_and_status(admin: SshRunner) -> None:
    words = ["a b", "$HOME", "'", '"', "*", "", "ä", "x\ny", "-n"]
    done = admin.run(["sh", "-c", 'id -u; for one; do printf "%s|" "$one"; done; exit 7', "sh", *words], ok=())
    assert (done.stdout, done.status) == ("0\n" + "".join(f"{word}|" for word in words), 7)
    text = "".join(f"line {number} \x04\x03\t\n" for number in range(50_000))
    assert admin.run(["cat"], stdin=text).stdout == text
    assert admin.run(["sh", "-c", "echo one; echo two >&2"]).stderr == "two\n"


def test_sudo_does_not_let_a_command_outlive_its_time(admin: SshRunner, foreign: Foreign) -> None:
    with pytest.raises(DeadlineError):
        admin.run(["sleep", "4321"], timeout=3)
    assert foreign.sh("pgrep -f '[s]leep 4321' || echo none") == "none\n"


def test_sudo_streams(admin: SshRunner) -> None:
    stream = admin.stream(["sh", "-c", "id -u; sleep 1; echo end"], "test")
    while stream.ended is None:
        pass
    assert stream.since(0) == ["0", "end"]


def test_user_without_sudo_gets_no_root(foreign: Foreign) -> None:
    runner = runner_of(foreign, "plain")
    try:
        runner.connect(120)
        done = runner.run(["id", "-u"], ok=())
        assert done.status and "sudo" in done.message
    except LostNodeError as error:
        pytest.fail(str(error))
    finally:
        runner.close()
