"""Portfolio constraints: the multiplier that makes a policy's mean metric meet its bound at least cost."""

from dataclasses import dataclass

import numpy as np

from drivetrain.api.v1alpha1.objective import Constraint
from drivetrain.levers.choice import NO_ACTION, best_actions
from drivetrain.levers.grid import Booleans, Floats

_DOUBLINGS = 40
_BISECTIONS = 40


@dataclass(frozen=True, slots=True)
class ShadowPrice:
    """What one unit of a metric is worth to its bound, in KPI per decision."""

    multiplier: float
    """At least 0 for a minimum, at most 0 for a maximum; 0 where the bound does not bind."""
    mean: float
    """The metric's mean under the policy with this multiplier."""
    attained: bool
    """Whether the bound is met; no multiplier may meet it on these rows."""


def shadow_price(
    constraint: Constraint, merit: Floats, metric: Floats, allowed: Booleans, distance: Floats
) -> ShadowPrice:
    """The smallest multiplier with which choosing by `merit + multiplier * metric` meets the bound on these rows.

    `merit` and `metric` are [rows, actions]; rows without an allowed action are left out. The mean metric is monotone
    in the multiplier, so doubling and bisection find it (Lagrangian relaxation).
    """
    if constraint.minimum is None and constraint.maximum is None:
        return ShadowPrice(0.0, float("nan"), attained=True)
    lower_bounded = constraint.minimum is not None
    bound = constraint.minimum if constraint.minimum is not None else constraint.maximum
    assert bound is not None
    direction = 1.0 if lower_bounded else -1.0
    rows = np.arange(len(merit))

    def mean_with(size: float) -> float:
        chosen = best_actions(merit + direction * size * metric, allowed, distance)
        taken = chosen != NO_ACTION
        return float(metric[rows[taken], chosen[taken]].mean()) if taken.any() else float("nan")

    def met(mean: float) -> bool:
        return direction * (mean - bound) >= 0

    if met(mean := mean_with(0.0)):
        return ShadowPrice(0.0, mean, attained=True)
    low, high = 0.0, 1e-3
    for _ in range(_DOUBLINGS):
        if met(mean := mean_with(high)):
            break
        low, high = high, high * 2
    else:
        return ShadowPrice(direction * high, mean, attained=False)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if met(mean_with(middle)) else (middle, high)
    return ShadowPrice(direction * high, mean_with(high), attained=True)


def nudged(multiplier: float, *, shortfall: float, rate: float, limit: float) -> float:
    """A multiplier moved by a small bounded step towards meeting its bound; it never changes sign.

    `shortfall` is bound minus realised mean (positive: too little). The step is `rate * shortfall`, at most a tenth of
    `limit`; the result stays within [0, limit] for a minimum, [-limit, 0] for a maximum (the sign of `limit` tells).
    """
    step = float(np.clip(rate * shortfall, -abs(limit) / 10, abs(limit) / 10))
    return float(np.clip(multiplier + step, min(0.0, limit), max(0.0, limit)))
