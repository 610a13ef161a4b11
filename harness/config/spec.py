"""The base of what is asked of a lab and of the software in it: complete, immutable, and stored with each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import AfterValidator, ValidationInfo

from harness.config.sentences import WrittenModel, validated
from harness.util.tables import flat


class Spec(WrittenModel):
    """Every field has a default; ``title`` is what a sentence about a mistake in it begins with."""

    title: ClassVar[str] = "the spec"

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """The spec with the fields that ``table`` has, in the types of TOML and JSON, and defaults for the rest.

        :class:`~harness.errors.UsageError` with one sentence about the first thing that is wrong with it.
        """
        return validated(cls, dict(table), source=cls.title, place="")

    def as_table(self) -> dict[str, Any]:
        """Every field, those with defaults too, in JSON's types; :meth:`from_table` makes an equal spec of it."""
        return self.model_dump(mode="json")


def differences(one: Spec, other: Spec) -> list[str]:
    """What is another in ``one`` than in ``other``, such as ``guest.memory_mib is 256 instead of 384``."""
    left, right = dict(flat(one.as_table())), dict(flat(other.as_table()))
    return [
        f"{name} is {_shown(left[name])} instead of {_shown(right[name])}"
        for name in left
        if left[name] != right[name]
    ]  # fmt: skip


def at_least(least: int) -> AfterValidator:
    """For a number with a lower bound."""

    def check(value: int, info: ValidationInfo) -> int:
        if value < least:
            raise ValueError(f"{info.field_name} is {value}; the least is {least}")
        return value

    return AfterValidator(check)


def _shown(value: object) -> str:
    if value in ("", []):
        return "empty"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
