"""The estimators on offer: each fits on the graph's own float32 matrices and writes itself into the graph."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

import lightgbm
import numpy as np
import xgboost
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.training import Estimator, ParameterValue
from drivetrain.pipelines.features import FeatureNames
from drivetrain.pipelines.graph import Floats, GraphBuilder, Singles
from drivetrain.pipelines.trees import Forest, add_forest, from_lightgbm, from_sklearn, from_xgboost

Link: TypeAlias = Literal["identity", "sigmoid", "softmax"]
Parameters: TypeAlias = Mapping[str, ParameterValue]
Native: TypeAlias = Any  # a library's fitted model
MARGIN_CLIP = 0.01
"""How far a forest's probabilities are kept from 0 and 1 before their margin is taken: nearer to them a logarithm makes
float32's last digit large."""
_TREES: dict[str, ParameterValue] = {"n_estimators": 200, "learning_rate": 0.05}


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows to fit on or to score."""

    plain: Singles
    scaled: Singles
    """[rows, width] each."""
    target: Floats
    """[rows]: 0 or 1, index of the class, or the value."""
    weight: Floats
    directions: tuple[Literal[-1, 0, 1], ...]
    """[width]: monotone constraints."""

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Sample":
        """These rows, in this order."""
        return Sample(self.plain[rows], self.scaled[rows], self.target[rows], self.weight[rows], self.directions)

    def __len__(self) -> int:
        return len(self.target)


class Scorer(Protocol):
    """A fitted model: what its library predicts, and the same as graph nodes."""

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        """[rows]: probability of 1, or mean; [rows, classes]: probabilities. Computed by the library."""
        ...

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        """Adds the nodes; returns the scores as [rows, 1] or [rows, classes]."""
        ...

    def thresholds(self) -> dict[int, Singles]:
        """Cuts by matrix column."""
        ...


class Model(Scorer, Protocol):
    """A fitted single model, which ensembles are composed of."""

    def margins(self, plain: Singles, scaled: Singles) -> Floats:
        """What the link turns into scores, in their shape."""
        ...

    def add_margins(self, graph: GraphBuilder, features: FeatureNames) -> str:
        """Adds the nodes of the margins, [rows, 1] or [rows, classes]."""
        ...


def outputs_of(target: Target) -> int:
    """Columns of a model's scores in the graph."""
    return max(1, len(target.classes))


def link_of(target: Target) -> Link:
    """What turns a margin into a score."""
    return {"Binary": "sigmoid", "Multiclass": "softmax", "Regression": "identity"}[target.type]  # type: ignore[return-value] # the values are links


def add_link(graph: GraphBuilder, margin: str, link: Link) -> str:
    """From margins [rows, outputs] to scores of the same shape."""
    if link == "identity":
        return margin
    return graph.add("Sigmoid", margin) if link == "sigmoid" else graph.add("Softmax", margin, axis=1)


def apply_link(margin: Floats, link: Link) -> Floats:
    """From margins [rows] or [rows, classes] to scores."""
    if link == "identity":
        return margin
    scores: Floats = expit(margin) if link == "sigmoid" else softmax(margin, axis=1)
    return scores


def _margin_of(scores: Floats, link: Link) -> Floats:
    clipped = np.clip(scores, MARGIN_CLIP, 1 - MARGIN_CLIP)
    margins: Floats = logit(clipped) if link == "sigmoid" else np.log(clipped)
    return scores if link == "identity" else margins


def _add_margin(graph: GraphBuilder, scores: str, link: Link) -> str:
    if link == "identity":
        return scores
    clipped = graph.add("Clip", scores, graph.number(MARGIN_CLIP), graph.number(1 - MARGIN_CLIP))
    logarithm = graph.add("Log", clipped)
    if link == "softmax":
        return logarithm
    return graph.add("Sub", logarithm, graph.add("Log", graph.add("Sub", graph.number(1), clipped)))


@dataclass(frozen=True, slots=True)
class Dummy:
    """The same answer for every row: the weighted share of each class, or the weighted mean."""

    value: tuple[float, ...]

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        shape = (len(plain),) if len(self.value) == 1 else (len(plain), len(self.value))
        return np.broadcast_to(np.asarray(self.value), shape).astype(np.float64)

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        rows = graph.add("Slice", graph.add("Shape", features.plain), *(_index(graph, at) for at in (0, 1)))
        width = graph.constant(np.array([len(self.value)], dtype=np.int64))
        value = graph.constant(np.asarray(self.value, dtype=np.float32)[None, :])
        return graph.add("Expand", value, graph.add("Concat", rows, width, axis=0))

    def thresholds(self) -> dict[int, Singles]:
        return {}


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear model on the scaled matrix."""

    native: Native
    link: Link
    weights: Floats
    """[width, outputs]"""
    intercept: Floats
    """[outputs]"""

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        matrix = scaled.astype(np.float64)
        if self.link == "identity":
            return np.asarray(self.native.predict(matrix), dtype=np.float64)
        probabilities: Floats = self.native.predict_proba(matrix)
        return probabilities[:, 1] if self.link == "sigmoid" else probabilities

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        return add_link(graph, self.add_margins(graph, features), self.link)

    def margins(self, plain: Singles, scaled: Singles) -> Floats:
        margins: Floats = scaled.astype(np.float64) @ self.weights + self.intercept
        return margins if self.link == "softmax" else margins[:, 0]

    def add_margins(self, graph: GraphBuilder, features: FeatureNames) -> str:
        product = graph.add("MatMul", features.scaled, graph.constant(self.weights.astype(np.float32)))
        return graph.add("Add", product, graph.constant(self.intercept.astype(np.float32)))

    def thresholds(self) -> dict[int, Singles]:
        return {}


@dataclass(frozen=True, slots=True)
class Trees:
    """A boosted tree model of LightGBM or XGBoost on the plain matrix."""

    native: Native
    library: Literal["lightgbm", "xgboost"]
    link: Link
    forest: Forest

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        return self._predicted(plain, margin=False)

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        return add_link(graph, self.add_margins(graph, features), self.link)

    def margins(self, plain: Singles, scaled: Singles) -> Floats:
        return self._predicted(plain, margin=True)

    def add_margins(self, graph: GraphBuilder, features: FeatureNames) -> str:
        return add_forest(graph, self.forest, features.plain)

    def thresholds(self) -> dict[int, Singles]:
        return self.forest.thresholds()

    def _predicted(self, plain: Singles, *, margin: bool) -> Floats:
        if self.library == "lightgbm":
            return np.asarray(self.native.predict(plain, raw_score=margin, num_threads=1), dtype=np.float64)
        data = xgboost.DMatrix(plain, nthread=1)
        return np.asarray(self.native.predict(data, output_margin=margin), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class RandomForest:
    """A random forest of scikit-learn on the plain matrix; its leaves are scores."""

    native: Native
    link: Link
    forest: Forest

    def scores(self, plain: Singles, scaled: Singles) -> Floats:
        if self.link == "identity":
            return np.asarray(self.native.predict(plain), dtype=np.float64)
        probabilities: Floats = self.native.predict_proba(plain)
        return probabilities[:, 1] if self.link == "sigmoid" else probabilities

    def add(self, graph: GraphBuilder, features: FeatureNames) -> str:
        return add_forest(graph, self.forest, features.plain)

    def margins(self, plain: Singles, scaled: Singles) -> Floats:
        return _margin_of(self.scores(plain, scaled), self.link)

    def add_margins(self, graph: GraphBuilder, features: FeatureNames) -> str:
        return _add_margin(graph, self.add(graph, features), self.link)

    def thresholds(self) -> dict[int, Singles]:
        return self.forest.thresholds()


class Fit(Protocol):
    """Fits one estimator; equal arguments give equal models on one architecture."""

    def __call__(self, sample: Sample, target: Target, parameters: Parameters, seed: int) -> Model: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """An estimator in the registry."""

    targets: frozenset[str]
    defaults: Parameters
    """All parameters that may be set, by the library's own names; no others were tested."""
    fit: Fit


def fit_dummy(sample: Sample, target: Target) -> Dummy:
    """The baseline that every report compares with."""
    if target.type != "Multiclass":
        return Dummy((float(np.average(sample.target, weights=sample.weight)),))
    shares = np.bincount(sample.target.astype(np.int64), weights=sample.weight, minlength=len(target.classes))
    return Dummy(tuple(float(share) for share in shares / shares.sum()))


def _fit_linear(sample: Sample, target: Target, parameters: Parameters, seed: int) -> Model:
    matrix = sample.scaled.astype(np.float64)
    if target.type == "Regression":
        native = Ridge(alpha=parameters["alpha"], solver="cholesky")
    else:
        native = LogisticRegression(C=parameters["C"], max_iter=1000, tol=1e-6, random_state=seed)
    native.fit(matrix, sample.target, sample_weight=sample.weight)
    weights = np.atleast_2d(native.coef_).T
    return Linear(native, link_of(target), weights, np.atleast_1d(native.intercept_))


def _fit_forest(sample: Sample, target: Target, parameters: Parameters, seed: int) -> Model:
    kind = RandomForestRegressor if target.type == "Regression" else RandomForestClassifier
    directions = list(sample.directions) if target.type != "Multiclass" and any(sample.directions) else None
    native = kind(**parameters, monotonic_cst=directions, random_state=seed, n_jobs=1)
    native.fit(sample.plain, sample.target, sample_weight=sample.weight)
    return RandomForest(native, link_of(target), from_sklearn(native.estimators_, outputs_of(target)))


def fit_lightgbm(
    sample: Sample, target: Target, parameters: Parameters, seed: int, *, start: Floats | None = None
) -> Model:
    """LightGBM; with `start` (margins, [rows] or [rows, classes]) it learns what these leave over."""
    objective = {"Binary": "binary", "Multiclass": "multiclass", "Regression": "regression"}[target.type]
    settings: dict[str, object] = {
        **{name: value for name, value in parameters.items() if name != "n_estimators"},
        "objective": objective,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    if target.type == "Multiclass":
        settings["num_class"] = len(target.classes)
    elif any(sample.directions):
        settings |= {"monotone_constraints": list(sample.directions), "monotone_constraints_method": "intermediate"}
    data = lightgbm.Dataset(
        sample.plain,
        sample.target,
        weight=sample.weight,
        init_score=None if start is None else start.ravel(order="F"),
        params={"verbosity": -1, "max_bin": parameters["max_bin"]},
    )
    native = lightgbm.train(settings, data, num_boost_round=int(parameters["n_estimators"]))
    outputs = outputs_of(target)
    return Trees(native, "lightgbm", link_of(target), from_lightgbm(native.dump_model(), outputs))


def _fit_xgboost(sample: Sample, target: Target, parameters: Parameters, seed: int) -> Model:
    objective = {"Binary": "binary:logistic", "Multiclass": "multi:softprob", "Regression": "reg:squarederror"}
    mean = float(np.float32(np.average(sample.target, weights=sample.weight)))
    base = mean if target.type == "Regression" else 0.5
    settings: dict[str, object] = {
        **{name: value for name, value in parameters.items() if name != "n_estimators"},
        "objective": objective[target.type],
        "base_score": base,
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    if target.type == "Multiclass":
        settings["num_class"] = len(target.classes)
    elif any(sample.directions):
        settings["monotone_constraints"] = tuple(sample.directions)
    data = xgboost.DMatrix(sample.plain, sample.target, weight=sample.weight, nthread=1)
    native = xgboost.train(settings, data, num_boost_round=int(parameters["n_estimators"]))
    # 0.5 is a margin of 0 for one class, and a common offset, without effect, for several.
    offset = (base,) if target.type == "Regression" else ()
    forest = from_xgboost(bytes(native.save_raw("json")), outputs_of(target), offset)
    return Trees(native, "xgboost", link_of(target), forest)


ANY_TARGET = frozenset({"Binary", "Multiclass", "Regression"})
OFFERS: Mapping[Estimator, Offer] = {
    "LogisticRegression": Offer(frozenset({"Binary", "Multiclass"}), {"C": 1.0}, _fit_linear),
    "LinearRegression": Offer(frozenset({"Regression"}), {"alpha": 1.0}, _fit_linear),
    "RandomForest": Offer(
        ANY_TARGET,
        {"n_estimators": 100, "max_depth": 8, "min_samples_leaf": 10, "min_samples_split": 2, "max_features": 1.0},
        _fit_forest,
    ),
    "LightGBM": Offer(
        ANY_TARGET,
        {
            **_TREES,
            "num_leaves": 15,
            "max_depth": -1,
            "min_child_samples": 20,
            "reg_lambda": 0.0,
            "reg_alpha": 0.0,
            "subsample": 1.0,
            "subsample_freq": 0,
            "colsample_bytree": 1.0,
            "min_split_gain": 0.0,
            "max_bin": 255,
        },
        partial(fit_lightgbm),
    ),
    "XGBoost": Offer(
        ANY_TARGET,
        {
            **_TREES,
            "max_depth": 4,
            "min_child_weight": 5.0,
            "reg_lambda": 1.0,
            "reg_alpha": 0.0,
            "subsample": 1.0,
            "colsample_bytree": 1.0,
            "gamma": 0.0,
            "max_bin": 256,
        },
        _fit_xgboost,
    ),
}
"""What may be asked for. Every combination of estimator and target type is tested for equality of its graph."""


def fit_estimator(sample: Sample, target: Target, estimator: Estimator, parameters: Parameters, seed: int) -> Model:
    """Fits one candidate with its parameters over the defaults. Raises InvalidSpecError."""
    problems = refusals(estimator, target, parameters)
    if problems:
        raise InvalidSpecError(problems)
    offer = OFFERS[estimator]
    return offer.fit(sample, target, {**offer.defaults, **parameters}, seed)


def refusals(estimator: Estimator, target: Target, parameters: Parameters) -> tuple[Problem, ...]:
    """Why this combination is not offered; empty when it is."""
    offer = OFFERS[estimator]
    problems = []
    if target.type not in offer.targets:
        fitting = ", ".join(name for name, other in OFFERS.items() if target.type in other.targets)
        problems.append(Problem("candidates", f"{estimator} does not fit a {target.type} target.", f"Use {fitting}."))
    for name, value in sorted(parameters.items()):
        if name not in offer.defaults:
            remedy = f"Known: {', '.join(sorted(offer.defaults))}."
            problems.append(Problem("candidates", f"{estimator} has no tested parameter {name}.", remedy))
        elif isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
            problems.append(Problem("candidates", f"{name} of {estimator} is {value}, not a number."))
        elif isinstance(value, str) and name != "max_features":
            problems.append(Problem("candidates", f"{name} of {estimator} is {value!r}, not a number."))
    return tuple(problems)


def _index(graph: GraphBuilder, at: int) -> str:
    return graph.constant(np.array([at], dtype=np.int64))
