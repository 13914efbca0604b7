"""When no outcome at all is too few, and which decisions that makes worthless."""

import json

import numpy as np
import pytest

from drivetrain.evidence.intervals import Bools, Floats
from drivetrain.evidence.silence import Silence

MARGIN = 50.0


def decisions(share: float, rows: int, seed: int = 1) -> tuple[Floats, Bools]:
    """A decision a second; each has an outcome with chance `share`."""
    return np.arange(rows, dtype=np.float64), np.random.default_rng(seed).random(rows) < share


def an_outage(share: float, *, rows: int = 2_000, first: int = 1_000, last: int = 1_600) -> tuple[Floats, Bools]:
    at, answered = decisions(share, rows)
    answered[first:last] = False
    answered[[first - 1, last]] = True
    return at, answered


def test_an_outage_and_a_margin_on_both_sides_are_worthless_and_nothing_else() -> None:
    at, answered = an_outage(0.4)
    silence = Silence(MARGIN)
    worthless, since = silence.update(at, answered)
    assert np.flatnonzero(worthless).tolist() == list(range(949, 1_650))
    assert since == 949
    assert not silence.silent
    assert silence.update(at + 2_000, np.ones(2_000, dtype=bool))[1] is None


@pytest.mark.parametrize("size", [1, 7, 333])
def test_what_was_worthless_in_earlier_batches_is_told_as_soon_as_it_is_known(size: int) -> None:
    at, answered = an_outage(0.4)
    silence, told = Silence(MARGIN), np.zeros(2_000, dtype=bool)
    for start in range(0, 2_000, size):
        rows = slice(start, start + size)
        told[rows], since = silence.update(at[rows], answered[rows])
        if since is not None:
            told |= (at >= since) & (at < at[rows][0])
    assert np.flatnonzero(told).tolist() == list(range(949, 1_650))


def test_what_is_usual_is_unknown_before_thirty_outcomes() -> None:
    silence = Silence(MARGIN)
    silence.update(np.arange(116.0), np.tile([True, False, False, False], 29))
    assert silence.usual == 0.0
    silence.update(np.arange(116.0, 516.0), np.tile([True, False, False, False], 100))
    assert silence.usual == pytest.approx(0.25, rel=0.01)


def test_it_is_silent_from_twenty_missing_outcomes_until_the_first_that_comes() -> None:
    silence = Silence(MARGIN)
    silence.update(np.arange(400.0), np.tile([False, False, False, True], 100))
    said = []
    for at, answered in ((400.0, 79), (479.0, 2), (481.0, 0)):
        came = np.zeros(answered, dtype=bool) if answered else np.ones(1, dtype=bool)
        silence.update(at + np.arange(float(len(came))), came)
        said.append(silence.silent)
    assert said == [False, True, False]


def test_another_custom_of_reporting_becomes_the_usual_one() -> None:
    silence = Silence(MARGIN)
    silence.update(*decisions(1.0, 2_000))
    at, answered = decisions(0.1, 20_000, seed=3)
    silence.update(at + 2_000, answered)
    assert silence.usual == pytest.approx(0.1, rel=0.3)


def test_before_anything_is_usual_nothing_is_silence() -> None:
    silence = Silence(MARGIN)
    worthless, since = silence.update(np.arange(10_000.0), np.zeros(10_000, dtype=bool))
    assert not worthless.any()
    assert since is None


def test_a_stored_silence_goes_on_as_if_it_had_never_stopped() -> None:
    at, answered = an_outage(0.4)
    for stop in (500, 1_030, 1_300, 1_620):
        through, before, after = Silence(MARGIN), Silence(MARGIN), Silence(MARGIN)
        for silence in (through, before):
            silence.update(at[:stop], answered[:stop])
        after.restore(json.loads(json.dumps(before.state())))
        one, other = (silence.update(at[stop:], answered[stop:]) for silence in (through, after))
        assert np.array_equal(one[0], other[0])
        assert one[1] == other[1]
