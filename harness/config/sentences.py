"""What a user wrote, checked by a pydantic model; what is wrong with it is one sentence.

The sentence names the source (a file, an option), the place in it, the key, the nearest allowed word and all that are
allowed::

    mine.toml, [[cells]] number 2: 'nonne' is no value of 'cache'; did you mean 'none'? allowed: none, directsync

A model of what a user writes derives from :class:`WrittenModel` and is read with :func:`validated`.  A single word out
of a few is ``Annotated[CacheMode, choice(CacheMode)]``; an array of TOML is ``Annotated[tuple[str, ...], array()]``.  A
validator of a model's own raises ``ValueError`` with the end of the sentence, or :class:`NoChoiceError`.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness.errors import HarnessError, UsageError

TOP_LEVEL = "the top level"
_LONGEST = 80
_LARGEST = 10**20

Model = TypeVar("Model", bound=BaseModel)


class WrittenModel(BaseModel):
    """A table that a user writes: no unknown key, and no value that is merely like the one that is meant.

    ``True`` is no 1 and ``"7"`` is no 7.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WrittenFile(WrittenModel):
    """A whole file that a user writes, of the schema ``reads``."""

    reads: ClassVar[int]

    schema_: int = Field(alias="schema")
    description: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_this_schema(cls, written: Any) -> Any:
        """First of all: another schema may have other keys."""
        schema = written.get("schema") if isinstance(written, dict) else None
        if type(schema) is not int or schema != cls.reads:
            what = "missing" if schema is None else shown(schema)
            raise ValueError(f"'schema' is {what}; this program reads schema = {cls.reads}")
        return written


def validated(
    model: type[Model],
    written: object,
    *,
    source: str,
    place: str = TOP_LEVEL,
    context: Mapping[str, Any] | None = None,
    raises: type[HarnessError] = UsageError,
) -> Model:
    """``written`` as an instance of ``model``; raises ``raises`` with the one sentence of :func:`sentence`.

    ``source`` and ``place`` say where it was written; ``context`` is what the model's validators get as
    ``info.context``.
    """
    try:
        return model.model_validate(written, context=context)
    except ValidationError as error:
        raise raises(sentence(error, model, source=source, place=place)) from None


def sentence(error: ValidationError, model: type[BaseModel], *, source: str, place: str = TOP_LEVEL) -> str:
    """What is wrong, in one line; only the first of several mistakes, and an unknown key before what it may explain.

    ``model`` is the one that was validated against.  ``place`` names the table that was; a table inside of it is named
    as TOML writes it.  An empty ``place`` is left out.
    """
    wrong = _first(
        [
            _Mistake(one["type"], one["loc"], one["input"], one["msg"], one.get("ctx", {}))
            for one in error.errors(include_url=False)
        ]
    )
    path, key, item = _split(wrong.location)
    annotation = _annotation(model, wrong.location)
    if wrong.kind == "value_error" and _is_model(annotation):
        path = list(wrong.location)  # a table as a whole, not a key in one
    where = _table_name(path) or place
    if wrong.kind in ("model_type", "dict_type", "list_type", "tuple_type") and key:
        if wrong.kind in ("model_type", "dict_type") and not item:
            return _joined(source, f"[{_dotted([*path, key])}]", "it is not a table")
        if _is_model(annotation) or _is_model(_item(annotation)):
            return _joined(source, quoted(key), f"it is not an array of tables; write [[{_dotted([*path, key])}]]")
    return _joined(source, where, _complaint(wrong, key, model, annotation))


def hint(wrong: object, allowed: Iterable[str]) -> str:
    """The end of a sentence: the nearest allowed word, and all of them in their order; empty if nothing is allowed."""
    allowed = [str(word) for word in allowed]
    near = difflib.get_close_matches(wrong, allowed, n=1) if isinstance(wrong, str) else []
    meant = f"; did you mean '{near[0]}'?" if near else ";"
    return f"{meant} allowed: {', '.join(allowed)}" if allowed else ""


def shown(value: object) -> str:
    """A value as a sentence shows it: on one line and not too long."""
    if isinstance(value, int) and abs(value) > _LARGEST:
        return "a very large number"  # Python writes no number of thousands of digits
    if value is None or isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, date | time):
        return value.isoformat()  # as TOML writes it, without quotes
    if isinstance(value, list | tuple):
        return _cut(f"[{', '.join(shown(item) for item in value[:10])}]")
    return "a table" if isinstance(value, Mapping) else f"a value of the type {type(value).__name__}"


def quoted(text: object) -> str:
    """``text`` in quotes, with line breaks and the like escaped."""
    return _cut(repr(str(text)))


# --------------------------------------------------------------------------- for the fields of a model


class NoChoiceError(ValueError):
    """What a validator raises for a value that is none of ``allowed``."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = [str(word) for word in allowed]
        super().__init__(f"the value is none of {', '.join(self.allowed)}")


def choice(kind: type[StrEnum]) -> BeforeValidator:
    """For a field that is a member of an enumeration and is written as its value."""

    def check(value: object) -> StrEnum:
        if isinstance(value, str) and value in list(kind):
            return kind(value)
        raise NoChoiceError(kind)

    return BeforeValidator(check)


def one_of(allowed: Sequence[str]) -> BeforeValidator:
    """For a field that is one of ``allowed``."""

    def check(value: object) -> object:
        if isinstance(value, str) and value in allowed:
            return value
        raise NoChoiceError(allowed)

    return BeforeValidator(check)


def array() -> BeforeValidator:
    """For a field that is a tuple and is written as an array."""
    return BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


def one_or_more() -> BeforeValidator:
    """For a field that is a tuple and is written as an array or as a single value."""
    return BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value,))


# --------------------------------------------------------------------------- the sentence's parts


def _joined(source: str, where: str, what: str) -> str:
    return f"{', '.join(part for part in (source, where) if part)}: {what}"


@dataclass(frozen=True)
class _Mistake:
    """One error of pydantic's: its kind, where it is, the value that is wrong, pydantic's text and its particulars."""

    kind: str
    location: tuple[int | str, ...]
    value: object
    message: str
    context: Mapping[str, Any]


def _first(mistakes: Sequence[_Mistake]) -> _Mistake:
    """The mistake to tell: the first one, unless a key beside or above it is unknown."""
    first = mistakes[0].location
    unknown = [
        one
        for one in mistakes
        if one.kind == "extra_forbidden" and one.location[:-1] == first[: len(one.location) - 1]
    ]  # fmt: skip
    return min(unknown, key=lambda one: len(one.location), default=mistakes[0])


def _complaint(wrong: _Mistake, key: str, model: type[BaseModel], annotation: object) -> str:
    name, kind, value = quoted(key) if key else "it", wrong.kind, wrong.value
    reason = wrong.context.get("error")
    if kind == "extra_forbidden":
        return f"{name} is no key{hint(key, _keys(_annotation(model, wrong.location[:-1])))}"
    if kind == "missing":
        return f"{name} is missing{hint('', _allowed(annotation))}"
    if kind in ("enum", "literal_error") or isinstance(reason, NoChoiceError):
        allowed = reason.allowed if isinstance(reason, NoChoiceError) else _allowed(annotation)
        return f"{shown(value)} is no value of {name}{hint(value, allowed)}"
    if kind == "value_error":
        return str(reason)
    if kind in ("too_short", "string_too_short") and not value:
        return f"{name} is an empty list" if kind == "too_short" else f"{name} is empty"
    if kind in _LIMITS:
        text, limit = _LIMITS[kind]
        return f"{name} is {shown(value)}; {text} {wrong.context[limit]}"
    if kind in _NOT_A:
        items = _allowed(_item(annotation)) if kind in ("list_type", "tuple_type") else ()
        return f"{name} is {shown(value)}, not {_NOT_A[kind]}{hint('', items)}"
    return f"{name} is {shown(value)}: {wrong.message[:1].lower()}{wrong.message[1:]}"


_LIMITS = {
    "greater_than_equal": ("the least it may be is", "ge"),
    "greater_than": ("it must be more than", "gt"),
    "less_than_equal": ("the most it may be is", "le"),
    "less_than": ("it must be less than", "lt"),
    "too_short": ("the least number of values is", "min_length"),
    "too_long": ("the most values it may have is", "max_length"),
    "multiple_of": ("it must be a multiple of", "multiple_of"),
}
_NOT_A = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "string_sub_type": "text",
    "string_unicode": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


# --------------------------------------------------------------------------- where in the file, where in the model


def _split(location: tuple[int | str, ...]) -> tuple[list[int | str], str, bool]:
    """The path of the table, the key in it, and whether a single item of the key's list is meant."""
    named = [at for at, part in enumerate(location) if isinstance(part, str)]
    if not named:
        return [], "", bool(location)
    return list(location[: named[-1]]), str(location[named[-1]]), named[-1] < len(location) - 1


def _table_name(path: Sequence[int | str]) -> str:
    if not path:
        return ""
    dotted = _dotted(path)
    return f"[[{dotted}]] number {path[-1] + 1}" if isinstance(path[-1], int) else f"[{dotted}]"


def _dotted(path: Iterable[int | str]) -> str:
    return ".".join(_cut(part) for part in path if isinstance(part, str))


def _annotation(model: object, location: Iterable[int | str]) -> object:
    """The type of what is at ``location`` in ``model``; None where the model does not say."""
    found: object = model
    for part in location:
        found = _bare(found)
        if _is_model(found):
            fields: Mapping[str, Any] = found.model_fields  # type: ignore[attr-defined]
            at = next((field for name, field in fields.items() if part in (field.alias, name)), None)
            found = at.annotation if at is not None else None
        else:
            found = _item(found)
    return _bare(found)


def _bare(annotation: object) -> object:
    """A type without its metadata, and without None."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        some = [one for one in get_args(annotation) if one is not type(None)]
        return _bare(some[0]) if len(some) == 1 else annotation
    return annotation


def _item(annotation: object) -> object:
    """The type of what a list holds, or of the values of a table with free keys."""
    held = get_args(_bare(annotation))
    if get_origin(_bare(annotation)) is Literal or not held:
        return None
    return _bare(held[1] if len(held) == 2 and held[1] is not ... else held[0])


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(annotation: object) -> tuple[str, ...]:
    """The keys of a table in the order of its model."""
    if not _is_model(annotation):
        return ()
    fields: Mapping[str, Any] = annotation.model_fields  # type: ignore[attr-defined]
    return tuple(field.alias or name for name, field in fields.items())


def _allowed(annotation: object) -> tuple[str, ...]:
    """What may be written for a value of that type; empty where that is no short list."""
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(annotation)
    if get_origin(annotation) is Literal:
        return tuple(str(word) for word in get_args(annotation))
    return _allowed(_item(annotation)) if _item(annotation) is not None else ()


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]}...{text[-1]}"
