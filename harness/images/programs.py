"""The programs of an image: C compiled on the controller to static binaries, some with a BPF program embedded in them.

A BPF program is compiled by clang; the C program that embeds it finds the file's name in the macro ``BPF_OBJECT`` and
is linked with libbpf.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.config.recipe import ImageError
from harness.errors import HarnessError
from harness.images import libelf
from harness.remote.local import LocalRunner

COMPILE_SECONDS = 300.0

_STATIC = ("gcc", "-O2", "-Wall", "-static", "-pthread")
# mcpu=v3 is what kernels know since 5.1.
_BPF = ("clang", "-g", "-O2", "-Wall", "-target", "bpf", "-mcpu=v3")


def compile_program(source: Path, directory: Path, bpf: Path | None = None, needs: str = "libc6-dev is needed") -> Path:
    """Build the C ``source`` as a static program in ``directory``, with the BPF program ``bpf`` embedded if given.

    Raises :class:`ImageError` with the line of the compiler or linker that says why, and what it ``needs``.  Takes
    about a second.
    """
    binary = directory / source.stem
    argv = [*_STATIC, "-o", str(binary), str(source)]
    if bpf is not None:
        argv += [f'-DBPF_OBJECT="{_compile_bpf(bpf, directory)}"', *_libbpf()]
        needs = "libc6-dev, libbpf-dev, libelf-dev and zlib1g-dev are needed"
    failed = f"gcc could not build {source.name} as a static program ({needs})"
    errors = _errors(argv, failed)
    if libelf.MARK in errors:
        missing = directory / "libelf-missing.c"
        missing.write_text(libelf.SOURCE, encoding="utf-8")
        # Behind what needs it, and before libc.
        errors = _errors([*argv, str(missing)], failed)
    if errors:
        raise ImageError(f"{failed}: {_telling(errors)}")
    return binary


def _compile_bpf(source: Path, directory: Path) -> Path:
    target = directory / f"{source.stem}.o"
    # Where distributions with several architectures have the kernel's own headers, <asm/types.h> among them.
    multiarch = _output(["gcc", "-print-multiarch"])
    headers = ["-idirafter", f"/usr/include/{multiarch}"] if multiarch else []
    _compile(
        [*_BPF, *headers, "-c", str(source), "-o", str(target)],
        f"clang could not build the BPF program {source.name} (clang and libbpf-dev are needed)",
    )
    return target


def _libbpf() -> list[str]:
    """The linker's options for libbpf and what it needs in turn, which differs by its version."""
    return shlex.split(_output(["pkg-config", "--static", "--libs", "libbpf"])) or ["-lbpf", "-lelf", "-lz"]


def _compile(argv: Sequence[str], failed: str) -> None:
    if errors := _errors(argv, failed):
        raise ImageError(f"{failed}: {_telling(errors)}")


def _errors(argv: Sequence[str], failed: str) -> str:
    """What a compiler printed that did not make it; empty where it did."""
    try:
        result = LocalRunner().run(argv, timeout=COMPILE_SECONDS, ok=())
    except HarnessError as error:
        raise ImageError(f"{failed}: {error}") from error
    return (result.stderr.strip() or "no output") if result.status else ""


def _telling(errors: str) -> str:
    """The line that says what is wrong: the linker's own last one only counts its errors."""
    lines = errors.splitlines()
    named = [line for line in lines if "error: " in line or "undefined reference" in line or "cannot find" in line]
    return next((line for line in named if not line.startswith("collect2: ")), lines[-1])


def _output(argv: Sequence[str]) -> str:
    """What ``argv`` prints; empty where it cannot say."""
    with contextlib.suppress(HarnessError):
        return LocalRunner().run(argv).stdout.strip()
    return ""
