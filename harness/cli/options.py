"""What the commands share: options, and how they print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.errors import UsageError
from harness.util.logs import one_line

SuiteOption = Annotated[str, typer.Option(help="Debian suite of the nodes")]
OptionalSuiteOption = Annotated[
    str | None, typer.Option("--suite", help="Debian suite of nodes and guest: the stack of that suite alone (trixie)")
]
StackOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="the software under test: a stack that comes along, or a TOML file")
]
DrbdOption = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="another DRBD for it: a folder of modules or of packages, or one .deb"),
]
RunsOption = Annotated[Path, typer.Option(help="where runs are kept")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="a run's id, its folder, or 'latest'")]
GuestImageOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a qcow2 of yours with a guest agent in it: cells are played in it")
]
GuestFirmwareOption = Annotated[
    str | None, typer.Option(metavar="WHICH", help="what your image boots by: bios or uefi (as it is made)")
]
GuestDiskBusOption = Annotated[
    str | None,
    typer.Option(metavar="BUS", help="of the disk it boots from: virtio, sata, scsi (virtio; Windows: sata)"),
]
GuestMemoryOption = Annotated[int | None, typer.Option(min=128, help="memory of its guest (512; Windows: 2048)")]
GuestVcpusOption = Annotated[int | None, typer.Option(min=1, help="processors of its guest (1)")]
GuestBootSecondsOption = Annotated[int | None, typer.Option(min=10, help="how long its agent is waited for (900)")]

console = Console(highlight=False)


def print_document(text: str) -> None:
    """Print what another program or a file takes: UTF-8 in every locale, as the same file would be."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def warn(sentence: str) -> None:
    """A sentence on standard error; the command goes on."""
    print(f"drbd-harness: {one_line(sentence)}", file=sys.stderr)


def stack_options(stack: str | None, drbd: str | None, suite: str | None) -> dict[str, str]:
    """What of these was given, by the names that :func:`~harness.config.run_specs.specs_from_options` knows."""
    given = {"stack": stack, "modules": drbd, "suite": suite}
    return {name: value for name, value in given.items() if value is not None}


def check_image_choices(
    image: Path | None, firmware: str | None, bus: str | None, numbers: Iterable[int | None]
) -> None:
    """:class:`~harness.errors.UsageError` where one of them cannot be, or there is no image that it is about."""
    for value, option, allowed in (
        (firmware, "--guest-firmware", ("bios", "uefi")),
        (bus, "--guest-disk-bus", ("virtio", "sata", "scsi")),
    ):
        if value is not None and value not in allowed:
            raise UsageError(f"{option}: '{value}' is none of {', '.join(allowed)}")
    if image is None and any(one is not None for one in (firmware, bus, *numbers)):
        raise UsageError("what is said about a guest image of yours needs the image: --guest-image FILE")
