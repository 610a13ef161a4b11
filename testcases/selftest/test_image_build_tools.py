"""What a build of an image needs on this machine, and how its programs are compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from image_recipes import recipes

from harness.config import recipe
from harness.images import ImageError, builder, programs

__all__ = ["recipes"]

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
