"""The orange juice market behind the Monitor's evidence: matured decisions as replicas would have logged them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.model import Reference, ReferenceColumn
from drivetrain.api.policy import EndpointConfig, Policy, policy_hash
from drivetrain.api.report import DriftEvidence, RolloutEvidence
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.project import VersionReference
from drivetrain.api.v1alpha1.rollout import Analysis, AnalysisMetric, Monitoring
from drivetrain.evidence.histogram import Bins
from drivetrain.levers.grid import Booleans, Floats, Integers
from drivetrain.serving.evidence import Evidence
from drivetrain.serving.judged import Judged
from drivetrain.serving.maturation import Cohort
from examples.orange_juice.market import Grid, Market, best_policy, purchases, read_contexts
from tests.sim.modelling.orange_juice import run_spec
from tests.unit.serving.written import cohort

HOLDOUT = 0.05
BATCH = 500
CONTEXTS = read_contexts()
GRID = Grid()
_COLUMNS: Mapping[str, Floats] = {
    "store": CONTEXTS.store.astype(np.float64),
    "shelf_price": CONTEXTS.shelf_price,
    "shelf_discount": CONTEXTS.shelf_discount,
    "rival_price": CONTEXTS.rival_price,
    "rival_discount": CONTEXTS.rival_discount,
    "loyalty": CONTEXTS.loyalty,
}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A version: what it would do in each of the OJ contexts, and what it expects of each grid action."""

    chosen: Integers
    value: Floats
    """Probability of a purchase, [contexts, actions]."""
    reference: Reference


def reference(rng: np.random.Generator) -> Reference:
    """The training contexts of 5,000 visits."""
    drawn = rng.integers(len(CONTEXTS), size=5_000)
    columns = []
    for name, values in _COLUMNS.items():
        bins = Bins.of_numbers(values[drawn])
        counts = bins.count_numbers(values[drawn]).counts
        columns.append(ReferenceColumn(name=name, edges=bins.edges, counts=tuple(int(c) for c in counts[:-1])))
    return Reference(columns=tuple(columns), rows=5_000)


def perfect(*, loyalty: bool, rng: np.random.Generator, market: Market | None = None) -> Model:
    """The best policy, whose model knows every probability."""
    market = market or Market()
    found = best_policy(market, CONTEXTS, GRID, sees_loyalty=loyalty)
    return Model(found.grid.astype(np.int64), purchases(market, CONTEXTS, GRID), reference(rng))


class Shop:
    """One endpoint's matured decisions, fed to the evidence batch by batch, without exploration."""

    def __init__(self, stable: Model, rng: np.random.Generator, *, per_day: int, loyalty: bool = True) -> None:
        spec: RunSpec = run_spec(loyalty=loyalty)
        self._fields = {
            "objective": spec.objective,
            "levers": spec.levers,
            "columns": spec.data.columns,
            "target": spec.data.target,
            "slices": spec.data.slices,
        }
        self._rng = rng
        self._models: dict[str, Model] = {}
        self._judged: dict[str, Judged] = {}
        self._step = 86_400 / per_day
        self._clock = datetime(2026, 5, 4, tzinfo=UTC).timestamp()
        self.market = Market()
        self.only_purchases = False
        """Whether callers report purchases only."""
        self.away: tuple[float, float] | None = None
        """When nobody reports, and what came up then is never reported; seconds since 1970."""
        self.evidence = Evidence()
        today = Policy.model_validate(self._fields)
        self._judged[policy_hash(today)] = Judged.of(policy_hash(today), today)
        hash_ = self._publish(stable)
        self._config = EndpointConfig(
            stable=hash_,
            baseline=policy_hash(today),
            salt="s",
            holdout=HOLDOUT,
            stable_since=self.now.isoformat(),
            monitoring=Monitoring(decisions_per_day=per_day, window=timedelta(days=4)),
            analysis=Analysis(
                metrics=(
                    AnalysisMetric(name="purchase", better="Higher", tolerance=0.1),
                    AnalysisMetric(name="fallbackRate", better="Lower", tolerance=0.02),
                )
            ),
        )
        self.evidence.configure(self._config, self._judged)

    def outage(self, rows: int) -> None:
        """From the next decision on nobody reports, for as long as `rows` decisions take."""
        self.away = (self._clock, self._clock + rows * self._step)

    @property
    def now(self) -> datetime:
        """The time of the next decision."""
        return datetime.fromtimestamp(self._clock, UTC)

    def roll_out(self, candidate: Model, weight: int, *, rollout: str = "r1") -> None:
        """Begins a rollout, or changes its weight."""
        hash_ = self._publish(candidate)
        self._configure(candidate=hash_, weight=weight, rollout=rollout)

    def promote(self) -> None:
        """Makes the candidate stable."""
        self._configure(
            stable=self._config.candidate, candidate=None, weight=0, rollout=None, stable_since=self.now.isoformat()
        )

    def serve(self, rows: int = BATCH) -> None:
        """Feeds the next decisions with their outcomes."""
        self.evidence.feed(self._cohort(rows))

    def drift(self) -> DriftEvidence:
        """What the detectors say."""
        found = self.evidence.findings(self.now + timedelta(hours=1), self._config.weight).drift
        assert found is not None
        return found

    def rollout(self) -> RolloutEvidence:
        """What the rollout has shown."""
        found = self.evidence.findings(self.now, self._config.weight).rollout
        assert found is not None
        return found

    def _configure(self, **changes: object) -> None:
        self._config = self._config.model_copy(update=changes)
        self.evidence.configure(self._config, self._judged)

    def _publish(self, model: Model) -> str:
        number = next((i for i, known in enumerate(self._models.values()) if known is model), len(self._models))
        version = VersionReference(version=str(number), digest=f"{number:064d}", run="run-1")
        policy = Policy.model_validate({**self._fields, "model": version})
        hash_ = policy_hash(policy)
        if hash_ not in self._models:
            self._models[hash_] = model
            self._judged[hash_] = Judged.of(hash_, policy, None, model.reference)
        return hash_

    def _cohort(self, rows: int) -> Cohort:
        rng, config = self._rng, self._config
        at: Floats = self._clock + self._step * np.arange(1.0, rows + 1)
        self._clock = float(at[-1])
        who = rng.integers(len(CONTEXTS), size=rows)
        held = rng.random(rows) < HOLDOUT
        weight = config.weight / 100
        tried = ~held & (rng.random(rows) < weight)
        stable = self._models[config.stable]
        candidate = self._models[config.candidate] if config.candidate is not None else None
        acted = np.where(tried, (candidate or stable).chosen[who], stable.chosen[who])
        price = np.where(held, CONTEXTS.shelf_price[who], GRID.price[acted])
        discount = np.where(held, CONTEXTS.shelf_discount[who], GRID.discount[acted])
        near = np.where(held, GRID.nearest(CONTEXTS.shelf_price, CONTEXTS.shelf_discount)[who], acted)
        bought = self.market.respond(CONTEXTS.take(who), price, discount, rng)
        arm = np.where(held, "holdout", np.where(tried, "candidate", "stable")).astype(object)
        policy = np.where(held, config.baseline, np.where(tried, config.candidate or "", config.stable)).astype(object)
        columns: dict[str, object] = {
            log.ARM: arm,
            log.POLICY: policy,
            log.ROLLOUT: config.rollout or "",
            log.WEIGHT: weight,
            log.OBJECTIVE: self._judged[config.stable].objective,
            log.PREDICTION_STABLE: stable.value[who, near],
            f"{log.ACTION_PREFIX}price": price,
            f"{log.ACTION_PREFIX}discount": discount,
            **{f"{log.CONTEXT_PREFIX}{name}": values[who] for name, values in _COLUMNS.items()},
            **self._expected(stable, who, stable.chosen[who], (log.M_STABLE, log.TARGET_M_STABLE)),
            **self._expected(stable, who, GRID.nearest(CONTEXTS.shelf_price, CONTEXTS.shelf_discount)[who]),
        }
        if candidate is not None:
            columns[log.PREDICTION_CANDIDATE] = candidate.value[who, near]
            columns |= self._expected(stable, who, candidate.chosen[who], (log.M_CANDIDATE, log.TARGET_M_CANDIDATE))
        columns[log.EXPECTED_VALUE] = stable.value[who, near] * (price - discount - 1.1)
        told = self._reported(at, bought)
        outcomes = zip(bought.astype(float).tolist(), told.tolist(), strict=True)
        return cohort(at, columns, [{"label.purchase": value} if sent else None for value, sent in outcomes])

    def _reported(self, at: Floats, bought: Booleans) -> Booleans:
        """Whose outcome is reported in time; it takes up to a maturation time to come up."""
        told = bought.astype(bool) if self.only_purchases else np.ones(len(at), dtype=bool)
        if self.away is not None:
            longest = self._judged[self._config.stable].policy.objective.kpi.matures_after.total_seconds()
            comes_up = at + self._rng.uniform(0, longest, len(at))
            told &= (comes_up < self.away[0]) | (comes_up >= self.away[1])
        return told

    def _expected(
        self, frozen: Model, who: Integers, action: Integers, names: tuple[str, ...] = (log.M_HOLDOUT,)
    ) -> Mapping[str, Floats]:
        chance = frozen.value[who, action]
        kpi = chance * (GRID.net[action] - 1.1)
        return dict(zip(names, (kpi, chance), strict=False))
