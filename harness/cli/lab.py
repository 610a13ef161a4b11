"""The commands ``lab ...``: a nested lab that stays up."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated

import typer

from harness.cli.options import (
    DrbdOption,
    GuestBootSecondsOption,
    GuestDiskBusOption,
    GuestFirmwareOption,
    GuestImageOption,
    GuestMemoryOption,
    GuestVcpusOption,
    OptionalSuiteOption,
    StackOption,
    check_image_choices,
    stack_options,
)
from harness.errors import NothingRanError, UsageError
from harness.util import logs
from harness.util.paths import log_dir, own_command

app = typer.Typer(no_args_is_help=True, help="The nested lab: two virtual nodes on this machine.")


@app.command("up")
def lab_up(
    suite: OptionalSuiteOption = None,
    stack: StackOption = None,
    drbd: DrbdOption = None,
    device_mib: Annotated[int, typer.Option(help="least size of the DRBD device, in MiB")] = 128,
    guest_image: GuestImageOption = None,
    guest_firmware: GuestFirmwareOption = None,
    guest_disk_bus: GuestDiskBusOption = None,
    guest_memory_mib: GuestMemoryOption = None,
    guest_vcpus: GuestVcpusOption = None,
    guest_boot_seconds: GuestBootSecondsOption = None,
) -> None:
    """Bring a lab up and leave it up; a lab that is up is found."""
    from harness.config.run_specs import specs_from_options
    from harness.images import check_stack
    from harness.images.user_image import Choices, keep, look_at, table
    from harness.lab.nested.provider import nested_lab
    from harness.util.paths import cache_dir

    numbers = (guest_memory_mib, guest_vcpus, guest_boot_seconds)
    check_image_choices(guest_image, guest_firmware, guest_disk_bus, numbers)
    asked: dict[str, object] = {**stack_options(stack, drbd, suite), "device_mib": device_mib}
    check_stack(specs_from_options(asked)[1])
    with logs.kept_below(log_dir(), "lab-up"), contextlib.ExitStack() as open_lab:
        image = None
        if guest_image is not None:
            found, chosen = look_at(guest_image, "--guest-image"), Choices(guest_firmware, guest_disk_bus, *numbers)
            specs_from_options(asked, table(found, chosen, "0" * 64))
            image = table(found, chosen, keep(found, cache_dir()))
        spec, stack_spec = specs_from_options(asked, image)
        lab = open_lab.enter_context(nested_lab(spec, stack_spec, keep=True))
        runs = lab.stack
        print(f"lab {lab.id} is up: kernel {runs.kernel}, DRBD {runs.drbd}, QEMU {runs.qemu}, {runs.accelerator}")
    print(f"{own_command()} lab ssh a | lab console a | lab down")


@app.command("down")
def lab_down() -> None:
    """Take the lab down that 'lab up' left."""
    from harness.lab.nested.leftovers import clean

    with logs.kept_below(log_dir(), "lab-down"):
        gone = clean(only_kept=True)
    if not gone:
        raise NothingRanError("no lab is up")
    for what in gone:
        print(f"took down {what}")


@app.command("ssh", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab_ssh(context: typer.Context, node: Annotated[str, typer.Argument(help="a or b")]) -> None:
    """A shell, or a command, on a node of the lab that is up."""
    from harness.lab.nested.leftovers import the_lab

    directory, record = the_lab()
    known = {one.side: one.name for one in record.nodes}
    if node not in known:
        raise UsageError(f"there is no node '{node}' in the lab; there are {', '.join(known)}")
    argv = ["ssh", "-F", str(directory / "ssh_config"), known[node], *context.args]
    os.execvp(argv[0], argv)


@app.command("console")
def lab_console(
    node: Annotated[str, typer.Argument(help="a or b")],
    follow: Annotated[bool, typer.Option(help="attach to it instead of printing it")] = False,
) -> None:
    """What a node printed on its serial console; --follow attaches to it with virsh."""
    from harness.lab.nested.domains import console_file
    from harness.lab.nested.leftovers import the_lab

    directory, record = the_lab()
    known = {one.side: one for one in record.nodes}
    if node not in known:
        raise UsageError(f"there is no node '{node}' in the lab; there are {', '.join(known)}")
    if follow:
        argv = ["virsh", "-c", record.uri, "console", known[node].domain]
        os.execvp(argv[0], argv)
    sys.stdout.write(console_file(directory, node).read_text(errors="replace"))
