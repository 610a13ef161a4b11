"""The image builder and its cache, without a network, a build or a boot."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from threading import Event

import pytest
from filelock import FileLock

from harness import images
from harness.config import recipe
from harness.images import ImageError, archive, builder, cache, process, programs
from harness.util import logs, paths
from harness.util.progress import Progress

ROLES_AND_SUITES = [(role, suite) for role in images.ROLES for suite in recipe.suites(role)]


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A writable copy of the recipes, which the package then uses."""
    copy = tmp_path / "vm_images"
    shutil.copytree(recipe.recipes_directory(), copy, symlinks=True)
    monkeypatch.setattr(recipe, "recipes_directory", lambda: copy)
    return copy


def digest_of(recipes: Path, role: str = "guest", suite: str = "trixie") -> str:
    return recipe.digest(recipe.load(role, suite, recipes), recipes)


def put_image(store: Path, role: str, suite: str, digest: str, age: timedelta = timedelta()) -> Path:
    """A complete image with nothing in it."""
    directory = store / "images" / f"{role}-{suite}-{digest[:12]}"
    directory.mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img", "root.img"):
        (directory / name).write_bytes(b"x")
    manifest = {
        "schema": builder.MANIFEST_SCHEMA,
        "role": role,
        "suite": suite,
        "digest": digest,
        "kernel": "6.12.0",
        "kernel_args": ["ro"],
        "packages": {"fio": "3.39-1"},
        "built_at": (datetime.now(UTC) - age).isoformat(),
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return directory


# What libelf 0.192 calls and does not bring, as libelf calls it.
TREES = """
#include <stddef.h>
struct tree { void *root; long lock[7]; };
void eu_search_tree_init(struct tree *), eu_search_tree_fini(struct tree *, void (*)(void *));
void *eu_tsearch(const void *, struct tree *, int (*)(const void *, const void *));
void *eu_tdelete(const void *, struct tree *, int (*)(const void *, const void *));
static int compared(const void *a, const void *b) { return *(const int *) a - *(const int *) b; }
static int released;
static void release(void *one) { released++; }
int main(void)
{
    static int numbers[] = { 5, 3, 5 };
    struct tree tree = { (void *) 1 };
    eu_search_tree_init(&tree);
    if (*(int **) eu_tsearch(&numbers[0], &tree, compared) != &numbers[0]) return 1;
    if (*(int **) eu_tsearch(&numbers[1], &tree, compared) != &numbers[1]) return 2;
    if (*(int **) eu_tsearch(&numbers[2], &tree, compared) != &numbers[0]) return 3;
    if (!eu_tdelete(&numbers[2], &tree, compared) || eu_tdelete(&numbers[2], &tree, compared)) return 4;
    eu_search_tree_fini(&tree, release);
    return released == 1 && tree.root == NULL ? 0 : 5;
}
"""


class TestRecipes:
    def test_controller_has_what_quickstart_would_install_but_one(self) -> None:
        table = (recipe.recipes_directory().parent / "harness" / "doctor" / "packages.txt").read_text()
        rows = [line.split() for line in table.splitlines() if line and not line.startswith("#")]
        assert {row[3] for row in rows} - set(recipe.load("controller", "trixie").packages) == {"genext2fs"}

    @pytest.mark.parametrize(("role", "suite"), ROLES_AND_SUITES)
    def test_load_of_every_recipe_can_be_digested(self, role: str, suite: str) -> None:
        wanted = recipe.load(role, suite)
        assert wanted.packages
        assert wanted.kernel_args
        assert len(recipe.digest(wanted, recipe.recipes_directory())) == 64

    def test_suites_of_both_roles_have_the_default(self) -> None:
        for role in images.ROLES:
            assert {"trixie", "bookworm"} <= set(recipe.suites(role))
            assert images.DEFAULT_SUITE in recipe.suites(role)

    def test_load_of_a_suite_adds_to_the_common_lists(self, recipes: Path) -> None:
        trixie, bookworm = (recipe.load("node", suite, recipes).packages for suite in ("trixie", "bookworm"))
        assert "libvirt-daemon-driver-qemu" in trixie
        assert "libvirt-daemon-driver-qemu" not in bookworm
        assert "drbd-utils" in trixie
        assert "drbd-utils" in bookworm

    @pytest.mark.parametrize(
        ("role", "suite", "sentence"),
        [
            ("router", "trixie", "unknown image role 'router': it is one of node, guest, controller"),
            (
                "node",
                "potato",
                "unknown suite 'potato' for a node image: it is one of bullseye, bookworm, trixie, forky, sid",
            ),
        ],
    )
    def test_load_of_unknown_names_is_one_sentence(self, role: str, suite: str, sentence: str) -> None:
        with pytest.raises(ImageError) as caught:
            recipe.load(role, suite)
        assert str(caught.value) == sentence
        assert caught.value.exit_code == 4

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("free_mib = 16", 'free_mib = "much"', "free_mib .* must be a whole number of MiB"),
            (
                "free_mib = 16",
                "free_mib = 16\njournal_mib = -1",
                "journal_mib .* must be a whole .* of MiB, not -1",
            ),
            ("free_mib = 16", "free_mib = 16\npakages = []", "unknown key 'pakages'"),
            ('components = ["main"]', 'components = "main"', "'components' .* must be a list of strings"),
            ("free_mib = 16", "free_mib = 16\npakages = []", "did you mean 'packages'"),
            ("[suite.trixie]", "[suite.trixie]\nfree_mib = 1", r"unknown key 'free_mib' in \[suite.trixie\]"),
            ("[suite.trixie]", "[suite]\ntrixie = 1\n[other]", "unknown key 'other'"),
            ('components = ["main"]', "components = [1]", "'components' .* must be a list of strings"),
            ("free_mib = 16", "free_mib = true", "free_mib .* must be a whole number of MiB, not True"),
            ("[programs]", "programs = 7\n[program]", "unknown key 'program'; did you mean 'programs'"),
            ('"guest-init.c"', "3", "is 3, not text"),
            ("schema = 1", "schema = 99", "must say schema = 1"),
            ("schema = 1", "schema =", "cannot read the image recipe"),
            ("swapstorm.c", "gone.c", "gone.c does not exist"),
            ("schema = 1", 'schema = 1\nbpf = "x"', "'bpf' .* must be a table"),
            (
                "[suite.trixie]",
                '[bpf]\n"other.c" = "swapstorm.c"\n[suite.trixie]',
                r"\[bpf\] in .* names 'other.c', which is the source of no program in \[programs\]",
            ),
            (
                "[suite.trixie]",
                '[bpf]\n"swapstorm.c" = "gone.bpf.c"\n[suite.trixie]',
                "gone.bpf.c does not exist",
            ),
        ],
    )
    def test_load_of_a_malformed_recipe_is_one_sentence(self, recipes: Path, old: str, new: str, sentence: str) -> None:
        path = recipes / "guest.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(ImageError, match=sentence):
            digest_of(recipes)

    def test_entries_with_an_interpreter_are_executable(self) -> None:
        for role, suite in ROLES_AND_SUITES:
            wanted = recipe.load(role, suite)
            for entry in recipe.entries(wanted, recipe.recipes_directory()):
                if entry.source and entry.content.startswith(b"#!"):
                    assert entry.mode == 0o755, entry.path

    def test_entries_hold_no_secret(self) -> None:
        for role, suite in ROLES_AND_SUITES:
            for entry in recipe.entries(recipe.load(role, suite), recipe.recipes_directory()):
                assert b"PRIVATE KEY" not in entry.content
                assert entry.path.name not in ("shadow", "authorized_keys", "machine-id")


class TestDigest:
    @staticmethod
    def _change_list(recipes: Path) -> None:
        path = recipes / "guest.toml"
        path.write_text(path.read_text().replace('"fio",', '"fio", "hdparm",', 1))

    @staticmethod
    def _change_number(recipes: Path) -> None:
        path = recipes / "guest.toml"
        path.write_text(path.read_text().replace("free_mib = 16", "free_mib = 17"))

    @staticmethod
    def _change_content(recipes: Path) -> None:
        with (recipes / "files/guest/usr/sbin/shutdown").open("a") as file:
            file.write("# more\n")

    @staticmethod
    def _change_mode(recipes: Path) -> None:
        (recipes / "files/guest/usr/sbin/shutdown").chmod(0o644)

    @staticmethod
    def _change_name(recipes: Path) -> None:
        path = recipes / "files/guest/usr/sbin/shutdown"
        path.rename(path.with_name("halt"))

    @staticmethod
    def _change_kind(recipes: Path) -> None:
        path = recipes / "files/guest/usr/sbin/shutdown"
        path.unlink()
        path.symlink_to("poweroff")

    @staticmethod
    def _change_common_file(recipes: Path) -> None:
        (recipes / "files/common/usr/lib/drbd-harness/new").write_text("new")

    @staticmethod
    def _change_program(recipes: Path) -> None:
        with (recipes / "src/swapstorm.c").open("a") as file:
            file.write("/* more */\n")

    @staticmethod
    def _change_header(recipes: Path) -> None:
        (recipes / "src/storm.h").write_text("/* more */\n")
        with (recipes / "src/swapstorm.c").open("a") as file:
            file.write('# include "storm.h"\n')

    @staticmethod
    def _change_initrd(recipes: Path) -> None:
        with (recipes / "src/initrd.c").open("a") as file:
            file.write("/* more */\n")

    @pytest.mark.parametrize(
        "change",
        [
            _change_list,
            _change_number,
            _change_content,
            _change_mode,
            _change_name,
            _change_kind,
            _change_common_file,
            _change_program,
            _change_header,
            _change_initrd,
        ],
        ids=lambda change: change.__name__.removeprefix("_change_"),
    )
    def test_digest_with_any_input_changed_differs(self, recipes: Path, change: Callable[[Path], None]) -> None:
        before = digest_of(recipes)
        change(recipes)
        assert digest_of(recipes) != before

    @pytest.mark.parametrize("source", ["witness.c", "witness.bpf.c", "witness.h"])
    def test_digest_with_another_bpf_program_differs_for_the_role_that_has_it(self, recipes: Path, source: str) -> None:
        before = [digest_of(recipes, role) for role in ("node", "guest")]
        with (recipes / "src" / source).open("a") as file:
            file.write("/* more */\n")
        assert [digest_of(recipes, role) == one for role, one in zip(("node", "guest"), before, strict=True)] == [
            False, True,
        ]  # fmt: skip

    def test_with_headers_follows_what_includes_what(self, recipes: Path) -> None:
        (recipes / "src/one.h").write_text('#include "two.h"\n#include <stdio.h>\n')
        (recipes / "src/two.h").write_text('#include "one.h"\n  # include "three.h"\n#include "elsewhere.h"\n')
        (recipes / "src/three.h").write_text('/* #include "initrd.c" */\n')
        (recipes / "src/divide.c").write_text('#include "one.h"\n')
        assert recipe.with_headers(["divide.c"], recipes) == ["divide.c", "one.h", "two.h", "three.h"]

    def test_digest_with_another_link_target_differs(self, recipes: Path) -> None:
        link = recipes / "files/guest/link"
        link.symlink_to("/run")
        before = digest_of(recipes)
        link.unlink()
        link.symlink_to("/tmp")
        assert digest_of(recipes) != before

    def test_digest_of_another_builder_format_differs(self, recipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = digest_of(recipes)
        monkeypatch.setattr(recipe, "BUILDER_FORMAT", recipe.BUILDER_FORMAT + 1)
        assert digest_of(recipes) != before

    def test_digest_ignores_times_umask_and_backups(self, recipes: Path) -> None:
        before = digest_of(recipes)
        path = recipes / "files/guest/usr/sbin/shutdown"
        os.utime(path, (1, 1))
        path.chmod(0o700)
        path.with_name("shutdown~").write_text("an editor's backup")
        assert digest_of(recipes) == before

    def test_digest_ignores_comments_in_the_recipe(self, recipes: Path) -> None:
        before = digest_of(recipes)
        with (recipes / "guest.toml").open("a") as file:
            file.write("\n# a remark\n")
        assert digest_of(recipes) == before

    def test_digest_ignores_the_other_role(self, recipes: Path) -> None:
        before = digest_of(recipes, "node")
        self._change_content(recipes)
        assert digest_of(recipes, "node") == before

    def test_digest_of_another_suite_differs(self, recipes: Path) -> None:
        assert digest_of(recipes, suite="trixie") != digest_of(recipes, suite="bookworm")

    def test_entries_of_a_role_replace_common_ones(self, recipes: Path) -> None:
        path = PurePosixPath("/usr/lib/drbd-harness/killable")
        own = recipes / "files/guest" / path.relative_to("/")
        own.parent.mkdir(parents=True)
        own.write_text("mine")
        found = {entry.path: entry for entry in recipe.entries(recipe.load("guest", "trixie", recipes), recipes)}
        assert found[path].content == b"mine"


class TestCache:
    def test_list_images_is_newest_first(self, tmp_path: Path) -> None:
        put_image(tmp_path, "guest", "trixie", "a" * 64, timedelta(hours=2))
        put_image(tmp_path, "node", "trixie", "b" * 64)
        found = images.list_images(tmp_path)
        assert [image.digest[0] for image in found] == ["b", "a"]
        assert found[0].packages == {"fio": "3.39-1"}
        assert found[0].kernel_args == ["ro"]
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


class TestPreconditions:
    @pytest.fixture
    def guest(self) -> recipe.Recipe:
        return recipe.load("guest", "trixie")

    def test_check_space_with_too_little_is_one_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil._ntuple_diskusage(10 << 30, 10 << 30, 5 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
        with pytest.raises(ImageError, match=r"^building the node image needs \d+ MiB free in .*, and only 5 MiB are$"):
            builder.check_space(tmp_path, "node")

    def test_check_space_with_enough_passes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil._ntuple_diskusage(10 << 30, 0, 10 << 30)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
        builder.check_space(tmp_path, "node")

    @pytest.mark.parametrize(
        ("user", "named", "wanted"), [(0, "/here", "/cache"), (1000, "/here", "/here"), (1000, "", "/var/tmp")]
    )
    def test_scratch_directory_of_an_ordinary_user_is_no_memory(
        self, user: int, named: str, wanted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.geteuid", lambda: user)
        monkeypatch.setenv("TMPDIR", named)
        assert builder.scratch_directory(Path("/cache")) == Path(wanted)

    def test_check_tools_with_missing_ones_names_their_packages(
        self, guest: recipe.Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool in ("gcc", "genext2fs") else tool)
        with pytest.raises(
            ImageError, match=r"needs genext2fs, gcc: .*'apt-get install --no-remove genext2fs gcc libc6-dev'$"
        ):
            builder.check_tools(guest)

    def test_check_tools_for_a_bpf_program_names_clang(
        self, guest: recipe.Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == "clang" else tool)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        builder.check_tools(guest)
        with pytest.raises(
            ImageError, match=r"node image needs clang: .*'apt-get install --no-remove clang libbpf-dev'$"
        ):
            builder.check_tools(recipe.load("node", "trixie"))

    def test_check_tools_without_tune2fs_names_its_package(
        self, guest: recipe.Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == "tune2fs" else tool)
        with pytest.raises(ImageError, match=r"needs tune2fs: .*'apt-get install --no-remove e2fsprogs'$"):
            builder.check_tools(guest)

    def test_check_tools_without_subordinate_ids_names_the_command(
        self, guest: recipe.Recipe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "which", lambda tool, path: f"/usr/bin/{tool}")
        monkeypatch.setattr(os, "geteuid", lambda: 4000000)
        monkeypatch.setattr(os, "getuid", lambda: 4000000)
        with pytest.raises(ImageError, match=r"subuid gives 4000000 no range of ids \(as root: usermod --add"):
            builder.check_tools(guest)

    @pytest.mark.parametrize(("uid", "mode"), [(0, "root"), (1000, "unshare")])
    def test_mmdebstrap_argv_has_mode_and_mirror(
        self, guest: recipe.Recipe, uid: int, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        parts = Path("/a dir/parts")
        argv = builder.mmdebstrap_argv(guest, parts / "overlay.tar", parts, parts / "root.tar", None)
        assert f"--mode={mode}" in argv
        assert argv[-2:] == ["trixie", "/a dir/parts/root.tar"]
        assert "--customize-hook=tar-in '/a dir/parts/overlay.tar' /" in argv
        with_mirror = builder.mmdebstrap_argv(guest, parts / "overlay.tar", parts, parts / "root.tar", "http://mirror/")
        assert with_mirror == [*argv, "http://mirror/"]

    def test_compile_program_with_an_error_names_the_source(self, recipes: Path, tmp_path: Path) -> None:
        if not shutil.which("gcc"):
            pytest.skip("no gcc")
        (recipes / "src/swapstorm.c").write_text("int main(void) { return nothing; }\n")
        with pytest.raises(ImageError, match=r"gcc could not build swapstorm\.c"):
            programs.compile_program(recipes / "src/swapstorm.c", tmp_path)

    def test_compile_program_without_all_of_libelf_has_what_is_missing(self, tmp_path: Path) -> None:
        if not shutil.which("gcc"):
            pytest.skip("no gcc")
        source = tmp_path / "trees.c"
        source.write_text(TREES)
        done = subprocess.run([programs.compile_program(source, tmp_path)], check=False)
        assert done.returncode == 0
        source.write_text(TREES.replace("eu_tdelete(", "eu_other("))
        with pytest.raises(ImageError, match=r"gcc could not build trees\.c .*eu_other"):
            programs.compile_program(source, tmp_path)

    def test_compile_program_with_an_error_in_the_bpf_program_names_it(self, recipes: Path, tmp_path: Path) -> None:
        if not shutil.which("clang"):
            pytest.skip("no clang")
        broken = recipes / "src/broken.bpf.c"
        broken.write_text("int program(void) { return nothing; }\n")
        with pytest.raises(
            ImageError, match=r"clang could not build the BPF program broken\.bpf\.c .*: .*undeclared .*nothing"
        ):
            programs.compile_program(recipes / "src/witness.c", tmp_path, broken)

    def test_compile_program_without_clang_is_one_sentence(
        self, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ImageError, match=r"witness\.bpf\.c .*: .*clang is not installed"):
            programs.compile_program(recipes / "src/witness.c", tmp_path, recipes / "src/witness.bpf.c")


class TestArchive:
    DEP = textwrap.dedent(
        """\
        kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz
        kernel/fs/jbd2/jbd2.ko.xz:
        kernel/fs/mbcache.ko.xz:
        kernel/lib/crc16.ko.xz:
        kernel/drivers/net/e1000.ko.xz:
        """
    )

    def test_loading_order_has_dependencies_first(self) -> None:
        order = archive.loading_order(
            self.DEP, "kernel/drivers/virtio/virtio-pci.ko\n", ["virtio_pci", "ext4", "e1000"]
        )
        assert order == [
            "kernel/fs/mbcache.ko.xz",
            "kernel/fs/jbd2/jbd2.ko.xz",
            "kernel/lib/crc16.ko.xz",
            "kernel/fs/ext4/ext4.ko.xz",
            "kernel/drivers/net/e1000.ko.xz",
        ]

    def test_loading_order_of_an_unknown_module_names_it(self) -> None:
        with pytest.raises(ImageError, match="no module 'zfs'"):
            archive.loading_order(self.DEP, "", ["ext4", "zfs"])

    def test_parse_status_has_installed_packages_only(self) -> None:
        text = textwrap.dedent(
            """\
            Package: zlib1g
            Status: install ok installed
            Version: 1:1.3
            Description: a library
             Package: not this one

            Package: gone
            Status: deinstall ok config-files
            Version: 1

            Package: fio
            Status: install ok installed
            Version: 3.39-1
            """
        )
        assert archive.parse_status(text) == {"fio": "3.39-1", "zlib1g": "1:1.3"}

    def test_pack_overlay_is_owned_by_root_with_modes_and_parents(self, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\x7fELF")
        (tmp_path / "script").write_text("#!/bin/sh\n")
        entries = [
            recipe.Entry(PurePosixPath("/etc"), 0o755),
            recipe.Entry(PurePosixPath("/etc/script"), 0o755, source=tmp_path / "script"),
            recipe.Entry(PurePosixPath("/etc/link"), 0o777, target="/dev/null"),
        ]
        archive.pack(tmp_path / "overlay.tar", entries, {"/usr/lib/own/program": tmp_path / "binary"})
        with tarfile.open(tmp_path / "overlay.tar") as tar:
            members = {member.name: member for member in tar}
        assert list(members) == [
            "etc", "etc/script", "etc/link", "usr", "usr/lib", "usr/lib/own", "usr/lib/own/program",
        ]  # fmt: skip
        assert {member.uid for member in members.values()} == {0}
        assert members["etc/script"].mode == 0o755
        assert members["etc/link"].linkname == "/dev/null"
        assert members["usr/lib/own/program"].size == 4

    def test_initrd_is_a_newc_archive(self) -> None:
        data = archive.initrd(b"program", {"a.ko": b"AAAAA", "b.ko": b"B"})
        found = dict(self.read_newc(data))
        assert list(found) == ["dev", "dev/console", "init", "modules.list", "a.ko", "b.ko", "TRAILER!!!"]
        assert found["init"] == (0o100755, b"program")
        assert found["modules.list"] == (0o100644, b"/a.ko\n/b.ko\n")
        assert found["a.ko"] == (0o100644, b"AAAAA")
        assert found["dev/console"][0] == 0o020600

    @staticmethod
    def read_newc(data: bytes) -> Iterator[tuple[str, tuple[int, bytes]]]:
        """Name, mode and content of each member, read by the format's own description (cpio(5), "newc")."""
        at = 0
        while at < len(data):
            assert data[at : at + 6] == b"070701"
            fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = data[at + 110 : at + 110 + name_size]
            assert name.endswith(b"\0")
            start = -(-(at + 110 + name_size) // 4) * 4
            yield name[:-1].decode(), (mode, data[start : start + size])
            at = -(-(start + size) // 4) * 4

    def test_find_kernel_prefers_the_unpacked_one(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz-6.1").touch()
        assert archive.find_kernel(tmp_path) == ("6.1", tmp_path / "vmlinuz-6.1")
        (tmp_path / "vmlinux-6.1").touch()
        assert archive.find_kernel(tmp_path) == ("6.1", tmp_path / "vmlinux-6.1")
        (tmp_path / "vmlinuz-6.2").touch()
        with pytest.raises(ImageError, match=r"2 kernels instead of one: vmlinuz-6\.1, vmlinuz-6\.2"):
            archive.find_kernel(tmp_path)

    @pytest.mark.parametrize("journal_mib", [0, 16])
    def test_make_filesystem_of_a_tar_passes_fsck(self, tmp_path: Path, journal_mib: int) -> None:
        """A small system through the whole chain: tar, contents, filesystem, and the checker's opinion of it."""
        tools = {tool: shutil.which(tool, path=paths.programs()) for tool in ("genext2fs", "e2fsck", "dumpe2fs")}
        if not all(tools.values()):
            pytest.skip("needs genext2fs and e2fsprogs")
        tar_path = tmp_path / "root.tar"
        big = os.urandom(3 << 20)
        files = {
            "./usr/lib/modules/6.1/modules.dep": self.DEP.replace(".xz", "").encode(),
            "./usr/lib/modules/6.1/modules.builtin": b"",
            "./usr/lib/modules/6.1/kernel/drivers/net/e1000.ko": b"module",
            "./var/lib/dpkg/status": b"Package: fio\nStatus: install ok installed\nVersion: 3\n",
            "./usr/bin/big": big,
        }
        with tarfile.open(tar_path, "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        contents = archive.read(tar_path, "6.1", ["e1000"])
        assert contents.modules == {"e1000.ko": b"module"}
        assert contents.packages == {"fio": "3"}
        image = tmp_path / "root.img"
        wanted = replace(recipe.load("guest", "trixie"), free_mib=2048, journal_mib=journal_mib)
        builder.make_filesystem(image, tar_path, contents, wanted, tmp_path / "log", TestProcess.step())
        checked = subprocess.run([str(tools["e2fsck"]), "-fn", image], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
        shown = subprocess.run([str(tools["dumpe2fs"]), "-h", image], capture_output=True, text=True, check=True).stdout
        assert ("has_journal" in shown) == (journal_mib > 0)
        status = image.stat()
        assert status.st_size >= 2048 << 20
        assert status.st_blocks * 512 < 64 << 20, "the filesystem must be sparse"


class TestProcess:
    @staticmethod
    def step() -> process.Step:
        return process.Step("guest image, trixie", time.monotonic(), Event())

    def test_run_that_fails_raises_reason_and_log(self, tmp_path: Path) -> None:
        script = 'echo Reading package lists; echo "E: Unable to locate package nonsense"; echo "I: done"; exit 25'
        log = tmp_path / "log"
        with pytest.raises(ImageError) as caught:
            process.run(["sh", "-c", script], log, self.step(), "starting")
        assert str(caught.value) == f"sh ended with status 25: E: Unable to locate package nonsense (whole log: {log})"
        assert "Reading package lists" in log.read_text()

    def test_last_phase_is_the_newest_that_was_printed(self) -> None:
        assert process.last_phase(["I: extracting archives...", "Setting up x", "I: done"]) == "done"
        assert process.last_phase(["Setting up x"]) is None

    def test_reason_without_an_error_line_is_the_last_lines(self) -> None:
        assert process.reason(["a", "b", "c", "d", "I: done"]) == "b / c / d"
        assert process.reason(["I: done"]) == "I: done"
        assert process.reason([]) == "no output"
        assert len(process.reason(["x" * 10000])) < 200

    def test_run_of_a_silent_program_reports_progress(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "harness.progress")
        process.run(["sleep", "1.3"], tmp_path / "log", self.step(), "waiting")
        assert caplog.messages[0].startswith("guest image, trixie: waiting (")

    def test_run_logs_the_program_without_what_is_around_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "harness.command")
        with pytest.raises(ImageError):
            process.run(["sh", "-c", "exit 25"], tmp_path / "log", self.step(), "starting")
        stopped = self.step()
        stopped.stop.set()
        with pytest.raises(process.StoppedError):
            process.run(["sleep", "60"], tmp_path / "log", stopped, "waiting")
        assert [message.split("\t")[:3] + message.split("\t")[4:5] for message in caplog.messages] == [
            ["-", "controller", "25", "sh -c 'exit 25'"], ["-", "controller", "stopped", "sleep 60"],
        ]  # fmt: skip

    def test_run_that_is_stopped_lets_the_program_clean_up(self, tmp_path: Path) -> None:
        step = self.step()
        marker = tmp_path / "cleaned"
        script = f'trap "touch {marker}; exit 1" TERM; sleep 60 & wait'
        step.stop.set()
        with pytest.raises(process.StoppedError):
            process.run(["sh", "-c", script], tmp_path / "log", step, "waiting")
        assert marker.exists()

    def test_run_in_a_killed_harness_ends_its_programs(self, tmp_path: Path) -> None:
        """SIGKILL leaves the harness no chance; the programs it started must end all the same."""
        marker = tmp_path / "cleaned"
        script = f'trap "touch {marker}; exit 1" TERM; echo started; sleep 60 & wait'
        program = textwrap.dedent(
            f"""
            import time
            from pathlib import Path
            from threading import Event
            from harness.images import process
            step = process.Step("x", time.monotonic(), Event())
            process.run(["sh", "-c", {script!r}], Path({str(tmp_path / "log")!r}), step, "waiting")
            """
        )
        root = Path(images.__file__).parents[2]
        harness = subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.DEVNULL)
        try:
            self.wait_until(lambda: (tmp_path / "log").exists() and "started" in (tmp_path / "log").read_text())
        finally:
            harness.kill()
            harness.wait()
        self.wait_until(marker.exists)

    @staticmethod
    def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "did not happen in time"
            time.sleep(0.02)


def test_scripts_of_the_images_are_valid_shell() -> None:
    for path in (recipe.recipes_directory() / "files").rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh"):
            checked = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr


def test_list_images_leaves_out_lock_files(tmp_path: Path) -> None:
    put_image(tmp_path, "guest", "trixie", "a" * 64)
    (tmp_path / "images" / ".guest-trixie-aaaaaaaaaaaa.lock").touch()
    assert len(cache.list_images(tmp_path)) == 1
