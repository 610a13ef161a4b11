"""The two specs of a run: from the options it is started with, and from what a stored one kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import stack_file
from harness.config.lab_spec import LabSpec, UserImageSpec
from harness.config.stack_spec import StackSpec
from harness.errors import UsageError
from harness.model import Run
from harness.util import resources

#: What says which software is meant without being a field of its spec.
STACK_OPTIONS = ("stack", "modules")
MODULES_OPTION = "--drbd"


def specs_from_options(options: Mapping[str, Any], image: Mapping[str, Any] | None = None) -> tuple[LabSpec, StackSpec]:
    """The specs with ``options``: fields of either by name, at the top level; and with a user's guest image.

    ``stack`` is the name of a stack or its file, and ``modules`` the path of a DRBD for it.
    A node gets the memory that the guest of ``image`` needs where no other is asked for.
    :class:`~harness.errors.UsageError` with one sentence where there is no such field or a value cannot be.
    """
    stack = {name: value for name, value in options.items() if name in (*StackSpec.model_fields, *STACK_OPTIONS)}
    lab = {name: value for name, value in options.items() if name not in stack}
    if image is not None:
        lab["guest"] = {"image": dict(image)}
        lab.setdefault("memory_mib", LabSpec.node_memory_mib(image.get("memory_mib", UserImageSpec().memory_mib)))
    return LabSpec.from_table(lab), stack_from_options(stack)


def stack_from_options(options: Mapping[str, Any]) -> StackSpec:
    """The stack that a name or a file says, or fields of it; with another DRBD where ``modules`` names one.

    :class:`~harness.errors.UsageError` with one sentence.
    """
    named, modules = options.get("stack"), options.get("modules")
    fields = {name: value for name, value in options.items() if name not in STACK_OPTIONS}
    if named is not None and fields:
        raise UsageError(f"the stack '{named}' says its suites itself; leave the {' and the '.join(fields)} out")
    spec = StackSpec.from_table(fields) if named is None else stack_file.load(str(named), resources.stacks())
    return spec if modules is None else stack_file.with_module(spec, str(modules), MODULES_OPTION)


def specs_of(run: Run) -> tuple[LabSpec, StackSpec]:
    """The specs that a stored run was started with, to go on with it; what it did not keep has today's default.

    :class:`~harness.errors.UsageError` where this version cannot do what it asks for.
    """
    try:
        return LabSpec.from_table(run.lab_spec), StackSpec.from_table(run.stack_spec)
    except UsageError as error:
        raise UsageError(f"the run '{run.id}' cannot go on: {error}") from None
