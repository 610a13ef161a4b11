"""The recipes of the images: what they hold, and what is wrong in one is one sentence."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from image_recipes import ROLES_AND_SUITES, digest_of, recipes

from harness import images
from harness.config import recipe
from harness.images import ImageError

__all__ = ["recipes"]


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


def test_scripts_of_the_images_are_valid_shell() -> None:
    for path in (recipe.recipes_directory() / "files").rglob("*"):
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh"):
            checked = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr
