"""How many matured units the canary needs for its verdict, beside its information bound; and what peeking costs.

The markets are the demo's: two policies, a response known exactly, no trained model. For each of them, at a fixed
weight, with and without the adjustment by the frozen model's predictions, it prints

- the mean number of units N until the verdict of `drivetrain.evidence` at level alpha (alpha / 2 a side);
- the information bound: a test that rejects "the mean increment is at most 0" wrongly with probability at most a, and
  rightly in the end, needs on average at least ln(1 / a) / KL_inf units, where

      KL_inf = min { KL(P, Q) : mean of Q <= 0, Q on [-1, 1] } = max over 0 <= c <= 1 of E_P ln(1 + c z)

  and P is the law of the canary's own increments z = w (1 - w) x / R, R being the declared range of the KPI (Wald 1945;
  Honda & Takemura 2010). It binds every test of these increments that knows no more than their range, the best fixed
  bet included, which is told P; a test that saw more than the increments could need fewer;
- what a z-test for one look at a size fixed in advance needs for 80 % power: no bound, but what people plan with.

Then, on identical candidates: how often each was ever wrong, looking after every batch.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import conditions, table
from drivetrain.evidence.canary import Metric, MetricSequence, Outcomes, increments
from drivetrain.evidence.intervals import Bounds, Floats
from examples.orange_juice.market import Parameters, read_contexts
from examples.orange_juice.power import Arm, Cohort, Project, Rollout, World

ALPHA = 0.05
PROJECT = Project()
KPI = Metric("margin", bounds=Bounds(PROJECT.kpi_minimum, PROJECT.kpi_maximum))
BATCH = 50
BOUND_UNITS = 200_000
BOUND_DRAWS = 15
"""KL_inf is computed from so many draws of so many increments: 3 million determine it to about 4 %."""


@dataclass(frozen=True, slots=True)
class Story:
    """A candidate beside stable, and whether the right verdict is Superior or HarmProved."""

    name: str
    stable: Arm
    candidate: Arm
    better: bool


def outcomes(cohort: Cohort, *, adjusted: bool) -> Outcomes:
    """The KPI of a cohort, with or without predictions."""
    return cohort.kpi if adjusted else Outcomes(cohort.kpi.y)


def units_until(
    rollout: Rollout, story: Story, weight: float, *, adjusted: bool, runs: int, limit: int, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Units until the right verdict of each run (infinite: none within `limit`), and how many got the wrong one."""
    sequence = MetricSequence(KPI, ALPHA, runs=(runs,), thresholds_only=True)
    decided, wrong = np.full(runs, np.inf), np.zeros(runs, dtype=np.bool_)
    weights = np.full((runs, BATCH), weight)
    for units in range(BATCH, limit + 1, BATCH):
        cohort = rollout.cohort(story.stable, story.candidate, weights, rng)
        sequence.update(cohort.candidate, weights, outcomes(cohort, adjusted=adjusted))
        right, other = sequence.superior, sequence.harm_proved
        if not story.better:
            right, other = other, right
        decided = np.where(right & np.isinf(decided), units, decided)
        wrong |= other
        if np.isfinite(decided).all():
            break
    return decided, int(wrong.sum())


def bounds_on(
    rollout: Rollout, story: Story, weight: float, *, adjusted: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """The information bound at alpha / 2, and the fixed sample of a z-test with 80 % power; in units."""
    x = np.concatenate([_increments(rollout, story, weight, adjusted=adjusted, rng=rng) for _ in range(BOUND_DRAWS)])
    x = x if story.better else -x
    z = weight * (1 - weight) * x / KPI.range.width
    best = minimize_scalar(lambda c: -float(np.mean(np.log1p(c * z))), bounds=(0.0, 1.0), method="bounded")
    fixed = (norm.ppf(1 - ALPHA / 2) + norm.ppf(0.8)) ** 2 * float(np.var(x)) / float(np.mean(x)) ** 2
    return float(np.log(2 / ALPHA)) / -float(best.fun), float(fixed)


def _increments(rollout: Rollout, story: Story, weight: float, *, adjusted: bool, rng: np.random.Generator) -> Floats:
    weights = np.full((1, BOUND_UNITS), weight)
    cohort = rollout.cohort(story.stable, story.candidate, weights, rng)
    kpi = outcomes(cohort, adjusted=adjusted)
    nothing = np.zeros_like(kpi.y)
    m_stable = nothing if kpi.m_stable is None else kpi.m_stable
    m_candidate = nothing if kpi.m_candidate is None else kpi.m_candidate
    found: Floats = increments(cohort.candidate, weights, kpi.y, m_stable, m_candidate)[0]
    return found


def peeking(
    rollout: Rollout, arm: Arm, weight: float, *, runs: int, limit: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Share of identical candidates that ever got a verdict: the canary with adjustment, without, and a z-test."""
    adjusted, plain = (MetricSequence(KPI, ALPHA, runs=(runs,), thresholds_only=True) for _ in range(2))
    ever = np.zeros((3, runs), dtype=np.bool_)
    sums = np.zeros((2, 3, runs))  # by arm: count, sum, sum of squares
    weights = np.full((runs, BATCH), weight)
    critical = norm.ppf(1 - ALPHA / 2)
    for _ in range(0, limit, BATCH):
        cohort = rollout.cohort(arm, arm, weights, rng)
        adjusted.update(cohort.candidate, weights, cohort.kpi)
        plain.update(cohort.candidate, weights, Outcomes(cohort.kpi.y))
        for index, mask in enumerate((cohort.candidate, ~cohort.candidate)):
            y = cohort.kpi.y * mask
            sums[index] += np.stack([mask.sum(axis=1), y.sum(axis=1), (y**2).sum(axis=1)])
        count, mean = sums[:, 0], sums[:, 1] / np.maximum(sums[:, 0], 1)
        variance = sums[:, 2] / np.maximum(count, 1) - mean**2
        error = np.sqrt(np.sum(variance / np.maximum(count, 1), axis=0))
        enough = count.min(axis=0) >= 30  # nobody looks earlier
        ever[0] |= adjusted.superior | adjusted.harm_proved
        ever[1] |= plain.superior | plain.harm_proved
        ever[2] |= enough & (np.abs(mean[0] - mean[1]) > critical * error)
    first, second, third = (float(share) for share in ever.mean(axis=1))
    return first, second, third


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="simulated rollouts of each row (default: 200)")
    parser.add_argument("--limit", type=int, default=40_000, help="units after which a rollout is given up")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(conditions())
    print(f"alpha {ALPHA}, {given.runs} runs a row, a look every {BATCH} units, seed {given.seed}")
    world = World(Parameters(), read_contexts())
    rollout = Rollout(world, world.before, PROJECT)

    def arms(sees_loyalty: bool) -> list[Arm]:
        return [
            rollout.arm(policy, world.before, model_sees_loyalty=sees_loyalty)
            for policy in (world.shelf, world.no_loyalty, world.loyalty, world.flat)
        ]

    shelf, no_loyalty, loyalty, _ = arms(False)
    *_, known, flat = arms(True)
    stories = (
        Story("better than shelf prices", shelf, no_loyalty, True),
        Story("better by a new column", no_loyalty, loyalty, True),
        Story("harmful: flat response", known, flat, False),
    )
    rng = np.random.default_rng(given.seed)
    rows = []
    for story in stories:
        for weight in (0.10, 0.50):
            for adjusted in (True, False):
                bound, fixed = bounds_on(rollout, story, weight, adjusted=adjusted, rng=rng)
                units, wrong = units_until(
                    rollout, story, weight, adjusted=adjusted, runs=given.runs, limit=given.limit, rng=rng
                )
                done = units[np.isfinite(units)]
                mean = float(np.mean(np.minimum(units, given.limit)))
                shown = f"{mean:,.0f}" if len(done) == len(units) else f"over {mean:,.0f}"
                late = f"{np.mean(np.isinf(units)):.1%}"
                told = (shown, f"{np.median(units):,.0f}", f"{bound:,.0f}", f"{mean / bound:.2f}", f"{fixed:,.0f}")
                rows.append((story.name, f"{weight:.0%}", "yes" if adjusted else "no", *told, late, str(wrong)))
    header = "candidate|weight|adjusted|mean units|median|bound|mean / bound|z-test, one look|open at the limit|wrong"
    print(table(header.split("|"), rows))
    print()
    looks = min(given.limit, 20_000)
    shares = peeking(rollout, no_loyalty, 0.5, runs=given.runs, limit=looks, rng=rng)
    print(f"Identical candidates at 50 %, {looks // BATCH} looks, share of {given.runs} that ever got a verdict:")
    names = ("canary, adjusted", "canary, not adjusted", f"z-test at {ALPHA:.0%}, looking every time")
    print(table(("test", "ever wrong"), [(name, f"{share:.1%}") for name, share in zip(names, shares, strict=True)]))


if __name__ == "__main__":
    main()
