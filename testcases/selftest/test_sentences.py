"""One sentence for whatever is wrong with what a user wrote."""

from __future__ import annotations

from datetime import date, time
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from harness.config.sentences import (
    NoChoiceError,
    WrittenModel,
    array,
    choice,
    hint,
    one_of,
    one_or_more,
    shown,
    validated,
)
from harness.errors import HarnessError, UsageError


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Wheel(WrittenModel):
    spokes: Annotated[int, Field(ge=3, le=40)]
    colour: Annotated[Colour, choice(Colour)] = Colour.RED
    tyre: Annotated[str, one_of(("wide", "narrow"))] = "wide"
    brakes: Annotated[tuple[Annotated[Colour, choice(Colour)], ...], one_or_more(), Field(min_length=1)] = (Colour.RED,)


class Bicycle(WrittenModel):
    form: Literal["racing", "city"]
    lamp: bool = False
    weight: float | None = None
    parts: Annotated[tuple[str, ...], array()] = ()
    front: Wheel | None = None
    wheels: Annotated[tuple[Wheel, ...], array()] = ()
    spare: dict[str, Wheel] = Field(default_factory=dict, alias="spare-wheels")

    @model_validator(mode="after")
    def _balanced(self) -> Bicycle:
        if len(self.wheels) > 2:
            raise ValueError("'wheels' are more than two")
        return self


CITY: dict[str, Any] = {"form": "city"}


TOP = "the top level"
KEYS = "form, lamp, weight, parts, front, wheels, spare-wheels"
WHEEL_KEYS = "spokes, colour, tyre, brakes"
NO_TABLES = "it is not an array of tables; write [[wheels]]"
NOT_A_BRAKE = "1 is no value of 'brakes'; allowed: red, green"
WRONG_BRAKES: dict[str, Any] = {"spokes": 7, "brakes": ["red", "gren"]}


@pytest.mark.parametrize(
    ("written", "place", "what"),
    [
        (3, TOP, "it is 3, not a table"),
        ({}, TOP, "'form' is missing; allowed: racing, city"),
        ({"form": "citty"}, TOP, "'citty' is no value of 'form'; did you mean 'city'? allowed: racing, city"),
        ({"from": "city"}, TOP, f"'from' is no key; did you mean 'form'? allowed: {KEYS}"),
        ({**CITY, "lamp": 1}, TOP, "'lamp' is 1, not true or false"),
        ({**CITY, "lamp": "a\nb"}, TOP, "'lamp' is 'a\\nb', not true or false"),
        ({**CITY, "weight": "7"}, TOP, "'weight' is '7', not a number"),
        ({**CITY, "weight": True}, TOP, "'weight' is True, not a number"),
        ({**CITY, "lamp": date(2027, 3, 31)}, TOP, "'lamp' is 2027-03-31, not true or false"),
        ({**CITY, "weight": time(7, 30)}, TOP, "'weight' is 07:30:00, not a number"),
        ({**CITY, "spare-wheels": {"x" * 9000: {}}}, f"[spare-wheels.{'x' * 76}...x]", "'spokes' is missing"),
        ({**CITY, "parts": "bell"}, TOP, "'parts' is 'bell', not a list"),
        ({**CITY, "parts": ["bell", 3]}, TOP, "'parts' is 3, not text"),
        ({**CITY, "front": 3}, "[front]", "it is not a table"),
        ({**CITY, "front": {}}, "[front]", "'spokes' is missing"),
        ({**CITY, "front": {"spokes": 2}}, "[front]", "'spokes' is 2; the least it may be is 3"),
        ({**CITY, "front": {"spokes": 41}}, "[front]", "'spokes' is 41; the most it may be is 40"),
        ({**CITY, "front": {"spokes": True}}, "[front]", "'spokes' is True, not a whole number"),
        ({**CITY, "front": {"spokes": "7"}}, "[front]", "'spokes' is '7', not a whole number"),
        ({**CITY, "front": {"spokes": 7.0}}, "[front]", "'spokes' is 7.0, not a whole number"),
        (
            {**CITY, "front": {"spoke": 7}},
            "[front]",
            f"'spoke' is no key; did you mean 'spokes'? allowed: {WHEEL_KEYS}",
        ),
        (
            {**CITY, "front": {"spokes": 7, "tyre": ["wide"]}},
            "[front]",
            "['wide'] is no value of 'tyre'; allowed: wide, narrow",
        ),
        (
            {**CITY, "front": {"spokes": 7, "colour": {}}},
            "[front]",
            "a table is no value of 'colour'; allowed: red, green",
        ),
        ({**CITY, "front": {"spokes": 7, "brakes": []}}, "[front]", "'brakes' is an empty list"),
        ({**CITY, "wheels": {"spokes": 7}}, "'wheels'", NO_TABLES),
        ({**CITY, "wheels": [3]}, "'wheels'", NO_TABLES),
        (
            {**CITY, "wheels": [{"spokes": 7}, WRONG_BRAKES]},
            "[[wheels]] number 2",
            "'gren' is no value of 'brakes'; did you mean 'green'? allowed: red, green",
        ),
        ({**CITY, "wheels": [{"spokes": 7}] * 3}, TOP, "'wheels' are more than two"),
        ({**CITY, "spare-wheels": {"old": WRONG_BRAKES | {"brakes": 1}}}, "[spare-wheels.old]", NOT_A_BRAKE),
        ({**CITY, "spare-wheels": {"old": 1}}, "[spare-wheels.old]", "it is not a table"),
        # One mistake at a time, and the unknown key before what it may explain.
        ({"fork": 1, "wheels": [{}]}, TOP, f"'fork' is no key; did you mean 'form'? allowed: {KEYS}"),
        ({**CITY, "lamp": 1, "wheels": [{"spoke": 1}]}, TOP, "'lamp' is 1, not true or false"),
    ],
)
def test_validated_wrong_input_one_sentence(written: object, place: str, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        validated(Bicycle, written, source="mine.toml")
    assert str(raised.value) == f"mine.toml, {place}: {what}"


def test_validated_good_input_becomes_the_model() -> None:
    made = validated(
        Bicycle,
        {**CITY, "wheels": [{"spokes": 7, "brakes": "green"}], "spare-wheels": {"old": {"spokes": 9}}},
        source="mine.toml",
    )
    assert made.wheels == (Wheel(spokes=7, brakes=(Colour.GREEN,)),)
    assert made.spare["old"].spokes == 9


def test_validated_source_without_tables_leaves_the_place_out() -> None:
    with pytest.raises(HarnessError) as raised:
        validated(Wheel, {"spokes": 1}, source="the option --wheel", place="", raises=HarnessError)
    assert str(raised.value) == "the option --wheel: 'spokes' is 1; the least it may be is 3"
    assert type(raised.value) is HarnessError


def test_hint_nothing_allowed_is_empty() -> None:
    assert hint("x", ()) == ""
    assert hint("x", ("one", "two")) == "; allowed: one, two"
    assert hint("too", ("one", "two")) == "; did you mean 'two'? allowed: one, two"


def test_no_choice_error_words_of_the_run_are_offered() -> None:
    class Named(WrittenModel):
        name: str

        @model_validator(mode="after")
        def _known(self) -> Named:
            raise NoChoiceError(["ada", "bob"])

    with pytest.raises(UsageError, match=r"allowed: ada, bob$"):
        validated(Named, {"name": "eve"}, source="x")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(), st.lists))
def test_shown_any_value_is_one_short_line(value: object) -> None:
    assert "\n" not in shown(value) or len(shown(value).splitlines()) == 1
    assert not isinstance(value, str | list) or len(shown(value)) <= 80


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*Bicycle.model_fields, "spare-wheels"]) | st.text(), VALUES))
def test_validated_any_input_is_a_model_or_one_line(written: dict[str, Any]) -> None:
    try:
        validated(Bicycle, {**CITY, **written}, source="mine.toml")
    except UsageError as error:
        assert str(error).startswith("mine.toml, ") and len(str(error).splitlines()) == 1
