"""A published ONNX graph behind typed columns: what goes in, what comes out, and which rows lie outside its domain."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from drivetrain.api.errors import ModelError
from drivetrain.api.model import (
    CHOOSE_OUTPUT,
    CONTRACT_FILE,
    DISABLED_OPTIMIZERS,
    GRAPH_FILE,
    MEAN_OUTPUT,
    NULL_TOKEN,
    VALUE_OUTPUT,
    InputColumn,
    ModelContract,
)
from drivetrain.levers.grid import ActionGrid, Booleans, Column, Floats
from drivetrain.serving.device import fallback, providers
from drivetrain.serving.grid_cache import GridCache
from drivetrain.serving.rows import missing, objects

OUTPUTS: Final = (CHOOSE_OUTPUT, VALUE_OUTPUT, MEAN_OUTPUT)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What both halves predict, float64: [rows], or [rows, classes] for a Multiclass target."""

    choose: Floats
    value: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A loaded model version. Sessions are safe to run from several threads."""

    contract: ModelContract
    session: ort.InferenceSession
    _caches: dict[ActionGrid, GridCache] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, contract: ModelContract, *, threads: int = 1) -> "Graph":
        """Loads the graph in `folder`. Raises ModelError, reason ModelInvalid."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(
                os.fspath(folder / GRAPH_FILE),
                sess_options=options,
                providers=providers(os.environ, ort.get_available_providers()),
                disabled_optimizers=DISABLED_OPTIMIZERS,
            )
        except Exception as error:  # onnxruntime raises a dozen unrelated types for a graph that it cannot load
            raise ModelError("ModelInvalid", f"The graph does not load: {error}") from error
        inputs = {given.name for given in session.get_inputs()}
        if inputs != {column.name for column in contract.inputs}:
            raise ModelError("ModelInvalid", f"The graph reads {sorted(inputs)}, which its contract does not say.")
        lacking = {CHOOSE_OUTPUT, VALUE_OUTPUT, MEAN_OUTPUT} - {output.name for output in session.get_outputs()}
        if lacking:
            raise ModelError("ModelInvalid", f"The graph lacks the outputs {sorted(lacking)}.")
        return cls(contract, session)

    @property
    def fallback(self) -> str:
        """Why it runs on the CPU of a replica that holds a GPU; empty where it does not."""
        return fallback(os.environ, self.session.get_providers())

    @property
    def context(self) -> tuple[str, ...]:
        """The inputs that requests carry, without levers."""
        return tuple(column.name for column in self.contract.inputs if column.role == "Context")

    def predict(self, columns: Mapping[str, Column]) -> Predictions:
        """Both halves on flat columns [rows]; `columns` may hold more than the graph reads. Raises ModelError."""
        choose, value = self._run([CHOOSE_OUTPUT, VALUE_OUTPUT], columns)
        return Predictions(self._shaped(choose), self._shaped(value))

    def on_grid(self, columns: Mapping[str, Column], grid: ActionGrid, count: int) -> Predictions:
        """Both halves for every action of every context, [contexts, actions(, classes)]. Raises ModelError."""
        cache = self._caches.get(grid)
        if cache is None:
            classes = len(self.contract.target.classes)
            cache = self._caches.setdefault(grid, GridCache(self._halves, self.context, grid, classes))
        choose, value = cache.predictions(columns, count)
        return Predictions(choose, value)

    def _halves(self, columns: Mapping[str, Column]) -> tuple[Floats, Floats]:
        predicted = self.predict(columns)
        return predicted.choose, predicted.value

    def mean(self, columns: Mapping[str, Column]) -> Floats:
        """The mean of both halves on flat columns [rows]: what /v2 returns. Raises ModelError."""
        return self._shaped(self._run([MEAN_OUTPUT], columns)[0])

    def feeds(self, columns: Mapping[str, Column]) -> dict[str, object]:
        """The graph's tensors, [rows, 1]."""
        return {column.name: _tensor(column, columns[column.name]) for column in self.contract.inputs}

    def _run(self, outputs: list[str], columns: Mapping[str, Column]) -> Sequence[object]:
        feeds = self.feeds(columns)
        try:
            found: Sequence[object] = self.session.run(outputs, feeds)
        except Exception as error:  # as in `open`: onnxruntime's errors have no common base
            raise ModelError("ModelFailed", f"The model fails on these rows: {error}") from error
        return found

    def _shaped(self, output: object) -> Floats:
        result = np.asarray(output, dtype=np.float64)
        return result if self.contract.target.type == "Multiclass" else result.reshape(-1)


def read_contract(folder: Path) -> ModelContract:
    """The contract beside the graph. Raises ModelError, reason ModelInvalid."""
    try:
        return ModelContract.model_validate_json((folder / CONTRACT_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("ModelInvalid", f"The model's contract cannot be read: {error}") from error


def out_of_domain(
    contract: ModelContract,
    columns: Mapping[str, Column],
    bounds: Mapping[str, tuple[float | None, float | None]],
    slack: float,
) -> dict[str, Booleans]:
    """Context inputs to the rows on which they lie outside the model's domain, [rows]; inputs without any left out.

    A number is outside when it exceeds the training range by more than `slack` times that range, or breaks the bounds
    that the project declares; a text when training never saw it; a null where the model takes none.
    """
    result: dict[str, Booleans] = {}
    for column in contract.inputs:
        if column.role != "Context" or column.name not in columns:
            continue
        values = columns[column.name]
        outside = _outside(column, values, bounds.get(column.name, (None, None)), slack)
        if not column.nullable:
            outside |= missing(values)
        if outside.any():
            result[column.name] = outside
    return result


def _outside(column: InputColumn, values: Column, bounds: tuple[float | None, float | None], slack: float) -> Booleans:
    if column.type == "String":
        known = set(column.categories)
        if not known:
            return np.zeros(len(values), dtype=bool)
        return np.array([value is not None and value not in known for value in values], dtype=bool)
    numbers = values.astype(np.float64)
    low, high = -np.inf, np.inf
    if column.minimum is not None and column.maximum is not None and column.type != "Boolean":
        reach = slack * (column.maximum - column.minimum)
        low, high = column.minimum - reach, column.maximum + reach
    low = max(low, bounds[0]) if bounds[0] is not None else low
    high = min(high, bounds[1]) if bounds[1] is not None else high
    with np.errstate(invalid="ignore"):
        return np.asarray((numbers < low) | (numbers > high))


def _tensor(column: InputColumn, values: Column) -> object:
    if column.type == "String":
        texts = objects(values) if values.dtype != object else values
        nulls = missing(texts)
        if nulls.any():
            texts = np.where(nulls, NULL_TOKEN, texts)
        return texts.reshape(-1, 1)
    return values.astype(np.float32).reshape(-1, 1)


def sample_columns(contract: ModelContract) -> dict[str, Column]:
    """A few rows within the contract, to try a graph on before it may answer anyone: ends, middle, each category."""
    count = max([3, *(min(len(column.categories), 16) for column in contract.inputs)])
    rows = np.arange(count)
    columns: dict[str, Column] = {}
    for column in contract.inputs:
        if column.type == "String":
            categories = column.categories or ("",)
            columns[column.name] = objects(categories[index % len(categories)] for index in rows.tolist())
            continue
        low = column.minimum if column.minimum is not None else 0.0
        high = column.maximum if column.maximum is not None else low + 1.0
        columns[column.name] = low + (high - low) * (rows % 3) / 2
    return columns


def check(graph: Graph) -> None:
    """Runs the graph on sample rows. Raises ModelError, ModelInvalid, unless every output is finite and shaped."""
    columns = sample_columns(graph.contract)
    rows = len(next(iter(columns.values())))
    target = graph.contract.target
    shape = (rows, len(target.classes)) if target.type == "Multiclass" else (rows,)
    try:
        outputs = graph.session.run(list(OUTPUTS), graph.feeds(columns))
    except Exception as error:  # as above: onnxruntime's errors have no common base
        raise ModelError("ModelInvalid", f"The graph fails on sample rows: {error}") from error
    for name, output in zip(OUTPUTS, outputs, strict=True):
        values = np.asarray(output, dtype=np.float64)
        if values.size != int(np.prod(shape)):
            raise ModelError("ModelInvalid", f"Output {name} has shape {values.shape} where {shape} is due.")
        if not np.isfinite(values).all():
            raise ModelError("ModelInvalid", f"Output {name} is not finite on sample rows.")
