"""Decides a batch of rows: pure, from validated rows and an immutable view of what serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drivetrain.api.policy import EndpointConfig
from drivetrain.api.runspec import objective_hash
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.levers.assignment import Arm, arms, uniforms
from drivetrain.levers.choice import NO_ACTION
from drivetrain.levers.exploration import ActionDistribution
from drivetrain.levers.grid import Booleans, Column, Floats, Integers
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.contract import RequestContract, Rows, contract_of, declared_bounds
from drivetrain.serving.graph import Graph, out_of_domain
from drivetrain.serving.loader import Variant
from drivetrain.serving.scoring import ArmScore, Contexts, distinct, expected, score_baseline, score_model


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What realised values taught about promised ones, for one policy: added to its expected values."""

    offset: float
    radius: float
    """Half-width of the offset's confidence interval."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """Everything a decision depends on; swapped as a whole, never changed."""

    config: EndpointConfig
    stable: Variant
    baseline: Variant
    candidate: Variant | None
    exploration: Exploration
    contract: RequestContract
    recalibrations: Mapping[str, Recalibration] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        config: EndpointConfig,
        stable: Variant,
        baseline: Variant,
        candidate: Variant | None = None,
        *,
        exploration: Exploration | None = None,
        recalibrations: Mapping[str, Recalibration] | None = None,
    ) -> "Serving":
        """The view of a configuration whose variants are loaded."""
        return cls(
            config=config,
            stable=stable,
            baseline=baseline,
            candidate=candidate,
            exploration=exploration or config.exploration,
            contract=contract_of(
                stable.policy,
                stable.graph.contract if stable.graph else None,
                baseline.policy,
                candidate.policy if candidate else None,
                candidate.graph.contract if candidate and candidate.graph else None,
            ),
            recalibrations=recalibrations or {},
        )

    @property
    def frozen(self) -> Graph | None:
        """The model whose predictions adjust the comparison: stable's, or the candidate's when stable has none."""
        if self.stable.graph is not None:
            return self.stable.graph
        return self.candidate.graph if self.candidate is not None else None

    @property
    def measured(self) -> Valuation:
        """The objective that values both arms: the candidate's, which is the newer one."""
        return (self.candidate or self.stable).valuation

    @property
    def weight(self) -> float:
        """The candidate's share among units outside the holdout."""
        return self.config.weight / 100 if self.candidate is not None and self.config.rollout is not None else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """The action distributions of one arm, per context, and the context of each row."""

    counts: Integers
    """Number of actions with positive probability, [contexts]."""
    actions: Integers
    """Their grid indices, -1 for the action off the grid, flat."""
    probabilities: Floats
    """Flat."""

    @classmethod
    def of(cls, distribution: ActionDistribution) -> "Distributions":
        """The positive entries of a distribution."""
        whole = np.concatenate([distribution.off_grid[:, None], distribution.grid], axis=1)
        contexts, columns = np.nonzero(whole)
        counts = np.bincount(contexts, minlength=len(whole))
        return cls(counts.astype(np.int64), columns.astype(np.int64) - 1, whole[contexts, columns])


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """A decided batch; arrays are [rows] unless said otherwise."""

    serving: Serving
    rows: Rows
    units: tuple[str, ...]
    arms: tuple[Arm, ...]
    policies: tuple[str, ...]
    actions: Mapping[str, Column]
    today: Mapping[str, Column]
    refused: Booleans
    propensity: Floats
    explored: Booleans
    fallback: tuple[str, ...]
    expected_value: Floats
    radius: Floats
    """Half-width of the interval on the mean, NaN where nothing is known about it."""
    single: tuple[Floats, Floats]
    """Least and greatest KPI that this one decision can realise at its action, NaN where unbounded."""
    outside: tuple[tuple[str, ...], ...]
    """Fields that lie outside the acting model's domain."""
    binding: tuple[tuple[str, ...], ...]
    shadow_prices: tuple[Mapping[str, float], ...]
    prediction_stable: Floats | None
    """[rows(, classes)]"""
    prediction_candidate: Floats | None
    m_stable: Floats
    m_candidate: Floats
    m_holdout: Floats
    target_m_stable: Floats
    target_m_candidate: Floats
    context_of_row: Integers
    distribution_stable: Distributions
    distribution_candidate: Distributions | None
    regret: tuple[float, int]
    """KPI that the frozen model expects to be lost by exploring, summed over rows, and their number."""


@dataclass(frozen=True, slots=True, eq=False)
class _Acting:
    variant: Variant
    score: ArmScore
    mask: Booleans


def decide(rows: Rows, ids: Sequence[str], serving: Serving) -> Decisions:
    """Decides every row. `ids` are the decision ids: the units where the objective names none."""
    config, count = serving.config, rows.count
    units = rows.units if rows.units is not None else tuple(ids)
    assigned = _assign(units, rows, serving)
    contexts, kind = _contexts(rows, serving)
    outside = {
        variant.hash: _outside(variant, contexts, config.monitoring.out_of_domain)
        for variant in (serving.stable, serving.candidate)
        if variant is not None
    }
    stable = _score(serving.stable, contexts, serving, outside)
    holdout = score_baseline(
        serving.baseline.valuation, contexts, serving.exploration, config.fallback, exploring=False
    )
    candidate = _score(serving.candidate, contexts, serving, outside) if serving.candidate is not None else None

    is_candidate = np.array([arm is Arm.CANDIDATE for arm in assigned], dtype=bool)
    is_holdout = np.array([arm is Arm.HOLDOUT for arm in assigned], dtype=bool)
    acting = [
        _Acting(serving.stable, stable, ~is_candidate & ~is_holdout),
        _Acting(serving.baseline, holdout, is_holdout),
    ]
    if candidate is not None and serving.candidate is not None:
        acting.append(_Acting(serving.candidate, candidate, is_candidate))

    draws = _Draws(count, serving)
    for act in acting:
        if act.mask.any():
            draws.add(act, units, kind, contexts, outside.get(act.variant.hash, {}))
    m_stable, target_m_stable = _means(stable, contexts, serving)
    m_holdout, _ = _means(holdout, contexts, serving)
    m_candidate = target_m_candidate = np.full(contexts.count, np.nan)
    distribution_candidate = None
    complete = rows.complete_for_candidate
    if candidate is not None:
        m_candidate, target_m_candidate = _means(candidate, contexts, serving)
        distribution_candidate = Distributions.of(candidate.distribution)
    return Decisions(
        serving=serving,
        rows=rows,
        units=units,
        arms=assigned,
        policies=tuple(draws.policies.tolist()),
        actions=draws.actions,
        today={name: column[kind] for name, column in contexts.today.items()},
        refused=draws.refused,
        propensity=draws.propensity,
        explored=draws.explored,
        fallback=tuple(draws.fallback.tolist()),
        expected_value=draws.expected_value,
        radius=draws.radius,
        single=draws.single,
        outside=tuple(draws.outside),
        binding=tuple(draws.binding),
        shadow_prices=tuple(draws.shadow_prices),
        prediction_stable=draws.prediction_stable,
        prediction_candidate=_masked(draws.prediction_candidate, complete),
        m_stable=m_stable[kind],
        m_candidate=np.where(complete, m_candidate[kind], np.nan),
        m_holdout=m_holdout[kind],
        target_m_stable=target_m_stable[kind],
        target_m_candidate=np.where(complete, target_m_candidate[kind], np.nan),
        context_of_row=kind,
        distribution_stable=Distributions.of(stable.distribution),
        distribution_candidate=distribution_candidate,
        regret=_regret([(stable, m_stable), (candidate, m_candidate)], acting, kind, contexts, serving),
    )


def _assign(units: Sequence[str], rows: Rows, serving: Serving) -> tuple[Arm, ...]:
    config = serving.config
    assigned = arms(units, salt=config.salt, rollout=config.rollout, holdout=config.holdout, weight=serving.weight)
    if serving.candidate is None or rows.complete_for_candidate.all():
        return assigned
    return tuple(
        arm if complete or arm is Arm.HOLDOUT else Arm.NONE
        for arm, complete in zip(assigned, rows.complete_for_candidate.tolist(), strict=True)
    )


def _contexts(rows: Rows, serving: Serving) -> tuple[Contexts, Integers]:
    """The distinct contexts with today's action, and the context of each row."""
    columns = {name: rows.columns[name] for name in scored_columns(serving) if name in rows.columns}
    for name in serving.contract.candidate_only:
        if name not in columns:  # nobody sent it: the candidate acts on no row, but is scored with nulls
            text = serving.contract.fields[name].type in ("String", "Timestamp")
            columns[name] = np.full(rows.count, None, dtype=object) if text else np.full(rows.count, np.nan)
    today = _today(rows, columns, serving)
    if not columns:
        columns = {"": np.zeros(rows.count)}
    first, kind = distinct([*columns.values(), *today.values()])
    return (
        Contexts(
            {name: column[first] for name, column in columns.items()},
            {name: column[first] for name, column in today.items()},
            len(first),
        ),
        kind,
    )


def scored_columns(serving: Serving) -> tuple[str, ...]:
    """The fields on which decisions depend."""
    names = [
        name for name, given in serving.contract.fields.items() if given.required and name != serving.contract.unit
    ]
    names += serving.contract.candidate_only
    for variant in (serving.stable, serving.candidate):
        names += variant.graph.context if variant is not None and variant.graph is not None else ()
    return tuple(dict.fromkeys(name for name in names if name in serving.contract.fields))


def _today(rows: Rows, columns: Mapping[str, Column], serving: Serving) -> dict[str, Column]:
    valuation = serving.baseline.valuation
    if serving.baseline.policy.objective.baseline.logged:
        return dict(rows.today)
    today = valuation.today(columns, rows.count)
    for name, sent in rows.today.items():
        today[name] = either(rows.sent_today, sent, today[name])
    return today


def _outside(variant: Variant, contexts: Contexts, slack: float) -> dict[str, Booleans]:
    if variant.graph is None:
        return {}
    bounds = declared_bounds(variant.policy.columns)
    return out_of_domain(variant.graph.contract, contexts.columns, bounds, slack)


def _score(
    variant: Variant, contexts: Contexts, serving: Serving, outside: Mapping[str, Mapping[str, Booleans]]
) -> ArmScore:
    fallback = serving.config.fallback
    if variant.graph is None:
        return score_baseline(variant.valuation, contexts, serving.exploration, fallback, exploring=True)
    any_outside = np.zeros(contexts.count, dtype=bool)
    for rows in outside[variant.hash].values():
        any_outside |= rows
    return score_model(variant, contexts, serving.exploration, fallback, any_outside)


def _means(score: ArmScore, contexts: Contexts, serving: Serving) -> tuple[Floats, Floats]:
    """The KPI and target that the frozen model expects of the arm's own distribution, [contexts]; NaN without one."""
    graph = serving.frozen
    nothing = np.full(contexts.count, np.nan)
    if graph is None:
        return nothing, nothing
    grid, measured = score.valuation.grid, serving.measured
    predicted, at_atom = contexts.on_grid(graph, grid).value, contexts.at(graph, score.atom).value
    tall = {name: column[:, None] for name, column in contexts.columns.items()}
    wide = {name: column[None, :] for name, column in grid.columns.items()}
    kpi = measured.value(predicted, tall, wide)
    kpi_at_atom = measured.value(at_atom, contexts.columns, score.atom)
    mean = expected(score, np.broadcast_to(kpi, (contexts.count, grid.size)), kpi_at_atom)
    if graph.contract.target.type == "Multiclass":
        return mean, nothing
    return mean, expected(score, predicted, at_atom)


def either(condition: Booleans, values: Column, otherwise: Column) -> Column:
    """Elementwise choice between two columns of one type."""
    result = otherwise.copy()
    result[condition] = values[condition]
    return result


def _regret(
    means: Sequence[tuple[ArmScore | None, Floats]],
    acting: Sequence[_Acting],
    kind: Integers,
    contexts: Contexts,
    serving: Serving,
) -> tuple[float, int]:
    graph = serving.frozen
    total, count = 0.0, sum(len(act.mask) for act in acting[:1])
    for score, mean in means:
        rows = next((kind[act.mask] for act in acting if act.score is score), None)
        if graph is None or score is None or rows is None or not len(rows):
            continue
        everywhere = np.arange(contexts.count)
        action = {
            name: either(score.recommended == NO_ACTION, score.atom[name], values[np.maximum(score.recommended, 0)])
            for name, values in score.valuation.grid.columns.items()
        }
        predicted = _at_action(graph, score, everywhere, score.recommended, contexts)
        best = serving.measured.value(predicted, contexts.columns, action)
        lost = serving.measured.sign * (np.broadcast_to(best, (contexts.count,)) - mean)
        total += float(np.where(np.isfinite(lost), lost, 0.0)[rows].sum())
    return total, count


def _masked(values: Floats | None, kept: Booleans) -> Floats | None:
    if values is None or kept.all():
        return values
    return np.where(kept if values.ndim == 1 else kept[:, None], values, np.nan)


class _Draws:
    """Collects, arm by arm, what each row gets."""

    def __init__(self, count: int, serving: Serving) -> None:
        self._serving = serving
        self.policies = np.full(count, "", dtype=object)
        self.actions: dict[str, Column] = {}
        for lever in serving.stable.policy.levers:
            text = lever.type == "Categorical"
            self.actions[lever.name] = np.full(count, None, dtype=object) if text else np.full(count, np.nan)
        self.refused = np.zeros(count, dtype=bool)
        self.propensity = np.ones(count)
        self.explored = np.zeros(count, dtype=bool)
        self.fallback = np.full(count, "", dtype=object)
        self.expected_value = np.full(count, np.nan)
        self.radius = np.full(count, np.nan)
        self.single = (np.full(count, np.nan), np.full(count, np.nan))
        self.outside: list[tuple[str, ...]] = [()] * count
        self.binding: list[tuple[str, ...]] = [()] * count
        self.shadow_prices: list[Mapping[str, float]] = [{}] * count
        self.prediction_stable = self._predictions(serving.stable, count)
        self.prediction_candidate = self._predictions(serving.candidate, count)

    def add(
        self,
        act: _Acting,
        units: Sequence[str],
        kind: Integers,
        contexts: Contexts,
        outside: Mapping[str, Booleans],
    ) -> None:
        """Draws the actions of one arm's rows."""
        serving, score, grid = self._serving, act.score, act.score.valuation.grid
        rows = np.flatnonzero(act.mask)
        at = kind[rows]
        distribution = ActionDistribution(score.distribution.grid[at], score.distribution.off_grid[at])
        drawn = uniforms([units[row] for row in rows.tolist()], f"{serving.config.salt}/explore/{act.variant.hash}")
        index = distribution.draw(drawn)
        refused = score.refused[at]
        off_grid = index == NO_ACTION
        action: dict[str, Column] = {}
        for name, values in grid.columns.items():
            taken = either(off_grid, score.atom[name][at], values[np.maximum(index, 0)])
            taken[refused] = None if taken.dtype == object else np.nan
            action[name] = taken
            self.actions[name][rows] = action[name]
        self.policies[rows] = act.variant.hash
        self.refused[rows] = refused
        self.propensity[rows] = np.where(refused, 1.0, distribution.probability(index))
        self.explored[rows] = (index != score.recommended[at]) & ~refused
        self.fallback[rows] = score.fallback[at]
        self._predict(act, rows, at, index, contexts)
        self._value(act, rows, at, index, contexts=contexts, action=action)
        self._explain(act, rows, at, outside)

    def _predict(self, act: _Acting, rows: Integers, at: Integers, index: Integers, contexts: Contexts) -> None:
        for variant, predictions in (
            (self._serving.stable, self.prediction_stable),
            (self._serving.candidate, self.prediction_candidate),
        ):
            if predictions is not None and variant is not None and variant.graph is not None:
                predictions[rows] = _at_action(variant.graph, act.score, at, index, contexts)

    def _value(
        self,
        act: _Acting,
        rows: Integers,
        at: Integers,
        index: Integers,
        *,
        contexts: Contexts,
        action: Mapping[str, Column],
    ) -> None:
        """The KPI promised: by the acting model; today's policy, having none, is valued by the stable model."""
        valuation = act.score.valuation
        context = {name: column[at] for name, column in contexts.columns.items()}
        variant = act.variant if act.variant.graph is not None else self._serving.stable
        if variant.graph is not None:
            predicted = _at_action(variant.graph, act.score, at, index, contexts)
            promised = valuation.value(predicted, context, action)
            recalibration = self._serving.recalibrations.get(act.variant.hash)
            if recalibration is not None:
                promised = promised + recalibration.offset
                self.radius[rows] = recalibration.radius
            self.expected_value[rows] = np.where(act.score.refused[at], np.nan, promised)
        least, greatest = _single(valuation, context, action, len(rows))
        self.single[0][rows], self.single[1][rows] = least, greatest

    def _explain(self, act: _Acting, rows: Integers, at: Integers, outside: Mapping[str, Booleans]) -> None:
        valuation = act.score.valuation
        if outside:
            for row, context in zip(rows.tolist(), at.tolist(), strict=True):
                self.outside[row] = tuple(name for name, where in outside.items() if where[context])
        if act.variant.graph is None:
            return
        prices = {term.name: term.multiplier for term in valuation.portfolio}
        priced = tuple(name for name, price in prices.items() if price)
        texts = tuple(str(bound.constraint.expression) for bound in valuation.bounds)
        violated = act.score.violated.any()
        for row, context in zip(rows.tolist(), at.tolist(), strict=True):
            self.shadow_prices[row] = prices
            held = tuple(texts[i] for i in np.flatnonzero(act.score.violated[:, context])) if violated else ()
            self.binding[row] = held + priced

    @staticmethod
    def _predictions(variant: Variant | None, count: int) -> Floats | None:
        if variant is None or variant.graph is None:
            return None
        classes = variant.policy.target.classes
        return np.full((count, len(classes)) if classes else count, np.nan)


def _at_action(graph: Graph, score: ArmScore, at: Integers, index: Integers, contexts: Contexts) -> Floats:
    """The `value` half at each row's action, [rows(, classes)]."""
    on_grid = contexts.on_grid(graph, score.valuation.grid).value[at, np.maximum(index, 0)]
    off = index == NO_ACTION
    if not off.any():
        return on_grid
    at_atom = contexts.at(graph, score.atom).value[at]
    return np.where(off if on_grid.ndim == 1 else off[:, None], at_atom, on_grid)


def _single(
    valuation: Valuation, context: Mapping[str, Column], action: Mapping[str, Column], count: int
) -> tuple[Floats, Floats]:
    """What one decision can realise: the KPI at the target's extremes (it is affine in the target)."""
    target = valuation.policy.target
    if target.type == "Multiclass":
        ends = [np.broadcast_to(row, (count, len(target.classes))) for row in np.eye(len(target.classes))]
    else:
        low, high = (0.0, 1.0) if target.type == "Binary" else (target.minimum, target.maximum)
        if low is None or high is None:
            return np.full(count, np.nan), np.full(count, np.nan)
        ends = [np.full(count, low), np.full(count, high)]
    values = np.stack([np.broadcast_to(valuation.value(end, context, action), (count,)) for end in ends])
    return values.min(axis=0), values.max(axis=0)


def serving_objective(serving: Serving) -> str:
    """Hash of the objective by which both arms are measured."""
    return objective_hash(serving.measured.policy.objective)
