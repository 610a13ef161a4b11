"""The search for the first bad version: few questions, no wrong answer whatever cannot tell, and enough plays."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.bisect import Answer, Counts, Found, Question, Rate, between, missed_rate, next_version
from harness.model import CacheMode, Cell, Result, Verdict, VerdictKind

KINDS = st.sampled_from((*VerdictKind, None))


def searched(count: int, asked: Callable[[int], Answer]) -> tuple[dict[int, Answer], list[int]]:
    answers: dict[int, Answer] = {}
    order: list[int] = []
    while (one := next_version(count, answers)) is not None:
        assert one not in answers and 0 <= one < count
        order.append(one)
        answers[one] = asked(one)
    return answers, order


@given(st.integers(2, 300).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count - 1))))
def test_search_every_first_bad_is_found_in_few_questions(case: tuple[int, int]) -> None:
    count, first = case
    answers, order = searched(count, lambda one: Answer.BAD if one >= first else Answer.GOOD)
    assert between(count, answers) == Found(first - 1, first)
    assert order[:2] == [count - 1, 0], "both ends first"
    assert len(order) <= math.ceil(math.log2(count)) + 2


@given(st.data())
def test_search_what_cannot_tell_makes_a_range_never_a_wrong_answer(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 40))
    first = data.draw(st.integers(1, count - 1))
    skipped = data.draw(st.sets(st.integers(1, count - 1).filter(lambda one: one != count - 1)))

    def asked(one: int) -> Answer:
        if one in skipped:
            return Answer.UNKNOWN
        return Answer.BAD if one >= first else Answer.GOOD

    answers, order = searched(count, asked)
    found = between(count, answers)
    assert found is not None and found.last_good < first <= found.first_bad
    assert found.unknown == tuple(range(found.last_good + 1, found.first_bad)), "nothing between them was left out"
    assert set(found.unknown) <= skipped
    assert len(order) == len(set(order)) <= count


@given(st.integers(2, 20), st.sampled_from(list(Answer)), st.sampled_from(list(Answer)))
def test_search_ends_that_do_not_differ_ask_no_further(count: int, oldest: Answer, newest: Answer) -> None:
    def asked(one: int) -> Answer:
        return {0: oldest, count - 1: newest}.get(one, Answer.GOOD)

    answers, order = searched(count, asked)
    if (oldest, newest) != (Answer.GOOD, Answer.BAD):
        assert len(order) == 2 and between(count, answers) is None


def test_between_good_version_behind_a_bad_one_is_not_taken_for_the_last_good() -> None:
    answers = {0: Answer.GOOD, 2: Answer.BAD, 4: Answer.GOOD, 5: Answer.BAD}
    assert between(6, answers) == Found(0, 2)


# --------------------------------------------------------------------------- plays


def plays(*kinds: VerdictKind | None) -> list[Result]:
    cell = Cell("reclaim", cache=CacheMode.NONE)
    return [Result(cell, None if kind is None else Verdict(kind, "as it is"), None) for kind in kinds]


K = VerdictKind


@pytest.mark.parametrize(
    ("bad", "kinds", "wanted", "answer"),
    [
        (K.DIVERGED, (K.CLEAN, K.DIVERGED), 9, Answer.BAD),
        (K.DIVERGED, (K.CORRUPT,), 9, Answer.BAD),
        (K.DIVERGED, (K.CLEAN, K.TRANSIENT), 2, Answer.GOOD),
        (K.DIVERGED, (K.CLEAN, K.CLEAN), 3, Answer.UNKNOWN),
        (K.DIVERGED, (K.CLEAN, K.REFUSED, K.INCONCLUSIVE, None), 2, Answer.UNKNOWN),
        (K.DIVERGED, (K.REFUSED,) * 9, 1, Answer.UNKNOWN),
        (K.DIVERGED, (), 0, Answer.UNKNOWN),
        (K.CORRUPT, (K.DIVERGED, K.DIVERGED), 2, Answer.GOOD),
        (K.TRANSIENT, (K.CLEAN, K.TRANSIENT), 2, Answer.BAD),
        (K.CLEAN, (K.CLEAN, K.DIVERGED), 2, Answer.GOOD),
        (K.CLEAN, (K.CLEAN, K.TRANSIENT), 2, Answer.BAD),
        (K.CLEAN, (K.CLEAN,), 2, Answer.UNKNOWN),
        (K.REFUSED, (K.REFUSED,), 5, Answer.BAD),
        (K.REFUSED, (K.CLEAN, K.DIVERGED), 2, Answer.GOOD),
    ],
)
def test_question_answer_of_plays(
    bad: VerdictKind, kinds: tuple[VerdictKind | None, ...], wanted: int, answer: Answer
) -> None:
    question = Question(bad)
    assert question.answer(question.counts(plays(*kinds)), wanted) is answer


@given(st.sampled_from([kind for kind in VerdictKind if kind is not K.INCONCLUSIVE]), st.lists(KINDS), st.lists(KINDS))
def test_question_further_plays_never_take_a_telling_one_back(
    bad: VerdictKind, before: list[VerdictKind | None], after: list[VerdictKind | None]
) -> None:
    question = Question(bad)
    told = question.answer(question.counts(plays(*before)), len(before) + 1)
    both = question.counts(plays(*before, *after))
    assert both.answered + both.unanswered == len(before) + len(after)
    if told is not Answer.UNKNOWN:
        assert question.answer(both, len(before) + 1) is told is question.telling_is


@given(st.integers(1, 200).flatmap(lambda of: st.tuples(st.integers(1, of), st.just(of))))
def test_rate_plays_wanted_miss_it_in_five_of_a_hundred_at_most(counted: tuple[int, int]) -> None:
    rate = Rate(*counted)
    wanted = rate.plays_wanted
    assert (1 - rate.hits / rate.plays) ** wanted <= 0.05 + 1e-9
    assert missed_rate(wanted) <= rate.hits / rate.plays + 1e-9
    if rate.hits == 1 and rate.plays >= 3:
        assert 2.9 * rate.plays <= wanted <= 3.1 * rate.plays + 5


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("1/10", 32), ("5/5", 2), ("1/1", 5), ("3/5", 5), ("0/5", None), ("6/5", None), ("x", None), ("1/", None),
     ("-1/2", None), ("1/1000001", None), ("\u0661/2", None)],
)  # fmt: skip
def test_rate_parse_as_written(text: str, wanted: int | None) -> None:
    rate = Rate.parse(text)
    assert (None if rate is None else rate.plays_wanted) == wanted


def test_counts_none_played_exclude_no_rate() -> None:
    assert missed_rate(0) == 1.0 and Counts() == Question(K.DIVERGED).counts([])
