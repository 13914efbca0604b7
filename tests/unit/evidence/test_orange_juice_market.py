"""The demo's market: real contexts, a response that prices can move, and exact oracles."""

import numpy as np
import pytest

from examples.orange_juice.market import (
    Contexts,
    Grid,
    Market,
    Parameters,
    best_policy,
    expected_value,
    read_contexts,
    shelf_policy,
)


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return read_contexts()


def test_the_contexts_are_the_1070_store_visits(contexts: Contexts) -> None:
    assert len(contexts) == 1_070
    assert set(contexts.store.tolist()) == {1, 2, 3, 4, 7}
    assert 0 <= contexts.loyalty.min() < contexts.loyalty.max() <= 1


def test_fifty_of_fifty_four_actions_are_feasible_at_sixteen_net_prices() -> None:
    grid = Grid()
    assert (len(grid), int(grid.feasible.sum())) == (54, 50)
    assert len(np.unique(grid.net[grid.feasible])) == 16


def test_dearer_sells_less_and_more_so_after_the_change(contexts: Contexts) -> None:
    cheap, dear = (np.full(len(contexts), price) for price in (1.69, 2.09))
    none = np.zeros(len(contexts))
    before, after = Market(), Market(Parameters().after_change())
    assert np.all(
        before.purchase_probability(contexts, dear, none) < before.purchase_probability(contexts, cheap, none)
    )
    assert np.all(after.purchase_probability(contexts, dear, none) < before.purchase_probability(contexts, dear, none))


def test_responses_follow_the_purchase_probability_and_the_generator(contexts: Contexts) -> None:
    market = Market()
    drawn = contexts.draw(50_000, np.random.default_rng(1))
    bought = market.respond(drawn, drawn.shelf_price, drawn.shelf_discount, np.random.default_rng(2))
    again = market.respond(drawn, drawn.shelf_price, drawn.shelf_discount, np.random.default_rng(2))
    chance = market.purchase_probability(drawn, drawn.shelf_price, drawn.shelf_discount)
    assert abs(float(bought.mean() - chance.mean())) < 0.01
    assert np.array_equal(bought, again)


def test_an_oracle_is_best_on_the_feasible_grid_and_breaks_ties_towards_the_shelf(contexts: Contexts) -> None:
    grid, market = Grid(), Market()
    oracle = best_policy(market, contexts, grid, sees_loyalty=True)
    value = np.where(grid.feasible, expected_value(market, contexts, grid), -np.inf)
    own = value[np.arange(len(contexts)), oracle.grid]
    np.testing.assert_allclose(own, value.max(axis=1))
    distance = grid.distance(contexts.shelf_price, contexts.shelf_discount)
    tied = value >= own[:, None] - 1e-12
    assert np.all(
        distance[np.arange(len(contexts)), oracle.grid] <= np.where(tied, distance, np.inf).min(axis=1) + 1e-9
    )


def test_an_oracle_without_loyalty_cannot_tell_visits_of_one_store_and_rival_price_apart(contexts: Contexts) -> None:
    policy = best_policy(Market(), contexts, Grid(), sees_loyalty=False)
    net = np.round(policy.price - policy.discount, 2)
    rival = np.round(contexts.rival_price - contexts.rival_discount, 2)
    prices: dict[tuple[int, float], set[float]] = {}
    for store, q, price in zip(contexts.store.tolist(), rival.tolist(), net.tolist(), strict=True):
        prices.setdefault((store, q), set()).add(price)
    assert {len(found) for found in prices.values()} == {1}


def test_shelf_prices_stay_off_the_grid_where_they_are_and_explore_from_the_nearest_feasible_point(
    contexts: Contexts,
) -> None:
    grid = Grid()
    policy = shelf_policy(contexts, grid)
    off = (np.abs(grid.price[policy.grid] - policy.price) > 1e-9) | (
        np.abs(grid.discount[policy.grid] - policy.discount) > 1e-9
    )
    assert float(off.mean()) == pytest.approx(0.54, abs=0.01)
    assert np.all(grid.feasible[policy.grid])


def test_neighbours_are_feasible_actions_within_the_steps_on_every_lever() -> None:
    grid = Grid()
    near = grid.neighbours(2)
    centre = int(np.flatnonzero((grid.price == 1.89) & (grid.discount == 0.2))[0])
    assert near[centre].sum() == 25
    assert not near[:, ~grid.feasible].any()
