"""Times, numbers and states as people read them."""

from datetime import timedelta

import pytest

from drivetrain.api.meta import Condition
from drivetrain.cli.wording import length, number, size, standing


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=45), "45s"),
        (timedelta(minutes=12), "12m"),
        (timedelta(days=3, hours=4, minutes=5), "3d4h"),
        (timedelta(days=1, seconds=5), "1d"),
        (timedelta(seconds=-5), "0s"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span: timedelta, told: str) -> None:
    assert length(span) == told


def test_numbers_and_sizes_are_short() -> None:
    assert (number(0.123456), number(1234.5), number(12345678)) == ("0.1235", "1,234", "12,345,678")
    assert (size(5), size(2048), size(3 * 1024**4)) == ("5 B", "2.0 KiB", "3.0 TiB")


def said(type_: str, status: str, reason: str = "Because") -> Condition:
    return Condition.model_validate({"type": type_, "status": status, "reason": reason, "message": "So it is."})


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ((), "Unseen"),
        ((said("Ready", "True"),), "Ready"),
        ((said("Ready", "False", "Queued"), said("Reconciling", "True", "Queued")), "Reconciling (Queued)"),
        ((said("Ready", "False", "InvalidSpec"), said("Stalled", "True", "InvalidSpec")), "Stalled (InvalidSpec)"),
        ((said("Ready", "True"), said("Stalled", "True", "ChildForbidden")), "Ready, stalled (ChildForbidden)"),
    ],
)
def test_a_state_follows_kstatus(conditions: tuple[Condition, ...], told: str) -> None:
    assert str(standing(conditions)) == told


def test_a_ready_object_whose_newer_spec_was_not_seen_is_not_called_well() -> None:
    found = standing((said("Ready", "True"),), behind=True)
    assert (str(found), found.tone) == ("Ready (newer spec unseen)", "busy")
