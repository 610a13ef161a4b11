"""Inventories of Ansible's, as ``ansible-inventory --list`` prints them; pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from harness.config.sentences import hint, quoted, shown
from harness.errors import UsageError

#: The variable of a host that holds what Ansible has no name for, and the group's usual name.
VARIABLE = "drbd_harness"
_OF_ANSIBLE = ("ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file")
_OF_LAB = ("name", "size_mib", "owner", "may_change")
_TEMPLATE = re.compile(r"\{[{%]")
# Deeper values than anybody writes.
_DEEPEST = 50


def from_ansible(text: str, source: str, group: str | None, *, whole: bool) -> dict[str, Any]:
    """What ``ansible-inventory --list`` printed as the table of an inventory of our own, without its schema.

    ``source`` is the file's name in a sentence.  Not ``whole``: hosts need no variable ``drbd_harness``.
    :class:`~harness.errors.UsageError` where it is something else, or two hosts are not told.
    """
    try:
        found = json.loads(text)
        variables = found["_meta"]["hostvars"]
        _must_be_flat(variables)
    except json.JSONDecodeError as error:
        raise UsageError(f"{source} is no valid JSON: {error}") from None
    except RecursionError:
        raise UsageError(f"{source} is no valid JSON: its values are nested too deeply") from None
    except ValueError:
        raise UsageError(f"{source} is no valid JSON: it has a number of thousands of digits") from None
    except (KeyError, TypeError):
        raise UsageError(f"{source} is not what 'ansible-inventory --list' prints: it has no _meta.hostvars") from None
    hosts = _group(found, source, group)
    lab: dict[str, Any] = {}
    entries: dict[str, Any] = {}
    for name in hosts:
        of_host = variables.get(name) if isinstance(variables, dict) else None
        own = of_host.get(VARIABLE, None if whole else {}) if isinstance(of_host, dict) else None
        if not isinstance(of_host, dict) or not isinstance(own, dict):
            raise UsageError(f"{source}: the host {name} has no variable {VARIABLE} with its storage and its link")
        for key in _OF_LAB:
            if key in own and lab.setdefault(key, own[key]) != own[key]:
                raise UsageError(f"{source}: {VARIABLE}.{key} is not the same on {' and '.join(hosts)}")
        taken = {key: of_host[key] for key in _OF_ANSIBLE if key in of_host}
        entries[name] = taken | {key: value for key, value in own.items() if key not in _OF_LAB}
        if template := _template(entries[name]):
            raise UsageError(f"{source}: {name} has the template {quoted(template)}; only Ansible can fill it in")
        if (port := taken.get("ansible_port")) and isinstance(port, str) and port.isascii() and port.isdigit():
            entries[name]["ansible_port"] = int(port)
    return {**lab, "hosts": entries}


def _group(found: Mapping[str, Any], source: str, group: str | None) -> list[str]:
    """The names of the two hosts of ``group``, or of the group that there is."""
    groups = {
        name: one.get("hosts", [])
        for name, one in found.items()
        if name not in ("_meta", "all", "ungrouped") and isinstance(one, dict)
    }  # fmt: skip
    if group is None:
        pairs = [name for name, hosts in groups.items() if isinstance(hosts, list) and len(hosts) == 2]
        if VARIABLE not in groups and len(pairs) != 1:
            there = "no group" if not pairs else f"{len(pairs)} groups"
            meant = "name the one that is meant with --group" if pairs else "a lab needs one"
            raise UsageError(f"{source} has {there} of two hosts; {meant}")
        group = VARIABLE if VARIABLE in groups else pairs[0]
    if group not in groups:
        raise UsageError(f"{source} has no group {quoted(group)}{hint(group, groups)}")
    hosts = groups[group]
    if not isinstance(hosts, list) or len(hosts) != 2 or not all(isinstance(one, str) for one in hosts):
        raise UsageError(f"{source}: the group '{group}' has the hosts {shown(hosts)}; a lab has two machines")
    return hosts


def _must_be_flat(value: object, room: int = _DEEPEST) -> None:
    """Deeper values than that are a :class:`RecursionError`, before something else makes one."""
    if not room:
        raise RecursionError
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _must_be_flat(one, room - 1)


def _template(value: object) -> str | None:
    """The first text in ``value`` that Ansible would fill in; ansible-inventory prints it as it was written."""
    if isinstance(value, str):
        return value if _TEMPLATE.search(value) else None
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for one in inside if (found := _template(one))), None)
