"""Feature engineering as a graph: Derived columns, imputation, encodings, and the scaled copy that linear models read.

Estimators are fitted on the float32 matrices that this graph yields in ONNX Runtime, so training and serving cannot
differ: a scaler of another precision moves values across a tree's cuts (a float32 ulp is enough).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.errors import ContractError, ExpressionError
from drivetrain.api.expression import Interval, bounds, parse
from drivetrain.api.meta import ApiModel
from drivetrain.api.model import NULL_TOKEN, InputColumn
from drivetrain.api.v1alpha1.dataset import Column, Dataset, Target
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.pipelines.derived import Direction, add_expression, direction
from drivetrain.pipelines.graph import ML_DOMAIN, Feed, GraphBuilder, Singles, session_of

CATEGORY_LIMIT = 64
"""Categories with a path of their own, the most frequent first; all others share the path of unknown ones."""
REACH = 1e30
"""Derived values are clipped to this, so that an infinite one stays a number."""
PLAIN, SCALED = "plain", "scaled"


class Feature(ApiModel):
    """One raw or derived column on its way into the matrix."""

    name: str
    kind: Literal["Number", "Category"]
    expression: str | None = None
    """Derived columns."""
    fill: float | None = None
    """Number: what a missing value becomes; absent where none can be missing."""
    flag: bool = False
    """Number: whether a column says that the value was missing."""
    mean: float = 0
    scale: float = 1
    """Number: (value - mean) / scale is what linear models read."""
    categories: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns it becomes."""
        if self.kind == "Number":
            return (self.name, f"{self.name}?") if self.flag else (self.name,)
        return (*(f"{self.name}={value}" for value in self.categories), f"{self.name}=null", f"{self.name}=other")


class FeaturePlan(ApiModel):
    """What was learned about the columns from the training rows; enough to write the graph again."""

    inputs: tuple[InputColumn, ...]
    features: tuple[Feature, ...]
    directions: tuple[Literal[-1, 0, 1], ...]
    """Each matrix column's monotone constraint on a Binary or Regression target."""
    loose: tuple[str, ...] = ()
    """Levers with a declared effect that constraints cannot promise: only the gate judges them."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the matrix columns."""
        return tuple(name for feature in self.features for name in feature.columns)


@dataclass(frozen=True, slots=True)
class FeatureNames:
    """Graph values that hold the two matrices, [rows, width] float32 each."""

    plain: str
    scaled: str


def fit_features(frame: pl.DataFrame, dataset: Dataset, levers: Sequence[Lever]) -> FeaturePlan:
    """Learns fills, scales, categories and bounds from the training rows.

    Raises ContractError for a Timestamp input and for a Derived column without a finite value.
    """
    inputs = tuple(_input(frame, column) for column in dataset.with_role("Context", "Lever"))
    raw = [_raw(frame, column) for column in inputs]
    derived = dataset.with_role("Derived")
    values = _values(frame, inputs, derived)
    features = [_learned(feature, values.get(feature.name), None) for feature in raw]
    features += [
        _learned(Feature(name=column.name, kind="Number"), values[column.name], column.expression) for column in derived
    ]
    directions, loose = _constraints(features, _ranges(dataset, inputs, levers), directed(levers, dataset.target))
    return FeaturePlan(inputs=inputs, features=tuple(features), directions=directions, loose=loose)


def add_features(graph: GraphBuilder, plan: FeaturePlan) -> FeatureNames:
    """Adds the inputs and everything up to both matrices."""
    columns: dict[str, str] = {column.name: graph.input(column) for column in plan.inputs}
    graph.prefix = "features/"
    parts: list[str] = []
    means: list[float] = []
    scales: list[float] = []
    for feature in plan.features:
        if feature.expression is not None:
            columns[feature.name] = _derived(graph, feature.expression, columns, plan.inputs[0])
        if feature.kind == "Category":
            parts.append(_one_hot(graph, columns[feature.name], feature.categories))
        else:
            parts.extend(_number(graph, columns[feature.name], feature))
        means += [feature.mean] + [0.0] * (len(feature.columns) - 1)
        scales += [feature.scale] + [1.0] * (len(feature.columns) - 1)
    plain = graph.add("Concat", *parts, axis=1)
    centred = graph.add("Sub", plain, graph.constant(np.asarray(means, dtype=np.float32)))
    scaled = graph.add("Div", centred, graph.constant(np.asarray(scales, dtype=np.float32)))
    graph.prefix = ""
    return FeatureNames(plain, scaled)


def matrices(plan: FeaturePlan, feed: Feed) -> tuple[Singles, Singles]:
    """Both matrices, as ONNX Runtime computes them."""
    graph = GraphBuilder()
    names = add_features(graph, plan)
    width = len(plan.columns)
    graph.output(names.plain, PLAIN, width)
    graph.output(names.scaled, SCALED, width)
    results = session_of(graph.model()).run(feed)
    return results[PLAIN], results[SCALED]


def directed(levers: Sequence[Lever], target: Target) -> tuple[Lever, ...]:
    """Levers with a known effect; a Multiclass target has no direction that one could have an effect on."""
    return tuple(lever for lever in levers if lever.effect != "Unknown" and target.type != "Multiclass")


def feed_of(frame: pl.DataFrame, inputs: Sequence[InputColumn]) -> dict[str, NDArray[np.float32] | NDArray[np.object_]]:
    """The graph's inputs, [rows, 1] each: missing numbers as NaN, missing strings as the null token."""
    return {column.name: _tensor(frame[column.name], column) for column in inputs}


def _tensor(values: pl.Series, column: InputColumn) -> NDArray[np.float32] | NDArray[np.object_]:
    if column.type == "String":
        texts = np.array(values.cast(pl.String).fill_null(NULL_TOKEN).to_list(), dtype=object)
        return texts.reshape(-1, 1)
    numbers: NDArray[np.float32] = values.cast(pl.Float64).fill_null(math.nan).to_numpy().astype(np.float32)
    return numbers.reshape(-1, 1)


def _input(frame: pl.DataFrame, column: Column) -> InputColumn:
    if column.type == "Timestamp":
        raise ContractError(
            "TimestampInput",
            f"Column {column.name} is a Timestamp, which a model cannot read: a new day is never like those it saw.",
            remedy="Give it the role Uncontrolled, or declare columns such as the hour or the weekday.",
        )
    values = frame[column.name]
    shape = InputColumn(name=column.name, role=column.role, type=column.type, nullable=column.nullable)
    if column.type == "String":
        return shape.model_copy(update={"categories": tuple(sorted(values.drop_nulls().unique().to_list()))})
    numbers = values.cast(pl.Float64).drop_nulls().drop_nans()
    if numbers.is_empty():
        return shape
    return shape.model_copy(
        update={"minimum": float(np.asarray(numbers.min())), "maximum": float(np.asarray(numbers.max()))}
    )


def _raw(frame: pl.DataFrame, column: InputColumn) -> Feature:
    if column.type != "String":
        return Feature(name=column.name, kind="Number", fill=0.0 if column.nullable else None)
    counts = frame[column.name].drop_nulls().value_counts()
    ranked = sorted(counts.iter_rows(), key=lambda row: (-row[1], row[0]))
    kept = sorted(value for value, _ in ranked[:CATEGORY_LIMIT])
    return Feature(name=column.name, kind="Category", categories=tuple(kept))


def _values(frame: pl.DataFrame, inputs: Sequence[InputColumn], derived: Sequence[Column]) -> dict[str, Singles]:
    """Every numeric column before imputation, [rows] float32, as the graph sees it."""
    feed = feed_of(frame, inputs)
    values = {column.name: feed[column.name][:, 0].astype(np.float32) for column in inputs if column.type != "String"}
    if derived:
        graph = GraphBuilder()
        columns = {column.name: graph.input(column) for column in inputs}
        for column in derived:
            columns[column.name] = _derived(graph, column.expression or "", columns, inputs[0])
            graph.output(columns[column.name], f"derived/{column.name}", 1)
        results = session_of(graph.model()).run(feed)
        values |= {column.name: results[f"derived/{column.name}"][:, 0] for column in derived}
    return values


def _learned(feature: Feature, values: Singles | None, expression: str | None) -> Feature:
    if values is None:
        return feature
    known = values[np.isfinite(values)].astype(np.float64)
    if not known.size:
        raise ContractError(
            "EmptyColumn",
            f"Column {feature.name} has no finite value in the training rows.",
            remedy="Leave it out, or list it in data.toCollect until there are values.",
        )
    missing = bool(np.isnan(values).any())
    can_miss = expression is not None or feature.fill is not None or missing
    median = float(np.float32(np.median(known)))
    filled = np.where(np.isfinite(values), values.astype(np.float64), median)
    spread = float(np.float32(filled.std()))
    return feature.model_copy(
        update={
            "expression": expression,
            "fill": median if can_miss else None,
            "flag": can_miss and (missing or expression is None),
            "mean": float(np.float32(filled.mean())),
            "scale": spread if spread > 1e-12 * max(1.0, abs(median)) else 1.0,
        }
    )


def _derived(graph: GraphBuilder, expression: str, columns: Mapping[str, str], anchor: InputColumn) -> str:
    """A Derived column as [rows, 1]: also where the expression is a constant."""
    value = add_expression(graph, parse(expression).tree, columns)
    shape = graph.add("Shape", columns[anchor.name])
    spread = graph.add("Expand", value, shape)
    bounded = graph.add("Min", spread, graph.number(REACH))
    return graph.add("Max", bounded, graph.number(-REACH))


def _number(graph: GraphBuilder, source: str, feature: Feature) -> list[str]:
    if feature.fill is None:
        return [source]
    missing = graph.add("IsNaN", source)
    filled = graph.add("Where", missing, graph.number(feature.fill), source)
    return [filled, graph.cast(missing)] if feature.flag else [filled]


def _one_hot(graph: GraphBuilder, source: str, categories: tuple[str, ...]) -> str:
    """[rows, categories + 2]: one column each, one for null, one for every other value."""
    known = [*categories, NULL_TOKEN]
    index = graph.add(
        "LabelEncoder",
        source,
        domain=ML_DOMAIN,
        keys_strings=known,
        values_int64s=list(range(len(known))),
        default_int64=len(known),
    )
    return graph.cast(graph.add("Equal", index, graph.constant(np.arange(len(known) + 1, dtype=np.int64)[None, :])))


def _constraints(
    features: Sequence[Feature], ranges: Mapping[str, Interval], levers: Sequence[Lever]
) -> tuple[tuple[Direction, ...], tuple[str, ...]]:
    """A constraint per matrix column that together promise each lever's declared effect, as far as they can.

    A column that moves with a lever must move the outcome the lever's way. Where two levers disagree about a column, or
    its own movement cannot be told, it gets no constraint and the levers are `loose`.
    """
    wanted: dict[str, set[Direction | None]] = {feature.name: set() for feature in features}
    asked: dict[str, list[str]] = {feature.name: [] for feature in features}
    for lever in levers:
        effect: Direction = 1 if lever.effect == "Increasing" else -1
        moves: dict[str, Direction | None] = {}
        for feature in features:
            if feature.expression is None:
                moves[feature.name] = 1 if feature.name == lever.name else 0
            else:
                moves[feature.name] = direction(parse(feature.expression).tree, lever.name, moves, ranges)
            move = moves[feature.name]
            if move != 0:
                wanted[feature.name].add(None if move is None else 1 if move == effect else -1)
                asked[feature.name].append(lever.name)
    directions: list[Direction] = []
    loose: set[str] = set()
    for feature in features:
        single = next(iter(wanted[feature.name])) if len(wanted[feature.name]) == 1 else None
        if wanted[feature.name] and single is None:
            loose.update(asked[feature.name])
        directions += [single or 0] + [0] * (len(feature.columns) - 1)
    return tuple(directions), tuple(sorted(loose))


def _ranges(dataset: Dataset, inputs: Sequence[InputColumn], levers: Sequence[Lever]) -> dict[str, Interval]:
    """What each numeric column can be: as declared, else as seen; levers also on their whole grid."""
    ranges = {}
    for column in inputs:
        declared = dataset.column(column.name)
        if column.type != "String" and declared is not None:
            low = column.minimum if declared.minimum is None else declared.minimum
            high = column.maximum if declared.maximum is None else declared.maximum
            ranges[column.name] = Interval(
                -math.inf if low is None else low, math.inf if high is None else high, column.nullable
            )
    for lever in levers:
        if lever.name in ranges and lever.minimum is not None and lever.maximum is not None:
            ranges[lever.name] = ranges[lever.name].hull(Interval(float(lever.minimum), float(lever.maximum)))
    for derived in dataset.with_role("Derived"):
        try:
            ranges[derived.name] = bounds(parse(derived.expression or ""), ranges)
        except ExpressionError:
            ranges[derived.name] = Interval(-math.inf, math.inf, nullable=True)
    return ranges
