"""Whether there are packages: mmdebstrap itself, with mirrors that need no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.images.mirror import why_no_packages


@pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")
def test_why_no_packages_mirror_without_the_suite_apts_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRBD_HARNESS_MIRROR", f"file://{tmp_path}/debian")
    why = why_no_packages("trixie")
    assert why == f"E: The repository 'file:{tmp_path}/debian trixie Release' does not have a Release file."


def test_why_no_packages_mmdebstrap_missing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "mmdebstrap is not installed" in why_no_packages("trixie")
