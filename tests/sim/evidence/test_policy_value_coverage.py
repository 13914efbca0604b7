"""Does the doubly robust interval cover the true value, and does it say so when the log cannot tell?"""

import numpy as np
import pytest

from drivetrain.evidence.intervals import Floats
from drivetrain.evidence.policy_value import (
    LoggedDecisions,
    NotIdentified,
    PolicyValue,
    Reason,
    Rows,
    policy_value,
)
from tests.support.binomial import assert_rate_above, assert_rate_below

ACTIONS = 6


def a_log(rng: np.random.Generator, rows: int) -> tuple[LoggedDecisions, Floats, np.ndarray, np.ndarray, float]:
    """Decisions by a policy that favours the action that suits the context; the target policy is another one."""
    context = rng.random(rows)
    favoured = np.minimum((context * ACTIONS).astype(np.intp), ACTIONS - 1)
    explores = rng.random(rows) < 0.5
    action = np.where(explores, rng.integers(ACTIONS, size=rows), favoured)
    propensity = np.where(action == favoured, 0.5 + 0.5 / ACTIONS, 0.5 / ACTIONS)
    wanted = (favoured + 1) % ACTIONS

    def mean(actions: np.ndarray) -> Floats:
        return np.asarray(context * 0.3 + 0.1 * actions)

    kpi = mean(action) + rng.normal(0, 0.3, rows)
    truth = float(np.mean([0.15 + 0.1 * ((k + 1) % ACTIONS) for k in range(ACTIONS)]))
    taken = (action == wanted).astype(np.float64)
    logged = LoggedDecisions(kpi, propensity, taken, np.arange(rows), rng.integers(5, size=rows))
    return logged, context, action, wanted, truth


@pytest.mark.parametrize("model", ["nothing but the mean", "a mean per action"])
def test_the_interval_covers_the_true_value_even_with_a_poor_nuisance_model(model: str) -> None:
    rng = np.random.default_rng(21)
    runs, missed, widths = 400, 0, []
    for _ in range(runs):
        logged, _, action, wanted, truth = a_log(rng, 3_000)

        def nuisance(
            fit: Rows,
            predict: Rows,
            logged: LoggedDecisions = logged,
            action: np.ndarray = action,
            wanted: np.ndarray = wanted,
        ) -> tuple[Floats, Floats]:
            if model == "nothing but the mean":
                mean = np.full(len(predict), logged.kpi[fit].mean())
                return mean, mean
            means = np.array([logged.kpi[fit][action[fit] == k].mean() for k in range(ACTIONS)])
            return means[action[predict]], means[wanted[predict]]

        result = policy_value(logged, nuisance)
        assert isinstance(result, PolicyValue)
        missed += not result.value.lower <= truth <= result.value.upper
        widths.append(result.value.half_width)
    assert_rate_below(missed, runs, 0.10)
    assert_rate_above(runs - missed, runs, 0.9)
    assert np.mean(widths) < 0.1


def test_five_percent_uniform_over_54_actions_does_not_identify_a_new_policy_in_10000_decisions() -> None:
    rng = np.random.default_rng(22)
    rows, actions = 10_000, 54
    action = np.where(rng.random(rows) < 0.05, rng.integers(actions, size=rows), 0)
    propensity = np.where(action == 0, 0.95 + 0.05 / actions, 0.05 / actions)
    taken = (action == 7).astype(np.float64)
    logged = LoggedDecisions(rng.random(rows), propensity, taken, np.arange(rows), rng.integers(5, size=rows))
    result = policy_value(logged, lambda _, predict: (np.zeros(len(predict)), np.zeros(len(predict))))
    assert isinstance(result, NotIdentified)
    assert result.reason is Reason.SMALL_EFFECTIVE_SAMPLE
    assert 3 <= result.effective_sample <= 25


@pytest.mark.parametrize("decisions", [1, 5, 20])
def test_a_policy_of_equal_value_is_seldom_proved_worse_however_often_a_unit_decides(decisions: int) -> None:
    """Exploration is drawn once a customer, and customers differ; candidate and champion take different actions."""
    rng, runs, units = np.random.default_rng(23), 1_000, 1_200
    blocked = missed = 0
    for _ in range(runs):
        customer = np.repeat(np.arange(units), decisions)
        explores = (rng.random(units) < 0.25)[customer]
        kpi = (rng.random(len(customer)) < rng.beta(0.6, 1.0, units)[customer]).astype(np.float64)
        propensity, fold = np.where(explores, 0.25, 0.75), rng.integers(3, size=units)[customer]

        def mean(fit: Rows, predict: Rows, kpi: Floats = kpi) -> tuple[Floats, Floats]:
            return np.full(len(predict), kpi[fit].mean()), np.full(len(predict), kpi[fit].mean())

        found, champion = (
            policy_value(LoggedDecisions(kpi, propensity, taken.astype(np.float64), customer, fold), mean)
            for taken in (explores, ~explores)
        )
        assert isinstance(found, PolicyValue)
        assert isinstance(champion, PolicyValue)
        missed += not found.value.lower <= 0.6 / 1.6 <= found.value.upper
        blocked += found.gain_over(champion).upper < 0
    assert_rate_below(missed, runs, 0.10)
    assert_rate_below(blocked, runs, 0.05)
