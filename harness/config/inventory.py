"""Inventories: which two real machines are a lab, and what on them may be written.

A TOML file of our own (``schema = 1``, a table ``[hosts.NAME]`` for each of the two), or what ``ansible-inventory
--list`` prints: a group of two hosts, Ansible's own variables for the connection, and one variable ``drbd_harness``
with the rest.  Whatever is wrong is one sentence: a :class:`~harness.errors.UsageError`.  Nothing is guessed: a
machine, a volume group or a disk that is not named is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from harness.config.ansible import from_ansible
from harness.config.lab_spec import LOWER_MIB, MOST_MIB
from harness.config.sentences import WrittenFile, WrittenModel, array, hint, quoted, validated
from harness.config.spec import at_least
from harness.config.toml_text import parsed
from harness.errors import UsageError
from harness.model.changes import ASKED_FOR
from harness.util.paths import expanded
from harness.util.read_file import read_file

INVENTORY_SCHEMA = 1

VOLUME_GROUP, THIN, ZFS, DISK, LOOP = "volume-group", "thin", "zfs", "disk", "loop"
# The keys that each kind of storage has, and of those the ones that it has to have.
_KEYS = {
    VOLUME_GROUP: (("volume_group",), ("volume_group",)),
    THIN: (("volume_group", "thin_pool"), ("volume_group", "thin_pool")),
    ZFS: (("dataset",), ("dataset",)),
    DISK: (("disk", "serial", "wwn", "size_bytes"), ("disk", "size_bytes")),
    LOOP: (("directory",), ("directory",)),
}


def _written(pattern: str, meaning: str) -> AfterValidator:
    def check(value: str, info: ValidationInfo) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"{info.field_name} is {quoted(value)}; it has to be {meaning}")
        return value

    return AfterValidator(check)


def _address(value: str, info: ValidationInfo) -> str:
    try:
        address = IPv4Address(value)
    except ValueError:
        raise ValueError(f"{info.field_name} is {quoted(value)}; it has to be an IPv4 address") from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ValueError(f"{info.field_name} is {value}; two machines cannot reach each other by it")
    return value


_Word = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
LabName = Annotated[
    str, _written(r"[a-z0-9][a-z0-9-]{0,30}", "up to 31 small letters, digits and '-', the first no sign")
]
# As lvm(8) has them: no leading sign, which a command would take for an option.
LvmName = Annotated[
    str, _written(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}", "a name as LVM has it: letters, digits and '_.+-'")
]
# As zfs(8) has them, without blanks: a pool, or a dataset in one.
_Part = r"[A-Za-z0-9_.:-]+"
DatasetName = Annotated[
    str, _written(rf"[A-Za-z][A-Za-z0-9_.:-]*(/{_Part})*", "a pool or a dataset of ZFS, such as tank/vms")
]
#: No name that the kernel gives in the order in which it finds disks.
ById = Annotated[
    str,
    _written(r"/dev/disk/by-id/[A-Za-z0-9_.:+@=-]+", "a name below /dev/disk/by-id, which stays with the disk"),
]
Directory = Annotated[str, _written(r"(/[A-Za-z0-9_.-]+)+", "an absolute path of letters, digits, '_', '.' and '-'")]
Nic = Annotated[str, _written(r"[A-Za-z0-9][A-Za-z0-9_.@:-]{0,14}", "the name of a network interface")]
HostText = Annotated[str, _written(r"[A-Za-z0-9][A-Za-z0-9_.:-]*", "a host name or an address")]


class StorageEntry(WrittenModel):
    """Where a machine's replica may lie; ``kind`` decides which of the other keys there are.

    ``volume-group`` (the default of what to use), ``thin`` and ``zfs``: the harness makes a volume of its own in the
    group, its thin pool or below the ``dataset``, and removes only that.  ``disk``: a whole disk or a partition, whose
    serial number or WWN and exact size are given here and whose name stands in a file of root's on the machine too.
    ``loop``: a file in ``directory``, for a first try.
    """

    kind: Literal["volume-group", "thin", "zfs", "disk", "loop"] = "volume-group"
    volume_group: LvmName | None = None
    thin_pool: LvmName | None = None
    dataset: DatasetName | None = None
    disk: ById | None = None
    serial: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    wwn: (
        Annotated[str, _written(r"(0x[0-9a-f]{16,32}|[a-z]+\.[A-Za-z0-9_.-]+)", "a WWN, such as 0x5000c500a1b2c3d4")]
        | None
    ) = None
    size_bytes: Annotated[int, at_least(1)] | None = None
    directory: Directory | None = None

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Self:
        known, needed = _KEYS[self.kind]
        given = [name for name in type(self).model_fields if name != "kind" and getattr(self, name) is not None]
        for name in given:
            if name not in known:
                raise ValueError(f"'{name}' does not belong to storage of the kind '{self.kind}'{hint('', known)}")
        for name in needed:
            if name not in given:
                raise ValueError(f"'{name}' is missing, which storage of the kind '{self.kind}' needs")
        if self.kind == DISK and self.serial is None and self.wwn is None:
            raise ValueError(
                "a disk is named twice: 'serial' or 'wwn' is missing beside its name below /dev/disk/by-id"
            )
        return self


_NO_OPTIONS = {
    "action": "the harness says what is to be done",
    "method": "the power is cut and given back, each by itself",
    **dict.fromkeys(("verbose", "verbose_level", "debug", "debug_file"), "with it an agent writes passwords to a log"),
}


class PowerEntry(WrittenModel):
    """How a machine's power is switched: a ``fence_*`` agent with its options, or a command of the user's.

    ``command`` is run on the controller with ``on``, ``off`` or ``status`` behind it; for ``status``, the last word
    that it prints is ``on`` or ``off``.  A password stands in a file of its own, whose path ``password_file`` is.
    """

    agent: Annotated[str, _written(r"fence_[a-z0-9_]+", "a program fence_*")] | None = None
    options: dict[str, str] = Field(default_factory=dict)
    password_file: str | None = None
    command: Annotated[tuple[str, ...], array()] = ()

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.agent) == bool(self.command):
            raise ValueError("power is switched either by an 'agent' or by a 'command'")
        if self.command and (self.options or self.password_file):
            raise ValueError("'options' and 'password_file' are those of an 'agent', not of a 'command'")
        if self.command and not (Path(self.command[0]).name and self.command[0].isprintable()):
            raise ValueError(f"'command' begins with {quoted(self.command[0])}, which is no program")
        if any("\0" in text for text in (*self.command, self.password_file or "")):
            raise ValueError("a NUL is in 'command' or 'password_file', and no program can be told one")
        for name, value in self.options.items():
            if "pass" in name.lower():
                raise ValueError(
                    f"'{name}' is no place for a password: write it to a file and name that as password_file"
                )
            if name in _NO_OPTIONS:
                raise ValueError(f"'{name}' is no option for an agent here: {_NO_OPTIONS[name]}")
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name, re.ASCII) or not value.isprintable():
                raise ValueError(f"the option {quoted(name)} of an agent, or its value, is not one line of text")
        return self


ReplicationAddress = Annotated[str, AfterValidator(_address)]


class ReachedEntry(WrittenModel):
    """How one of the two machines is reached, with Ansible's names and meanings.

    Without ``ansible_ssh_private_key_file`` the keys of ssh's agent and the user's own are tried.
    """

    ansible_host: HostText | None = None
    ansible_port: Annotated[int, at_least(1), Field(le=65535)] = 22
    ansible_user: Annotated[str, _written(_Word, "the name of a user")] = "root"
    ansible_ssh_private_key_file: str | None = None


class HostEntry(ReachedEntry):
    """One of the two machines; ``replication_address`` is the address on ``replication_nic`` that DRBD uses."""

    replication_address: ReplicationAddress
    replication_nic: Nic
    storage: StorageEntry
    power: PowerEntry | None = None


class LabFile(WrittenFile):
    """What an inventory of our own says beside its hosts: ``name`` is in all that the harness makes on the machines.

    ``owner`` is whose it is (without it, who runs the harness and where): another's of the same name is not touched.
    ``may_change``: what of the things that resources of the machines' owner feel too a run may change, and put back.
    """

    reads: ClassVar[int] = INVENTORY_SCHEMA

    name: LabName = "lab"
    size_mib: Annotated[int, at_least(64), Field(le=MOST_MIB)] = LOWER_MIB
    owner: (
        Annotated[str, _written(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}", "up to 63 letters, digits and '_.@-'")] | None
    ) = None
    may_change: Annotated[tuple[str, ...], array()] = ()

    @model_validator(mode="after")
    def _known_changes(self) -> Self:
        for name in self.may_change:
            if name not in ASKED_FOR.values():
                raise ValueError(f"may_change has {quoted(name)}{hint(name, ASKED_FOR.values())}")
        return self


class InventoryFile(LabFile):
    """An inventory of our own as it is written."""

    hosts: dict[str, HostEntry]

    @model_validator(mode="after")
    def _two_machines(self) -> Self:
        require_two(self.hosts)
        names = list(self.hosts)
        one, other = self.hosts.values()
        if one.replication_address == other.replication_address:
            raise ValueError(f"{names[0]} and {names[1]} have the same replication_address {one.replication_address}")
        return self


def require_two(hosts: Mapping[str, ReachedEntry]) -> None:
    """:class:`ValueError` unless they are two, with names that a machine may have, and not the same one."""
    names = list(hosts)
    if len(names) != 2:
        named = f": {', '.join(names)}" if names else ""
        raise ValueError(f"a lab has two machines, and 'hosts' names {len(names)}{named}")
    for name in names:
        if not re.fullmatch(_Word, name, re.ASCII) or len(name) > 64:
            raise ValueError(f"{quoted(name)} is no name of a machine: letters, digits, '_', '.' and '-'")
    where = [(host.ansible_host or name, host.ansible_port) for name, host in hosts.items()]
    if where[0] == where[1]:
        raise ValueError(f"{names[0]} and {names[1]} are the same machine: {where[0][0]} port {where[0][1]}")


class Host(WrittenModel):
    """One machine of an inventory that was read: ``key`` is absolute."""

    name: str
    address: str
    port: int
    user: str
    key: Path | None
    replication_address: str
    replication_nic: str
    storage: StorageEntry
    power: PowerEntry | None


class Inventory(WrittenModel):
    """Two machines, in their order in the file, and what is made of them.

    ``path`` is the file it was read from; ``known_hosts`` beside it has the pinned keys of the machines.
    """

    path: Path
    name: str
    size_mib: int
    owner: str | None
    may_change: tuple[str, ...]
    a: Host
    b: Host

    @property
    def known_hosts(self) -> Path:
        """The file with the host keys that the user compared and pinned."""
        return self.path.with_name(f"{self.path.name}.known_hosts")

    @property
    def hosts(self) -> tuple[Host, Host]:
        """Both machines."""
        return self.a, self.b


def load(path: Path, group: str | None = None) -> Inventory:
    """The inventory in ``path``; ``group`` is that of the two machines in an inventory of Ansible's (``drbd_harness``,
    or the only group of two).
    """
    path = path.absolute()
    return _read(table_of(path, group), path)


def table_of(path: Path, group: str | None = None, *, whole: bool = True) -> dict[str, Any]:
    """What is written in the inventory ``path``, as a table of a file of our own.

    Not ``whole``: hosts of Ansible's need no variable ``drbd_harness``.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"the inventory {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the inventory {path} is no text in UTF-8") from None
    if text.lstrip().startswith("{"):
        return {"schema": INVENTORY_SCHEMA} | from_ansible(text, str(path), group, whole=whole)
    if group is not None:
        raise UsageError(f"{path} is no inventory of Ansible's and has no group '{group}'")
    try:
        return parsed(text.encode())
    except ValueError as error:
        raise UsageError(f"{path} is neither valid TOML nor what 'ansible-inventory --list' prints: {error}") from None


def _read(table: Mapping[str, Any], path: Path) -> Inventory:
    file = validated(InventoryFile, dict(table), source=str(path))
    a, b = (_host(name, entry, path.parent) for name, entry in file.hosts.items())
    return Inventory(
        path=path, name=file.name, size_mib=file.size_mib, owner=file.owner, may_change=file.may_change, a=a, b=b
    )


def _host(name: str, entry: HostEntry, folder: Path) -> Host:
    return Host(
        name=name, address=entry.ansible_host or name, port=entry.ansible_port, user=entry.ansible_user,
        key=key_of(name, entry, folder),
        replication_address=entry.replication_address, replication_nic=entry.replication_nic, storage=entry.storage,
        power=entry.power and _power(entry.power, folder),
    )  # fmt: skip


def key_of(name: str, entry: ReachedEntry, folder: Path) -> Path | None:
    """The file of a machine's private key, absolute; None where none is named."""
    written = entry.ansible_ssh_private_key_file
    key = folder / expanded(written, f"the private key of {name}") if written else None
    try:
        if key is not None and not key.is_file():
            raise UsageError(f"the private key {key} of {name} is not there")
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"the private key {quoted(key)} of {name} cannot be looked at: {why}") from None
    return key


def _power(entry: PowerEntry, folder: Path) -> PowerEntry:
    """With paths that do not depend on where the harness was started."""
    password = str(folder / expanded(entry.password_file, "'password_file'")) if entry.password_file else None
    program, *arguments = entry.command or ("",)
    if "/" in program:
        program = str(folder / expanded(program, "'command'"))
    return entry.model_copy(
        update={"password_file": password, "command": (program, *arguments) if entry.command else ()}
    )
