"""The estimators on offer: each is fitted on the graph's own float32 matrices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import lightgbm
import numpy as np
import xgboost
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from drivetrain.api.errors import InvalidSpecError, Problem
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.training import Estimator, ParameterValue
from drivetrain.pipelines.graph import Floats
from drivetrain.pipelines.models import Dummy, Linear, Model, RandomForest, Sample, Trees, link_of, outputs_of
from drivetrain.pipelines.trees import from_lightgbm, from_sklearn, from_xgboost

Parameters: TypeAlias = Mapping[str, ParameterValue]


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
            "n_estimators": 200,
            "learning_rate": 0.1,
            "num_leaves": 15,
            "max_depth": -1,
            "min_child_samples": 40,
            "reg_lambda": 0.0,
            "reg_alpha": 0.0,
            "subsample": 1.0,
            "subsample_freq": 0,
            "colsample_bytree": 1.0,
            "min_split_gain": 0.0,
            "max_bin": 255,
            # Cuts at random places average to a smoother response, whose argmax is less of an accident: on the orange
            # juice market 0.92 of the oracle's gap against 0.87.
            "extra_trees": True,
        },
        fit_lightgbm,
    ),
    "XGBoost": Offer(
        ANY_TARGET,
        {
            "n_estimators": 200,
            "learning_rate": 0.05,
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
        elif not _fits(value, offer.defaults[name]):
            wanted = "true or false" if isinstance(offer.defaults[name], bool) else "a number"
            problems.append(Problem("candidates", f"{name} of {estimator} is {value!r}, not {wanted}."))
    return tuple(problems)


def _fits(value: ParameterValue, default: ParameterValue) -> bool:
    """Whether a value is of the kind of its default; whole numbers stay whole."""
    if isinstance(default, bool) or isinstance(value, bool | str):
        return isinstance(default, bool) and isinstance(value, bool)
    return math.isfinite(value) and (isinstance(default, float) or isinstance(value, int))
