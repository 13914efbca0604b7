"""Subscribers who come up for renewal. SYNTHETIC: what they will spend is known exactly, and so is the best policy.

A subscriber is asked to stay by e-mail, by a call or not at all, and may be offered a credit. Long-standing subscribers
dislike calls, those with open tickets welcome one, and credits win back those with tickets who spend much.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

CHANNELS = ("none", "email", "call")
CREDITS = (0.0, 5.0, 10.0, 15.0, 20.0)
COST = {"none": 0.0, "email": 0.5, "call": 6.0}
REGIONS = ("north", "south", "islands")
NOISE = 0.5
"""Spending lies evenly within this share of its mean, so that the mean is exact and spending bounded."""


@dataclass(frozen=True, slots=True)
class Subscribers:
    """One element each."""

    tenure: NDArray[np.int64]
    """Months since they joined, 1 to 60."""
    spend: Floats
    """USD in the last quarter, 20 to 80."""
    tickets: NDArray[np.int64]
    """Open support tickets, 0 to 4."""
    region: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.tenure)

    @classmethod
    def draw(cls, count: int, rng: np.random.Generator) -> "Subscribers":
        """Subscribers as they come."""
        region = np.empty(count, dtype=object)
        region[:] = rng.choice(REGIONS, size=count, p=(0.5, 0.35, 0.15))
        return cls(
            rng.integers(1, 61, size=count),
            rng.uniform(20, 80, size=count).round(2),
            rng.integers(0, 5, size=count),
            region,
        )

    def rows(self, *, first: int = 0, prefix: str = "renewal") -> pl.DataFrame:
        """Their request columns, with ids <prefix>-<number>."""
        return pl.DataFrame(
            {
                "renewal_id": [f"{prefix}-{first + number}" for number in range(len(self))],
                "tenure": self.tenure,
                "spend": self.spend,
                "tickets": self.tickets,
                "region": self.region.tolist(),
            }
        )


def expected_revenue(who: Subscribers, channel: NDArray[np.object_], credit: Floats) -> Floats:
    """Mean of what each spends next quarter, USD; arguments are [subscribers] or broadcast against [subscribers, 1]."""
    wide = channel.ndim == 2 or credit.ndim == 2
    tenure, spend, tickets = (
        values[:, None] if wide else values
        for values in (who.tenure.astype(float), who.spend, who.tickets.astype(float))
    )
    call = (channel == "call").astype(float)
    mail = (channel == "email").astype(float)
    stay = 0.50 + 0.15 * tenure / 60 - 0.10 * tickets
    stay = (
        stay + call * (0.05 + 0.10 * tickets - 0.20 * tenure / 60) + mail * (0.04 + 0.10 * tenure / 60 - 0.03 * tickets)
    )
    stay = stay + 0.55 * (1 - np.exp(-credit / 6)) * np.sqrt(tickets / 4)
    return np.asarray(spend * np.clip(stay, 0.0, 1.0))


def profit(revenue: Floats, channel: NDArray[np.object_], credit: Floats) -> Floats:
    """USD left after credit and channel are paid."""
    costs = np.vectorize(COST.get, otypes=[np.float64])(channel)
    return np.asarray(revenue - credit - costs)


def respond(who: Subscribers, channel: NDArray[np.object_], credit: Floats, rng: np.random.Generator) -> Floats:
    """What each spends, USD."""
    mean = expected_revenue(who, channel, credit)
    return np.asarray((mean * rng.uniform(1 - NOISE, 1 + NOISE, size=len(who))).round(2))


def best_profit(who: Subscribers) -> Floats:
    """Expected profit of the best of the 15 actions for each subscriber."""
    values = []
    for channel in CHANNELS:
        for credit in CREDITS:
            action = _constant(who, channel, credit)
            values.append(profit(expected_revenue(who, *action), *action))
    return np.asarray(np.max(values, axis=0))


def baseline_profit(who: Subscribers) -> Floats:
    """Expected profit of today's policy: an e-mail and 5 USD for everyone."""
    channel, credit = _constant(who, "email", 5.0)
    return profit(expected_revenue(who, channel, credit), channel, credit)


def history(count: int, rng: np.random.Generator) -> pl.DataFrame:
    """Past renewals with channel and credit drawn at random, and the propensity logged."""
    who = Subscribers.draw(count, rng)
    channel = np.empty(count, dtype=object)
    channel[:] = rng.choice(CHANNELS, size=count)
    credit = rng.choice(CREDITS, size=count)
    return who.rows(prefix="past").with_columns(
        channel=pl.Series(channel.tolist()),
        credit=pl.Series(credit),
        propensity=pl.lit(1 / (len(CHANNELS) * len(CREDITS))),
        revenue=pl.Series(respond(who, channel, credit, rng)),
    )


def _constant(who: Subscribers, channel: str, credit: float) -> tuple[NDArray[np.object_], Floats]:
    chosen = np.empty(len(who), dtype=object)
    chosen[:] = channel
    return chosen, np.full(len(who), credit)
