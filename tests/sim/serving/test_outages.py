"""Whoever reports outcomes is away: is that taken for a change of the customers, and is a change still seen?

Rows are fed to `Evidence` in matured cohorts, as the Monitor does. A missing outcome counts as no purchase. Busy
endpoints decide a hundred times within a maturation time, slow ones once in 180 of them.
"""

import numpy as np
import pytest

from drivetrain.evidence import silence
from examples.orange_juice.market import Market, Parameters
from tests.sim.serving.shop import Shop
from tests.sim.serving.test_verdicts import knowing, severe
from tests.support.binomial import assert_rate_above, assert_rate_below

BUSY, SLOW = 2_160_000, 120
QUIET = 1_500
"""Rows before an outage."""
TRAFFIC = pytest.mark.parametrize("per_day", [BUSY, SLOW], ids=["busy", "slow"])
CUSTOM = pytest.mark.parametrize("only_purchases", [False, True], ids=["all outcomes", "purchases only"])


def a_shop(seed: int, per_day: int, *, only_purchases: bool) -> Shop:
    shop = Shop(knowing(True), np.random.default_rng(seed), per_day=per_day)
    shop.only_purchases = only_purchases
    for _ in range(QUIET // 500):
        shop.serve()
    return shop


def cried_within_an_outage(shop: Shop, rows: int) -> bool:
    """Whether calibration or KPI alarmed during an outage of `rows` decisions or within the next 1,000."""
    shop.outage(rows)
    cried = False
    for _ in range((rows + 1_000) // 50):
        shop.serve(50)
        cried |= bool(severe(shop) & {"calibration", "kpi"})
    return cried


def alarms(seeds: range, per_day: int, *, only_purchases: bool) -> int:
    """Outages of 30 to 1,500 decisions that were taken for a change."""
    lengths = np.random.default_rng(seeds.start).integers(30, 1_500, len(seeds)).tolist()
    return sum(
        cried_within_an_outage(a_shop(seed, per_day, only_purchases=only_purchases), rows)
        for seed, rows in zip(seeds, lengths, strict=True)
    )


@TRAFFIC
@CUSTOM
def test_an_outage_of_any_length_is_taken_for_a_change_in_less_than_a_tenth_of_cases(
    per_day: int, *, only_purchases: bool
) -> None:
    runs = 45
    found = alarms(range(2_000, 2_000 + runs), per_day, only_purchases=only_purchases)
    print(f"{found} of {runs} outages alarmed")  # noqa: T201 - what the simulation found
    assert_rate_below(found, runs, 0.1)


def test_without_the_guard_an_outage_would_be_taken_for_a_change_in_most_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "EXPECTED", np.inf)
    runs = 24
    assert_rate_above(alarms(range(3_000, 3_000 + runs), BUSY, only_purchases=False), runs, 0.6)


@CUSTOM
def test_a_change_of_customers_after_an_outage_is_seen_whatever_is_reported(*, only_purchases: bool) -> None:
    """At least 80 % of changes are seen within 1,200 matured decisions, at 99 % confidence.

    So busy an endpoint needs 800 million decisions' worth of evidence for its one false alarm a year, and another
    hundred decisions until an alarm counts.
    """
    delays = []
    for seed in range(4_000, 4_025):
        shop = a_shop(seed, BUSY, only_purchases=only_purchases)
        assert not cried_within_an_outage(shop, 400)
        shop.market = Market(Parameters().after_change())
        delay = 0
        while "calibration" not in severe(shop) and delay < 2_000:
            shop.serve(100)
            delay += 100
        delays.append(delay)
    print(f"rows from change to alarm: median {np.median(delays):.0f}, 90 % within {np.quantile(delays, 0.9):.0f}")  # noqa: T201 - what the simulation found
    assert_rate_above(sum(delay <= 1_200 for delay in delays), len(delays), 0.8)
