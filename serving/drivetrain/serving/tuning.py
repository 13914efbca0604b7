"""What the Monitor lowers or nudges between configurations: pure steps on Adjustments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from drivetrain.api.policy import EndpointConfig
from drivetrain.levers.portfolio import nudged
from drivetrain.serving.adjustments import Adjustments, Offset
from drivetrain.serving.judged import Judged

REGRET_ROWS: Final = 500
"""Decisions under one exploration before its regret is judged."""
PORTFOLIO_ROWS: Final = 500
"""Matured decisions of a policy before its multiplier moves once."""
_RATE: Final = 0.5
"""A multiplier moves by half its limit for a shortfall of 1 in the metric, at most a tenth of the limit at once."""


@dataclass(frozen=True, slots=True)
class Regret:
    """What one replica saw of exploring."""

    lost: float
    rows: int
    share: float
    steps: int


def with_regret(adjustments: Adjustments, config: EndpointConfig, seen: Sequence[Regret]) -> Adjustments:
    """Lowers steps, then share, until the expected regret per decision is within maxRegret.

    Only replicas that already explore as told count. Regret is proportional to the share, so one step suffices there.
    """
    told = adjustments.exploration_of(config.exploration)
    counted = [part for part in seen if (part.share, part.steps) == (told.share, told.steps)]
    rows = sum(part.rows for part in counted)
    if rows < REGRET_ROWS:
        return adjustments
    regret = sum(part.lost for part in counted) / rows
    if regret <= told.max_regret:
        return adjustments
    if told.design == "Local" and told.steps > 1:
        return adjustments.model_copy(update={"steps": told.steps - 1})
    return adjustments.model_copy(update={"share": told.share * told.max_regret / regret * 0.99})


def with_offsets(adjustments: Adjustments, offsets: Mapping[str, Offset]) -> Adjustments:
    """Takes over recalibrations that moved by more than a quarter of their radius; others stay, to spare replicas."""
    kept = {
        hash_: adjustments.offsets[hash_]
        if hash_ in adjustments.offsets and _close(adjustments.offsets[hash_], found)
        else found
        for hash_, found in offsets.items()
    }
    return adjustments.model_copy(update={"offsets": kept})


def with_multipliers(
    adjustments: Adjustments, policies: Mapping[str, Judged], means: Mapping[str, tuple[int, float]]
) -> tuple[Adjustments, frozenset[str]]:
    """Nudges the multiplier of each policy whose target's mean was seen often enough; and the policies that moved.

    `means` maps policy to rows and mean of the realised target.
    """
    multipliers = {hash_: dict(found) for hash_, found in adjustments.multipliers.items() if hash_ in policies}
    moved = set()
    for hash_, (rows, mean) in means.items():
        judged = policies.get(hash_)
        if judged is None or judged.contract is None or rows < PORTFOLIO_ROWS:
            continue
        bounds = judged.kpi_bounds
        reach = 2.0 * bounds.width if bounds is not None else 1.0
        current = multipliers.get(hash_, dict(judged.contract.multipliers))
        for constraint in judged.policy.objective.constraints:
            if constraint.metric != judged.policy.target.name:
                continue
            bound = constraint.minimum if constraint.minimum is not None else constraint.maximum
            if bound is None:
                continue
            limit = reach if constraint.minimum is not None else -reach
            before = current.get(constraint.metric, 0.0)
            after = nudged(before, shortfall=bound - mean, rate=_RATE * reach, limit=limit)
            moved.add(hash_)
            if after != before:
                current[constraint.metric] = after
                multipliers[hash_] = current
    return adjustments.model_copy(update={"multipliers": multipliers}), frozenset(moved)


def in_words(adjustments: Adjustments, config: EndpointConfig) -> dict[str, str]:
    """What status says about them."""
    words = {}
    told = adjustments.exploration_of(config.exploration)
    if told != config.exploration:
        words["exploration"] = (
            f"share {told.share:.3g} and steps {told.steps} instead of {config.exploration.share:.3g} and "
            f"{config.exploration.steps}, to keep maxRegret"
        )
    for hash_, found in sorted(adjustments.multipliers.items()):
        words[f"multipliers {hash_}"] = ", ".join(f"{name} {value:.4g}" for name, value in sorted(found.items()))
    for hash_, offset in sorted(adjustments.offsets.items()):
        words[f"expectedValue {hash_}"] = f"{offset.offset:+.4f} +- {offset.radius:.4f}"
    return dict(list(words.items())[:16])


def _close(before: Offset, after: Offset) -> bool:
    return abs(before.offset - after.offset) <= after.radius / 4 and before.radius <= 2 * after.radius
