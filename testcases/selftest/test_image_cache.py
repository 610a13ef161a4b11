"""The cache of images: what is listed, pruned, and built only once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from image_recipes import ROLES_AND_SUITES, digest_of, put_image, recipes

from harness import images
from harness.config import recipe
from harness.images import ImageError, builder, cache, process
from harness.util import logs, paths
from harness.util.progress import Progress

__all__ = ["recipes"]


class TestCache:
    def test_list_images_is_newest_first(self, tmp_path: Path) -> None:
        put_image(tmp_path, "guest", "trixie", "a" * 64, timedelta(hours=2))
        put_image(tmp_path, "node", "trixie", "b" * 64)
        found = images.list_images(tmp_path)
        assert [image.digest[0] for image in found] == ["b", "a"]
        assert found[0].packages == {"fio": "3.39-1"}
        assert found[0].command_line == "root=/dev/vda ro"
        assert 7000 < found[1].age_seconds < 8000
        assert found[0].size_bytes > 0

    @pytest.mark.parametrize("missing", ["vmlinuz", "initrd.img", "root.img", "manifest.json"])
    def test_list_images_leaves_out_incomplete_ones(self, tmp_path: Path, missing: str) -> None:
        directory = put_image(tmp_path, "guest", "trixie", "a" * 64)
        assert len(images.list_images(tmp_path)) == 1
        (directory / missing).unlink()
        assert images.list_images(tmp_path) == []

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"schema": 99, "role": "guest", "suite": "trixie", "digest": "a"}']
    )
    def test_list_images_leaves_out_unreadable_manifests(self, tmp_path: Path, text: str) -> None:
        directory = put_image(tmp_path, "guest", "trixie", "a" * 64)
        (directory / "manifest.json").write_text(text)
        assert images.list_images(tmp_path) == []

    def test_list_images_leaves_out_builds_under_way(self, tmp_path: Path) -> None:
        directory = put_image(tmp_path, "guest", "trixie", "a" * 64)
        directory.rename(directory.with_name(f".{directory.name}.abcdef"))
        assert images.list_images(tmp_path) == []

    def test_list_images_and_prune_without_a_cache_find_none(self, tmp_path: Path) -> None:
        assert images.list_images(tmp_path / "nowhere") == []
        assert images.prune(tmp_path / "nowhere", set(), dry_run=False) == []

    def test_prune_keeps_the_given_digests(self, tmp_path: Path) -> None:
        kept = put_image(tmp_path, "guest", "trixie", "a" * 64)
        gone = put_image(tmp_path, "node", "trixie", "b" * 64)
        assert [image.directory for image in images.prune(tmp_path, {"a" * 64}, dry_run=True)] == [gone]
        assert gone.exists()
        assert [image.directory for image in images.prune(tmp_path, {"a" * 64}, dry_run=False)] == [gone]
        assert kept.exists()
        assert not gone.exists()

    def test_prune_removes_leftovers_of_builders_that_ended_only(self, tmp_path: Path) -> None:
        dead, living = "guest-trixie-" + "a" * 12, "node-trixie-" + "b" * 12
        built = put_image(tmp_path, "node", "trixie", "b" * 64)
        store = tmp_path / "images"
        for name in (dead, living):
            (store / f".{name}.lock").touch()
            (store / f".{name}.xyz" / "parts").mkdir(parents=True)
        with FileLock(store / f".{living}.lock"):
            assert images.prune(tmp_path, set(), dry_run=False) == []
        assert built.exists()
        assert not (store / f".{dead}.xyz").exists()
        assert (store / f".{living}.xyz").exists()

    def test_current_digests_are_those_of_the_recipes(self, recipes: Path) -> None:
        assert images.current_digests(["trixie"]) == {digest_of(recipes, role) for role in images.ROLES}
        others = [(role, suite) for role in recipe.OTHER_ROLES for suite in recipe.suites(role)]
        assert len(images.current_digests()) == len(ROLES_AND_SUITES + others), "of all, or pruning would take them"

    def test_cache_dir_follows_environment_and_user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DRBD_HARNESS_CACHE", str(tmp_path))
        assert paths.cache_dir() == tmp_path
        monkeypatch.delenv("DRBD_HARNESS_CACHE")
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert paths.cache_dir() == Path("/var/cache/drbd-harness")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert paths.cache_dir() == tmp_path / "xdg" / "drbd-harness"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert paths.cache_dir() == tmp_path / ".cache" / "drbd-harness"


class TestEnsure:
    """:func:`images.ensure` with a builder that only pretends."""

    @pytest.fixture
    def builds(self, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        made: list[str] = []

        def into(
            target: Path, wanted: recipe.Recipe, digest: str, directory: Path, log: Path, step: process.Step
        ) -> None:
            step.report("pretending")
            made.append(target.name)
            if target.exists():
                builder.remove_image(target)
            put_image(target.parent.parent, wanted.role, wanted.suite, digest)

        monkeypatch.setattr(builder, "into", into)
        yield made

    def test_ensure_twice_builds_once(
        self, builds: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "harness.progress")
        first = images.ensure("guest", "trixie", tmp_path)
        second = images.ensure("guest", "trixie", tmp_path)
        assert first == second
        assert builds == [first.directory.name]
        assert caplog.messages == ["guest image, trixie: pretending (0 s)"]
        assert list((tmp_path / "logs").iterdir()) == []

    def test_ensure_of_a_changed_recipe_keeps_the_old_image(
        self, builds: list[str], recipes: Path, tmp_path: Path
    ) -> None:
        images.ensure("guest", "trixie", tmp_path)
        (recipes / "files/guest/new").write_text("new")
        images.ensure("guest", "trixie", tmp_path)
        assert len(set(builds)) == 2
        assert len(images.list_images(tmp_path)) == 2

    def test_build_again_replaces_the_image(self, builds: list[str], tmp_path: Path) -> None:
        images.ensure("guest", "trixie", tmp_path)
        images.build("guest", "trixie", tmp_path)
        assert len(builds) == 2
        assert len(images.list_images(tmp_path)) == 1

    def test_ensure_all_returns_images_in_the_order_asked_for(self, builds: list[str], tmp_path: Path) -> None:
        wanted = [("node", "trixie"), ("guest", "bookworm"), ("guest", "trixie")]
        found = images.ensure_all(wanted, tmp_path)
        assert [(image.role, image.suite) for image in found] == wanted
        assert len(builds) == 3

    def test_ensure_with_a_log_removed_meanwhile_succeeds(
        self, builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "logs").mkdir()
        real = Path.glob

        def one_too_many(path: Path, pattern: str) -> list[Path]:
            return [*real(path, pattern), *([path / "gone.log"] if pattern == "*.log" else [])]

        monkeypatch.setattr(Path, "glob", one_too_many)
        assert images.ensure("guest", "trixie", tmp_path).role == "guest"

    def test_ensure_removes_leftovers_of_a_builder_that_ended(
        self, builds: list[str], recipes: Path, tmp_path: Path
    ) -> None:
        left = tmp_path / "images" / f".guest-trixie-{digest_of(recipes)[:12]}.dead"
        left.mkdir(parents=True)
        images.ensure("guest", "trixie", tmp_path)
        assert not left.exists()

    def test_ensure_in_two_processes_builds_once(self, builds: list[str], recipes: Path, tmp_path: Path) -> None:
        digest = digest_of(recipes)
        lock = FileLock(tmp_path / "images" / f".guest-trixie-{digest[:12]}.lock", thread_local=False)
        (tmp_path / "images").mkdir()
        lock.acquire()
        reported: list[str] = []

        def progress(line: str) -> None:
            reported.append(line)
            if lock.is_locked:
                # The other process ends its build while this one waits.
                put_image(tmp_path, "guest", "trixie", digest)
                lock.release()

        with logs.with_handler(logs.PROGRESS, Progress(progress)):
            found = images.ensure("guest", "trixie", tmp_path)
        assert found.digest == digest
        assert builds == []
        assert reported[0].strip().startswith("guest image, trixie: waiting for another process")

    def test_ensure_all_with_one_failure_stops_the_others_and_raises_it(
        self, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def into(
            target: Path, wanted: recipe.Recipe, digest: str, directory: Path, log: Path, step: process.Step
        ) -> None:
            if wanted.role == "node":
                raise ImageError("no network")
            while True:
                step.report("busy")
                step.stop.wait(0.01)

        monkeypatch.setattr(builder, "into", into)
        with pytest.raises(ImageError, match=r"^no network$"):
            images.ensure_all([("guest", "trixie"), ("node", "trixie")], tmp_path)
        logs = [path.name.split("-")[0] for path in (tmp_path / "logs").iterdir()]
        assert logs == ["node"]

    def test_ensure_with_a_cache_that_cannot_be_made_is_one_sentence(self, builds: list[str], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ImageError, match="cannot make the image cache"):
            images.ensure("guest", "trixie", tmp_path / "file" / "cache")


def test_list_images_leaves_out_lock_files(tmp_path: Path) -> None:
    put_image(tmp_path, "guest", "trixie", "a" * 64)
    (tmp_path / "images" / ".guest-trixie-aaaaaaaaaaaa.lock").touch()
    assert len(cache.list_images(tmp_path)) == 1


def test_kernel_on_a_slow_machine_takes_itself_for_stuck_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.Image("node", "trixie", "0" * 64, tmp_path, {"kernel_args": ["ro"]})
    assert image.command_line == "root=/dev/vda ro"
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "2")
    assert image.command_line == "root=/dev/vda ro watchdog_thresh=20 rcupdate.rcu_cpu_stall_timeout=42"
    monkeypatch.setenv("DRBD_HARNESS_PATIENCE", "16")
    assert image.command_line.endswith("watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=300"), "the most there is"
