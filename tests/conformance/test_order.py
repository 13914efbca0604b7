"""What counts as following a way: the cases are no stricter and no laxer than they say."""

import pytest

from tests.conformance.order import follows, may, must

WAY = (may(""), must("begun"), may("runs"), must("over"))


@pytest.mark.parametrize(
    "seen", [["begun", "over"], ["", "begun", "runs", "over"], ["", "", "begun", "runs", "runs", "over"]]
)
def test_repetitions_and_what_may_be_left_out_are_left_out(seen: list[str]) -> None:
    assert follows([(each,) for each in seen], WAY) == ""


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ([], "more had to come"),
        (["", "begun", "runs"], "more had to come"),
        (["runs", "over"], "('runs',) may not come where it came"),
        (["begun", "over", "runs"], "('runs',) may not come where it came"),
        (["begun", "lost", "over"], "('lost',) may not come where it came"),
        (["begun", "runs", "begun", "over"], "('begun',) may not come where it came"),
    ],
)
def test_anything_else_is_told(seen: list[str], why: str) -> None:
    assert follows([(each,) for each in seen], WAY).startswith(why)


def test_a_state_that_may_and_then_must_come_counts_as_the_one_that_must() -> None:
    again = (may("runs"), may("changes"), must("runs"), must("over"))
    assert follows([("runs",), ("over",)], again) == ""
    assert follows([("runs",), ("changes",), ("runs",), ("over",)], again) == ""
