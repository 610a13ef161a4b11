"""What goes into the images of a stack: packages and modules of a user's, their digest, and what is wrong with them."""

from __future__ import annotations

import gzip
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from image_recipes import put_image

from harness import images
from harness.config.recipe import ImageError
from harness.config.stack_spec import NodeStack, NodeTable, StackSpec
from harness.images import archive, chroot_script, debs, downloads, modules, stack_builder
from harness.images.apt import Download
from harness.images.cache import load_image
from harness.images.chroot_script import Added
from harness.images.debs import UserDebError
from harness.images.parts import Parts
from harness.images.process import Step
from harness.images.stacks import ensure_stack, parts_of
from harness.images.system import System
from harness.util import paths

KERNEL = "6.12.118+deb13-amd64"
Deb = Callable[..., Path]


def module(path: Path, kernel: str = KERNEL, needs: str = "") -> Path:
    """A file that says of itself what a module does, in the order and with the zero bytes of a real one."""
    info = f"version=9.3.3\0srcversion=ABC\0depends={needs}\0vermagic={kernel} SMP preempt mod_unload modversions \0"
    content = b"\x7fELF" + b"\0" * 60 + info.encode()
    packed = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(content)
    path.write_bytes(packed)
    return path


@pytest.fixture
def deb(tmp_path: Path) -> Deb:
    """Makes packages: ``deb("linux-image-6.1", files=["boot/vmlinuz-6.1"])``."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")

    def make(
        package: str,
        *,
        files: tuple[str, ...] = (),
        architecture: str = "amd64",
        depends: str = "",
        folder: str = "debs",
    ) -> Path:
        tree = tmp_path / "trees" / package
        for name in files:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            module(tree / name) if modules.MODULE_NAME.search(name) else (tree / name).write_text(name)
        (tree / "DEBIAN").mkdir(parents=True, exist_ok=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {package}\nVersion: 1:2.0\nArchitecture: {architecture}\nMaintainer: nobody <n@example.org>\n"
            f"Description: nothing\n" + (f"Depends: {depends}\n" if depends else "")
        )
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / f"{package}_2.0_{architecture}.deb"
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", tree, path], check=True, capture_output=True)
        return path

    return make


def node(**origins: object) -> Parts:
    given = {name: (str(value),) if isinstance(value, str | Path) else value for name, value in origins.items()}
    return Parts("node", NodeStack("trixie", **given))  # type: ignore[arg-type]


def refusal(parts: Parts) -> str:
    with pytest.raises(UserDebError) as caught:
        parts.check()
    assert caught.value.exit_code == 4
    return str(caught.value)


# --------------------------------------------------------------------------- packages


def test_read_of_a_package_says_what_is_in_it(deb: Deb) -> None:
    kernel = debs.read(deb("linux-image-6.1", files=("boot/vmlinuz-6.1",), depends="kmod (>= 1) | busybox, libc6"))
    assert (kernel.package, kernel.version, kernel.kernel) == ("linux-image-6.1", "1:2.0", "6.1")
    assert kernel.needs == {"kmod", "busybox", "libc6"} and not kernel.has_modules and not kernel.has_dkms
    assert debs.read(deb("linux-binary-7.3", files=("usr/lib/modules/7.3-x/vmlinuz",))).kernel == "7.3-x"
    assert debs.read(deb("linux-modules-7.3", files=("usr/lib/modules/7.3-x/kernel/a.ko",))).kernel == ""
    assert debs.read(deb("drbd-dkms", architecture="all", files=("usr/src/drbd-9/dkms.conf",))).has_dkms
    assert debs.read(deb("drbd-module", files=("lib/modules/6.1/updates/drbd.ko",))).has_modules


def test_package_of_another_architecture_is_refused(deb: Deb) -> None:
    path = deb("qemu-system-x86", architecture="arm64")
    assert refusal(node(qemu=path)) == f"{path} is a package for arm64, and the machines of a lab are amd64"


def test_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("no archive")
    assert "x.deb is no Debian package that dpkg-deb can read: " in refusal(node(kernel=tmp_path / "x.deb"))
    (tmp_path / "empty").mkdir()
    assert refusal(node(kernel=tmp_path / "empty")).endswith("and there is no package (.deb) in it")
    assert refusal(node(qemu=tmp_path / "gone.deb")).endswith("gone.deb, which is not there any more")


def test_packages_of_a_kernel_build_are_reduced_to_the_kernel(deb: Deb) -> None:
    for name in ("linux-headers-6.1", "linux-libc-dev", "linux-image-6.1-dbg"):
        deb(name)
    folder = deb("linux-image-6.1", files=("boot/vmlinuz-6.1",)).parent
    chosen, release = debs.kernel_of(debs.in_paths([str(folder)], "kernel"))
    assert ([one.package for one in chosen], release) == (["linux-image-6.1"], "6.1")
    deb("linux-image-6.2", files=("boot/vmlinuz-6.2",))
    assert "one kernel (boot/vmlinuz-...) in them, not 2" in refusal(node(kernel=folder))
    assert "not 0" in refusal(node(kernel=folder / "linux-libc-dev_2.0_amd64.deb"))


def test_chosen_for_takes_what_is_replaced_and_what_that_needs(deb: Deb) -> None:
    given = [debs.read(deb(name, depends=needs)) for name, needs in (
        ("qemu-system-x86", "qemu-system-common (= 2)"), ("qemu-system-arm", ""), ("qemu-system-common", "libfoo"),
        ("libfoo", ""),
    )]  # fmt: skip
    assert [one.package for one in debs.chosen_for(given, {"qemu-system-x86", "fio"})] == [
        "qemu-system-x86", "qemu-system-common", "libfoo"
    ]  # fmt: skip
    assert debs.chosen_for(given, {"fio"}) == given


# --------------------------------------------------------------------------- modules


@pytest.mark.parametrize("suffix", ["", ".xz", ".gz"])
def test_read_of_a_module_says_what_modinfo_would(tmp_path: Path, suffix: str) -> None:
    found = modules.read(module(tmp_path / f"drbd.ko{suffix}", needs="libcrc32c,lru_cache"))
    assert (found.name, found.kernel, found.version, found.srcversion) == ("drbd.ko", KERNEL, "9.3.3", "ABC")
    assert found.needs == ("libcrc32c", "lru_cache") and found.content.startswith(b"\x7fELF")


def test_folder_of_modules_is_refused_without_drbd_or_of_two_kernels(tmp_path: Path) -> None:
    folder = tmp_path / "mods"
    (folder / "drbd").mkdir(parents=True)
    assert refusal(node(drbd=folder)).endswith("mods, and there is no module (.ko) or package in it")
    module(folder / "drbd/drbd_transport_tcp.ko")
    assert refusal(node(drbd=folder)).startswith("there is no drbd.ko in ")
    module(folder / "drbd/drbd.ko")
    node(drbd=folder).check()
    module(folder / "drbd/drbd_transport_tcp.ko", "6.1.0-50-amd64")
    assert f"was built for the kernel {KERNEL}, and " in refusal(node(drbd=folder))
    (folder / "drbd.ko").write_text("text")
    assert refusal(node(drbd=folder)) == f"{folder}/drbd.ko is no kernel module"


def test_check_of_modules_for_another_kernel_names_both(tmp_path: Path) -> None:
    one = modules.read(module(tmp_path / "drbd.ko", "6.12.107+deb13-amd64"))
    with pytest.raises(
        UserDebError, match=r"drbd\.ko was built for the kernel 6\.12\.107.*, and the image has 6\.12\.1"
    ):
        modules.check([one], KERNEL, "mods")


def test_one_of_each_refuses_two_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, same = modules.read(module(tmp_path / "drbd.ko")), modules.read(module(tmp_path / "other/drbd.ko"))
    assert modules.one_of_each([one, same]) == [one]
    other = modules.read(module(tmp_path / "other/drbd.ko", needs="x"))
    with pytest.raises(UserDebError, match=r"two drbd\.ko: .*; which is meant\?"):
        modules.one_of_each([one, other])


def test_packages_as_drbd_have_modules_or_sources_or_userland(deb: Deb, tmp_path: Path) -> None:
    ready = deb("drbd-module-x", files=("lib/modules/x/updates/drbd.ko", "lib/modules/x/updates/drbd_transport_tcp.ko"))
    node(drbd=ready).check()
    found = modules.in_deb(debs.read(ready), tmp_path)
    assert [one.name for one in found] == ["drbd.ko", "drbd_transport_tcp.ko"]
    deb("drbd-utils")
    assert [one.package for one in node(drbd=ready.parent).drbd_debs] == ["drbd-module-x", "drbd-utils"]
    assert "has neither a kernel module in it, nor sources for dkms" in refusal(node(drbd=deb("fio")))
    assert "neither a package (.deb) nor a folder" in refusal(node(drbd=tmp_path / "trees/fio/DEBIAN/control"))


# --------------------------------------------------------------------------- QEMU


def test_packages_that_have_nothing_of_what_they_are_named_as_are_refused(deb: Deb) -> None:
    other = deb("fio")
    assert refusal(node(qemu=other)) == f"'qemu' names {other.name}, and bin/qemu-system-x86_64 is in none"
    assert "'libvirt' names" in refusal(node(libvirt=other)) and "'drbd_utils' names" in refusal(node(drbd_utils=other))
    for name, files in (("qemu", ("usr/bin/qemu-system-x86_64",)), ("drbd_utils", ("usr/sbin/drbdadm",)),
                        ("libvirt", ("usr/sbin/virtqemud",))):  # fmt: skip
        node(**{name: (str(other), str(deb(f"own-{name.replace('_', '-')}", files=files)))}).check()


def test_two_modules_of_a_name_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        module(tmp_path / name / "drbd.ko", needs=name)
    assert "there are two drbd.ko: " in refusal(node(drbd=tmp_path))


def test_folder_as_qemu_has_an_installed_build_or_packages(deb: Deb, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    (folder / "usr/local/bin").mkdir(parents=True)
    assert "neither bin/qemu-system-x86_64 nor a package in it" in refusal(node(qemu=folder))
    (folder / "usr/local/bin/qemu-system-x86_64").touch()
    assert node(qemu=folder).qemu_folder == folder / "usr/local"
    packages = deb("qemu-system-x86").parent
    assert node(qemu=packages).qemu_folder is None
    assert [one.package for one in node(qemu=packages).debs["qemu"]] == ["qemu-system-x86"]


# --------------------------------------------------------------------------- the digest


def test_digest_counts_suites_and_what_is_in_files_and_not_where_they_are(deb: Deb, tmp_path: Path) -> None:
    package, folder, copy = deb("qemu-system-x86"), tmp_path / "mods", tmp_path / "copy"
    folder.mkdir()
    module(folder / "drbd.ko")
    shutil.copytree(folder, copy)
    others = [node(), node(kernel="sid"), node(qemu="sid"), node(qemu=package), node(drbd=folder)]
    made = {parts.digest("base") for parts in (*others, Parts("guest", NodeStack("trixie")))}
    made.add(node().digest("other"))
    assert len(made) == 7
    assert node(drbd=copy).digest("base") == node(drbd=folder).digest("base")
    module(copy / "drbd.ko", needs="x")
    (folder / "README").write_text("no module")
    assert node(drbd=copy).digest("base") not in made
    assert node(drbd=folder).digest("base") in made


# --------------------------------------------------------------------------- the images


class TestEnsureStack:
    """:func:`ensure_stack` with a builder that only pretends."""

    @pytest.fixture
    def builds(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
        made: list[str] = []

        def ensure_all(wanted: list[tuple[str, str]], cache: Path) -> list[images.Image]:
            folders = [put_image_once(cache, role, suite) for role, suite in wanted]
            return [image for folder in folders if (image := load_image(folder))]

        def into(
            target: Path, parts: Parts, digest: str, base: images.Image, cache: Path, log: Path, step: Step
        ) -> None:
            made.append(step.name)
            shutil.rmtree(target, ignore_errors=True)
            put_image(cache, parts.role, parts.stack.suite, digest)
            manifest = target / "manifest.json"
            over = f'"stack": {{"base": {{"digest": "{base.digest}", "built_at": "{base.manifest["built_at"]}"}}'
            manifest.write_text(manifest.read_text().replace("{", f"{{{over}}}, ", 1))

        monkeypatch.setattr("harness.images.stacks.ensure_all", ensure_all)
        monkeypatch.setattr(stack_builder, "into", into)
        yield made

    def test_plain_stack_is_the_images_of_its_suites(self, builds: list[str], tmp_path: Path) -> None:
        found = ensure_stack(StackSpec(guest_suite="bookworm"), tmp_path)
        assert found.a == found.b and (found.a.suite, found.guest.suite) == ("trixie", "bookworm")
        assert builds == []

    def test_stack_of_two_nodes_is_built_once_for_each(self, builds: list[str], tmp_path: Path) -> None:
        spec = StackSpec(a=NodeTable(kernel=("trixie-backports",)), b=NodeTable(qemu=("sid",)))
        found = ensure_stack(spec, tmp_path)
        assert len({found.a.digest, found.b.digest, found.guest.digest}) == 3
        digests = images.stack_digests(spec)
        assert (found.a.digest, found.b.digest) == (digests.a, digests.b)
        assert sorted(builds) == [
            "node image, trixie with kernel trixie-backports", "node image, trixie with qemu sid"
        ]  # fmt: skip
        assert ensure_stack(spec, tmp_path) == found and len(builds) == 2

    def test_stack_over_a_base_that_was_built_anew_is_built_anew(self, builds: list[str], tmp_path: Path) -> None:
        spec = StackSpec(node=NodeTable(qemu=("sid",)))
        base = tmp_path / "images"
        ensure_stack(spec, tmp_path)
        for path in base.glob(f"node-trixie-{images.current_digest('node', 'trixie')[:12]}"):
            shutil.rmtree(path)
        ensure_stack(spec, tmp_path)
        assert len(builds) == 2

    def test_kept_digests_are_of_stacks_that_come_along_and_of_those_named(self, tmp_path: Path) -> None:
        mine = StackSpec(node=NodeTable(qemu=("experimental",)))
        shipped = images.kept_digests()
        assert images.current_digest("node", "bookworm") in shipped
        assert images.kept_digests([mine]) - shipped == {images.stack_digests(mine).a}


def put_image_once(cache: Path, role: str, suite: str) -> Path:
    digest = images.current_digest(role, suite)
    found = cache / "images" / f"{role}-{suite}-{digest[:12]}"
    return found if found.is_dir() else put_image(cache, role, suite, digest)


def test_prune_downloads_keeps_what_is_in_an_image(tmp_path: Path) -> None:
    for name in ("packages/a.deb", "packages/b.deb", "modules/one/x.ko", "modules/two/x.ko"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    image = load_image(put_image(tmp_path, "node", "trixie", "d" * 64))
    assert image is not None
    image.manifest["stack"] = {
        "debs": {"a.deb": "sha"}, "modules": {"x.ko": {"origin": str(tmp_path / "modules/one/x.ko")}}
    }  # fmt: skip
    doomed = [tmp_path / "packages/b.deb", tmp_path / "modules/two"]
    assert downloads.prune_downloads(tmp_path, [image], dry_run=True) == doomed and doomed[1].exists()
    with FileLock(tmp_path / "images" / ".node-trixie-0123.lock"):
        # What it fetched is in no image yet.
        assert downloads.prune_downloads(tmp_path, [image], dry_run=False) == [] and doomed[1].exists()
    assert downloads.prune_downloads(tmp_path, [image], dry_run=False) == doomed
    assert not any(path.exists() for path in doomed) and (tmp_path / "modules/one/x.ko").exists()


# --------------------------------------------------------------------------- how it is built


def test_system_of_an_image_comes_out_as_it_went_in(tmp_path: Path) -> None:
    genext2fs = shutil.which("genext2fs", path=paths.programs())
    if genext2fs is None:
        pytest.skip("needs genext2fs")
    tree = tmp_path / "tree"
    (tree / "etc/apt").mkdir(parents=True)
    (tree / "etc/apt/sources.list").write_text("deb uri trixie main\n")
    (tree / "etc/shadow").write_text("secret")
    (tree / "etc/shadow").chmod(0o4640)
    (tree / "etc/linked").hardlink_to(tree / "etc/shadow")
    (tree / "etc/there").symlink_to("apt/sources.list")
    (tree / "empty").touch()
    image, made = tmp_path / "root.img", tmp_path / "made.tar"
    subprocess.run([genext2fs, "-b", "4096", "-d", str(tree), str(image)], check=True, capture_output=True)
    system = System(image)
    assert system.read("/etc/apt/sources.list") == b"deb uri trixie main\n"
    with pytest.raises(ImageError, match="there is no /etc/nothing in the image"):
        system.read("/etc/nothing")
    system.pack(made)
    with tarfile.open(made) as tar:
        found = {member.name: member for member in tar}
        assert set(found) == {
            "./empty", "./etc", "./etc/apt", "./etc/apt/sources.list", "./etc/shadow", "./etc/linked", "./etc/there"
        }  # fmt: skip
        shadow = found["./etc/shadow"], found["./etc/linked"]
        assert sorted((one.islnk(), one.mode) for one in shadow) == [(False, 0o4640), (True, 0o4640)]
        assert found["./etc/there"].linkname == "apt/sources.list"
        content = tar.extractfile("./etc/linked")
        assert content is not None and content.read() == b"secret"


def test_stage_of_what_is_installed_is_owned_by_root(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_text("package")
    (tmp_path / "qemu/bin").mkdir(parents=True)
    (tmp_path / "qemu/bin/qemu-img").write_text("program")
    archive.pack_stage(
        tmp_path / "stage.tar", [tmp_path / "x.deb"], {"drbd.ko": b"m"}, {"qemu": tmp_path / "qemu", "none": None}
    )
    with tarfile.open(tmp_path / "stage.tar") as tar:
        names = {member.name.removeprefix("drbd-harness-stack/") for member in tar if member.isfile()}
        assert names == {"debs/x.deb", "modules/drbd.ko", "qemu/bin/qemu-img"}
        assert {(member.uid, member.gid) for member in tar} == {(0, 0)}


@pytest.mark.parametrize("suite", ["bullseye", "trixie", "sid"])
def test_script_of_the_chroot_is_valid_shell(suite: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/qemu-system-x86_64").touch()
    base = load_image(put_image(tmp_path, "node", suite, "d" * 64))
    assert base is not None
    base.manifest["packages"] = {"linux-image-6.12.0": "1", "linux-image-amd64": "1", "linux-base": "1", "fio": "3"}
    found = modules.read(module(tmp_path / "drbd.ko", needs="lru_cache,drbd_transport"))
    files = (Path("linux-image-6.13_1_amd64.deb"), Path("linux-image-amd64_1_amd64.deb"))
    added = Added(Download(files), [found], "6.13", new_kernel=True)
    parts = Parts("node", NodeStack(suite, kernel=("sid",), qemu=(str(tmp_path),)))
    wanted = images.cache._recipe.load("node", suite)
    commands = chroot_script.script(parts, wanted, base, added)
    for command in commands:
        subprocess.run(["sh", "-n", "-c", command], check=True)
    text = "\n".join(commands)
    assert "dpkg --purge --force-depends linux-image-6.12.0 " in text, "the new kernel, and what stands for it, stay"
    assert "NEEDS='drbd_transport lru_cache'" in text
    plain = Added(Download(()), [], "6.12.0", new_kernel=False)
    assert "purge" not in "".join(chroot_script.script(Parts("node", NodeStack(suite)), wanted, base, plain))


def test_parts_of_a_guest_have_only_its_kernel() -> None:
    spec = StackSpec(node=NodeTable(qemu=("sid",)), guest={"kernel": "bookworm"})  # type: ignore[arg-type]
    assert parts_of(spec)[2] == Parts("guest", NodeStack("trixie", kernel=("bookworm",)))
