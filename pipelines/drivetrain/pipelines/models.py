"""Fitted models: what their library predicts, and the same as graph nodes."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import xgboost
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.pipelines.features import FeatureNames
from drivetrain.pipelines.graph import Floats, GraphBuilder, Singles
from drivetrain.pipelines.trees import Forest, add_forest

Link: TypeAlias = Literal["identity", "sigmoid", "softmax"]
Native: TypeAlias = Any  # a library's fitted model
MARGIN_CLIP = 0.01
"""How far a forest's probabilities are kept from 0 and 1 before their margin is taken: nearer to them a logarithm makes
float32's last digit large."""


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


def _index(graph: GraphBuilder, at: int) -> str:
    return graph.constant(np.array([at], dtype=np.int64))
