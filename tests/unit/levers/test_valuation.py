"""A policy compiled: today's action, feasibility, and the KPI of actions."""

from decimal import Decimal

import numpy as np
import pytest

from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.dataset import Column, Target
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.objective import Baseline, Constraint, Kpi, ModelMetric, Objective
from drivetrain.levers.valuation import Valuation, expand

PRICE = Lever(name="price", type="Continuous", minimum=Decimal("1.69"), maximum=Decimal("2.09"), step=Decimal("0.05"))
DISCOUNT = Lever(name="discount", type="Continuous", minimum=Decimal(0), maximum=Decimal("0.5"), step=Decimal("0.1"))


def a_policy(**objective: object) -> Policy:
    written: dict[str, object] = {
        "kpi": Kpi(name="margin", unit="USD"),
        "value": "purchase * (price - discount - 1.1)",
        "baseline": Baseline(expression={"price": "shelf_price", "discount": "0"}),
        "model_metric": ModelMetric(name="logLoss", direction="Minimize"),
        "constraints": (Constraint(scope="PerDecision", expression="price - discount >= 1.3"),),
    }
    return Policy(
        objective=Objective.model_validate(written | objective),
        levers=(PRICE, DISCOUNT),
        columns=(Column(name="shelf_price", role="Context", type="Float"),),
        target=Target(name="purchase", type="Binary"),
    )


CONTEXT = {"shelf_price": np.array([1.86, 1.99])}


def test_the_baseline_expression_is_todays_action() -> None:
    today = Valuation.of(a_policy()).today(CONTEXT, 2)
    assert today["price"].tolist() == [1.86, 1.99]
    assert today["discount"].tolist() == [0.0, 0.0]


def test_an_action_sent_with_the_request_is_todays_action() -> None:
    sent = {"price": np.array([1.7, 1.8]), "discount": np.array([0.1, 0.0])}
    assert Valuation.of(a_policy()).today(CONTEXT, 2, sent)["price"].tolist() == [1.7, 1.8]


def test_a_constraint_that_binds_on_paper_is_met_in_floating_point() -> None:
    valuation = Valuation.of(a_policy())
    feasible = valuation.feasible(CONTEXT, 2)
    net = valuation.grid.columns["price"].astype(float) - valuation.grid.columns["discount"].astype(float)
    assert feasible.sum(axis=1).tolist() == [50, 50]
    assert (np.round(net[feasible[0]], 9) >= 1.3).all()


def test_a_strict_constraint_refuses_its_own_bound() -> None:
    strict = (Constraint(scope="PerDecision", expression="discount < 0.1"),)
    valuation = Valuation.of(a_policy(constraints=strict))
    assert valuation.feasible(CONTEXT, 2).sum() == 2 * 9


def test_any_other_condition_filters_too() -> None:
    either = (Constraint(scope="PerDecision", expression="discount = 0 OR price > 2"),)
    valuation = Valuation.of(a_policy(constraints=either))
    expected = [
        action["discount"] == 0 or float(action["price"]) > 2 for action in map(valuation.grid.action, range(54))
    ]
    assert valuation.feasible(CONTEXT, 1)[0].tolist() == expected


def test_the_grid_is_valued_by_the_declared_expression() -> None:
    valuation = Valuation.of(a_policy())
    prediction = np.full((2, 54), 0.5)
    values = valuation.grid_values(prediction, CONTEXT)
    for index in (0, 17, 53):
        action = valuation.grid.action(index)
        assert values[1, index] == pytest.approx(0.5 * (float(action["price"]) - float(action["discount"]) - 1.1))


def test_a_kpi_to_be_minimised_is_searched_with_its_sign_turned() -> None:
    valuation = Valuation.of(a_policy(kpi=Kpi(name="cost", unit="USD", direction="Minimize")))
    prediction = np.full((2, 54), 0.5)
    assert np.array_equal(valuation.merit(prediction, CONTEXT), -valuation.grid_values(prediction, CONTEXT))


def test_a_priced_portfolio_metric_enters_the_search_but_not_the_value() -> None:
    bounded = (Constraint(scope="Portfolio", metric="purchase", minimum=0.4),)
    valuation = Valuation.of(a_policy(constraints=bounded), {"purchase": 2.0})
    prediction = np.linspace(0, 1, 54)[None, :]
    context = {"shelf_price": np.array([1.9])}
    difference = valuation.merit(prediction, context) - valuation.grid_values(prediction, context)
    assert np.allclose(difference, 2.0 * prediction)


def test_expansion_pairs_every_row_with_every_action() -> None:
    valuation = Valuation.of(a_policy())
    flat = expand(CONTEXT, valuation.grid, 2)
    assert flat["shelf_price"].tolist() == [1.86] * 54 + [1.99] * 54
    assert flat["price"].tolist() == valuation.grid.columns["price"].tolist() * 2
