"""An image's digest: what goes into it and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from image_recipes import digest_of, recipes

from harness.config import recipe

__all__ = ["recipes"]


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
