"""The options of the harness and its marker: all that a pytest session has of it unasked, and cheap to import.

Options have to be known before any conftest is read, and so come with the entry point.  The fixtures, and what turns
cells into items, come with ``pytest_plugins = ["harness.fixtures"]`` in a conftest: a suite that does not say so runs
as if the harness were not installed.
"""

from __future__ import annotations

from typing import Any

import pytest

FIXTURES = "harness.fixtures"
# What makes a lab what it is, by the names of fields in LabSpec and StackSpec; each is an option ``--drbd-...``.
LAB_OPTIONS = ("suite", "guest_suite", "device_mib", "memory_mib")
# Two real machines instead of virtual ones.
INVENTORY_OPTIONS = ("inventory", "inventory_group")
# A user's own guest image, and how it is started.
IMAGE_OPTIONS = (
    "guest_image", "guest_firmware", "guest_disk_bus", "guest_memory_mib", "guest_vcpus", "guest_boot_seconds"
)  # fmt: skip
# A user's own work, and what is played with it where there is no matrix.
USER_FILE_OPTIONS = ("fio_job", "guest_script")
CHOICE_OPTIONS = ("cache", "filesystem", "client", "seconds")
# What is played how often, and by which chance.
# What says which software is meant: a stack, and a DRBD for it.
STACK_OPTIONS = ("stack", "modules")
CELL_OPTIONS = ("repeat", "seed", "shard")
# Cells of a stored run, to be played again.
LIKE_OPTIONS = ("like", "cell")
# A lab has one session, whose controls stand around its cells: no part of it is dealt out.
ONE_PROCESS = "a lab is played by one process: leave pytest-xdist's -n, --dist and --tx out"
# Where a worker of pytest-xdist's notes what it refused to collect.
_REFUSED = "drbd_harness_refused"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of them ``--drbd-...``."""
    group = parser.getgroup("drbd-harness", "DRBD divergence harness")
    group.addoption(
        "--drbd-matrix",
        metavar="NAME",
        help="cells to play: smoke, quick, natural, full, migration, failover, database, cuts, alarms, faults, drbd-9,"
        " figures, flush, mitigations, proxmox-ve, meta, owners, or a TOML file",
    )
    group.addoption("--drbd-runs", metavar="DIR", default="runs", help="where runs are kept (default: ./runs)")
    group.addoption("--drbd-run-id", metavar="ID", help="the id of the new run (default: made from the time)")
    group.addoption("--drbd-resume", metavar="RUN", help="go on with a run: its id, its folder, or 'latest'")
    group.addoption("--drbd-like", metavar="RUN", help="play the cells of a run again, on its kind of lab and stack")
    group.addoption("--drbd-cell", metavar="ID", action="append", help="with --drbd-like: only that cell, exactly")
    group.addoption(
        "--drbd-repeat", metavar="N", type=int, help="play each cell N times, all once before one is played again"
    )
    group.addoption(
        "--drbd-seed", metavar="N", type=int, help="what the seeds of all cells are made from (default: a new one)"
    )
    group.addoption(
        "--drbd-shard", metavar="I/N", help="play the I-th of N parts of the plays (drbd-harness merge joins the runs)"
    )
    group.addoption(
        "--drbd-stop-at", metavar="VERDICT", action="append",
        help="play nothing more once a cell ended so, but for the closing controls; several times for several",
    )  # fmt: skip
    group.addoption(
        "--drbd-controls-every",
        metavar="SECONDS",
        type=int,
        help="play all controls again after so many seconds, between two cells (default: 3600)",
    )
    group.addoption(
        "--drbd-baseline", metavar="FILE", help="a TOML file of what is known to fail: XFAIL, until its day is over"
    )
    group.addoption("--drbd-fio-job", metavar="FILE", help="the fio job file of cells with workload = 'fio-job'")
    group.addoption("--drbd-guest-script", metavar="FILE", help="the script of cells with workload = 'guest-script'")
    group.addoption(
        "--drbd-cache", metavar="MODE", action="append",
        help="without a matrix: a cache mode to play your job or script with; several times for several",
    )  # fmt: skip
    group.addoption("--drbd-filesystem", metavar="NAME", action="append", help="without a matrix: a filesystem for it")
    group.addoption("--drbd-client", metavar="WHO", help="without a matrix: guest or host (default: guest)")
    group.addoption("--drbd-seconds", metavar="N", type=int, help="without a matrix: how long it works (default: 10)")
    group.addoption(
        "--drbd-stack", metavar="NAME", help="the software under test: a stack that comes along, or a TOML file"
    )
    group.addoption(
        "--drbd-modules", metavar="PATH", help="another DRBD for it: a folder of modules or packages, or a .deb"
    )
    group.addoption("--drbd-suite", metavar="SUITE", help="Debian suite of the nodes (default: trixie)")
    group.addoption("--drbd-guest-suite", metavar="SUITE", help="Debian suite of the guest (default: as nodes)")
    group.addoption("--drbd-device-mib", metavar="N", type=int, help="least size of the DRBD device in MiB (128)")
    group.addoption("--drbd-memory-mib", metavar="N", type=int, help="memory of a node (default: 2560)")
    group.addoption("--drbd-inventory", metavar="FILE", help="two real machines instead of virtual ones")
    group.addoption("--drbd-inventory-group", metavar="NAME", help="the group of the two, in an inventory of Ansible's")
    group.addoption("--drbd-guest-image", metavar="FILE", help="a qcow2 of yours with a guest agent: cells play in it")
    group.addoption(
        "--drbd-guest-firmware", choices=["bios", "uefi"], help="what your image boots by (default: as it is made)"
    )
    group.addoption(
        "--drbd-guest-disk-bus", choices=["virtio", "sata", "scsi"],
        help="the bus of the disk it boots from (default: virtio, for Windows sata)",
    )  # fmt: skip
    group.addoption("--drbd-guest-memory-mib", metavar="N", type=int, help="its memory (default: 512; Windows: 2048)")
    group.addoption("--drbd-guest-vcpus", metavar="N", type=int, help="its processors (default: 1)")
    group.addoption(
        "--drbd-guest-boot-seconds", metavar="N", type=int, help="how long its agent is waited for (default: 900)"
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker, known to every session, so that ``--strict-markers`` and ``--markers`` work before a conftest is."""
    config.addinivalue_line("markers", "cell(**keys): the cell of a test of your own, with the keys of a matrix entry")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """An option of ours without the fixtures would do nothing: that is said instead."""
    single = ("matrix", "resume", "run_id", "controls_every", "baseline", "stop_at")
    names = (
        *single,
        *LIKE_OPTIONS,
        *USER_FILE_OPTIONS,
        *CHOICE_OPTIONS,
        *CELL_OPTIONS,
        *LAB_OPTIONS,
        *STACK_OPTIONS,
        *IMAGE_OPTIONS,
        *INVENTORY_OPTIONS,
    )
    given = [name for name in names if config.getoption(flag(name)) is not None]
    if given and not config.pluginmanager.has_plugin(FIXTURES):
        raise usage_error(
            config,
            f"{flag(given[0])} is for the DRBD harness, which no conftest.py here asks for: "
            f'pytest_plugins = ["{FIXTURES}"] in the one at the top of the tests brings it',
        )


def usage_error(config: pytest.Config, sentence: str) -> pytest.UsageError:
    """What to raise where tests are collected; in a worker of pytest-xdist's its session is told the sentence, too."""
    if (output := getattr(config, "workeroutput", None)) is not None:
        output[_REFUSED] = sentence
    return pytest.UsageError(sentence)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist's session hears that a worker ended: it collects nothing itself, and says what that one refused."""
    if sentence := getattr(node, "workeroutput", {}).get(_REFUSED):
        raise pytest.UsageError(sentence)


def flag(name: str) -> str:
    """The option that sets ``name``: ``device_mib`` -> ``--drbd-device-mib``."""
    return f"--drbd-{name.replace('_', '-')}"
