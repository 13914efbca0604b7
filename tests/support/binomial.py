"""Exact binomial bounds, so that a seeded simulation states how sure its rate is."""

from scipy.stats import beta


def clopper_pearson(successes: int, runs: int, confidence: float = 0.99) -> tuple[float, float]:
    """Two one-sided Clopper-Pearson bounds on a rate, each at `confidence`."""
    lower = 0.0 if successes == 0 else float(beta.ppf(1 - confidence, successes, runs - successes + 1))
    upper = 1.0 if successes == runs else float(beta.ppf(confidence, successes + 1, runs - successes))
    return lower, upper


def assert_rate_below(successes: int, runs: int, limit: float) -> None:
    """The rate is below `limit` at 99 % confidence, not merely in this sample."""
    _, upper = clopper_pearson(successes, runs)
    assert upper <= limit, f"{successes} of {runs}: the rate may be as high as {upper:.4f}, more than {limit}"


def assert_rate_above(successes: int, runs: int, limit: float) -> None:
    """The rate is above `limit` at 99 % confidence."""
    lower, _ = clopper_pearson(successes, runs)
    assert lower >= limit, f"{successes} of {runs}: the rate may be as low as {lower:.4f}, less than {limit}"
