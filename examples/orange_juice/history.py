"""What the shop has before the project exists: a past price test, and the loyalty cards that it has yet to import."""

import numpy as np
import polars as pl

from examples.orange_juice.market import Contexts, Grid, Market

TEST_SHARE = 0.2
"""Share of past visits whose prices were drawn uniformly from the feasible grid."""


def price_test(market: Market, contexts: Contexts, grid: Grid, rng: np.random.Generator) -> pl.DataFrame:
    """One row a past visit, `contexts` being those visits: 80 % at shelf prices, 20 % at prices drawn uniformly.

    `propensity` is the probability with which the test chose the row's prices, whichever way it came to them.
    """
    rows = len(contexts)
    feasible = np.flatnonzero(grid.feasible)
    tested = rng.random(rows) < TEST_SHARE
    drawn = rng.choice(feasible, size=rows)
    price = np.where(tested, grid.price[drawn], contexts.shelf_price)
    discount = np.where(tested, grid.discount[drawn], contexts.shelf_discount)
    nearest = grid.nearest(price, discount)
    on_grid = (np.abs(grid.price[nearest] - price) < 1e-9) & (np.abs(grid.discount[nearest] - discount) < 1e-9)
    as_shelf = (np.abs(price - contexts.shelf_price) < 1e-9) & (np.abs(discount - contexts.shelf_discount) < 1e-9)
    propensity = TEST_SHARE / len(feasible) * on_grid + (1 - TEST_SHARE) * as_shelf
    return visits(contexts, "past").with_columns(
        price=pl.Series(price),
        discount=pl.Series(discount),
        propensity=pl.Series(propensity),
        purchase=pl.Series(market.respond(contexts, price, discount, rng)),
    )


def visits(contexts: Contexts, prefix: str, *, first: int = 0) -> pl.DataFrame:
    """The request columns of visits with ids <prefix>-<number>, loyalty left out."""
    return pl.DataFrame(
        {
            "visit_id": [f"{prefix}-{first + number}" for number in range(len(contexts))],
            "week": contexts.week,
            "store": contexts.store,
            "shelf_price": contexts.shelf_price,
            "shelf_discount": contexts.shelf_discount,
            "rival_price": contexts.rival_price,
            "rival_discount": contexts.rival_discount,
        }
    )


def loyalty_cards(visit_ids: list[str], loyalty: list[float]) -> pl.DataFrame:
    """The cards of past visits, to be joined by visit."""
    return pl.DataFrame({"visit_id": visit_ids, "loyalty": loyalty})


def permuted_prices(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The same rows with prices and discounts exchanged among the visits of each week, as a broken import would do."""
    order = rng.random(rows.height)
    shuffled = (
        rows.select("week", "price", "discount")
        .with_columns(order=pl.Series(order))
        .sort("week", "order")
        .select(price_permuted="price", discount_permuted="discount")
    )
    return (
        rows.with_row_index("row")
        .sort("week", "row")
        .hstack(shuffled)
        .with_columns(price="price_permuted", discount="discount_permuted")
        .sort("row")
        .select(rows.columns)
    )
