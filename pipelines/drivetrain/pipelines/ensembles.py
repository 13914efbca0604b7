"""Recipes: how a model is made from rows, alone or as a combination that is one graph of single-model graphs.

Bagging is the mean of bootstrap fits (Breiman 1996). Boosting starts from another model's margin (Friedman 2001), taken
out of fold, because a margin on rows that the model has seen leaves too little to learn. Stacking is a linear model
over out-of-fold margins (Wolpert 1992) with weights that are not negative (Breiman 1996b), which keeps monotone members
monotone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import numpy as np
from scipy.optimize import minimize

from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.training import EnsembleMethod, Estimator
from drivetrain.pipelines.estimators import OFFERS, Parameters, fit_dummy, fit_estimator, fit_lightgbm
from drivetrain.pipelines.features import FeatureNames
from drivetrain.pipelines.graph import Floats, GraphBuilder, Singles
from drivetrain.pipelines.models import Link, Model, Sample, Scorer, add_link, apply_link, link_of, outputs_of

FOLDS = 3
BAGS = 5
BOOSTING: Parameters = {**OFFERS["LightGBM"].defaults, "n_estimators": 50, "num_leaves": 7, "min_child_samples": 40}


@dataclass(frozen=True, slots=True)
class Baseline:
    """The dummy."""


@dataclass(frozen=True, slots=True)
class Single:
    """One candidate with its parameters, sorted by name."""

    candidate: str
    estimator: Estimator
    parameters: tuple[tuple[str, bool | int | float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class Combination:
    """An ensemble of candidates; Bagging and Boosting take one."""

    method: EnsembleMethod
    members: tuple[Single, ...]


Recipe: TypeAlias = Baseline | Single | Combination


def fit(recipe: Recipe, sample: Sample, target: Target, seed: int) -> Scorer:
    """Makes the model; equal arguments give equal models on one architecture. Raises InvalidSpecError."""
    match recipe:
        case Baseline():
            return fit_dummy(sample, target)
        case Single():
            return _single(recipe, sample, target, seed)
        case Combination(method, members):
            match method:
                case "Bagging":
                    return _bagged(members[0], sample, target, seed)
                case "Boosting":
                    return _boosted(members[0], sample, target, seed)
                case "Stacking":
                    return _stacked(members, sample, target, seed)
    assert_never(recipe)


def combinations(methods: Sequence[EnsembleMethod], ranked: Sequence[Single]) -> tuple[Combination, ...]:
    """What to try: `ranked` holds each candidate with its best parameters, the best first. Stacking needs two."""
    return tuple(
        Combination(method, tuple(ranked) if method == "Stacking" else (ranked[0],))
        for method in methods
        if len(ranked) >= (2 if method == "Stacking" else 1)
    )


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of its members' scores."""

    members: tuple[Model, ...]

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        return np.asarray(np.mean([member.scores(plain, scaled) for member in self.members], axis=0))

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        parts = _nested(graph, self.members, lambda member: member.add(graph, features))
        return graph.add("Mean", *parts)

    def thresholds(self) -> dict[int, Singles]:
        return merged(self.members)


@dataclass(frozen=True, slots=True)
class Boosted:
    """A tree model's margin added to another model's."""

    base: Model
    trees: Model
    link: Link

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        return apply_link(self.base.margins(plain, scaled) + self.trees.margins(plain, scaled), self.link)

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        parts = _nested(graph, (self.base, self.trees), lambda member: member.add_margins(graph, features))
        return add_link(graph, graph.add("Add", *parts), self.link)

    def thresholds(self) -> dict[int, Singles]:
        return merged((self.base, self.trees))


@dataclass(frozen=True, slots=True)
class Stacked:
    """A weighted sum of its members' margins plus an intercept for each output."""

    members: tuple[Model, ...]
    weights: Floats
    """[members], none negative."""
    intercept: Floats
    """[outputs]"""
    link: Link

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        margins = [member.margins(plain, scaled) for member in self.members]
        total = sum((weight * margin for weight, margin in zip(self.weights, margins, strict=True)), start=np.zeros(1))
        return apply_link(total + self.intercept, self.link)

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        parts = _nested(graph, self.members, lambda member: member.add_margins(graph, features))
        weighted = [
            graph.add("Mul", part, graph.number(float(weight)))
            for part, weight in zip(parts, self.weights, strict=True)
        ]
        total = graph.add("Sum", *weighted, graph.constant(self.intercept.astype(np.float32)[None, :]))
        return add_link(graph, total, self.link)

    def thresholds(self) -> dict[int, Singles]:
        return merged(self.members)


def merged(models: Sequence[Scorer]) -> dict[int, Singles]:
    """All cuts of several models by matrix column."""
    found: dict[int, list[Singles]] = {}
    for model in models:
        for column, cuts in model.thresholds().items():
            found.setdefault(column, []).append(cuts)
    return {column: np.unique(np.concatenate(cuts)) for column, cuts in sorted(found.items())}


def _nested(graph: GraphBuilder, members: Sequence[Model], add: Callable[[Model], str]) -> list[str]:
    """Each member's nodes below a prefix of its own."""
    outer, parts = graph.prefix, []
    for number, member in enumerate(members):
        graph.prefix = f"{outer}member{number}/"
        parts.append(add(member))
    graph.prefix = outer
    return parts


def _bagged(member: Single, sample: Sample, target: Target, seed: int) -> Mean:
    draws = np.random.default_rng([seed, 1])
    fits = []
    for number in range(BAGS):
        rows = draws.integers(0, len(sample), len(sample))
        fits.append(_single(member, sample.take(rows), target, seed + number))
    return Mean(tuple(fits))


def _boosted(member: Single, sample: Sample, target: Target, seed: int) -> Boosted:
    link = link_of(target)
    start = _out_of_fold(member, sample, target, seed)
    trees = fit_lightgbm(sample, target, BOOSTING, seed, start=start)
    return Boosted(_single(member, sample, target, seed), trees, link)


def _stacked(members: Sequence[Single], sample: Sample, target: Target, seed: int) -> Stacked:
    link = link_of(target)
    margins = np.stack([_out_of_fold(member, sample, target, seed) for member in members])
    weights, intercept = _stack_weights(margins, sample, link, outputs_of(target))
    return Stacked(tuple(_single(member, sample, target, seed) for member in members), weights, intercept, link)


def _out_of_fold(member: Single, sample: Sample, target: Target, seed: int) -> Floats:
    """Margins of each row by a fit that did not see it."""
    fold = np.random.default_rng([seed, 2]).integers(0, FOLDS, len(sample))
    margins = np.zeros((len(sample), len(target.classes)) if target.classes else len(sample))
    for number in range(FOLDS):
        held = fold == number
        model = _single(member, sample.take(~held), target, seed)
        margins[held] = model.margins(sample.plain[held], sample.scaled[held])
    return margins


def _single(member: Single, sample: Sample, target: Target, seed: int) -> Model:
    return fit_estimator(sample, target, member.estimator, dict(member.parameters), seed)


def _stack_weights(margins: Floats, sample: Sample, link: Link, outputs: int) -> tuple[Floats, Floats]:
    """Weights of members and intercepts of outputs with the least loss; margins are [members, rows(, classes)].

    Margins are centred and scaled for the search, which makes its tolerance mean the same for every target.
    """
    count = len(margins)
    share = sample.weight / sample.weight.sum()
    centre = float(np.average(margins.mean(axis=0).reshape(len(sample), -1).mean(axis=1), weights=share))
    spread = float(margins.std()) or 1.0
    inner = (margins - centre) / spread
    truth = (sample.target - centre) / spread if link == "identity" else sample.target
    classes = np.eye(outputs)[sample.target.astype(np.int64)] if link == "softmax" else truth

    def loss(values: Floats) -> tuple[float, Floats]:
        margin = np.tensordot(values[:count], inner, axes=1) + (values[count:] if outputs > 1 else values[count])
        scores = apply_link(margin, link)
        residual = (scores - classes) * (share[:, None] if outputs > 1 else share)
        slopes = np.append((inner * residual).reshape(count, -1).sum(axis=1), residual.sum(axis=0))
        if link == "identity":
            return 0.5 * float(np.sum(share * (scores - truth) ** 2)), slopes
        if link == "sigmoid":
            return float(np.sum(share * (np.logaddexp(0, margin) - truth * margin))), slopes
        own = np.take_along_axis(margin, sample.target.astype(np.int64)[:, None], axis=1)[:, 0]
        return float(np.sum(share * (np.logaddexp.reduce(margin, axis=1) - own))), slopes

    begin = np.append(np.full(count, 1 / count), np.zeros(outputs))
    limits = [(0.0, None)] * count + [(None, None)] * outputs
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=limits, options={"ftol": 1e-12, "maxiter": 500})
    weights, offsets = found.x[:count], found.x[count:]
    if link == "identity":
        return weights, offsets * spread + centre * (1 - weights.sum())
    return weights / spread, offsets - centre * weights.sum() / spread


def describe(recipe: Recipe) -> tuple[str, Mapping[str, bool | int | float | str]]:
    """Name and parameters for reports and the trial log."""
    match recipe:
        case Baseline():
            return "dummy", {}
        case Single(candidate, _, parameters):
            return candidate, dict(parameters)
        case Combination(method, members):
            names = {f"member{number}": member.candidate for number, member in enumerate(members)}
            return method.lower(), dict(names)
    assert_never(recipe)
