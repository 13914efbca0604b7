"""Open Inference Protocol v2: the mean prediction of the models that the endpoint holds, by name and version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from drivetrain.api.model import MEAN_OUTPUT, InputColumn
from drivetrain.levers.grid import Column
from drivetrain.serving.contract import declared_bounds
from drivetrain.serving.graph import Graph, out_of_domain
from drivetrain.serving.loader import Variant
from drivetrain.serving.rows import ROW_LIMIT, RowProblem, RowsError, objects
from drivetrain.serving.view import Serving

OUT_OF_DOMAIN_OUTPUT: Final = "outOfDomain"
_NUMBERS: Final = frozenset(
    {"FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """A typed request: columns by input name, [rows]."""

    id: str | None
    rows: int
    columns: Mapping[str, Column]


def models(serving: Serving) -> dict[str, tuple[str, Variant]]:
    """Version to (name, variant), stable first."""
    found: dict[str, tuple[str, Variant]] = {}
    for variant in (serving.stable, serving.candidate):
        if variant is not None and variant.graph is not None and variant.policy.model is not None:
            found.setdefault(variant.policy.model.version, (variant.graph.contract.project, variant))
    return found


def model_at(serving: Serving, parts: Sequence[str]) -> Variant | None:
    """The model at models/NAME[/versions/VERSION]; without a version the stable one."""
    held = models(serving)
    match tuple(parts):
        case ("models", name):
            return next((variant for project, variant in held.values() if project == name), None)
        case ("models", name, "versions", version):
            project, variant = held.get(version, ("", None))
            return variant if project == name else None
    return None


def describe(serving: Serving, parts: Sequence[str]) -> dict[str, object] | None:
    """What a GET below /v2 answers, None where there is nothing."""
    if not parts:
        return {"name": "drivetrain", "version": "1", "extensions": []}
    if parts[-1] == "ready":
        variant = model_at(serving, parts[:-1])
        return None if variant is None else {"name": parts[1], "ready": True, "live": True}
    variant = model_at(serving, parts)
    if variant is None or variant.graph is None:
        return None
    contract = variant.graph.contract
    classes = len(contract.target.classes)
    return {
        "name": contract.project,
        "versions": list(models(serving)),
        "platform": "onnx",
        "inputs": [
            {"name": column.name, "datatype": _datatype(column), "shape": [-1, 1]} for column in contract.inputs
        ],
        "outputs": [
            {"name": MEAN_OUTPUT, "datatype": "FP64", "shape": [-1, classes] if classes else [-1]},
            {"name": OUT_OF_DOMAIN_OUTPUT, "datatype": "BOOL", "shape": [-1]},
        ],
    }


def parse(document: Mapping[str, Any], variant: Variant) -> Inference:
    """Types a request. Raises RowsError naming the input and the row."""
    assert variant.graph is not None
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(given, dict) for given in inputs):
        raise RowsError([RowProblem(0, "inputs", "must be a list of tensors.")])
    tensors = {str(given.get("name")): given for given in inputs}
    wanted = {column.name: column for column in variant.graph.contract.inputs}
    unknown = sorted(set(tensors) - set(wanted))
    if unknown:
        raise RowsError([RowProblem(0, unknown[0], "is not an input of this model.")])
    columns: dict[str, Column] = {}
    rows = -1
    for name, column in wanted.items():
        if name not in tensors:
            raise RowsError([RowProblem(0, name, "is missing from inputs.")])
        values = _flat(tensors[name].get("data"))
        if rows not in (-1, len(values)):
            raise RowsError([RowProblem(0, name, f"has {len(values)} rows where others have {rows}.")])
        rows = len(values)
        if not 1 <= rows <= ROW_LIMIT:
            raise RowsError([RowProblem(0, name, f"has {rows} rows; a call takes 1 to {ROW_LIMIT}.")])
        columns[name] = _column(column, tensors[name].get("datatype"), values)
    id_ = document.get("id")
    return Inference(None if id_ is None else str(id_), rows, columns)


def infer(variant: Variant, request: Inference, serving: Serving) -> bytes:
    """The response body: the mean prediction, and which rows lie outside the model's domain."""
    graph: Graph | None = variant.graph
    assert graph is not None
    assert variant.policy.model is not None
    mean = graph.mean(request.columns)
    slack = serving.config.monitoring.out_of_domain
    outside = np.zeros(request.rows, dtype=bool)
    for rows in out_of_domain(graph.contract, request.columns, declared_bounds(variant.policy.columns), slack).values():
        outside |= rows
    document: dict[str, object] = {
        "model_name": graph.contract.project,
        "model_version": variant.policy.model.version,
        "outputs": [
            {"name": MEAN_OUTPUT, "datatype": "FP64", "shape": list(mean.shape), "data": mean.ravel()},
            {"name": OUT_OF_DOMAIN_OUTPUT, "datatype": "BOOL", "shape": [request.rows], "data": outside},
        ],
    }
    if request.id is not None:
        document["id"] = request.id
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _datatype(column: InputColumn) -> str:
    return {"String": "BYTES", "Boolean": "BOOL", "Integer": "INT64"}.get(column.type, "FP64")


def _flat(data: object) -> list[object]:
    """Row-major data, flat or nested one level."""
    if not isinstance(data, list):
        raise RowsError([RowProblem(0, "data", "must be a list.")])
    if data and isinstance(data[0], list):
        return [value for row in data for value in (row if isinstance(row, list) else [row])]
    return data


def _column(column: InputColumn, datatype: object, values: Sequence[object]) -> Column:
    text = column.type == "String"
    fits = datatype == "BYTES" if text else datatype in _NUMBERS or (datatype == "BOOL" and column.type == "Boolean")
    if not fits:
        raise RowsError([RowProblem(0, column.name, f"has datatype {datatype}, and must be {_datatype(column)}.")])
    kinds: tuple[type, ...] = (str,) if text else (int, float)  # bool is an int
    for row, value in enumerate(values):
        if value is None and column.nullable:
            continue
        if not isinstance(value, kinds):
            raise RowsError([RowProblem(row, column.name, f"must be {'text' if text else 'a number'}.")])
    return objects(values) if text else np.array(values, dtype=np.float64)
