"""The demo's customers: a structural market model on real shelf contexts. SYNTHETIC: no one bought at these prices.

Contexts are the 1,070 store visits of the orange juice data (OJ, from the package ISLP), drawn with replacement. A
visitor buys Citrus Hill (CH), the rival (MM) or nothing by multinomial logit; the platform sees whether CH was bought,
and sets CH's price and discount. No estimator that the assembly line trains has this form.
"""

import csv
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.intervals import Bools, Floats

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Utilities in logit units, prices in USD; L is loyalty to CH in 0 to 1, p and q the net prices of CH and MM.

    u_CH = base + loyalty L - b(L) (p - centre) - (sensitivity - 1) b(L) (p - pivot), b(L) = slope - slope_loyalty L
    u_MM = rival_base - rival_loyalty L - (q - rival_centre), and buying nothing has utility 0.
    """

    base: float = -4.2
    loyalty: float = 7.6
    slope: float = 14.0
    slope_loyalty: float = 5.0
    centre: float = 1.8
    rival_base: float = 0.4
    rival_loyalty: float = 1.6
    rival_centre: float = 1.95
    sensitivity: float = 1.0
    pivot: float = 1.35
    unit_cost: float = 1.1
    changed_sensitivity: float = 1.4

    def after_change(self) -> "Parameters":
        """The same customers, more sensitive to price; the mix of contexts stays."""
        return replace(self, sensitivity=self.changed_sensitivity)

    def with_slope(self, factor: float) -> "Parameters":
        """Customers who answer to price with another slope, around the same centre."""
        return replace(self, slope=self.slope * factor, slope_loyalty=self.slope_loyalty * factor)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Store visits, one element each: week, store, shelf price and discount of CH, the same of MM, loyalty to CH."""

    week: NDArray[np.int64]
    store: NDArray[np.int64]
    shelf_price: Floats
    shelf_discount: Floats
    rival_price: Floats
    rival_discount: Floats
    loyalty: Floats

    def __len__(self) -> int:
        return len(self.week)

    def take(self, rows: Rows) -> "Contexts":
        """The visits of these row numbers."""
        return Contexts(
            self.week[rows],
            self.store[rows],
            self.shelf_price[rows],
            self.shelf_discount[rows],
            self.rival_price[rows],
            self.rival_discount[rows],
            self.loyalty[rows],
        )

    def draw(self, count: int, rng: np.random.Generator) -> "Contexts":
        """Visits drawn with replacement."""
        return self.take(rng.integers(len(self), size=count))


def read_contexts() -> Contexts:
    """The 1,070 visits of OJ, read as data from the installed package ISLP, which is not imported."""
    try:
        found = [path for path in files("ISLP") or [] if path.name == "OJ.csv"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise DrivetrainError(
            "The orange juice data are not installed.", remedy="Install the package ISLP without its dependencies."
        )
    rows = list(csv.DictReader(found[0].read_text().splitlines()))

    def numbers(column: str) -> Floats:
        return np.array([float(row[column]) for row in rows])

    return Contexts(
        numbers("WeekofPurchase").astype(np.int64),
        numbers("StoreID").astype(np.int64),
        numbers("PriceCH"),
        numbers("DiscCH"),
        numbers("PriceMM"),
        numbers("DiscMM"),
        numbers("LoyalCH"),
    )


@dataclass(frozen=True, slots=True)
class Market:
    """Customers with given parameters."""

    parameters: Parameters = Parameters()

    def purchase_probability(self, contexts: Contexts, price: Floats, discount: Floats) -> Floats:
        """Probability that each visitor buys CH; arguments broadcast against shape (n,) or (n, 1)."""
        p = price - discount
        loyalty = contexts.loyalty if p.ndim == 1 else contexts.loyalty[:, None]
        q = contexts.rival_price - contexts.rival_discount
        q = q if p.ndim == 1 else q[:, None]
        own = self.parameters
        slope = own.slope - own.slope_loyalty * loyalty
        utility = own.base + own.loyalty * loyalty - slope * (p - own.centre)
        utility = utility - (own.sensitivity - 1) * slope * (p - own.pivot)
        rival = own.rival_base - own.rival_loyalty * loyalty - (q - own.rival_centre)
        return np.asarray(np.exp(utility) / (1 + np.exp(utility) + np.exp(rival)))

    def respond(self, contexts: Contexts, price: Floats, discount: Floats, rng: np.random.Generator) -> Bools:
        """Whether each visitor buys CH at these prices."""
        return np.asarray(rng.random(len(contexts)) < self.purchase_probability(contexts, price, discount))

    def margin(self, price: Floats, discount: Floats) -> Floats:
        """USD earned by one sale."""
        return price - discount - self.parameters.unit_cost


class Grid:
    """The demo's levers: prices, discounts and the feasible pairs, in row-major order of (price, discount)."""

    LOWEST_NET: Final = 1.3

    def __init__(self) -> None:
        prices = np.array([169, 174, 179, 184, 189, 194, 199, 204, 209]) / 100
        discounts = np.array([0, 10, 20, 30, 40, 50]) / 100
        self.shape = (len(prices), len(discounts))
        self.price = np.repeat(prices, len(discounts))
        self.discount = np.tile(discounts, len(prices))
        self.net = np.round(self.price - self.discount, 2)
        self.feasible = self.net >= self.LOWEST_NET

    def __len__(self) -> int:
        return len(self.price)

    def distance(self, price: Floats, discount: Floats) -> Floats:
        """Steps from each given pair to each grid action, summed over the levers; shape (n, actions)."""
        return np.abs(price[:, None] - self.price) / 0.05 + np.abs(discount[:, None] - self.discount) / 0.1

    def nearest(self, price: Floats, discount: Floats) -> Rows:
        """The feasible grid action nearest to each pair."""
        return np.asarray(np.argmin(np.where(self.feasible, self.distance(price, discount), np.inf), axis=1))

    def neighbours(self, steps: int) -> Bools:
        """Which feasible actions lie within `steps` steps of each action on every lever; shape (actions, actions)."""
        i, j = np.divmod(np.arange(len(self)), self.shape[1])
        near = (np.abs(i[:, None] - i) <= steps) & (np.abs(j[:, None] - j) <= steps)
        return np.asarray(near & self.feasible)


@dataclass(frozen=True, slots=True)
class Policy:
    """For each context row its action, `price` and `discount`, and the grid action that it is or lies nearest to."""

    grid: Rows
    price: Floats
    discount: Floats


def shelf_policy(contexts: Contexts, grid: Grid) -> Policy:
    """Today's prices, 54 % of which lie off the grid."""
    nearest = grid.nearest(contexts.shelf_price, contexts.shelf_discount)
    return Policy(nearest, contexts.shelf_price, contexts.shelf_discount)


def best_policy(market: Market, contexts: Contexts, grid: Grid, *, sees_loyalty: bool) -> Policy:
    """The exact optimum on the feasible grid, knowing store, q and, if it sees it, loyalty; ties go to the nearest."""
    value = expected_value(market, contexts, grid)
    if not sees_loyalty:
        value = value_by_group(value, contexts)
    value = np.where(grid.feasible, value, -np.inf)
    best = value >= value.max(axis=1, keepdims=True) - 1e-12
    distance = grid.distance(contexts.shelf_price, contexts.shelf_discount)
    chosen = np.argmin(np.where(best, distance, np.inf), axis=1)
    return Policy(chosen, grid.price[chosen], grid.discount[chosen])


def expected_value(market: Market, contexts: Contexts, grid: Grid) -> Floats:
    """Expected margin of every context at every grid action; shape (n, actions)."""
    return purchases(market, contexts, grid) * market.margin(grid.price, grid.discount)


def purchases(market: Market, contexts: Contexts, grid: Grid) -> Floats:
    """Purchase probability of every context at every grid action; shape (n, actions)."""
    return market.purchase_probability(contexts, grid.price[None, :], grid.discount[None, :])


def value_by_group(value: Floats, contexts: Contexts) -> Floats:
    """Means of rows over the contexts that share store and q: what can be known without loyalty."""
    q = np.round(contexts.rival_price - contexts.rival_discount, 2)
    _, group = np.unique(np.stack([contexts.store, q]), axis=1, return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, value.shape[1]))
    np.add.at(sums, group, value)
    return np.asarray((sums / np.bincount(group)[:, None])[group])
