"""When which key is due."""

import random

import pytest

from drivetrain.controller.handlers.schedule import FIRST_BACKOFF, LONGEST_BACKOFF, Schedule


@pytest.fixture
def schedule() -> Schedule[str]:
    return Schedule(random.Random(1))


def test_a_woken_key_runs_once_however_often_it_was_woken(schedule: Schedule[str]) -> None:
    for _ in range(3):
        schedule.wake("a", now=0.0)
    assert schedule.take(0.0) == "a"
    assert schedule.take(0.0) is None


def test_a_key_that_is_woken_while_it_runs_runs_once_more_and_never_twice_at_once(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    assert schedule.take(0.0) == "a"
    schedule.wake("a", now=1.0)
    schedule.wake("a", now=2.0)
    assert schedule.take(3.0) is None
    schedule.done("a", now=3.0)
    assert schedule.take(3.0) == "a"
    schedule.done("a", now=4.0)
    assert schedule.take(100.0) is None


def test_the_key_that_waited_longest_comes_first(schedule: Schedule[str]) -> None:
    schedule.wake("late", now=2.0)
    schedule.wake("early", now=1.0)
    assert [schedule.take(2.0), schedule.take(2.0)] == ["early", "late"]


def test_an_earlier_wake_up_wins_over_a_later_one(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0, delay=100.0)
    schedule.wake("a", now=1.0)
    schedule.wake("a", now=2.0, delay=50.0)
    assert schedule.next_due() == 1.0
    assert schedule.take(1.0) == "a"
    schedule.done("a", now=1.0)
    assert schedule.next_due() is None


def test_wake_after_brings_the_key_back_unless_a_hint_comes_first(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    schedule.take(0.0)
    schedule.done("a", now=0.0, wake_after=60.0)
    assert schedule.take(59.9) is None
    assert schedule.take(60.0) == "a"
    schedule.wake("a", now=61.0)
    schedule.done("a", now=62.0, wake_after=60.0)
    assert schedule.take(62.0) == "a"


def _fail(schedule: Schedule[str], now: float, at_least: float = 0.0) -> float:
    assert schedule.take(now) == "a"
    return schedule.failed("a", now, at_least)


def test_failures_double_the_wait_up_to_a_bound_and_success_forgets_them(schedule: Schedule[str]) -> None:
    now = 0.0
    schedule.wake("a", now)
    delays = []
    for _ in range(12):
        delays.append(_fail(schedule, now))
        now += delays[-1]
    for number, delay in enumerate(delays):
        longest = min(FIRST_BACKOFF * 2**number, LONGEST_BACKOFF)
        assert longest / 2 <= delay <= longest
    assert len(set(delays)) == len(delays), "the random half keeps many keys from coming back at once"
    assert schedule.take(now) == "a"
    schedule.done("a", now)
    schedule.wake("a", now)
    assert _fail(schedule, now) <= FIRST_BACKOFF


def test_no_hint_shortens_a_backoff(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    delay = _fail(schedule, 0.0)
    schedule.wake("a", now=0.0)
    assert schedule.take(delay * 0.99) is None
    assert schedule.take(delay) == "a"


def test_the_wait_that_the_server_asks_for_is_kept(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    assert _fail(schedule, 0.0, at_least=17.0) == 17.0


def test_one_failing_key_does_not_delay_another(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    _fail(schedule, 0.0)
    schedule.wake("b", now=0.0)
    assert schedule.take(0.0) == "b"


def test_depth_and_age_tell_of_due_keys_only(schedule: Schedule[str]) -> None:
    schedule.wake("a", now=0.0)
    schedule.wake("b", now=1.0)
    schedule.wake("c", now=0.0, delay=100.0)
    assert (schedule.depth(3.0), schedule.oldest_age(3.0)) == (2, 3.0)
    schedule.take(3.0)
    assert (schedule.depth(3.0), schedule.oldest_age(3.0)) == (1, 2.0)
    schedule.take(3.0)
    assert (schedule.depth(3.0), schedule.oldest_age(3.0)) == (0, 0.0)


@pytest.mark.parametrize("moves", [0.0, 0.001])
def test_a_key_that_is_woken_again_and_again_before_a_far_deadline_leaves_next_to_nothing_behind(
    schedule: Schedule[str], moves: float
) -> None:
    """The deadline stays, or moves by so much a second."""
    schedule.wake("other", now=0.0, delay=2e6)
    for now in range(0, 50_000, 5):
        schedule.wake("a", float(now))
        assert schedule.take(now) == "a"
        schedule.done("a", now, wake_after=1e6 - now + moves * now)
    assert len(schedule._heap) < 100
    due = schedule.next_due()
    assert due is not None
    assert schedule.take(due) == "a"
    assert schedule.next_due() == 2e6
