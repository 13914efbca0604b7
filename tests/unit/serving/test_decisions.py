"""What the endpoint decides, against brute force and against its own words."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.api.v1alpha1.rollout import Fallback
from drivetrain.levers.assignment import Arm
from drivetrain.serving.decisions import Decisions, decide
from drivetrain.serving.shadow import Shadowed
from drivetrain.serving.view import Recalibration, Serving
from tests.unit.serving.conftest import View
from tests.unit.serving.worlds import LEVERS, World, policy, probability, publish, row


def decided(serving: Serving, rows: list[dict[str, object]]) -> Decisions:
    return decide(serving.contract.rows(rows), [f"id{i}" for i in range(len(rows))], serving)


def brute_force(document: dict[str, object]) -> tuple[float, float]:
    """The best feasible action by the published formula; ties to the smallest change from the shelf."""
    best: tuple[float, float, tuple[float, float]] | None = None
    for price in LEVERS[0].values():
        for discount in LEVERS[1].values():
            if price - discount < 1.3:  # type: ignore[operator]  # both levers are numbers
                continue
            p, d = float(price), float(discount)
            chance = probability(np.array(p - d), np.array(document["price_rival"]), str(document["store"]))
            value = float(np.float32(chance)) * (p - d - 1.1)
            change = abs(p - float(str(document["shelf_price"]))) / 0.4 + abs(d - 0.0) / 0.5
            if best is None or value > best[0] + 1e-6 or (abs(value - best[0]) <= 1e-6 and change < best[1]):
                best = (value, change, (p, d))
    assert best is not None
    return best[2]


def test_the_recommended_action_is_the_one_that_brute_force_finds(view: View) -> None:
    serving = view()
    rows = [
        row(i, store="12"[i % 2], price_rival=1.7 + 0.02 * i, shelf_price=(1.69, 1.86, 1.99)[i % 3]) for i in range(25)
    ]
    found = decided(serving, rows)
    for index, document in enumerate(rows):
        price, discount = brute_force(document)
        assert found.actions["price"][index] - found.actions["discount"][index] == pytest.approx(price - discount)
        assert (found.actions["price"][index], found.actions["discount"][index]) == pytest.approx((price, discount))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    exploration=st.builds(
        Exploration, share=st.floats(0, 1), steps=st.integers(1, 4), design=st.sampled_from(["Local", "Uniform"])
    ),
    rivals=st.lists(st.floats(1.69, 2.29), min_size=1, max_size=8),
    baseline_is_stable=st.booleans(),
)
def test_probabilities_sum_to_one_and_the_logged_one_is_that_of_the_action(
    view: View, exploration: Exploration, rivals: list[float], baseline_is_stable: bool
) -> None:
    serving = view(stable=policy() if baseline_is_stable else None, exploration=exploration)
    rows = [row(i, price_rival=rival, shelf_price=1.83 + 0.01 * (i % 3)) for i, rival in enumerate(rivals)]
    found = decided(serving, rows)
    distribution = found.distribution_stable
    ends = np.cumsum([0, *distribution.counts])
    for index, context in enumerate(found.context_of_row.tolist()):
        part = slice(ends[context], ends[context + 1])
        probabilities = distribution.probabilities[part]
        assert probabilities.sum() == pytest.approx(1)
        actions = distribution.actions[part]
        values = serving.stable.valuation.grid.columns
        taken = [
            number
            for number, action in enumerate(actions.tolist())
            if action >= 0
            and values["price"][action] == found.actions["price"][index]
            and values["discount"][action] == found.actions["discount"][index]
        ] or [number for number, action in enumerate(actions.tolist()) if action == -1]
        assert found.propensity[index] == pytest.approx(probabilities[taken[0]])


def test_no_action_ever_breaks_a_constraint(view: View) -> None:
    serving = view(exploration=Exploration(share=1.0, design="Uniform"))
    found = decided(serving, [row(i) for i in range(500)])
    net = found.actions["price"].astype(float) - found.actions["discount"].astype(float)
    assert net.min() >= 1.3 - 1e-9
    assert len(np.unique(net)) > 10


def test_ties_go_to_the_smallest_change_from_todays_action(view: View, world: World) -> None:
    flat = policy(publish(world.store, slope=0.0, intercept=0.0), value="purchase * 0.5")
    found = decided(view(stable=flat), [row(0, shelf_price=1.74, shelf_discount=0.2)])
    assert found.actions["price"][0] == pytest.approx(1.74)
    assert found.actions["discount"][0] == pytest.approx(0.2)


def test_the_baseline_as_stable_does_what_is_done_today_even_off_the_grid(view: View) -> None:
    found = decided(view(stable=policy()), [row(0, shelf_price=1.777, shelf_discount=0.05)])
    assert (found.actions["price"][0], found.actions["discount"][0]) == (1.777, 0.05)
    assert found.propensity[0] == 1
    assert np.isnan(found.expected_value[0])


def test_the_holdout_never_explores(view: View) -> None:
    found = decided(view(holdout=0.2, exploration=Exploration(share=1.0)), [row(i) for i in range(400)])
    held = np.array([arm is Arm.HOLDOUT for arm in found.arms])
    assert 40 < held.sum() < 130
    assert set(found.actions["price"][held].tolist()) == {1.86}
    assert (found.propensity[held] == 1).all()
    assert found.explored[~held].mean() > 0.5


def test_raising_the_weight_only_moves_units_from_stable_to_candidate(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=8.0), version="2")
    rows = [row(i) for i in range(300)]
    arms = [decided(view(candidate=candidate, weight=weight, holdout=0.05), rows).arms for weight in (0, 10, 50, 99)]
    for before, after in pairwise(arms):
        for old, new in zip(before, after, strict=True):
            assert old is new or (old, new) == (Arm.STABLE, Arm.CANDIDATE)
    assert Arm.CANDIDATE in arms[1]


def test_a_row_without_the_candidates_column_is_decided_by_stable_and_in_neither_arm(view: View, world: World) -> None:
    candidate = policy(publish(world.store, loyalty=True), version="2", loyalty=True)
    serving = view(candidate=candidate, weight=99)
    found = decided(serving, [row(i, **({"loyalty": 0.5} if i % 2 else {})) for i in range(40)])
    for index, arm in enumerate(found.arms):
        assert (arm is Arm.NONE) == (index % 2 == 0)
        if arm is Arm.NONE:
            assert found.policies[index] == serving.stable.hash
            assert np.isnan(found.m_candidate[index])
    assert np.isfinite(found.m_candidate[1::2]).all()


def test_both_models_are_scored_at_the_action_taken(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    found = decided(view(candidate=candidate), [row(i) for i in range(40)])
    assert found.prediction_stable is not None
    assert found.prediction_candidate is not None
    net = found.actions["price"].astype(float) - found.actions["discount"].astype(float)
    rival = np.full(40, 1.99)
    assert found.prediction_stable == pytest.approx(probability(net, rival, "1", half=-0.2), abs=1e-5)
    expected = probability(net, rival, "1", slope=3.0, intercept=6.0, half=-0.2)
    assert found.prediction_candidate == pytest.approx(expected, abs=1e-5)


def test_m_is_what_one_frozen_model_expects_of_each_arms_own_distribution(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    found = decided(view(candidate=candidate, exploration=Exploration(share=0.0)), [row(0)])
    serving = found.serving
    for mean, variant in ((found.m_stable, serving.stable), (found.m_candidate, serving.candidate)):
        assert variant is not None
        alone = decided(view(stable=variant.policy), [row(0)])
        net = float(alone.actions["price"][0]) - float(alone.actions["discount"][0])
        chance = probability(np.array(net), np.array(1.99), "1", half=-0.2)
        assert mean[0] == pytest.approx(float(chance) * (net - 1.1), abs=1e-5)


def test_the_candidates_model_adjusts_while_today_is_stable(view: View, world: World) -> None:
    candidate = policy(publish(world.store), version="1")
    found = decided(view(stable=policy(), candidate=candidate), [row(0)])
    assert found.serving.frozen is not None
    assert np.isfinite(found.m_stable[0])
    assert found.prediction_stable is None


@pytest.mark.parametrize(
    ("fallback", "price"),
    [
        (Fallback(policy="Baseline"), 1.86),
        (Fallback.model_validate({"policy": "Fixed", "action": {"price": "1.99", "discount": "0"}}), 1.99),
        (Fallback(policy="Refuse"), None),
    ],
)
@pytest.mark.parametrize("outside", [{"store": "9"}, {"price_rival": 9.0}, {"price_rival": -1.0}])
def test_out_of_domain_rows_are_answered_by_the_fallback(
    view: View, fallback: Fallback, price: float | None, outside: dict[str, object]
) -> None:
    serving = view(fallback=fallback, exploration=Exploration(share=1.0))
    found = decided(serving, [row(0, **outside), row(1)])
    assert found.fallback == ("OutOfDomain", "")
    assert found.outside[0] == tuple(outside)
    assert found.propensity[0] == 1
    assert not found.explored[0]
    if price is None:
        assert found.refused.tolist() == [True, False]
        assert np.isnan(found.actions["price"][0])
    else:
        assert found.actions["price"][0] == price


def test_an_impossible_constraint_falls_back_and_names_itself(view: View, world: World) -> None:
    impossible = policy(
        publish(world.store),
        constraints=({"scope": "PerDecision", "expression": "price - discount >= price_rival + 1"},),
    )
    found = decided(view(stable=impossible), [row(0)])
    assert found.fallback == ("NoFeasibleAction",)
    assert found.binding[0] == ("price - discount >= price_rival + 1",)


def test_a_binding_constraint_is_named(view: View, world: World) -> None:
    held_back = policy(
        publish(world.store), constraints=({"scope": "PerDecision", "expression": "price - discount >= 1.95"},)
    )
    found = decided(view(stable=held_back), [row(0, price_rival=1.7)])
    assert found.binding[0] == ("price - discount >= 1.95",)
    assert decided(view(), [row(0)]).binding[0] == ()


def test_expected_values_are_recalibrated_with_their_radius(view: View) -> None:
    serving = view()
    plain = decided(serving, [row(0)])
    corrected = Serving.of(
        serving.config,
        serving.stable,
        serving.baseline,
        recalibrations={serving.stable.hash: Recalibration(-0.05, 0.01)},
    )
    found = decided(corrected, [row(0)])
    assert found.expected_value[0] == pytest.approx(plain.expected_value[0] - 0.05)
    assert found.radius[0] == 0.01
    assert np.isnan(plain.radius[0])


def test_rows_that_agree_are_decided_alike_whatever_their_company(view: View) -> None:
    serving = view(exploration=Exploration(share=0.5))
    rows = [row(i, price_rival=1.7 + 0.1 * (i % 4), store="12"[i % 2]) for i in range(60)]
    together = decided(serving, rows)
    for index in (0, 7, 33):
        alone = decided(serving, [rows[index]])
        assert alone.actions["price"][0] == together.actions["price"][index]
        assert alone.propensity[0] == pytest.approx(together.propensity[index])
        assert alone.m_stable[0] == pytest.approx(together.m_stable[index])


class Broken:
    """A session whose graph raises an error on every batch."""

    def run(self, outputs: list[str], feeds: dict[str, object]) -> list[object]:
        raise RuntimeError("bad shape")


def broken(serving: Serving, role: str) -> Serving:
    """The same view with a model that fails, as `stable` or as `candidate`."""
    variant = getattr(serving, role)
    graph = replace(variant.graph, session=Broken(), _caches={})
    return replace(serving, **{role: replace(variant, graph=graph)})


def ticks(step: float) -> Callable[[], float]:
    """A clock that is a step later at every look."""
    seconds = count(0.0, step)
    return lambda: next(seconds)


def test_a_candidate_without_weight_is_asked_for_every_row_and_answers_none(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    rows = [row(i, price_rival=1.7 + 0.01 * i) for i in range(40)]
    alone = decided(view(), rows)
    serving = view(candidate=candidate, weight=0)
    found = decide(serving.contract.rows(rows), [f"id{i}" for i in range(40)], serving, ticks(0.25))
    assert set(found.arms) == {Arm.STABLE}
    assert found.actions["price"].tolist() == alone.actions["price"].tolist()
    assert found.expected_value.tolist() == alone.expected_value.tolist()
    assert np.isfinite(found.m_candidate).all()
    assert found.distribution_candidate is not None
    assert found.shadowed == Shadowed(decisions=40, seconds=0.25)


def test_a_candidate_with_weight_shadows_nothing(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    assert decided(view(candidate=candidate, weight=1), [row(0)]).shadowed == Shadowed()


def test_rows_that_lack_a_field_of_the_candidate_do_not_count_for_its_shadow(view: View, world: World) -> None:
    candidate = policy(publish(world.store, loyalty=True), version="2", loyalty=True)
    rows = [row(i, **({"loyalty": 0.5} if i % 4 else {})) for i in range(40)]
    assert decided(view(candidate=candidate, weight=0), rows).shadowed.decisions == 30


def test_fallbacks_of_both_versions_are_counted_in_the_shadow(view: View, world: World) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    rows = [row(i, store="7" if i < 8 else "1") for i in range(40)]
    found = decided(view(candidate=candidate, weight=0), rows).shadowed
    assert (found.fallbacks, found.fallbacks_stable, found.not_finite, found.failed) == (8, 8, 0, 0)


@pytest.mark.parametrize("weight", [0, 50])
def test_a_candidate_that_fails_takes_no_other_decision_with_it(view: View, world: World, weight: int) -> None:
    candidate = policy(publish(world.store, slope=3.0, intercept=6.0), version="2")
    rows = [row(i, price_rival=1.7 + 0.01 * i) for i in range(40)]
    alone = decided(view(), rows)
    found = decided(broken(view(candidate=candidate, weight=weight), "candidate"), rows)
    of_candidate = np.array([arm is Arm.CANDIDATE for arm in found.arms])
    assert found.actions["price"][~of_candidate].tolist() == alone.actions["price"][~of_candidate].tolist()
    assert set(np.array(found.fallback)[of_candidate].tolist()) == ({"ModelFailed"} if weight else set())
    assert set(np.array(found.fallback)[~of_candidate].tolist()) == {""}
    if weight == 0:
        assert (found.shadowed.decisions, found.shadowed.failed) == (40, 40)
        assert "bad shape" in found.shadowed.message


def test_the_fallback_answers_where_the_stable_model_fails(view: View) -> None:
    found = decided(broken(view(), "stable"), [row(0, shelf_price=1.777)])
    assert (found.fallback, found.actions["price"][0]) == (("ModelFailed",), 1.777)
