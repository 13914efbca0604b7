"""Is the demo's story the market's, and not luck? Exact gaps, and simulated runs of each act without trained models.

In each rollout the better policy acts on a hashed 70 % of visits and the other on the rest (the flat policy on 70 % for
the act that must be rejected): what a trained model reaches of its oracle. Everything else is the demo's project. The
simulator shares no code with the evidence it tests beyond the sequences themselves.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.calibration import OFFSET_MISS
from drivetrain.evidence.canary import Metric, MetricSequence, Outcomes
from drivetrain.evidence.detector import Band, Detector, average_run_length
from drivetrain.evidence.intervals import Bools, Bounds, Floats
from examples.orange_juice.market import (
    Contexts,
    Grid,
    Market,
    Parameters,
    Policy,
    best_policy,
    purchases,
    shelf_policy,
    value_by_group,
)

CHECKED = "4e8bb6ac2a23ed5dcc2fef761ba38712b199ef56c32d11e1b183dff07bca5130"
"""Digest of the shipped parameters; the power check's test fails when it does not belong to what it checked."""

LEAST_GAP = 0.05
LEAST_INTERIOR = 0.9
LEAST_RIGHT = 0.99
DETECTION = "change of customers detected"
CALIBRATION_STREAMS = 2
"""All rows, and the slices by store beside them: the detector over all rows gets its part of each error."""
SEED = 20260711
RUNS = 500
LIMITS = {
    "version 1 over shelf prices": 14_000,
    "version 2, with loyalty": 14_000,
    "flat response rejected": 8_000,
    DETECTION: 2_000,
    "new version after the change": 14_000,
}
"""Matured decisions within which an act gets its right verdict."""


@dataclass(frozen=True, slots=True)
class Project:
    """What the demo's project declares that matters to its evidence; `in_flight` decisions await their maturation."""

    weights: tuple[float, ...] = (0.10, 0.25, 0.50)
    alpha: float = 0.05
    minimum_outcomes: int = 300
    holdout: float = 0.01
    exploration_share: float = 0.2
    exploration_steps: int = 2
    kpi_minimum: float = -0.2
    kpi_maximum: float = 1.0
    purchase_minimum: float = 0.4
    fallback_tolerance: float = 0.02
    batch: int = 200
    in_flight: int = 6_000
    calibration_tolerance: float = 0.03
    calibration_offset_rows: int = 500
    calibration_false_alarms_per_year: float = 1.0
    decisions_per_day: int = 1_000_000


@dataclass(frozen=True, slots=True)
class ActPower:
    """Runs of one act: share with the right verdict within `limit` decisions, and matured decisions until it.

    `effect` is in USD a visit; for the change of customers it is the change of the share that buys.
    """

    name: str
    effect: float
    limit: int
    right: float
    median: float
    p99: float
    largest: float


@dataclass(frozen=True, slots=True)
class Power:
    """Everything that was checked, for the parameters and the project of `digest`."""

    digest: str
    runs: int
    seed: int
    gaps: dict[str, float]
    interior: dict[str, float]
    acts: tuple[ActPower, ...]

    @property
    def passed(self) -> bool:
        """Whether the demo may tell its story with these parameters."""
        return (
            all(gap >= LEAST_GAP for gap in self.gaps.values())
            and all(share >= LEAST_INTERIOR for share in self.interior.values())
            and all(act.right >= LEAST_RIGHT for act in self.acts)
        )


def digest(parameters: Parameters, project: Project) -> str:
    """SHA-256 of what a power check vouches for: the market's parameters and the project's evidence settings."""
    checked = {"market": asdict(parameters), "project": asdict(project)}
    return hashlib.sha256(json.dumps(checked, sort_keys=True).encode()).hexdigest()


def require_checked(parameters: Parameters, project: Project) -> None:
    """Raise DrivetrainError unless the power check in the tests vouches for exactly this market and project."""
    if digest(parameters, project) != CHECKED:
        raise DrivetrainError(
            "These market parameters were not checked: the demo's story might be luck.",
            remedy="Run check_power on them, and record its digest as CHECKED only if it passes.",
        )


class World:
    """One market with the policies of the story, as tables over the contexts."""

    def __init__(self, parameters: Parameters, contexts: Contexts) -> None:
        self.contexts = contexts
        self.grid = Grid()
        self.before = Market(parameters)
        self.after = Market(parameters.after_change())
        self.shelf = shelf_policy(contexts, self.grid)
        self.no_loyalty = best_policy(self.before, contexts, self.grid, sees_loyalty=False)
        self.loyalty = best_policy(self.before, contexts, self.grid, sees_loyalty=True)
        self.flat = best_policy(Market(parameters.with_slope(0.2)), contexts, self.grid, sees_loyalty=True)
        self.renewed = best_policy(self.after, contexts, self.grid, sees_loyalty=True)

    def value(self, market: Market, policy: Policy) -> float:
        """Exact USD a visit, without exploration."""
        bought = market.purchase_probability(self.contexts, policy.price, policy.discount)
        return float(np.mean(bought * market.margin(policy.price, policy.discount)))

    def gaps(self) -> dict[str, float]:
        """The four exact gaps in USD a visit."""
        shelf, no_loyalty, loyalty, flat = (
            self.value(self.before, policy) for policy in (self.shelf, self.no_loyalty, self.loyalty, self.flat)
        )
        frozen, renewed = (self.value(self.after, policy) for policy in (self.loyalty, self.renewed))
        return {
            "no-loyalty oracle over shelf": no_loyalty - shelf,
            "loyalty oracle over no-loyalty oracle": loyalty - no_loyalty,
            "loyalty oracle over flat response": loyalty - flat,
            "after the change, new oracle over old": renewed - frozen,
        }

    def purchase_rates(self) -> dict[str, float]:
        """Exact share of visits that buy, without exploration: what the purchase minimum is to be compared with."""
        return {
            name: float(np.mean(market.purchase_probability(self.contexts, policy.price, policy.discount)))
            for name, market, policy in (
                ("shelf", self.before, self.shelf),
                ("no-loyalty oracle", self.before, self.no_loyalty),
                ("loyalty oracle", self.before, self.loyalty),
                ("flat response", self.before, self.flat),
                ("loyalty oracle after the change", self.after, self.loyalty),
                ("new oracle after the change", self.after, self.renewed),
            )
        }

    def interior(self) -> dict[str, float]:
        """Share of contexts whose best net price lies strictly inside the feasible range."""
        feasible = self.grid.net[self.grid.feasible]

        def share(policy: Policy) -> float:
            net = self.grid.net[policy.grid]
            return float(np.mean((net > feasible.min()) & (net < feasible.max())))

        return {"before the change": share(self.loyalty), "after the change": share(self.renewed)}


@dataclass(frozen=True, slots=True)
class Arm:
    """One policy under exploration in one market, as tables: by context, and by context and action drawn.

    `kpi` and `purchase` are what the platform's frozen model expects of the policy's own action distribution.
    """

    policy: Policy
    sell: Floats  # (contexts,) purchase probability at the policy's own action
    earn: Floats  # (contexts,) margin at the policy's own action
    kpi: Floats
    purchase: Floats


class Rollout:
    """A ramp of a candidate against a stable policy, simulated for many runs at once."""

    def __init__(self, world: World, market: Market, project: Project) -> None:
        self._project = project
        self._grid = world.grid
        self._contexts = world.contexts
        self._market = market
        near = world.grid.neighbours(project.exploration_steps)
        self._near = near / near.sum(axis=1, keepdims=True)
        self._atoms = np.argsort(~near, axis=1, kind="stable")  # feasible neighbours first
        self._atom_count = near.sum(axis=1)
        self._sells = purchases(market, world.contexts, world.grid)
        self._earns = market.margin(world.grid.price, world.grid.discount)

    def arm(self, policy: Policy, model: Market, *, model_sees_loyalty: bool) -> Arm:
        """Tables of a policy, with what `model`, with or without loyalty, expects of it."""
        own = np.stack([policy.price, policy.discount])
        believed = purchases(model, self._contexts, self._grid)
        at_own = model.purchase_probability(self._contexts, own[0], own[1])
        if not model_sees_loyalty:
            believed = value_by_group(believed, self._contexts)
            at_own = value_by_group(at_own[:, None], self._contexts)[:, 0]
        near = self._near[policy.grid]
        share = self._project.exploration_share
        earn = self._market.margin(own[0], own[1])
        return Arm(
            policy=policy,
            sell=self._market.purchase_probability(self._contexts, own[0], own[1]),
            earn=earn,
            kpi=(1 - share) * at_own * earn + share * np.sum(near * believed * self._earns, axis=1),
            purchase=(1 - share) * at_own + share * np.sum(near * believed, axis=1),
        )

    def effect(self, stable: Arm, better: Arm) -> float:
        """Exact effect of a candidate that is `better` on 70 % of visits, under exploration, in USD a visit."""
        share = self._project.exploration_share

        def value(arm: Arm) -> float:
            explored = np.sum(self._near[arm.policy.grid] * self._sells * self._earns, axis=1)
            return float(np.mean((1 - share) * arm.sell * arm.earn + share * explored))

        return 0.7 * (value(better) - value(stable))

    def act(self, arm: Arm, rows: np.ndarray, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw action and purchase of each visit; returns the KPI and whether CH was bought."""
        draw, explore = rng.random(rows.shape), rng.random(rows.shape) < self._project.exploration_share
        start = arm.policy.grid[rows]
        atom = self._atoms[start, (rng.random(rows.shape) * self._atom_count[start]).astype(np.intp)]
        sell = np.where(explore, self._sells[rows, atom], arm.sell[rows])
        earn = np.where(explore, self._earns[atom], arm.earn[rows])
        bought = (draw < sell).astype(np.float64)
        return bought * earn, bought

    def cohort(self, stable: Arm, better: Arm, weight: Floats, rng: np.random.Generator) -> "Cohort":
        """Matured units of every run under `weight`: who got which arm, and each metric's outcomes with its m."""
        rows = rng.integers(len(self._contexts), size=weight.shape)
        candidate = rng.random(weight.shape) < weight
        hashed = rng.random(weight.shape) < 0.7
        new = candidate & hashed
        kpi_old, bought_old = self.act(stable, rows, rng)
        kpi_new, bought_new = self.act(better, rows, rng)

        def outcomes(y: Floats, m_old: Floats, m_new: Floats) -> Outcomes:
            return Outcomes(y, m_old[rows], np.where(hashed, m_new[rows], m_old[rows]))

        return Cohort(
            candidate,
            outcomes(np.where(new, kpi_new, kpi_old), stable.kpi, better.kpi),
            outcomes(np.where(new, bought_new, bought_old), stable.purchase, better.purchase),
            Outcomes(np.zeros(weight.shape)),
        )

    def decide(self, stable: Arm, better: Arm, *, runs: int, limit: int, rng: np.random.Generator) -> "Decisions":
        """Matured decisions until promotion or rejection of each run; infinite where there was neither in `limit`."""
        project = self._project
        metrics = (
            Metric("kpi", bounds=Bounds(project.kpi_minimum, project.kpi_maximum)),
            Metric("purchase minimum", bounds=Bounds(0, 1), level=project.purchase_minimum),
            Metric("fallback", False, project.fallback_tolerance, bounds=Bounds(0, 1)),
        )
        share = project.alpha / len(metrics)
        kpi, purchase, fallback = (
            MetricSequence(metric, share, runs=(runs,), thresholds_only=True) for metric in metrics
        )
        weights = np.asarray(project.weights)
        step = np.zeros(runs, dtype=np.intp)
        arrived = np.zeros((runs, 2))
        decided = np.full(runs, np.inf)
        promoted = np.zeros(runs, dtype=np.bool_)
        units = round(project.batch * (1 - project.holdout))
        # Decisions in flight keep the weight under which they were made.
        pipeline = [weights[step]] * (project.in_flight // project.batch)
        for matured in range(project.batch, limit + 1, project.batch):
            pipeline.append(weights[step])
            weight = np.broadcast_to(pipeline.pop(0)[:, None], (runs, units))
            cohort = self.cohort(stable, better, weight, rng)
            kpi.update(cohort.candidate, weight, cohort.kpi)
            purchase.update(cohort.candidate, weight, cohort.purchase)
            fallback.update(cohort.candidate, weight, cohort.fallback)
            candidates = cohort.candidate.sum(axis=1)
            arrived += np.stack([units - candidates, candidates], axis=1)
            undecided = np.isinf(decided)
            rejects = undecided & (kpi.harm_proved | purchase.harm_proved | fallback.harm_proved)
            # A step needs harm excluded for the listed guardrail; the bound only rejects, the KPI speaks at the last.
            safe = fallback.harm_excluded
            enough = arrived.min(axis=1) >= project.minimum_outcomes * (step + 1)
            clear = undecided & ~rejects & enough & safe
            last = step == len(weights) - 1
            promotes = clear & last & kpi.superior
            decided = np.where(rejects | promotes, matured, decided)
            promoted |= promotes
            step = np.where(clear & ~last, step + 1, step)
            if np.isfinite(decided).all():
                break
        return Decisions(decided, promoted)


@dataclass(frozen=True, slots=True)
class Cohort:
    """Matured units of every run, shape (runs, units)."""

    candidate: Bools
    kpi: Outcomes
    purchase: Outcomes
    fallback: Outcomes


@dataclass(frozen=True, slots=True)
class Decisions:
    """Matured decisions until the verdict of each run (infinite: none), and whether it was promotion."""

    matured: Floats
    promoted: Bools

    def power(self, name: str, effect: float, limit: int, *, promotion: bool) -> ActPower:
        """How often the verdict was right and in time."""
        right = np.isfinite(self.matured) & (self.promoted == promotion)
        return _act(name, effect, limit, np.where(right, self.matured, np.inf))


def _act(name: str, effect: float, limit: int, matured: Floats) -> ActPower:
    ordered = np.sort(matured)  # by rank: an infinite time cannot be interpolated

    def at(share: float) -> float:
        return float(ordered[int(np.ceil(share * len(ordered))) - 1])

    return ActPower(name, effect, limit, float(np.mean(np.isfinite(matured))), at(0.5), at(0.99), float(ordered[-1]))


def detection(
    world: World, project: Project, *, runs: int, limit: int, quiet: int, rng: np.random.Generator
) -> ActPower:
    """Matured decisions from the change of customers to a severe calibration alarm; a false alarm counts as wrong.

    The residual is that of the target: purchase less the probability predicted for it.
    """
    band = Band(
        1.0,
        project.calibration_tolerance,
        project.calibration_offset_rows,
        offset_level=1 - OFFSET_MISS / CALIBRATION_STREAMS,
    )
    run_length = average_run_length(project.calibration_false_alarms_per_year, 365 * project.decisions_per_day)
    detector = Detector(band, runs=(runs,))
    early = np.zeros(runs, dtype=np.bool_)
    delay = np.full(runs, np.inf)
    own = world.loyalty
    sells = [
        float(np.mean(market.purchase_probability(world.contexts, own.price, own.discount)))
        for market in (world.before, world.after)
    ]
    for market, length in ((world.before, quiet), (world.after, limit)):
        rollout = Rollout(world, market, project)
        arm = rollout.arm(world.loyalty, world.before, model_sees_loyalty=True)
        # The prediction is made for the action drawn; here it is its mean over the distribution, which is noisier.
        for matured in range(project.batch, length + 1, project.batch):
            rows = rng.integers(len(world.contexts), size=(runs, project.batch))
            _, bought = rollout.act(arm, rows, rng)
            detector.update(bought - arm.purchase[rows], np.arange(project.batch, dtype=np.float64))
            alarmed = detector.peak >= CALIBRATION_STREAMS * run_length
            if market is world.before:
                early |= alarmed
            else:
                delay = np.where(alarmed & np.isinf(delay), matured, delay)
    return _act(DETECTION, sells[1] - sells[0], limit, np.where(early, np.inf, delay))


def check_power(
    parameters: Parameters, contexts: Contexts, *, project: Project | None = None, runs: int = RUNS, seed: int = SEED
) -> Power:
    """Gaps, interior optima and the right verdict of every act, for one set of market parameters."""
    project = project or Project()
    world = World(parameters, contexts)
    rng = np.random.default_rng(seed)
    before, after = Rollout(world, world.before, project), Rollout(world, world.after, project)
    # (act, rollout, stable, other policy, the frozen model's market and whether it sees loyalty, promotion)
    story = (
        ("version 1 over shelf prices", before, world.shelf, world.no_loyalty, False, True),
        ("version 2, with loyalty", before, world.no_loyalty, world.loyalty, False, True),
        ("flat response rejected", before, world.loyalty, world.flat, True, False),
        ("new version after the change", after, world.loyalty, world.renewed, True, True),
    )
    acts = []
    for name, rollout, stable, other, sees_loyalty, promotion in story:
        arms = [rollout.arm(policy, world.before, model_sees_loyalty=sees_loyalty) for policy in (stable, other)]
        decisions = rollout.decide(arms[0], arms[1], runs=runs, limit=LIMITS[name], rng=rng)
        acts.append(decisions.power(name, rollout.effect(arms[0], arms[1]), LIMITS[name], promotion=promotion))
    acts.insert(3, detection(world, project, runs=runs, limit=LIMITS[DETECTION], quiet=10_000, rng=rng))
    return Power(digest(parameters, project), runs, seed, world.gaps(), world.interior(), tuple(acts))
