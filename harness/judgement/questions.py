"""What a user asks, answered from the runs: one sentence each, with the cells it rests on, or what to play; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.judgement import questions_drbd, questions_harm, questions_moves
from harness.judgement.question_facts import Facts, QuestionAnswer
from harness.judgement.stacks import PlayedRun

Question = Callable[[Facts], QuestionAnswer]

#: In the order in which a page has them; the first one stands where the eye falls first.
QUESTIONS: tuple[Question, ...] = (
    questions_harm.cache_none,
    questions_harm.cache_modes,
    questions_drbd.false_alarms,
    questions_harm.whose,
    questions_drbd.come_back,
    questions_drbd.broken_hardware,
    questions_drbd.digest_on,
    questions_moves.migration,
    questions_moves.second_migration,
    questions_moves.failover,
    questions_harm.unprivileged,
    questions_moves.newer_stack,
    questions_drbd.how_often,
    questions_moves.cost,
    questions_harm.filesystems,
    questions_harm.cures,
    questions_moves.proxmox,
    questions_moves.drbd_nine,
    questions_drbd.guest_off,
    questions_drbd.verify_finished,
    questions_drbd.counter_alone,
)


def answers(runs: Sequence[PlayedRun]) -> tuple[QuestionAnswer, ...]:
    """One answer for each of :data:`QUESTIONS`, by all of ``runs`` together."""
    facts = Facts.of(runs)
    return tuple(question(facts) for question in QUESTIONS)
