"""What a request must carry."""

from typing import Any

import numpy as np
import pytest

from drivetrain.serving.rows import Field, RowProblem, RowsError, typed_column
from tests.unit.serving.conftest import View
from tests.unit.serving.worlds import World, objective, policy, publish, row


def problem_of(view: View, document: dict[str, object], **config: object) -> tuple[int, str, str]:
    with pytest.raises(RowsError) as caught:
        view(**config).contract.rows([row(0), document])
    first = caught.value.problems[0]
    return first.row, first.field, first.cause


@pytest.mark.parametrize("field", ["visit_id", "store", "price_rival", "shelf_price", "shelf_discount"])
def test_a_missing_column_is_named_with_its_row(view: View, field: str) -> None:
    document = row(1)
    del document[field]
    assert problem_of(view, document)[:2] == (1, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("store", 7),
        ("price_rival", "dear"),
        ("price_rival", True),
        ("price_rival", None),
        ("week", 3.5),
        ("week", "3"),
        ("week", 9_300_000_000_000_000_000),
        ("week", -1e300),
        ("visit_id", None),
        ("store", "x" * 2000),
    ],
)
def test_a_wrong_type_is_named_with_its_row(view: View, field: str, value: object) -> None:
    assert problem_of(view, row(1, **{field: value}))[:2] == (1, field)


def test_a_time_beyond_the_calendar_is_named_with_its_row() -> None:
    problems: list[RowProblem] = []
    field = Field("seen", "Timestamp", nullable=False, required=True, why="")
    assert typed_column(field, [{"seen": "0001-01-01T00:00:00+05:00"}], problems) is None
    assert [(problem.row, problem.field) for problem in problems] == [(0, "seen")]


@pytest.mark.parametrize("field", ["price", "purchase"])
def test_levers_and_outcomes_are_refused_in_a_request(view: View, field: str) -> None:
    row_number, name, cause = problem_of(view, row(1, **{field: 1.8}))
    assert (row_number, name) == (1, field)
    assert "under 'today'" in cause or "/v1/outcomes" in cause


def test_a_field_that_no_policy_knows_is_ignored_and_named(view: View) -> None:
    rows = view().contract.rows([row(0), row(1, loyalty=0.5)])
    assert rows.ignored == ("loyalty",)
    assert "loyalty" not in rows.columns


def test_an_optional_column_of_the_project_is_typed_and_kept(view: View) -> None:
    rows = view().contract.rows([row(0, week=230), row(1)])
    assert rows.columns["week"][0] == 230
    assert np.isnan(rows.columns["week"][1])


def test_a_column_that_only_the_candidate_needs_is_optional(view: View, world: World) -> None:
    candidate = policy(publish(world.store, loyalty=True), version="2", loyalty=True)
    contract = view(candidate=candidate).contract
    assert not contract.fields["loyalty"].required
    rows = contract.rows([row(0, loyalty=0.4), row(1), row(2, loyalty=None)])
    assert rows.complete_for_candidate.tolist() == [True, False, False]


def test_what_the_candidate_needs_is_required_once_it_is_stable(view: View, world: World) -> None:
    promoted = policy(publish(world.store, loyalty=True), version="2", loyalty=True)
    assert problem_of(view, row(1), stable=promoted)[:2] == (0, "loyalty")


@pytest.mark.parametrize("rows", [[], {}, None, [1], [row(i) for i in range(1001)]])
def test_what_is_no_batch_of_rows_is_refused(view: View, rows: object) -> None:
    with pytest.raises(RowsError):
        view().contract.rows(rows)


def test_todays_action_is_required_where_only_callers_know_it(view: View, world: World) -> None:
    logged: dict[str, Any] = {"baseline": {"logged": True}}
    stable = policy(publish(world.store), **logged)
    assert objective(**logged).baseline.logged
    serving = view(stable=stable)
    rows = serving.contract.rows([row(0, today={"price": 1.8, "discount": 0})])
    assert rows.today["price"].tolist() == [1.8]


@pytest.mark.parametrize("today", [{"price": 1.8}, {"price": "1.8", "discount": 0}, {"price": 1.8, "discount": None}])
def test_todays_action_must_set_every_lever(view: View, today: object) -> None:
    assert problem_of(view, row(1, today=today))[1].startswith("today")
