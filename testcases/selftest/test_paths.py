"""Where things are kept: the folders of the cache and of the state, by environment and user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.util import paths


def test_cache_dir_and_state_dir_follow_environment_and_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DRBD_HARNESS_CACHE", "DRBD_HARNESS_STATE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (paths.cache_dir(), paths.state_dir()) == (
        Path("/var/cache/drbd-harness"),
        Path("/var/lib/drbd-harness"),
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (paths.cache_dir(), paths.state_dir()) == (
        Path("/home/ann/.cache/drbd-harness"),
        Path("/home/ann/.local/state/drbd-harness"),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    assert paths.cache_dir() == tmp_path / "drbd-harness"
    assert paths.state_dir() == Path("/home/ann/.local/state/drbd-harness")
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "mine"))
    assert paths.state_dir() == tmp_path / "mine"


def test_make_as_root_lets_others_enter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        made = paths.make(tmp_path / "a" / "b")
        assert [path.stat().st_mode & 0o777 for path in (made, made.parent)] == [0o755, 0o755]
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert paths.make(tmp_path / "c").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
