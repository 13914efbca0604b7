"""What the Monitor nudges, and what it leaves alone."""

import pytest

from drivetrain.api.model import ModelContract
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.serving.adjustments import Adjustments, Offset
from drivetrain.serving.judged import Judged
from drivetrain.serving.tuning import Regret, in_words, with_multipliers, with_offsets, with_regret
from tests.unit.serving.worlds import World, policy, publish

EXPLORING = Exploration(share=0.2, steps=2, max_regret=0.01)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([Regret(2.0, 1000, 0.2, 2)], (None, None)),
        ([Regret(20.0, 400, 0.2, 2)], (None, None)),
        ([Regret(20.0, 1000, 0.2, 2)], (None, 1)),
        ([Regret(20.0, 1000, 0.3, 2)], (None, None)),
        ([Regret(1.0, 600, 0.2, 2), Regret(17.0, 600, 0.2, 2)], (None, 1)),
    ],
    ids=["within the bound", "too few rows", "beyond it", "under another exploration", "over all replicas"],
)
def test_exploration_is_lowered_only_by_what_was_seen_under_it(
    world: World, seen: list[Regret], expected: tuple[float | None, int | None]
) -> None:
    config = world.config("s", "b", exploration=EXPLORING)
    found = with_regret(Adjustments(), config, seen)
    assert (found.share, found.steps) == expected


def test_the_share_is_lowered_in_proportion_once_steps_are_at_one(world: World) -> None:
    config = world.config("s", "b", exploration=EXPLORING)
    found = with_regret(Adjustments(steps=1), config, [Regret(40.0, 1000, 0.2, 1)])
    assert found.share == pytest.approx(0.2 / 4 * 0.99)
    assert found.exploration_of(EXPLORING).share == found.share
    assert "maxRegret" in in_words(found, config)["exploration"]


def test_an_offset_that_hardly_moved_is_left_alone() -> None:
    before = Adjustments(offsets={"s": Offset(offset=0.1, radius=0.04), "gone": Offset(offset=1, radius=1)})
    still = with_offsets(before, {"s": Offset(offset=0.105, radius=0.035)})
    moved = with_offsets(before, {"s": Offset(offset=0.15, radius=0.035)})
    assert still.offsets == {"s": Offset(offset=0.1, radius=0.04)}
    assert moved.offsets["s"].offset == 0.15


@pytest.mark.parametrize(("mean", "sign"), [(0.2, 1), (0.6, 0)])
def test_a_shortfall_of_a_portfolio_metric_raises_its_price_within_bounds(world: World, mean: float, sign: int) -> None:
    digest = publish(world.store)
    constraint = {"scope": "Portfolio", "metric": "purchase", "minimum": 0.4, "window": "1d"}
    given = policy(digest, constraints=(constraint,))
    contract = ModelContract.model_validate_json(world.store.get(f"models/{digest}/contract.json"))
    policies = {"s": Judged.of("s", given, contract)}
    adjustments = Adjustments()
    for _ in range(40):
        adjustments, moved = with_multipliers(adjustments, policies, {"s": (600, mean)})
        assert moved == {"s"}
    price = adjustments.multipliers.get("s", {}).get("purchase", 0.0)
    assert (price > 0) == (sign > 0)
    assert price <= 4.0  # twice the width of the KPI's bounds
    assert with_multipliers(Adjustments(), policies, {"s": (100, mean)})[1] == frozenset()
