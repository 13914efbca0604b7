"""Decides a batch of rows: pure, from validated rows and an immutable view of what serves."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drivetrain.levers.assignment import Arm, arms
from drivetrain.levers.choice import NO_ACTION
from drivetrain.levers.exploration import ActionDistribution
from drivetrain.levers.grid import Booleans, Column, Floats, Integers
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.contract import declared_bounds
from drivetrain.serving.drawing import Acting, Draws, at_action, either
from drivetrain.serving.graph import Graph, out_of_domain
from drivetrain.serving.loader import Variant
from drivetrain.serving.rows import Rows
from drivetrain.serving.scoring import ArmScore, Contexts, distinct, expected, score_baseline, score_model
from drivetrain.serving.shadow import Shadowed, shadowed
from drivetrain.serving.view import Serving


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
    """KPI expected to be lost by exploring, summed over rows, and their number."""
    shadowed: Shadowed
    """What a candidate without weight did beside the stable version; nothing where there is none."""


def decide(
    rows: Rows, ids: Sequence[str], serving: Serving, timer: Callable[[], float] = time.perf_counter
) -> Decisions:
    """Decides every row. `ids` are the decision ids: the units where the objective names none.

    A candidate without weight is asked for every row like any other, and acts on none.
    """
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
    started = timer()
    candidate = _score(serving.candidate, contexts, serving, outside) if serving.candidate is not None else None
    took = timer() - started

    is_candidate = np.array([arm is Arm.CANDIDATE for arm in assigned], dtype=bool)
    is_holdout = np.array([arm is Arm.HOLDOUT for arm in assigned], dtype=bool)
    acting = [
        Acting(serving.stable, stable, ~is_candidate & ~is_holdout),
        Acting(serving.baseline, holdout, is_holdout),
    ]
    if candidate is not None and serving.candidate is not None:
        acting.append(Acting(serving.candidate, candidate, is_candidate))

    draws = Draws(count, serving)
    for act in acting:
        if act.mask.any():
            draws.add(act, units, kind, contexts, outside.get(act.variant.hash, {}))
    m_stable, target_m_stable = _means(stable, contexts, serving.frozen, serving.measured)
    m_holdout, _ = _means(holdout, contexts, serving.frozen, serving.measured)
    m_candidate = target_m_candidate = np.full(contexts.count, np.nan)
    distribution_candidate = None
    complete = rows.complete_for_candidate
    beside = Shadowed()
    if candidate is not None and serving.candidate is not None:
        if serving.weight == 0:
            graph = serving.candidate.graph
            told = contexts.failure(graph) if graph is not None else ""
            beside = shadowed(stable, candidate, kind, complete, seconds=took, message=told)
        m_candidate, target_m_candidate = _means(candidate, contexts, serving.frozen, serving.measured)
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
        regret=_regret(acting, kind, contexts, serving),
        shadowed=beside,
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
    columns = {name: rows.columns[name] for name in serving.scored if name in rows.columns}
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


def _means(score: ArmScore, contexts: Contexts, graph: Graph | None, measured: Valuation) -> tuple[Floats, Floats]:
    """The KPI and target that one model expects of the arm's own distribution, [contexts]; NaN without a model."""
    nothing = np.full(contexts.count, np.nan)
    if graph is None:
        return nothing, nothing
    grid = score.valuation.grid
    predicted, at_atom = contexts.on_grid(graph, grid).value, contexts.at(graph, score.atom).value
    tall = {name: column[:, None] for name, column in contexts.columns.items()}
    wide = {name: column[None, :] for name, column in grid.columns.items()}
    kpi = measured.value(predicted, tall, wide)
    kpi_at_atom = measured.value(at_atom, contexts.columns, score.atom)
    mean = expected(score, np.broadcast_to(kpi, (contexts.count, grid.size)), kpi_at_atom)
    if graph.contract.target.type == "Multiclass":
        return mean, nothing
    return mean, expected(score, predicted, at_atom)


def _regret(acting: Sequence[Acting], kind: Integers, contexts: Contexts, serving: Serving) -> tuple[float, int]:
    """Each arm's loss by its own model (today's policy: by the frozen one), never below 0, and the number of rows."""
    total = 0.0
    for act in acting:
        graph, score = act.variant.graph or serving.frozen, act.score
        if graph is None or not act.mask.any():
            continue
        action = {
            name: either(score.recommended == NO_ACTION, score.atom[name], values[np.maximum(score.recommended, 0)])
            for name, values in score.valuation.grid.columns.items()
        }
        predicted = at_action(graph, score, np.arange(contexts.count), score.recommended, contexts)
        best = serving.measured.value(predicted, contexts.columns, action)
        lost = serving.measured.sign * (best - _means(score, contexts, graph, serving.measured)[0])
        total += max(0.0, float(np.where(np.isfinite(lost), lost, 0.0)[kind[act.mask]].sum()))
    return total, len(kind)


def _masked(values: Floats | None, kept: Booleans) -> Floats | None:
    if values is None or kept.all():
        return values
    return np.where(kept if values.ndim == 1 else kept[:, None], values, np.nan)
