"""Draws the action of each row from its arm's distribution, and says what is expected of it and what held it back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drivetrain.levers.assignment import uniforms
from drivetrain.levers.choice import NO_ACTION
from drivetrain.levers.exploration import ActionDistribution
from drivetrain.levers.grid import Booleans, Column, Floats, Integers
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.graph import Graph
from drivetrain.serving.loader import Variant
from drivetrain.serving.scoring import ArmScore, Contexts
from drivetrain.serving.view import Serving


@dataclass(frozen=True, slots=True, eq=False)
class Acting:
    """A policy, what it would do on each context, and the rows that follow it."""

    variant: Variant
    score: ArmScore
    mask: Booleans


class Draws:
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
        act: Acting,
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

    def _predict(self, act: Acting, rows: Integers, at: Integers, index: Integers, contexts: Contexts) -> None:
        for variant, predictions in (
            (self._serving.stable, self.prediction_stable),
            (self._serving.candidate, self.prediction_candidate),
        ):
            if predictions is not None and variant is not None and variant.graph is not None:
                predictions[rows] = at_action(variant.graph, act.score, at, index, contexts)

    def _value(
        self,
        act: Acting,
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
            predicted = at_action(variant.graph, act.score, at, index, contexts)
            promised = valuation.value(predicted, context, action)
            recalibration = self._serving.recalibrations.get(act.variant.hash)
            if recalibration is not None:
                promised = promised + recalibration.offset
                self.radius[rows] = recalibration.radius
            self.expected_value[rows] = np.where(act.score.refused[at], np.nan, promised)
        least, greatest = _single(valuation, context, action, len(rows))
        self.single[0][rows], self.single[1][rows] = least, greatest

    def _explain(self, act: Acting, rows: Integers, at: Integers, outside: Mapping[str, Booleans]) -> None:
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


def at_action(graph: Graph, score: ArmScore, at: Integers, index: Integers, contexts: Contexts) -> Floats:
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


def either(condition: Booleans, values: Column, otherwise: Column) -> Column:
    """Elementwise choice between two columns of one type."""
    result = otherwise.copy()
    result[condition] = values[condition]
    return result
