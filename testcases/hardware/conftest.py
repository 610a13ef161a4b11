"""Tests on a machine that nobody prepared for the harness: ``--drbd-foreign DIR`` says where it is, else all skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import Foreign
from guarded import BLANK, LINK, SERIAL, WWN
from pair import Pair, differences

from harness.config.inventory import StorageEntry
from harness.lab.hardware.guard import ALLOW_FILE


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("a foreign machine")
    group.addoption("--drbd-foreign", metavar="DIR", type=Path, help="what ci/foreign-machine made")
    group.addoption("--drbd-foreign-peer", metavar="DIR", type=Path, help="another one, for the second of two machines")
    group.addoption("--drbd-foreign-record", metavar="DIR", type=Path, help="keep what the machine said in each case")


@pytest.fixture(scope="session")
def foreign(pytestconfig: pytest.Config) -> Iterator[Foreign]:
    """The machine, booted once for all tests."""
    directory = pytestconfig.getoption("--drbd-foreign", default=None)
    if directory is None:
        pytest.skip("needs --drbd-foreign DIR, a machine that ci/foreign-machine made")
    machine = Foreign(directory)
    machine.start()
    try:
        yield machine
    finally:
        machine.close()


@pytest.fixture
def record(pytestconfig: pytest.Config) -> Path | None:
    """Where the machine's own words are to be kept."""
    directory: Path | None = pytestconfig.getoption("--drbd-foreign-record", default=None)
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture
def disk(foreign: Foreign) -> Iterator[str]:
    """An empty disk that the inventory and the machine's root name; its name in the kernel."""
    folder = ALLOW_FILE.rpartition("/")[0]
    allow = f"mkdir -p -m 755 {folder}; echo {LINK} > {ALLOW_FILE}; chmod 644 {ALLOW_FILE}"
    if "target" in foreign.plugged:
        foreign.sh(f"{allow}; d=$(readlink -f {LINK}); {BLANK}")
        name = foreign.sh(f"readlink -f {LINK}").strip().removeprefix("/dev/")
    else:
        name = foreign.plug("target", SERIAL, WWN)
        foreign.sh(allow)
    assert not any(foreign.plugged["target"].read_bytes())
    yield name


@pytest.fixture
def group(foreign: Foreign) -> StorageEntry:
    """A volume group of somebody's with a volume that has data in it; what the test before left is gone."""
    if "pv" in foreign.plugged:
        foreign.sh("umount /media 2> /dev/null || :; vgs theirs > /dev/null; "
                   "lvremove -q -f -y --select 'lv_name!=data' theirs > /dev/null")  # fmt: skip
    else:
        name = foreign.plug("pv", "PV1", 0x5000C50000000011, mib=192)
        foreign.sh(
            f"vgcreate -q theirs /dev/{name} > /dev/null; lvcreate -q -y -n data -L 32m theirs > /dev/null; "
            "dd if=/dev/urandom of=/dev/theirs/data bs=1M count=32 status=none conv=fsync"
        )
    return StorageEntry(kind="volume-group", volume_group="theirs")


@pytest.fixture(scope="session")
def machines(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, booted once for all tests, the modules that a run loads not loaded."""
    directory = pytestconfig.getoption("--drbd-foreign", default=None)
    if directory is None:
        pytest.skip("needs --drbd-foreign DIR, a machine that ci/foreign-machine made")
    peer = pytestconfig.getoption("--drbd-foreign-peer", default=None)
    pair = Pair(directory, tmp_path_factory.mktemp("pair"), peer)
    try:
        pair.start()
        yield pair
    finally:
        pair.close()


@pytest.fixture
def pair(machines: Pair) -> Iterator[Pair]:
    """Both with nothing of a run on them, and so afterwards too."""
    before = machines.states()
    yield machines
    clean = machines.harness("clean", "--inventory", machines.inventory(), "--dry-run")
    assert clean.returncode == 0, clean.stdout
    for one, was, now in zip(machines.both, before, machines.states(), strict=True):
        assert differences(was, now) == {}, one.name
