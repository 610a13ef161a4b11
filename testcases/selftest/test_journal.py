"""The journal of a machine: written down before it is changed, put back after a kill at any moment and after a boot."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_machine import journal

from harness.errors import InfrastructureError, ProtectedError, RefusedError
from harness.lab.hardware import journal as module
from harness.lab.hardware.guard import Machine, program
from harness.lab.hardware.journal import Journal, PutBack
from harness.model.changes import ASKED_FOR, ChangeKind
from harness.remote.scripted import ScriptedRunner

K = ChangeKind
OURS = "# ours"


def sha256(text: str) -> str:
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def seen(folder: Path) -> dict[str, object]:
    """All that ``folder`` has: content, owner, mode, extended attributes and time of the last change of its files."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        kept: list[object] = [status.st_uid, status.st_gid, oct(status.st_mode)]
        if path.is_file():
            names = os.listxattr(path)
            kept += [path.read_bytes(), status.st_mtime_ns, [(name, os.getxattr(path, name)) for name in names]]
        found[str(path.relative_to(folder))] = kept
    return found


# --------------------------------------------------------------------------- the program


@pytest.mark.parametrize("text", [module._program(), program("look")], ids=["journal", "look"])
def test_program_has_no_name_that_is_not_its_own_and_is_python_3_6(tmp_path: Path, text: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(text)
    argv = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821,F823",
        "--output-format=concise",
        path,
    ]
    done = subprocess.run([*argv, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    ast.parse(path.read_text(), feature_version=(3, 6))


def test_every_kind_of_change_has_a_class_in_the_program_or_is_the_guards() -> None:
    tree = ast.parse(module._program())
    (table,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "KINDS"
    )
    assert isinstance(table, ast.Dict)
    kinds = {ast.literal_eval(key) for key in table.keys if key is not None}
    assert kinds | {"storage"} == set(K)


# --------------------------------------------------------------------------- files


def test_file_that_was_replaced_gets_back_all_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "r0.res"
    path.parent.mkdir()
    path.write_text("theirs\n")
    path.chmod(0o640)
    os.setxattr(path, "user.note", b"keep")
    before = seen(path.parent)
    kept, _ = journal(tmp_path / "lib")
    kept.note(K.FILE, str(path), f"begins {OURS}")
    path.unlink()
    path.write_text(f"{OURS}\nresource r0\n")
    again, _ = journal(tmp_path / "lib")
    assert again.put_back().done == (f"file {path}: put back",)
    assert seen(path.parent) == before
    assert again.put_back() == PutBack()


@pytest.mark.parametrize(
    ("written", "goes"),
    [("", True), (OURS[:3], True), (f"{OURS}\nmore", True), ("theirs\n", False), (f"{OURS} and theirs\n", False)],
)
def test_new_file_goes_only_where_it_is_ours_or_was_being_written(tmp_path: Path, written: str, goes: bool) -> None:
    path = tmp_path / "r0.res"
    kept, _ = journal(tmp_path / "lib")
    kept.note(K.FILE, str(path), f"begins {OURS}")
    path.write_text(written)
    back = kept.put_back()
    assert path.exists() != goes
    assert bool(back.done) == goes
    if not goes:
        assert back.left == (f"file {path} stays: somebody else has changed it since",)
        assert path.read_text() == written
        assert kept.entries() == () and len(list((tmp_path / "lib" / "journal" / "left").iterdir())) == 1


def test_file_that_another_program_writes_is_ours_by_a_word_in_it(tmp_path: Path) -> None:
    path = tmp_path / "drbd-minor-101.lkbd"
    kept, _ = journal(tmp_path / "lib")
    for written, goes in (("67108864\t/dev/theirs/used\nuuid:\tFCB3\n", False), ("9\t/dev/mapper/ours-lower\n", True)):
        path.unlink(missing_ok=True)
        kept.note(K.FILE, str(path), "holds /dev/mapper/ours-lower")
        path.write_text(written)
        assert bool(kept.put_back().done) == goes == (not path.exists())


@pytest.mark.parametrize("before", [None, "theirs\n"])
def test_file_that_was_opened_and_not_written_yet_is_ours(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "x"
    if before is not None:
        path.write_text(before)
    kept, _ = journal(tmp_path / "lib")
    kept.note(K.FILE, str(path), sha256("ours"))
    path.write_text("")
    assert kept.put_back().done == (f"file {path}: put back",)
    assert (path.read_text() if path.exists() else None) == before


def test_file_that_cannot_be_put_back_exactly_is_not_noted(tmp_path: Path) -> None:
    kept, _ = journal(tmp_path / "lib")
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "large").write_bytes(b"x" * 1048577)
    for name in ("link", "b", "large"):
        with pytest.raises(ProtectedError, match=f"{name} .*; nothing was changed"):
            kept.note(K.FILE, str(tmp_path / name), sha256("y"))
    assert kept.entries() == ()


def test_directory_goes_when_it_is_empty_and_programs_with_all_that_is_below(tmp_path: Path) -> None:
    kept, _ = journal(tmp_path / "lib")
    (tmp_path / "lib").mkdir(mode=0o700)
    made, filled, programs = tmp_path / "made", tmp_path / "filled", tmp_path / "lib" / "programs"
    for kind, path in ((K.DIRECTORY, made), (K.DIRECTORY, filled), (K.PROGRAMS, programs)):
        kept.note(kind, str(path))
        path.mkdir()
    (filled / "theirs").write_text("")
    (programs / "aa").mkdir()
    (programs / "aa" / "program").write_text("")
    (programs / "out").symlink_to(filled)
    back = kept.put_back()
    assert not made.exists() and not programs.exists() and (filled / "theirs").exists()
    assert back.left == (f"the directory {filled} is not empty, and stays",)
    (tmp_path / "again").mkdir()
    kept.note(K.DIRECTORY, str(tmp_path / "again" / "filled"))
    (tmp_path / "again" / "filled").mkdir()
    kept.note(K.FILE, str(tmp_path / "again" / "filled" / "x"), sha256("1"))
    (tmp_path / "again" / "filled" / "x").write_text("1")
    kept.note(K.PROGRAMS, str(programs))
    programs.symlink_to("/nowhere")
    assert kept.put_back().left == (f"programs {programs} stays: somebody else has changed it since",)
    assert not (tmp_path / "again" / "filled").exists()
    with pytest.raises(ProtectedError, match="is nothing that the journal keeps"):
        kept.note(K.PROGRAMS, "/etc")
    with pytest.raises(ProtectedError, match="is nothing that the journal keeps"):
        kept.note(K.PROGRAMS, f"{tmp_path}/lib/../etc")


def test_what_was_made_before_waits_for_what_cannot_be_put_back_and_values_do_not(tmp_path: Path) -> None:
    kept, runner = journal(tmp_path / "lib", may_change=("sysctls",))
    (tmp_path / "made").mkdir()
    kept.note(K.SYSCTL, "/proc/sys/kernel/hostname", "ours")
    kept.note(K.FILE, str(tmp_path / "x"), sha256("1"))
    (tmp_path / "x").write_text("1")
    kept.note(K.DIRECTORY, str(tmp_path / "later"))
    (tmp_path / "later").mkdir()

    def stuck(names: dict[str, object]) -> None:
        def restore(self: object, entry: object, now: object) -> None:
            raise names["RefusedError"]("it is stuck")  # type: ignore[operator]

        names["Directory"].restore = restore  # type: ignore[attr-defined]

    runner.change = stuck
    back = kept.put_back()
    assert back.done == ("sysctl /proc/sys/kernel/hostname: it is as it was",)
    assert back.failed == (
        f"directory {tmp_path}/later cannot be put back: it is stuck",
        f"1 earlier changes wait for that, the last file {tmp_path}/x",
    )
    assert (tmp_path / "x").exists() and len(kept.entries()) == 2
    runner.change = lambda names: None
    assert len(kept.put_back().done) == 2 and not (tmp_path / "x").exists() and not (tmp_path / "later").exists()


# --------------------------------------------------------------------------- killed


class KilledError(Exception):
    """In the place of kill -9."""


def killed_at(number: int, functions: tuple[str, ...]) -> Callable[[dict[str, object]], None]:
    """A change of the program: before its call ``number`` of what changes anything on the disk, it is gone."""
    calls = [0]

    class Os:
        def __getattr__(self, name: str) -> object:
            found = getattr(os, name)
            if name not in functions:
                return found

            def call(*args: object, **options: object) -> object:
                calls[0] += 1
                if calls[0] == number:
                    raise KilledError
                return found(*args, **options)

            return call

    return lambda names: names.update(os=Os())


CHANGING = ("open", "fsync", "rename", "unlink", "rmdir", "makedirs", "fchown", "fchmod", "setxattr", "utime")


@pytest.mark.parametrize("stage", ["noting", "putting back"])
@pytest.mark.parametrize("number", range(1, 40))
def test_program_killed_at_any_call_of_noting_or_putting_back_leaves_what_is_put_back(
    tmp_path: Path, number: int, stage: str
) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "replaced").write_text("theirs\n")
    before = seen(etc)

    def killed(now: str, act: Callable[[Journal], object]) -> None:
        kept, runner = journal(tmp_path / "lib")
        if now == stage:
            runner.change = killed_at(number, CHANGING)
        with contextlib.suppress(KilledError):
            act(kept)

    def write(kept: Journal) -> None:
        kept.note(K.FILE, str(etc / "made"), sha256("ours"))
        (etc / "made").write_text("ours")
        kept.note(K.FILE, str(etc / "replaced"), sha256("ours"))
        (etc / "replaced").write_text("ours")

    killed("noting", write)
    killed("putting back", lambda kept: kept.put_back())
    last, _ = journal(tmp_path / "lib")
    assert last.put_back().failed == ()
    assert seen(etc) == before
    assert last.entries() == ()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_changes_are_put_back_and_never_over_what_somebody_else_wrote_since(data: st.DataObject) -> None:
    names = ("a", "b", "c", "d")
    with tempfile.TemporaryDirectory() as folder:
        etc, lib = Path(folder) / "etc", Path(folder) / "lib"
        etc.mkdir()
        for name in data.draw(st.sets(st.sampled_from(names))):
            (etc / name).write_text(f"theirs {name}")
        wanted = seen(etc)
        steps = data.draw(st.lists(st.tuples(st.sampled_from(names), st.integers(0, 3), st.booleans()), max_size=8))
        for name, value, noted_only in steps:
            kept, _ = journal(lib)
            kept.note(K.FILE, str(etc / name), sha256(f"ours {value}"))
            if not noted_only:
                (etc / name).write_text(f"ours {value}")
        touched = {name for name, _, noted_only in steps if not noted_only}
        others = data.draw(st.sets(st.sampled_from(names)))
        for name in others:
            (etc / name).write_text("somebody else's")
        with_others = seen(etc)
        kept, _ = journal(lib)
        back = kept.put_back()
        assert back.failed == ()
        for name in names:
            expected = with_others if name in others else wanted
            assert seen(etc).get(name) == expected.get(name), name
        assert len(back.left) == len(others & {name for name, _, _ in steps})
        assert set(seen(etc)) == set(wanted) | others and touched <= set(names)
        assert kept.entries() == () and kept.put_back() == PutBack()


# --------------------------------------------------------------------------- entries


def test_note_is_on_the_disk_before_it_returns_and_says_all_that_is_needed(tmp_path: Path) -> None:
    kept, runner = journal(tmp_path)
    kept.note(K.FILE, str(tmp_path / "x"), sha256("1"))
    (path,) = (tmp_path / "journal").glob("*.json")
    entry = json.loads(path.read_text())
    assert (entry["lab"], entry["kind"], entry["before"], entry["how"]) == ("test", "file", None, f"rm {tmp_path}/x")
    assert entry["holder"]["owner"] == "ada on desk"
    assert entry["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700 and path.stat().st_mode & 0o777 == 0o600
    kept.note(K.FILE, str(tmp_path / "x"), sha256("1"))
    assert runner.acts == ["note"], "what was noted is not asked for again"
    kept.note(K.FILE, str(tmp_path / "x"), sha256("2"))
    kept.forget()
    kept.note(K.FILE, str(tmp_path / "x"), sha256("2"))
    assert runner.acts == ["note"] * 3
    (entry_of_both,) = kept.entries()
    assert entry_of_both.number == 1 and entry_of_both.words.startswith("1: file ")
    assert json.loads(path.read_text())["ours"] == [sha256("1"), sha256("2")]


def test_another_labs_entries_stay_and_are_counted_on(tmp_path: Path) -> None:
    one, other = journal(tmp_path)[0], journal(tmp_path, "other")[0]
    one.note(K.FILE, str(tmp_path / "x"), sha256("1"))
    other.note(K.FILE, str(tmp_path / "y"), sha256("1"))
    (tmp_path / "y").write_text("1")
    assert [entry.number for entry in (*one.entries(), *other.entries())] == [1, 2]
    one.put_back()
    assert (tmp_path / "y").exists() and len(other.entries()) == 1
    other.put_back()
    assert not (tmp_path / "y").exists()


def test_journal_in_a_folder_that_others_may_write_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal").chmod(0o777)
    with pytest.raises(ProtectedError, match="journal is no directory that only root may write; nothing was changed"):
        journal(tmp_path)[0].note(K.FILE, str(tmp_path / "x"), sha256("1"))


def test_journal_that_cannot_be_read_is_an_error_and_no_journal(tmp_path: Path) -> None:
    for answer in ((1, "", "Permission denied"), (0, "what?", ""), (0, "[1]", ""), (127, "", "python3: not found")):
        runner = ScriptedRunner(lambda argv, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(InfrastructureError, match="the journal of alpha cannot be kept"):
            Journal(Machine("alpha", runner), "test").entries()
    kept, _ = journal(tmp_path)
    kept.note(K.FILE, str(tmp_path / "x"), sha256("1"))
    next((tmp_path / "journal").glob("*.json")).write_text("{")
    with pytest.raises(InfrastructureError, match=r"00000001\.json cannot be read"):
        kept.entries()


# --------------------------------------------------------------------------- what is asked for by name


@pytest.mark.parametrize(
    ("kind", "what"),
    [(K.MODULE_PARAMETER, "/sys/module/drbd/parameters/x"), (K.NIC_FEATURE, "eno2 sg"), (K.QDISC, "nope0")],
)
def test_what_the_owners_resources_feel_is_changed_only_where_the_inventory_asks(
    tmp_path: Path, kind: ChangeKind, what: str
) -> None:
    kept, runner = journal(tmp_path)
    with pytest.raises(RefusedError) as caught:
        kept.note(kind, what, "off")
    assert f'may_change = ["{ASKED_FOR[kind]}"]' in caught.value.message and what in caught.value.message
    assert runner.acts == []
    with pytest.raises(RefusedError, match=r"there is no|cannot be run"):
        journal(tmp_path, may_change=(ASKED_FOR[kind],))[0].note(kind, what, "off")
