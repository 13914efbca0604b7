"""What each policy would do on each distinct context: its whole action distribution, and what models expect of it.

Everything here is vectorised over contexts by actions; rows that agree on every column that matters are scored once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from drivetrain.api.errors import ModelError
from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.api.v1alpha1.rollout import Fallback
from drivetrain.levers.choice import NO_ACTION, best_actions, nearest_actions
from drivetrain.levers.exploration import ActionDistribution, explore
from drivetrain.levers.grid import ActionGrid, Booleans, Column, Floats, Integers
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.graph import Graph, Predictions
from drivetrain.serving.loader import Variant

OUT_OF_DOMAIN: Final = "OutOfDomain"
NO_FEASIBLE_ACTION: Final = "NoFeasibleAction"
NOT_FINITE: Final = "ValueNotFinite"
TODAY_UNKNOWN: Final = "TodayUnknown"
MODEL_FAILED: Final = "ModelFailed"

Columns: TypeAlias = Mapping[str, Column]


@dataclass(frozen=True, slots=True, eq=False)
class ArmScore:
    """What one policy would do on each context."""

    valuation: Valuation
    distribution: ActionDistribution
    recommended: Integers
    """Index of the recommended action on the policy's grid, NO_ACTION for the atom, [contexts]."""
    atom: Columns
    """Lever to the action off the grid, [contexts]: today's, or the fixed one of a fallback."""
    fallback: Column
    """Why the fallback answers, '' where the policy does, [contexts] of str."""
    refused: Booleans
    """Where nothing may answer, [contexts]."""
    violated: Booleans
    """Which PerDecision constraints keep the policy from its unconstrained choice, [constraints, contexts]."""


class Contexts:
    """Distinct contexts, and predictions on them made at most once per graph and set of actions.

    A graph that raises an error on them predicts nothing (NaN), so that no other variant's decisions fail with it.
    """

    def __init__(self, columns: Columns, today: Columns, count: int) -> None:
        """`columns` and `today` (lever to today's action) are [contexts]."""
        self.columns = columns
        self.today = today
        self.count = count
        self._on_grid: dict[tuple[int, int], Predictions] = {}
        self._at: dict[tuple[int, int], Predictions] = {}
        self._failures: dict[int, str] = {}

    def on_grid(self, graph: Graph, grid: ActionGrid) -> Predictions:
        """Predictions of every action, [contexts, actions(, classes)]."""
        key = (id(graph), id(grid))
        found = self._on_grid.get(key)
        if found is None:
            found = self._attempted(graph, lambda: graph.on_grid(self.columns, grid, self.count), self.count, grid.size)
            self._on_grid[key] = found
        return found

    def at(self, graph: Graph, action: Columns) -> Predictions:
        """Predictions of one action per context, [contexts(, classes)]."""
        key = (id(graph), id(action))
        if key not in self._at:
            context = {name: self.columns[name] for name in graph.context}
            self._at[key] = self._attempted(graph, lambda: graph.predict({**context, **action}), self.count)
        return self._at[key]

    def failure(self, graph: Graph) -> str:
        """The error that the graph raised on these contexts; empty where it raised none."""
        return self._failures.get(id(graph), "")

    def _attempted(self, graph: Graph, predict: Callable[[], Predictions], *shape: int) -> Predictions:
        try:
            return predict()
        except ModelError as error:
            self._failures[id(graph)] = str(error)
            classes = graph.contract.target.classes
            nothing = np.full((*shape, len(classes)) if classes else shape, np.nan)
            return Predictions(nothing, nothing)


def distinct(columns: Sequence[Column]) -> tuple[Integers, Integers]:
    """Rows that differ in some column: index of the first of each kind, and each row's kind; nulls are equal."""
    codes = np.stack([_codes(column) for column in columns], axis=1)
    if len(codes) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    packed = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.dtype.itemsize * codes.shape[1]))).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def _codes(column: Column) -> Integers:
    if column.dtype == object:
        seen: dict[object, int] = {}
        return np.array([seen.setdefault(value, len(seen)) for value in column.tolist()], dtype=np.int64)
    numbers = np.where(np.isnan(column), np.nan, column + 0.0)  # one spelling of NaN, and of zero
    return np.ascontiguousarray(numbers, dtype=np.float64).view(np.int64)


def grid_index(grid: ActionGrid, actions: Columns, count: int) -> Integers:
    """The grid action that each row's action is, NO_ACTION where it lies off the grid, [rows]."""
    equal = np.ones((count, grid.size), dtype=bool)
    for name, values in grid.columns.items():
        action = np.asarray(actions[name])
        if values.dtype == object:
            equal &= action[:, None] == values[None, :]
        else:
            equal &= np.abs(action[:, None].astype(np.float64) - values.astype(np.float64)[None, :]) < 1e-9
    return np.where(equal.any(axis=1), equal.argmax(axis=1), NO_ACTION).astype(np.int64)


def score_model(
    variant: Variant,
    contexts: Contexts,
    exploration: Exploration,
    fallback: Fallback,
    outside: Booleans,
) -> ArmScore:
    """A model's policy: the action whose value `choose` puts highest among feasible, supported ones, then exploration.

    `outside`: contexts on which the model must not answer.
    """
    graph = variant.graph
    assert graph is not None
    valuation = variant.valuation
    grid, columns = valuation.grid, contexts.columns
    predicted = contexts.on_grid(graph, grid)
    merit = valuation.merit(predicted.choose, columns)
    worth = valuation.grid_values(predicted.value, columns)
    allowed = valuation.feasible(columns, contexts.count)
    supported = grid.supported(graph.contract.support)
    distance = grid.distance(contexts.today)
    finite = np.isfinite(merit) & np.isfinite(worth)
    recommended = best_actions(merit, allowed & finite & supported, distance)
    unconstrained = best_actions(merit, finite & supported, distance)
    reasons = np.full(contexts.count, "", dtype=object)
    reasons[recommended == NO_ACTION] = NOT_FINITE
    reasons[~(allowed & supported).any(axis=1)] = NO_FEASIBLE_ACTION
    reasons[outside] = OUT_OF_DOMAIN
    if contexts.failure(graph):
        reasons[:] = MODEL_FAILED
    falls = reasons != ""
    atom, instead, refused = _fallback_action(valuation, contexts, fallback, falls)
    recommended = np.where(falls, instead, recommended)
    distribution = explore(grid, recommended, recommended, allowed & finite, exploration, exploring=~falls)
    return ArmScore(
        valuation=valuation,
        distribution=_without(distribution, refused),
        recommended=recommended,
        atom=atom,
        fallback=reasons,
        refused=refused,
        violated=_violated(valuation, contexts, unconstrained),
    )


def score_baseline(
    valuation: Valuation, contexts: Contexts, exploration: Exploration, fallback: Fallback, *, exploring: bool
) -> ArmScore:
    """Today's policy, on the grid or one atom off it; with `exploring` it explores as a model's policy would."""
    grid = valuation.grid
    unknown = np.zeros(contexts.count, dtype=bool)
    for column in contexts.today.values():
        known = column != None if column.dtype == object else np.isfinite(column)  # noqa: E711 - elementwise
        unknown |= ~known.astype(bool)
    reasons = np.where(unknown, TODAY_UNKNOWN, "").astype(object)
    recommended = grid_index(grid, contexts.today, contexts.count)
    instead = fallback if fallback.policy == "Fixed" else Fallback(policy="Refuse")
    atom, fixed, refused = _fallback_action(valuation, contexts, instead, unknown)
    recommended = np.where(unknown, fixed, recommended)
    if exploring:
        allowed = valuation.feasible(contexts.columns, contexts.count)
        start = nearest_actions(allowed, grid.distance(contexts.today))
        distribution = explore(grid, recommended, start, allowed, exploration, exploring=~unknown)
    else:
        distribution = _certain(grid, recommended)
    return ArmScore(
        valuation=valuation,
        distribution=_without(distribution, refused),
        recommended=recommended,
        atom=atom,
        fallback=reasons,
        refused=refused,
        violated=np.zeros((len(valuation.bounds), contexts.count), dtype=bool),
    )


def expected(score: ArmScore, on_grid: Floats, at_atom: Floats) -> Floats:
    """Mean under the policy's own distribution of values [contexts, actions] and [contexts]; NaN where it refuses."""
    mean = score.distribution.expectation(on_grid, at_atom)
    return np.where(score.refused, np.nan, mean)


def _fallback_action(
    valuation: Valuation, contexts: Contexts, fallback: Fallback, falls: Booleans
) -> tuple[Columns, Integers, Booleans]:
    """The atom of each context, the grid index of the fallback's action, and where nothing may answer."""
    count = contexts.count
    if fallback.policy == "Refuse":
        return contexts.today, np.full(count, NO_ACTION, dtype=np.int64), falls
    if fallback.policy == "Baseline" or not falls.any():
        index = grid_index(valuation.grid, contexts.today, count) if falls.any() else np.full(count, NO_ACTION)
        return contexts.today, index, np.zeros(count, dtype=bool)
    atom: dict[str, Column] = {}
    for name, values in contexts.today.items():
        fixed = fallback.action[name]
        column = values.copy()
        column[falls] = str(fixed) if column.dtype == object else float(fixed)
        atom[name] = column
    return atom, grid_index(valuation.grid, atom, count), np.zeros(count, dtype=bool)


def _certain(grid: ActionGrid, recommended: Integers) -> ActionDistribution:
    probabilities = np.zeros((len(recommended), grid.size))
    on_grid = recommended != NO_ACTION
    probabilities[np.flatnonzero(on_grid), recommended[on_grid]] = 1.0
    return ActionDistribution(probabilities, np.where(on_grid, 0.0, 1.0))


def _without(distribution: ActionDistribution, refused: Booleans) -> ActionDistribution:
    if not refused.any():
        return distribution
    return ActionDistribution(
        np.where(refused[:, None], 0.0, distribution.grid), np.where(refused, 0.0, distribution.off_grid)
    )


def _violated(valuation: Valuation, contexts: Contexts, choice: Integers) -> Booleans:
    """Constraints that the unconstrained choice breaks, [constraints, contexts]: they hold the action back."""
    result = np.zeros((len(valuation.bounds), contexts.count), dtype=bool)
    index = np.maximum(choice, 0)
    action = {name: column[index] for name, column in valuation.grid.columns.items()}
    margins = valuation.margins(contexts.columns, action)
    for number, (bound, margin) in enumerate(zip(valuation.bounds, margins, strict=True)):
        result[number] = ~bound.holds(margin) & (choice != NO_ACTION)
    return result
